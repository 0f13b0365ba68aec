"""An Airflow connection as the plain values that ``config.connections`` understands."""

from __future__ import annotations

from collections.abc import Sequence

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from influxdb_backup.config.connections import ConnectionValues, check_connection_id, connection_values, secrets_of
from influxdb_backup.errors import ConfigError
from influxdb_backup.messages import forms, hide


def airflow_connection(conn_id: str) -> ConnectionValues:
    """
    The connection from wherever Airflow keeps it: environment, secrets backend or its database.

    Its secrets are hidden in this package's messages and in Airflow's log from now on. Raises ConfigError when there
    is no such connection, it has no type, or its extra is not a JSON object.
    """
    check_connection_id(conn_id)
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigError(
            f"There is no Airflow connection {conn_id!r}.",
            hint=f"Create it under Admin, Connections, or set AIRFLOW_CONN_{conn_id.upper()}.",
        ) from None
    values = connection_values(
        conn_id=conn_id,
        conn_type=connection.conn_type,
        host=connection.host,
        port=connection.port,
        login=connection.login,
        password=connection.password,
        schema=connection.schema,
        extra=connection.extra,
    )
    _hide(secrets_of(values))
    return values


def _hide(secrets: Sequence[str]) -> None:
    """
    Airflow's log masks them as well, in every form in which a request, a reply or a traceback may show them.

    Of base64 the form without padding stands for both, since Airflow finds either first.
    """
    hide(*secrets)
    every = {form for secret in secrets for form in forms(secret)}
    for form in sorted(form for form in every if form.rstrip("=") == form or form.rstrip("=") not in every):
        mask_secret(form)
