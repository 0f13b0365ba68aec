"""A connection's values as fsspec options of an object store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from influxdb_backup.config.connection_values import ConnectionValues, unknown_name
from influxdb_backup.errors import ConfigError

_S3_EXTRAS = (
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "config_kwargs",
    "endpoint_url",
    "profile_name",
    "region_name",
    "service_config",
    "verify",
)
_GCS_EXTRAS = ("key_path", "keyfile_dict", "num_retries", "project", "scope")
_AZURE_EXTRAS = ("account_name", "connection_string", "sas_token", "tenant_id")
_ELSEWHERE = (
    "assume_role_kwargs",
    "assume_role_method",
    "credential_config_file",
    "external_id",
    "impersonation_chain",
    "key_secret_name",
    "managed_identity_client_id",
    "role_arn",
    "session_kwargs",
    "workload_identity_tenant_id",
)
"""extras of Airflow's own hooks, which choose an identity in a way of theirs"""


def storage_options(url: str, values: ConnectionValues | None, *, name: str = "") -> dict[str, object]:
    """
    Options for fsspec: ``s3`` from a connection of type ``aws``, ``gs`` from ``google_cloud_platform``, ``abfs``
    from ``wasb`` or ``adls``. Without a connection the library finds the environment's own credentials.

    Raises ConfigError for a connection of another kind, or one that chooses credentials in a way that is not
    supported here: it would otherwise be another identity than the one meant.
    """
    if values is None:
        return {}
    scheme = url.partition("://")[0]
    builders = {"s3": _s3, "s3a": _s3, "gs": _gcs, "gcs": _gcs, "abfs": _azure, "abfss": _azure}
    builder = builders.get(scheme)
    if builder is None:
        raise ConfigError(
            f"A repository at {scheme}:// needs no connection.", hint=f"Remove the connection {name!r} from it."
        )
    return builder(name, values)


def _s3(name: str, values: ConnectionValues) -> dict[str, object]:
    _check(name, values, ("aws", "s3", "generic"), _S3_EXTRAS)
    extra = values.extra
    if values.host or values.port:
        raise ConfigError(
            f"The connection {name!r} has a host, which connections of type aws do not use.",
            hint='Put the address of an S3-compatible store into the extra: {"endpoint_url": "http://host:9000"}.',
        )
    client: dict[str, object] = {}
    if "region_name" in extra:
        client["region_name"] = extra["region_name"]
    if "verify" in extra:
        written = extra["verify"]
        client["verify"] = {"true": True, "false": False}.get(str(written).lower(), written)
    options: dict[str, object] = {
        "key": values.login or extra.get("aws_access_key_id"),
        "secret": values.password or extra.get("aws_secret_access_key"),
        "token": extra.get("aws_session_token"),
        "endpoint_url": extra.get("endpoint_url") or _service_endpoint(name, extra),
        "profile": extra.get("profile_name"),
        "client_kwargs": client or None,
        "config_kwargs": _object(name, extra, "config_kwargs"),
    }
    if bool(options["key"]) != bool(options["secret"]):
        raise ConfigError(f"The connection {name!r} has only one of login (access key) and password (secret key).")
    return _given(options)


def _service_endpoint(name: str, extra: Mapping[str, object]) -> object:
    service = _object(name, extra, "service_config") or {}
    s3 = service.get("s3", {})
    return s3.get("endpoint_url") if isinstance(s3, dict) else None


def _gcs(name: str, values: ConnectionValues) -> dict[str, object]:
    _check(name, values, ("google_cloud_platform", "gcs", "generic"), _GCS_EXTRAS)
    extra = values.extra
    if "key_path" in extra and "keyfile_dict" in extra:
        raise ConfigError(f"The connection {name!r} has both key_path and keyfile_dict.", hint="Keep one of them.")
    return _given(
        {"token": _object(name, extra, "keyfile_dict") or extra.get("key_path"), "project": extra.get("project")}
    )


def _azure(name: str, values: ConnectionValues) -> dict[str, object]:
    _check(name, values, ("wasb", "adls", "azure", "generic"), _AZURE_EXTRAS)
    extra = values.extra
    host_account = (values.host or "").removeprefix("https://").partition(".")[0] or None
    if "tenant_id" in extra:
        credentials: dict[str, object] = {
            "tenant_id": extra["tenant_id"],
            "client_id": values.login,
            "client_secret": values.password,
            "account_name": extra.get("account_name") or host_account,
        }
    else:
        credentials = {
            "account_name": extra.get("account_name") or values.login or host_account,
            "account_key": values.password,
        }
    return _given(
        {
            **credentials,
            "sas_token": extra.get("sas_token"),
            "connection_string": extra.get("connection_string"),
        }
    )


def _check(name: str, values: ConnectionValues, types: tuple[str, ...], extras: tuple[str, ...]) -> None:
    if values.conn_type not in types:
        raise ConfigError(
            f"The connection {name!r} has the type {values.conn_type!r}, which does not fit its repository.",
            hint=f"Use the type {types[0]}.",
        )
    for key in sorted(set(values.extra) - set(extras)):
        raise ConfigError(
            f"The connection {name!r} has {unknown_name('extra', key, extras, _ELSEWHERE)}",
            hint=f"Extras for repositories: {', '.join(extras)}. Without a connection the environment's own "
            "credentials are used.",
        )


def _object(name: str, extra: Mapping[str, object], key: str) -> dict[str, Any] | None:
    value = extra.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ConfigError(f"The extra {key} of the connection {name!r} is not valid JSON.") from None
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"The extra {key} of the connection {name!r} must be a JSON object.")
    return value


def _given(options: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in options.items() if value is not None and value != ""}
