"""Everything about connections: parsing them, and what they mean for a server and for a store."""

from influxdb_backup.config.connection_values import (
    CONN_TYPE,
    OFFICIAL_CONN_TYPE,
    ConnectionValues,
    check_connection_id,
    connection_from_environment,
    connection_from_json,
    connection_from_uri,
    connection_values,
    environment_names,
    secrets_of,
)
from influxdb_backup.config.server_settings import describe_credentials, server_settings
from influxdb_backup.config.storage import storage_options

__all__ = [
    "CONN_TYPE",
    "OFFICIAL_CONN_TYPE",
    "ConnectionValues",
    "check_connection_id",
    "connection_from_environment",
    "connection_from_json",
    "connection_from_uri",
    "connection_values",
    "describe_credentials",
    "environment_names",
    "secrets_of",
    "server_settings",
    "storage_options",
]
