"""The use cases, one file each: what a server and a repository are used for together. No Airflow."""
