"""
Connections as values: parsed as Airflow parses them, and turned into settings of a server or options of a store.

Everything here is pure; nothing reads the process's environment by itself. Secrets never stand in a ``repr`` or in a
message: what is not understood may be a part of one, so it is named by its place and never quoted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from influxdb_backup.config.names import suggestion
from influxdb_backup.errors import ConfigError

CONN_TYPE = "influxdb_backup"
OFFICIAL_CONN_TYPE = "influxdb"
_ENCODE = "Percent-encode the special characters of user and password (/ is %2F, @ is %40), or use JSON."
_SECRET_WORDS = ("key", "secret", "token", "password", "credential", "sas", "connection_string")
_PUBLIC = frozenset({"key_path", "aws_access_key_id"})
_HEADERS = frozenset({"token", "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "sas_token"})
"""extras that requests carry as they are"""
_FIELDS = ("conn_type", "description", "host", "login", "password", "schema", "port", "extra")


@dataclass(frozen=True, kw_only=True)
class ConnectionValues:
    """The fields of an Airflow connection. Empty texts are None."""

    conn_type: str
    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = None
    schema: str | None = None
    extra: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    def __repr__(self) -> str:
        return f"ConnectionValues(conn_type={self.conn_type!r}, host={self.host!r}, port={self.port!r})"


def connection_values(
    *,
    conn_id: str,
    conn_type: str | None,
    host: str | None = None,
    port: int | None = None,
    login: str | None = None,
    password: str | None = None,
    schema: str | None = None,
    extra: str | Mapping[str, object] | None = None,
) -> ConnectionValues:
    """
    Values from the fields of a connection; ``extra`` as JSON or as a mapping. Raises ConfigError.

    A line end behind a secret, as one that was read from a file has it, is no part of it; a control character within
    is an error.
    """
    if not conn_type:
        raise ConfigError(f"The connection {conn_id!r} has no type.", hint=f"Use the type {CONN_TYPE}.")
    extras = _extra(conn_id, extra)
    for key in sorted(_HEADERS & set(extras)):
        extras[key] = _credential(conn_id, f"extra {key}", extras[key])
    login, password = _credential(conn_id, "login", login), _credential(conn_id, "password", password)
    return ConnectionValues(
        conn_type=_normal_type(conn_type),
        host=host or None,
        port=port or None,
        login=login or None,
        password=password or None,
        schema=schema or None,
        extra=MappingProxyType(extras),
    )


def _credential(conn_id: str, what: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    bare = value.rstrip("\r\n")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in bare):
        raise ConfigError(
            f"The {what} of the connection {conn_id!r} holds a control character (an end of line?).",
            hint="Write it again as one line; nothing of it is shown here.",
        )
    return bare


def check_connection_id(conn_id: str) -> str:
    """
    The id of a connection itself. Raises ConfigError, without the text, when a whole connection is written there.

    Ids may hold ``/`` and ``:`` as Airflow's may, so only what can be no id is told apart.
    """
    if "://" in conn_id or conn_id.lstrip().startswith("{") or re.search(r"[@?=&%]", conn_id):
        raise ConfigError(
            "A connection's URI or JSON stands where its id belongs.",
            hint="Write an id such as influxdb_prod, and put the URI into INFLUXDB_BACKUP_CONN_INFLUXDB_PROD or into "
            "Airflow's connection of that id. If the text held a secret, change it: files and lists of processes "
            "are read by others.",
        )
    return conn_id


def secrets_of(values: ConnectionValues) -> tuple[str, ...]:
    """Every text of a connection that no message may show, alone and as a request joins it with others."""
    found = [values.password or "", *_secrets_in(values.extra)]
    if values.conn_type != "aws" and values.login and values.password:
        found += [f"{values.login}:{values.password}"]
    found += [text.partition(":")[2] for text in found if ":" in text and "\n" not in text]  # a token of 1.x
    found += [part.partition("=")[2] for text in found if ";" in text for part in text.split(";")]
    return tuple(text for text in found if text)


def _secrets_in(extra: Mapping[str, object]) -> Iterator[str]:
    for name, value in extra.items():
        parsed = _parsed(value)
        if isinstance(parsed, Mapping):
            yield from _secrets_in(parsed)
        elif isinstance(value, str) and name not in _PUBLIC and any(word in name.lower() for word in _SECRET_WORDS):
            yield value


def _parsed(value: object) -> object:
    """Google's key file is JSON in a text."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def unknown_name(what: str, name: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """
    Says that a key is unknown: by its name when that is near a known one or stands in ``elsewhere``, else not.

    A secret with a special character ends up in keys when its URI or JSON was not encoded.
    """
    if name in elsewhere:
        return f"the {what} {name!r}, which is not supported here."
    near = suggestion(name, known)
    return (
        f"the unknown {what} {name!r}.{near}" if near else f"an unknown {what} (not shown: it may be a secret's part)."
    )


def connection_from_environment(conn_id: str, environ: Mapping[str, str]) -> ConnectionValues | None:
    """
    The connection that ``INFLUXDB_BACKUP_CONN_<ID>`` or else ``AIRFLOW_CONN_<ID>`` holds, or None.

    The value is a URI or JSON, as for Airflow. Raises ConfigError, naming the variable, when it is neither.
    """
    for variable in environment_names(conn_id):
        text = environ.get(variable, "").strip()
        if text:
            parse = connection_from_json if text.startswith("{") else connection_from_uri
            try:
                return parse(text, conn_id)
            except ConfigError as error:
                raise ConfigError(f"{variable}: {error.message}", hint=error.hint) from None
    return None


def environment_names(conn_id: str) -> tuple[str, str]:
    """The variables that may hold a connection, the one that wins first."""
    upper = conn_id.upper()
    return f"INFLUXDB_BACKUP_CONN_{re.sub('[^A-Z0-9_]', '_', upper)}", f"AIRFLOW_CONN_{upper}"


def connection_from_json(text: str, conn_id: str = "") -> ConnectionValues:
    """A connection written as Airflow's JSON. Raises ConfigError."""
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"The connection {conn_id!r} is not valid JSON: {error.msg} at {error.pos}.") from None
    except RecursionError:
        raise ConfigError(f"The connection {conn_id!r} is not valid JSON: it is nested too deeply.") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"The connection {conn_id!r} is not a JSON object.")
    unknown = sorted(set(fields) - set(_FIELDS) - {"conn_id", "id"})
    if unknown:
        raise ConfigError(
            f"The connection {conn_id!r} has {unknown_name('field', unknown[0], _FIELDS)}",
            hint=f"Fields: {', '.join(_FIELDS)}; other settings belong into extra.",
        )
    for name in ("conn_type", "host", "login", "password", "schema"):
        if not isinstance(fields.get(name), str | None):
            raise ConfigError(f"The field {name} of the connection {conn_id!r} must be a text.")
    return connection_values(
        conn_id=conn_id,
        port=_port(conn_id, fields.get("port")),
        **{name: fields.get(name) for name in ("conn_type", "host", "login", "password", "schema", "extra")},
    )


