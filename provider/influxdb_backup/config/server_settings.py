"""A connection's values as the settings of an InfluxDB server."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from influxdb_backup.config.connection_values import CONN_TYPE, OFFICIAL_CONN_TYPE, ConnectionValues, unknown_name
from influxdb_backup.errors import ConfigError
from influxdb_backup.influx.protocol import ServerSettings

DEFAULT_PORT = 8086
_EXTRAS = ("ca_file", "organization", "snapshot_address", "timeout", "tls", "token", "verify_tls", "version")


def server_settings(conn_id: str, values: ConnectionValues) -> ServerSettings:
    """
    Settings from a connection of type ``influxdb_backup`` or of the official provider's type ``influxdb``.

    Raises ConfigError naming the connection and the field that is missing, unknown or contradictory.
    """
    if values.conn_type == CONN_TYPE:
        return _own(conn_id, values)
    if values.conn_type == OFFICIAL_CONN_TYPE:
        return _official(conn_id, values)
    raise ConfigError(
        f"The connection {conn_id!r} has the type {values.conn_type!r}, which is no InfluxDB server.",
        hint=f"Use the type {CONN_TYPE} (in a URI: influxdb-backup://), or {OFFICIAL_CONN_TYPE} of the official "
        "provider.",
    )


def describe_credentials(values: ConnectionValues) -> str:
    """Which fields of the connection a server is given as credentials, and which it is not; never what they hold."""
    unused = [name for name, value in (("login", values.login), ("password", values.password)) if value]
    if values.extra.get("token"):
        rest = f"; its {' and '.join(unused)} {'are' if len(unused) > 1 else 'is'} not used" if unused else ""
        return f"The token of the connection's extra was used{rest}."
    if values.login:
        return "Its login and password were used."
    if values.password and values.conn_type == CONN_TYPE:
        return "Its password was used as a token."
    return "No credentials were used."


def _own(conn_id: str, values: ConnectionValues) -> ServerSettings:
    extra = values.extra
    for key in sorted(set(extra) - set(_EXTRAS)):
        raise ConfigError(
            f"The connection {conn_id!r} has {unknown_name('extra', key, _EXTRAS)}",
            hint=f"Extras: {', '.join(_EXTRAS)}.",
        )
    if values.schema:
        raise ConfigError(
            f"The connection {conn_id!r} has a schema, which means nothing here.",
            hint="The plan names the database; TLS is switched on with the extra tls. Percent-encode the special "
            "characters of user and password in a URI.",
        )
    tls = _flag(conn_id, extra, "tls")
    scheme, host, port, path = _address(conn_id, values)
    if scheme is not None and tls is not None and (scheme == "https") != tls:
        raise ConfigError(
            f"The connection {conn_id!r} says {scheme}:// in its host and tls: {str(tls).lower()}.",
            hint=f"Switch tls {'off' if tls else 'on'}, or leave {scheme}:// out of the host.",
        )
    if scheme is not None and port is None:
        raise ConfigError(
            f"The connection {conn_id!r} has a URL as host and no port.",
            hint=f"Give the port: {DEFAULT_PORT} is InfluxDB's own, 443 and 80 are usual behind a proxy.",
        )
    secure = tls if tls is not None else scheme == "https"
    ca_file = _text(conn_id, extra, "ca_file")
    if ca_file and not secure:
        raise ConfigError(f"The connection {conn_id!r} has a ca_file but no TLS.", hint="Set the extra tls to true.")
    verify = _flag(conn_id, extra, "verify_tls")
    username, password, token = _credentials(conn_id, values)
    return ServerSettings(
        url=_url("https" if secure else "http", host, port or DEFAULT_PORT, path),
        username=username,
        password=password,
        token=token,
        organization=_text(conn_id, extra, "organization"),
        verify_tls=True if verify is None else verify,
        ca_file=ca_file,
        timeout=_seconds(conn_id, extra, "timeout", 60.0),
        snapshot_address=_snapshot_address(conn_id, extra),
        version=_version(conn_id, extra),
        name=conn_id,
    )


def _official(conn_id: str, values: ConnectionValues) -> ServerSettings:
    """As the official provider's hook reads it, so that one connection never means two servers."""
    extra = values.extra
    scheme, host, port, path = _address(conn_id, values)
    if scheme is not None and values.schema not in (None, scheme):
        raise ConfigError(f"The connection {conn_id!r} says {scheme}:// in its host and something else as schema.")
    scheme = scheme or values.schema or "https"
    if scheme not in ("http", "https"):
        raise ConfigError(
            f"The schema of the connection {conn_id!r} is neither http nor https.",
            hint="Write http or https as its schema.",
        )
    token = _text(conn_id, extra, "token")
    verify = _flag(conn_id, extra, "verify_ssl")
    return ServerSettings(
        url=_url(scheme, host, port or (443 if scheme == "https" else DEFAULT_PORT), path),
        username=None if token else values.login,
        password=None if token else values.password,
        token=token,
        organization=_text(conn_id, extra, "org"),
        verify_tls=True if verify is None else verify,
        ca_file=_text(conn_id, extra, "ssl_ca_cert"),
        timeout=_seconds(conn_id, extra, "timeout", 60_000.0) / 1000,
        name=conn_id,
    )


