"""From Airflow connections to an open server and an open repository."""
