"""Airflow DAGs for every plan of the configuration beside this file."""

from pathlib import Path

from influxdb_backup.factory import build_dags

globals().update(build_dags(Path(__file__).with_name("influxdb_backup.yaml")))
