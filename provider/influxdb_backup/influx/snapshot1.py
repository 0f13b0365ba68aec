"""
The backup port of InfluxDB 1.x (``bind-address``, 8088): no credentials, no TLS, so only an address that the
connection names is asked.

The protocol: a connection begins with the byte 3 (which service), a type byte and a request in JSON; the reply ends
with the connection. An unknown shard or a failure only ends it (source of 1.7.11 and 1.12.4: ``services/snapshotter``).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from influxdb_backup.errors import AccessError, ConfigError, IncompleteReadError, ServerUnavailableError
from influxdb_backup.influx.pieces import listed_shards
from influxdb_backup.influx.query import QueryApi
from influxdb_backup.influx.shard_door import ShardInfo, Spooled
from influxdb_backup.influx.shard_tar import archived_files, spool
from influxdb_backup.model import encode_name, printable

BUSY_SECONDS = 1.0
"""a reply that began sooner has the cache in it; see ``Spooled.quick``"""
_SERVICE = b"\x03"
_SHARD_BACKUP, _DATABASE_INFO = 0, 3
_LONGEST_LISTING = 64 << 20


class SnapshotDoor:
    """The ``ShardDoor`` of a 1.x server at ``address`` (host:port); None is a door that is closed."""

    def __init__(self, api: QueryApi, address: str | None, timeout: float, name: str) -> None:
        self._api = api
        self._address = address
        self._timeout = timeout
        self._name = name
        self._known: dict[str, dict[str, tuple[ShardInfo, ...]]] = {}

    def closed(self) -> str | None:
        """See ``ShardDoor.closed``."""
        if self._address is None:
            return f"the connection {self._name} has no snapshot_address"
        try:
            listed_shards(self._api)
        except AccessError:
            return f"the user of {self._name} may not list shards (SHOW SHARDS needs administrator rights)"
        try:
            with self._connected():
                return None
        except ServerUnavailableError as error:
            return error.message.rstrip(".")

    def shards(self, database: str, retention_policy: str) -> tuple[ShardInfo, ...]:
        """
        The shards by SHOW SHARDS, remembered for a database.

        Raises ConfigError when the port belongs to another server, which knows other shards.
        """
        if database not in self._known:
            listed = listed_shards(self._api).get(database, {})
            ids = {shard.id for shards in listed.values() for shard in shards}
            offered = self._offered(database) if ids else set()
            if not ids <= offered:
                raise ConfigError(
                    f"The snapshot_address {self._address} of {self._name} is that of another server: it does not have "
                    f"the shard {min(ids - offered)} of {printable(database)}.",
                    hint="Correct it, or the tunnel that it leads to.",
                )
            self._known[database] = listed
        return self._known[database].get(retention_policy, ())

    def _offered(self, database: str) -> set[int]:
        with self._asked(_DATABASE_INFO, {"BackupDatabase": database}) as stream:
            reply = _read_all(stream, self._name)
        if not reply:
            return set()
        try:
            paths = json.loads(reply)["Paths"] or []
            return {int(path.rsplit("/", 1)[-1]) for path in paths}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IncompleteReadError(
                f"What answers at {self._address} is no backup port of InfluxDB 1.x.", hint="Correct snapshot_address."
            ) from error

    def fetch(self, database: str, retention_policy: str, shard: ShardInfo, since: int | None, path: Path) -> Spooled:
        """See ``ShardDoor.fetch``."""
        name = f"shard {shard.id} ({printable(database)}.{printable(retention_policy)}) of {self._name}"
        request: dict[str, object] = {
            "BackupDatabase": database,
            "BackupRetentionPolicy": retention_policy,
            "ShardID": shard.id,
        }
        if since is not None:
            request["Since"] = datetime.fromtimestamp(since // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        began = time.monotonic()
        with self._asked(_SHARD_BACKUP, request) as stream:
            first = self._received(stream, name)
            quick = time.monotonic() - began < BUSY_SECONDS
            if not first:
                raise IncompleteReadError(
                    f"{self._name} ends the connection without a copy of {name}.",
                    hint="The server's log says why; the shard may be gone.",
                    kind="shard-copy",
                )
            spool(lambda size: self._received(stream, name, size), path, first)
        return Spooled(archived_files(path, name), quick)

    def _received(self, stream: socket.socket, name: str, size: int = 1 << 16) -> bytes:
        try:
            return stream.recv(size)
        except OSError as error:
            raise IncompleteReadError(f"The copy of {name} broke off: {error}.", kind="shard-copy") from error

    @contextmanager
    def _asked(self, kind: int, request: dict[str, object]) -> Iterator[socket.socket]:
        line = json.dumps({"Type": kind, **request}, ensure_ascii=False)
        with self._connected() as stream:
            try:
                stream.sendall(_SERVICE + bytes([kind]) + encode_name(line) + b"\n")
            except OSError as error:
                raise self._unreachable(error) from error
            yield stream

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        host, _, port = (self._address or "").rpartition(":")
        try:
            stream = socket.create_connection((host.strip("[]"), int(port)), timeout=self._timeout)
        except OSError as error:
            raise self._unreachable(error) from error
        with stream:
            yield stream

    def _unreachable(self, error: OSError) -> ServerUnavailableError:
        return ServerUnavailableError(
            f"The backup port {self._address} of {self._name} cannot be reached: {error.strerror or error}.",
            hint="It listens on the server's own host only, unless bind-address says otherwise; a tunnel helps.",
        )


def _read_all(stream: socket.socket, name: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        while block := stream.recv(1 << 16):
            parts.append(block)
            size += len(block)
            if size > _LONGEST_LISTING:
                raise IncompleteReadError(f"The list of shards of {name} does not end.")
    except OSError as error:
        raise IncompleteReadError(f"The list of shards of {name} broke off: {error}.") from error
    return b"".join(parts)
