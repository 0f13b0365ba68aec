"""The shards of InfluxDB 1.x through its backup port, which is asked only where the connection names it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from influxdb_backup.errors import (
    AccessError,
    ConfigError,
    IncompleteReadError,
    QueryError,
    ServerError,
    ServerUnavailableError,
)
from influxdb_backup.influx.pieces import listed_shards
from influxdb_backup.influx.query import QueryApi
from influxdb_backup.influx.shard_door import (
    HotShardError,
    ShardInfo,
    ShardNotOpenError,
    ShardRefusedError,
    Spooled,
    StoredFiles,
)
from influxdb_backup.influx.shard_tar import archived_digests, archived_files, spool
from influxdb_backup.influx.snapshot_port1 import SnapshotPort
from influxdb_backup.model import MIN_TIME, encode_name, printable

BUSY_SECONDS = 1.0
"""a reply that began sooner has the cache in it; see ``Spooled.quick``"""
_COMPARISONS = 3
_CACHES = "SHOW STATS FOR 'tsm1_cache'"
"""a row for each open shard; ``memBytes`` counts also what is being written to a file (source of 1.6.7 and 1.12.4)"""

_FILES = "SHOW STATS FOR 'tsm1_filestore'"
"""a row for each open shard, of the files that queries are answered from (source of 1.6.7 and 1.12.4)"""


@dataclass(frozen=True)
class _Copy:
    """A shard's copy as it arrives: its first bytes, what gives those behind them, and see ``Spooled.quick``."""

    first: bytes
    read: Callable[[int], bytes]
    quick: bool


