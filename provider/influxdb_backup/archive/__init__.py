"""The repository's side: record batches in, record batches out. Knows no server and no Airflow."""
