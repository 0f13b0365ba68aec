"""Shards of InfluxDB 2.x by ``GET /api/v2/backup/shards/:id``, which needs an operator token."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
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
)
from influxdb_backup.influx.shard_tar import archived_files, spool
from influxdb_backup.influx.snapshot1 import BUSY_SECONDS
from influxdb_backup.model import printable

_LONGEST_REASON = 64 * 1024
_CACHE = re.compile(rb"^storage_cache_inuse_bytes\{([^}\n]*)\} ([0-9.eE+-]+)$", re.MULTILINE)
"""of ``/metrics``, one for each open shard; it counts also what is being written to a file"""
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
            caches = self._caches()
        except ServerError as error:
            raise HotShardError.of(name, f"its cache cannot be asked for ({error.message.rstrip('.')})") from error
        held = caches.get((self._bucket_id(database, retention_policy), shard.id), 0.0)
        if held:
            raise HotShardError.of(name, f"it has {held:.0f} bytes of writes in its cache")

    def _caches(self) -> dict[tuple[str, int], float]:
        """By bucket and shard the bytes in its cache. Raises ServerError when the server does not say."""
        reply = self._http.request("GET", "/metrics")
        if reply.status != 200:
            raise status_error(self._http.name, reply)
        found = {}
        for labels, held in _CACHE.findall(reply.body):
            label = dict(_LABEL.findall(labels))
            found[label.get(b"bucket", b"").decode(), int(label.get(b"id", b"0"))] = float(held)
        if not found:
            raise ServerError(f"{self._http.name} has no storage_cache_inuse_bytes among its metrics.")
        return found

    def _called(self, database: str, retention_policy: str, shard: ShardInfo) -> str:
        return f"shard {shard.id} ({printable(database)}/{printable(retention_policy)}) of {self._http.name}"

    def fetch(self, database: str, retention_policy: str, shard: ShardInfo, since: int | None, path: Path) -> Spooled:
        """See ``ShardDoor.fetch``."""
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
            quick = time.monotonic() - began < BUSY_SECONDS
            spool(body.read, path)
        return Spooled(archived_files(path, name), quick)