def _credentials(conn_id: str, values: ConnectionValues) -> tuple[str | None, str | None, str | None]:
    token = _text(conn_id, values.extra, "token")
    if not (token or (values.password if not values.login else None) or "").isascii():
        raise ConfigError(
            f"The token of the connection {conn_id!r} holds characters that no request can carry.",
            hint="A token is plain ASCII: copy it again.",
        )
    if token and (values.login or values.password):
        raise ConfigError(
            f"The connection {conn_id!r} has a token and also a login or password.", hint="Keep only one of them."
        )
    if values.login:
        return values.login, values.password or "", None
    return None, None, token or values.password


def _address(conn_id: str, values: ConnectionValues) -> tuple[str | None, str, int | None, str]:
    """Scheme (None where the host says none), host, port and path prefix."""
    if not values.host:
        raise ConfigError(f"The connection {conn_id!r} has no host.", hint="Set its host and port.")
    written = values.host.strip()
    bare_ipv6 = written.count(":") > 1 and "://" not in written and "[" not in written
    full = written if "://" in written else f"//[{written}]" if bare_ipv6 else f"//{written}"
    try:
        parts = urlsplit(full)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if not host or "@" in parts.netloc + parts.path or parts.query or parts.fragment or re.search(r"\s", written):
        raise ConfigError(
            f"The host of the connection {conn_id!r} is not a host name, an address or a URL without credentials."
        )
    if parts.scheme not in ("", "http", "https"):
        raise ConfigError(f"The host of the connection {conn_id!r} does not start with http:// or https://.")
    if port is not None and values.port not in (None, port):
        raise ConfigError(f"The connection {conn_id!r} has two ports: {port} in its host, and {values.port}.")
    return parts.scheme or None, host, port or values.port, parts.path.rstrip("/")


def _url(scheme: str, host: str, port: int, path: str) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


def _text(conn_id: str, extra: Mapping[str, object], key: str) -> str | None:
    value = extra.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"The extra {key} of the connection {conn_id!r} must be a text.")
    return value


def _flag(conn_id: str, extra: Mapping[str, object], key: str) -> bool | None:
    value = extra.get(key)
    if value is None or isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    found = known.get(str(value).strip().lower())
    if found is None:
        raise ConfigError(f"The extra {key} of the connection {conn_id!r} must be true or false.")
    return found


def _seconds(conn_id: str, extra: Mapping[str, object], key: str, default: float) -> float:
    value = extra.get(key, default)
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"The extra {key} of the connection {conn_id!r} must be a number larger than 0.")
    return number


def _snapshot_address(conn_id: str, extra: Mapping[str, object]) -> str | None:
    value = _text(conn_id, extra, "snapshot_address")
    if not value:
        return None
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in value or (":" in host) != ("[" in host):
        raise ConfigError(
            f"The extra snapshot_address of the connection {conn_id!r} is not host:port.",
            hint="Write for example localhost:8088. It is the bind-address of an InfluxDB 1.x server.",
        )
    return value


def _version(conn_id: str, extra: Mapping[str, object]) -> str | None:
    value = extra.get("version")
    if value is None or value == "auto":
        return None
    if not isinstance(value, str) or not re.fullmatch(r"v?[0-9]+(\.[0-9]+){0,2}([-~+][0-9A-Za-z.~+-]*)?", value):
        raise ConfigError(
            f"The extra version of the connection {conn_id!r} must be a text such as '1.8' or '2.7.11'.",
            hint="Leave it out and the server is asked.",
        )
    return value.removeprefix("v")
