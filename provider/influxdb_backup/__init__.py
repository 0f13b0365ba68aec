"""Exact, verified, restorable backups of InfluxDB by time window, for Apache Airflow and the command line."""

__version__ = "0.1.0"
