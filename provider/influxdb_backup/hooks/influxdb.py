"""The hook of the connection type ``influxdb_backup``."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from influxdb_backup.errors import InfluxdbBackupError
from influxdb_backup.hooks.connections import airflow_connection

if TYPE_CHECKING:
    from influxdb_backup.influx.protocol import Server, ServerSettings


class InfluxdbBackupHook(BaseHook):
    """
    Opens an InfluxDB server that an Airflow connection names.

    Takes connections of type ``influxdb_backup``, and of type ``influxdb`` of the official provider.
    """

    conn_name_attr = "influxdb_conn_id"
    default_conn_name = "influxdb_default"
    conn_type = "influxdb_backup"
    hook_name = "InfluxDB backup"

    def __init__(self, influxdb_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.influxdb_conn_id = influxdb_conn_id

    def settings(self) -> ServerSettings:
        """How the server is reached. Raises ConfigError when the connection is missing or wrong."""
        from influxdb_backup.config.connections import server_settings

        return server_settings(self.influxdb_conn_id, airflow_connection(self.influxdb_conn_id))

    def server(self) -> Server:
        """
        The server with its product and version found out; the caller closes it.

        Raises ConfigError, ServerUnavailableError, AccessError or UnsupportedServerError.
        """
        from influxdb_backup.influx.connection import connect

        return connect(self.settings())

    def get_conn(self) -> Server:
        """As ``server``; the name that Airflow's hooks share."""
        return self.server()

    def test_connection(self) -> tuple[bool, str]:
        """Whether the server answers and shows its databases, to which credentials, and what it is or what to do."""
        from influxdb_backup.config.connections import describe_credentials, server_settings
        from influxdb_backup.influx.connection import connect

        try:
            values = airflow_connection(self.influxdb_conn_id)
            settings = replace(server_settings(self.influxdb_conn_id, values), name="The server")
            with closing(connect(settings)) as server:
                count = len(server.databases())
                info = server.info
                closed = server.shard_door_closed() if settings.snapshot_address else None
        except InfluxdbBackupError as error:
            return False, _without_id(str(error), self.influxdb_conn_id)
        if closed:
            return False, f"InfluxDB {info.version} answers, but its snapshot_address cannot be used: {closed}."
        words = f"InfluxDB {info.version} answers and shows {count} database{'' if count == 1 else 's'}."
        port = " Its backup port answers too." if settings.snapshot_address else ""
        return True, f"{words}{port} {describe_credentials(values)}"


def _without_id(message: str, conn_id: str) -> str:
    """A message about the one connection there is: Airflow's Test button gives it a made-up id."""
    return re.sub(rf"\b([Tt])he connection {re.escape(repr(conn_id))}", r"\1his connection", message)
