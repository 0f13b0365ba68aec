"""Shards of InfluxDB 2.x by ``GET /api/v2/backup/shards/:id``, which needs an operator token."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from influxdb_backup.errors import AccessError, ServerError
from influxdb_backup.influx.http import ByteStream, Http, Reply, status_error
from influxdb_backup.influx.metadata2 import metadata_shards
from influxdb_backup.influx.shard_door import (
    HotShardError,
    ShardInfo,
    ShardNotOpenError,
    ShardRefusedError,
    Spooled,
    StoredFiles,
)
from influxdb_backup.influx.shard_tar import archived_digests, archived_files, spool
from influxdb_backup.influx.snapshot1 import BUSY_SECONDS
from influxdb_backup.model import printable

_LONGEST_REASON = 64 * 1024
_SHARD_METRIC = re.compile(rb"^(storage_\w+)\{([^}\n]*)\} ([0-9.eE+-]+)$", re.MULTILINE)
"""a line of ``/metrics``"""
_CACHE = b"storage_cache_inuse_bytes"
"""one for each open shard; it counts also what is being written to a file"""
_FILES, _FILE_BYTES = b"storage_tsm_files_total", b"storage_tsm_files_disk_bytes"
"""one for each open shard, of the files that queries are answered from (source of 2.9.1)"""
_LABEL = re.compile(rb'(\w+)="([^"]*)"')


class BackupApiDoor:
    """The ``ShardDoor`` of a 2.x server; ``bucket_id`` gives the id of a database and policy's bucket."""

    def __init__(self, http: Http, bucket_id: Callable[[str, str], str]) -> None:
        self._http = http
        self._bucket_id = bucket_id
        self._known: dict[str, tuple[ShardInfo, ...]] | None = None

    def closed(self) -> str | None:
        """See ``ShardDoor.closed``."""
        try:
            self._listed()
        except AccessError:
            return f"the token of {self._http.name} is no operator token, which the backup API needs"
        return None

    def shards(self, database: str, retention_policy: str) -> tuple[ShardInfo, ...]:
        """The bucket's shards by the backup metadata, remembered for the whole server."""
        bucket = self._bucket_id(database, retention_policy)
        found = self._listed().get(bucket)
        if found is None:  # a bucket that is younger than the listing
            self._known = None
            found = self._listed().get(bucket, ())
        return found

    def _listed(self) -> dict[str, tuple[ShardInfo, ...]]:
        if self._known is None:
            self._known = metadata_shards(self._http)
        return self._known

    def refuse_hot(self, database: str, retention_policy: str, shard: ShardInfo) -> None:
        """See ``ShardDoor.refuse_hot``; by ``/metrics``, which ``--metrics-disabled`` closes."""
        name = self._called(database, retention_policy, shard)
        try:
            caches = self._metrics(_CACHE)[_CACHE]
        except ServerError as error:
            raise HotShardError.of(name, f"its cache cannot be asked for ({error.message.rstrip('.')})") from error
        held = caches.get((self._bucket_id(database, retention_policy), shard.id), 0.0)
        if held:
            raise HotShardError.of(name, f"it has {held:.0f} bytes of writes in its cache")

    def stored_files(self, database: str, retention_policy: str, shard: ShardInfo) -> StoredFiles | None:
        """See ``ShardDoor.stored_files``; by ``/metrics``."""
        try:
            said = self._metrics(_FILES, _FILE_BYTES)
        except ServerError:
            return None
        own = self._bucket_id(database, retention_policy), shard.id
        count, size = (said[name].get(own) for name in (_FILES, _FILE_BYTES))
        return None if count is None or size is None else StoredFiles(int(count), int(size))

    def _metrics(self, *names: bytes) -> dict[bytes, dict[tuple[str, int], float]]:
        """These metrics by bucket and shard. Raises ServerError when the server does not say."""
        reply = self._http.request("GET", "/metrics")
        if reply.status != 200:
            raise status_error(self._http.name, reply)
        found: dict[bytes, dict[tuple[str, int], float]] = {name: {} for name in names}
        for name, labels, number in _SHARD_METRIC.findall(reply.body):
            if name in found:
                label = dict(_LABEL.findall(labels))
                found[name][label.get(b"bucket", b"").decode(), int(label.get(b"id", b"0"))] = float(number)
        for name in names:
            if not found[name]:
                raise ServerError(f"{self._http.name} has no {name.decode()} among its metrics.")
        return found

    def _called(self, database: str, retention_policy: str, shard: ShardInfo) -> str:
        return f"shard {shard.id} ({printable(database)}/{printable(retention_policy)}) of {self._http.name}"

    def fetch(self, database: str, retention_policy: str, shard: ShardInfo, since: int | None, path: Path) -> Spooled:
        """See ``ShardDoor.fetch``."""
        with self._copy(database, retention_policy, shard, since) as (read, quick):
            spool(read, path)
        return Spooled(archived_files(path, self._called(database, retention_policy, shard)), quick)

    def digests(self, database: str, retention_policy: str, shard: ShardInfo, most: int) -> frozenset[str]:
        """See ``ShardDoor.digests``."""
        with self._copy(database, retention_policy, shard, None) as (read, _):
            return archived_digests(read, self._called(database, retention_policy, shard), most)

    @contextmanager
    def _copy(
        self, database: str, retention_policy: str, shard: ShardInfo, since: int | None
    ) -> Iterator[tuple[Callable[[int], bytes], bool]]:
        """What gives the bytes of a shard's copy, and see ``Spooled.quick``."""
        name = self._called(database, retention_policy, shard)
        parameters = {}
        if since is not None:
            parameters["since"] = datetime.fromtimestamp(since // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        began = time.monotonic()
        with self._http.stream("GET", f"/api/v2/backup/shards/{shard.id}", parameters=parameters) as response:
            body = ByteStream(response, self._http.name)
            if response.status == 404:
                raise ShardNotOpenError.of(name, shard.group)
            if response.status != 200:
                words = body.read(_LONGEST_REASON)
                refusal = status_error(self._http.name, Reply(response.status, response.headers, words))
                if response.status == 500:
                    raise ShardRefusedError(refusal.message, hint="The server's log says why.")
                raise refusal
            yield body.read, time.monotonic() - began < BUSY_SECONDS