class SnapshotDoor:
    """The ``ShardDoor`` of a 1.x server; without a ``port`` it is closed."""

    def __init__(self, api: QueryApi, port: SnapshotPort | None, name: str) -> None:
        self._api = api
        self._port = port
        self._name = name
        self._known: dict[str, dict[str, tuple[ShardInfo, ...]]] = {}
        self._is_own = False
        """whether the port was seen to be that of this server"""

    @property
    def port(self) -> SnapshotPort:
        """The port. Raises ConfigError when the connection names none."""
        if self._port is None:
            raise ConfigError(f"The connection {self._name} has no snapshot_address.", hint="Set it to host:8088.")
        return self._port

    def closed(self) -> str | None:
        """See ``ShardDoor.closed``."""
        if self._port is None:
            return f"the connection {self._name} has no snapshot_address"
        try:
            listed = listed_shards(self._api)
        except AccessError:
            return f"the user of {self._name} may not list shards (SHOW SHARDS needs administrator rights)"
        try:
            self._refuse_other_server(listed)
        except (ServerUnavailableError, IncompleteReadError) as error:
            return error.message.rstrip(".")
        return None

    def shards(self, database: str, retention_policy: str) -> tuple[ShardInfo, ...]:
        """
        The shards by SHOW SHARDS, remembered for a database.

        Raises ConfigError when the port belongs to another server, which knows other shards.
        """
        if database not in self._known:
            if not self._is_own:
                self._refuse_other_server()
            self._known[database] = listed_shards(self._api).get(database, {})
        return self._known[database].get(retention_policy, ())

    def new_shards(self, database: str) -> Mapping[str, tuple[ShardInfo, ...]]:
        """
        The shards of a new database, looked at again, by policy.

        Raises ConfigError when the port does not have the very same, whatever was seen of it before.
        """
        listed = listed_shards(self._api).get(database, {})
        difference = _difference({database: listed}, {database: self.port.described_shards().get(database, {})})
        if difference is not None:
            raise self._other_server(difference)
        self._known[database] = listed
        return listed

    def _other_server(self, why: str) -> ConfigError:
        return ConfigError(
            f"The snapshot_address {self.port.address} of {self._name} is that of another server: {why}.",
            hint="Correct it, or the tunnel that it leads to.",
        )

    def _refuse_other_server(self, listed: Mapping[str, Mapping[str, Sequence[ShardInfo]]] | None = None) -> None:
        """
        Compares again before it refuses: databases come and go between the two listings.

        ``listed`` is what the server has just listed.
        """
        for _ in range(_COMPARISONS):
            known, listed = listed or listed_shards(self._api), None
            difference = _difference(known, self.port.described_shards())
            if difference is None:
                self._is_own = True
                return
        raise self._other_server(difference or "")

    def refuse_hot(self, database: str, retention_policy: str, shard: ShardInfo) -> None:
        """See ``ShardDoor.refuse_hot``; by SHOW STATS, which needs administrator rights as SHOW SHARDS does."""
        name = self._called(database, retention_policy, shard)
        try:
            held = self._cached(database, shard)
        except (AccessError, QueryError) as error:
            raise HotShardError.of(name, f"its cache cannot be asked for ({error.message.rstrip('.')})") from error
        if held is None and shard.id in self.port.open_shards(database):
            raise HotShardError.of(name, "the server does not say what is in its cache")
        if held:
            raise HotShardError.of(name, f"it has {held} bytes of writes in its cache")

    def _cached(self, database: str, shard: ShardInfo) -> int | None:
        """Bytes in the shard's cache; None when the server has no statistics of it."""
        return self._statistics(_CACHES, database, shard).get(b"memBytes")

    def stored_files(self, database: str, retention_policy: str, shard: ShardInfo) -> StoredFiles | None:  # noqa: ARG002
        """See ``ShardDoor.stored_files``; by SHOW STATS, whose numbers of shards are those of all policies."""
        try:
            said = self._statistics(_FILES, database, shard)
        except ServerError:
            return None
        count, size = said.get(b"numFiles"), said.get(b"diskBytes")
        return None if count is None or size is None else StoredFiles(count, size)

    def _statistics(self, statement: str, database: str, shard: ShardInfo) -> dict[bytes, int]:
        """The numbers of the shard's row; none when the server has no statistics of it."""
        number, owner = str(shard.id).encode(), encode_name(database)
        for row in self._api.rows(statement):
            if row.tags.get(b"id") == number and row.tags.get(b"database") == owner:
                named = zip(row.columns, row.values[0], strict=True)
                return {name: value for name, value in named if isinstance(value, int)}
        return {}

    def _called(self, database: str, retention_policy: str, shard: ShardInfo) -> str:
        return f"shard {shard.id} ({printable(database)}.{printable(retention_policy)}) of {self._name}"

    def fetch(self, database: str, retention_policy: str, shard: ShardInfo, since: int | None, path: Path) -> Spooled:
        """See ``ShardDoor.fetch``."""
        with self._copy(database, retention_policy, shard, since) as copy:
            spool(copy.read, path, copy.first)
        return Spooled(archived_files(path, self._called(database, retention_policy, shard)), copy.quick)

    def digests(self, database: str, retention_policy: str, shard: ShardInfo, most: int) -> frozenset[str]:
        """See ``ShardDoor.digests``."""
        with self._copy(database, retention_policy, shard, None) as copy:
            return archived_digests(copy.read, self._called(database, retention_policy, shard), most, copy.first)

    @contextmanager
    def _copy(self, database: str, retention_policy: str, shard: ShardInfo, since: int | None) -> Iterator[_Copy]:
        port = self.port
        name = self._called(database, retention_policy, shard)
        request: dict[str, object] = {
            "BackupDatabase": database,
            "BackupRetentionPolicy": retention_policy,
            "ShardID": shard.id,
        }
        if since is not None:
            request["Since"] = datetime.fromtimestamp(since // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        began = time.monotonic()
        with port.shard(request) as stream:
            first = port.receive(stream, f"the copy of {name}")
            quick = time.monotonic() - began < BUSY_SECONDS
            if not first:
                if shard.id not in port.open_shards(database):
                    raise ShardNotOpenError.of(name, shard.group)
                raise ShardRefusedError(
                    f"{self._name} ends the connection without a copy of {name}.",
                    hint="The server's log says why; the shard may be gone.",
                )
            yield _Copy(first, lambda size: port.receive(stream, f"the copy of {name}", size), quick)


def _difference(
    listed: Mapping[str, Mapping[str, Sequence[ShardInfo]]], described: Mapping[str, Mapping[tuple[str, int], int]]
) -> str | None:
    """
    What tells a server's SHOW SHARDS from the metadata of another one.

    Numbers and times are compared, and not which shards are open: a server lists a group up to half an hour before
    anything is written to it (``[shard-precreation]``), and one that it could not open.
    """
    for database, policies in listed.items():
        starts = described.get(database, {})
        for policy, shards in policies.items():
            for shard in shards:
                start = starts.get((policy, shard.id))
                if start is None or shard.group.start not in (start, MIN_TIME):
                    return f"it does not have the shard {shard.id} of {printable(database)}, or with other times"
    strange = sorted(set(described) - set(listed))
    return f"it has a database {printable(strange[0])}" if strange else None
