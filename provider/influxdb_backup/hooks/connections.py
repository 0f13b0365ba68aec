"""An Airflow connection as the plain values that ``config.connections`` understands."""

from __future__ import annotations

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from influxdb_backup.config.connections import ConnectionValues, connection_values
from influxdb_backup.errors import ConfigError


def airflow_connection(conn_id: str) -> ConnectionValues:
    """
    The connection from wherever Airflow keeps it: environment, secrets backend or its database.

    Raises ConfigError when there is no such connection, it has no type, or its extra is not a JSON object.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigError(
            f"There is no Airflow connection {conn_id!r}.",
            hint=f"Create it under Admin, Connections, or set AIRFLOW_CONN_{conn_id.upper()}.",
        ) from None
    return connection_values(
        conn_id=conn_id,
        conn_type=connection.conn_type,
        host=connection.host,
        port=connection.port,
        login=connection.login,
        password=connection.password,
        schema=connection.schema,
        extra=connection.extra,
    )
