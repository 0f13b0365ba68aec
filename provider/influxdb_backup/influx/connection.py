"""Which product and version answers at an address, and the Server of its generation."""

from __future__ import annotations

import json
import re

from influxdb_backup.errors import AccessError, ConfigError, UnsupportedServerError
from influxdb_backup.influx.http import Http, status_error
from influxdb_backup.influx.protocol import Server, ServerSettings
from influxdb_backup.influx.server1 import Server1
from influxdb_backup.model import ServerInfo, printable

_OLDEST = {1: (1, 6), 2: (2, 4)}
_VERSION = re.compile(r"v?((\d+)\.(\d+)[^\s]*)\Z")
_HEADERS = "X-Influxdb-Version"


def connect(settings: ServerSettings) -> Server:
    """
    Opens the server, which is asked for its version unless the settings say it.

    Raises UnsupportedServerError for another product or a version that is not supported (1.6 and later, 2.4 and
    later), ServerUnavailableError, AccessError, ConfigError for settings that are wrong.
    """
    http = Http(settings)
    try:
        info = _info(http, _known_version(settings) or _asked_version(http))
        if info.generation == 1:
            return Server1(http, info, settings)
        from influxdb_backup.influx.server2 import Server2

        return Server2(http, info, settings)
    except BaseException:
        http.close()
        raise


def _known_version(settings: ServerSettings) -> str | None:
    if settings.version is None:
        return None
    if not _VERSION.match(settings.version.strip()):
        raise ConfigError(f"{settings.version!r} is not a version.", hint="Write for example 1.8.10 or 2.7.")
    return settings.version.strip()


def _asked_version(http: Http) -> str:
    """The version by /ping, or by /health where a proxy takes the header away."""
    reply = http.request("GET", "/ping")
    if reply.status in (401, 403):
        raise status_error(http.name, reply)
    if reply.status == 400 and b"to an HTTPS server" in reply.body:
        raise AccessError(f"{http.name} speaks TLS only.", hint="Switch tls on in the connection.")
    version = reply.headers.get(_HEADERS) or _field(reply.body, "version")
    if not version:
        health = http.request("GET", "/health")
        if health.status in (401, 403):
            raise status_error(http.name, health)
        if _field(health.body, "name") == "influxdb":
            version = health.headers.get(_HEADERS) or _field(health.body, "version")
    if not version:
        raise UnsupportedServerError(
            f"{http.name} does not answer as InfluxDB does (/ping says {reply.status} and no version).",
            hint="Check address and port, or give the connection the server's version.",
        )
    return version


def _field(body: bytes, key: str) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""


def _info(http: Http, version: str) -> ServerInfo:
    found = _VERSION.match(version)
    if not found:
        raise UnsupportedServerError(f"{http.name} says that it has the version {printable(version)!r}.")
    numbers = (int(found[2]), int(found[3]))
    oldest = _OLDEST.get(numbers[0])
    if oldest is None or numbers < oldest:
        raise UnsupportedServerError(
            f"{http.name} is version {found[1]}, which is not supported.",
            hint="Supported are InfluxDB 1.6 and later 1.x (tried up to 1.12), and 2.4 and later 2.x; 3.x is not yet.",
        )
    return ServerInfo(product="influxdb", version=found[1], generation=numbers[0])
