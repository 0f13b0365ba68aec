"""The YAML file and connections as frozen, checked values. No Airflow."""
