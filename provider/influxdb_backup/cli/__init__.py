"""The command line `influxdb-backup`: the jobs without Airflow."""
