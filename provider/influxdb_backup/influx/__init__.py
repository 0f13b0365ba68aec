"""The server's side: record batches out, record batches in. Knows no archive and no Airflow."""