def connection_from_uri(uri: str, conn_id: str = "") -> ConnectionValues:
    """
    A connection written as Airflow's URI: every part percent-encoded, extras in the query string or ``__extra__``.

    Raises ConfigError, never with a part of the URI in the message, since any part may hold the secret.
    """
    uri = uri.strip()
    if any(ord(character) < 32 or ord(character) == 127 for character in uri):
        raise ConfigError(f"The connection {conn_id!r} is no URI: it holds a control character.", hint=_ENCODE)
    scheme, separator, rest = uri.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.\-]*", scheme):
        underscore = "_" in scheme and separator
        raise ConfigError(
            f"The connection {conn_id!r} is no URI with a type"
            + (": a URI's type cannot hold '_', write '-' instead." if underscore else "."),
            hint="Write influxdb-backup://user:password@host:8086 (each part percent-encoded), or JSON.",
        )
    protocol, second, after = rest.partition("://")
    with_protocol = bool(second) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.\-]*", protocol) is not None
    try:
        parts = urlsplit("//" + (after if with_protocol else rest))
        port = parts.port
    except ValueError:
        raise ConfigError(
            f"The connection {conn_id!r} is no valid URI: its host or port cannot be read.",
            hint=_ENCODE,
        ) from None
    if parts.fragment or "@" in parts.path or ("@" in parts.query and "@" not in parts.netloc):
        raise ConfigError(
            f"The connection {conn_id!r} is no valid URI: a special character of its user or password ends its host.",
            hint=_ENCODE,
        )
    host = _host(parts.netloc)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return connection_values(
        conn_id=conn_id,
        conn_type=scheme,
        host=f"{protocol}://{host}" if with_protocol and host else host,
        port=port,
        login=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        schema=unquote(parts.path[1:]),
        extra=query.get("__extra__", query),
    )


def _host(netloc: str) -> str:
    address = netloc.rpartition("@")[2]
    host = address.rpartition(":")[0] if re.search(r":[0-9]*\Z", address) and not address.endswith("]") else address
    return unquote(host).strip("[]")


def _normal_type(conn_type: str) -> str:
    return conn_type.replace("-", "_")


def _port(conn_id: str, value: object) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip().isdigit():
        raise ConfigError(f"The port of the connection {conn_id!r} is not a number.")
    return int(value)


def _extra(conn_id: str, extra: str | Mapping[str, object] | None) -> dict[str, object]:
    parsed: Any = extra or {}
    if isinstance(parsed, str):
        try:
            parsed = json.loads(parsed)
        except json.JSONDecodeError:
            raise ConfigError(f"The extra of the connection {conn_id!r} is not valid JSON.") from None
    if not isinstance(parsed, Mapping):
        raise ConfigError(f"The extra of the connection {conn_id!r} is not a JSON object.")
    # Connections made with old forms carry the type in front of the key.
    named = {re.sub(r"^extra__[a-z0-9_]+?__", "", str(key)): value for key, value in parsed.items()}
    return {key: value for key, value in named.items() if value is not None and value != ""}
