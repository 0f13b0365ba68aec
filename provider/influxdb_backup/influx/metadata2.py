"""
Shard groups of a 2.x bucket from ``GET /api/v2/backup/metadata``, which operator tokens may read.

The reply is multipart/mixed; its first parts are the server's key-value store, which can be large and holds
secrets: they are skipped as they arrive and never kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from influxdb_backup.errors import IncompleteReadError, ServerError
from influxdb_backup.influx.http import WHOLE_TRIES, ByteStream, Http, Reply, status_error
from influxdb_backup.influx.pieces import group_window
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.model import Window

_BLOCK = 64 * 1024
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_NAME = re.compile(rb'name="?([^";\r\n]+)"?', re.IGNORECASE)
_LONGEST_HEADERS = 16 * 1024


def metadata_groups(http: Http, bucket_id: str) -> list[Window] | None:
    """
    The bucket's shard groups, without those that retention deleted; None when the server does not list it.

    Raises AccessError without an operator token, IncompleteReadError when the reply ends early.
    """
    shards = metadata_shards(http).get(bucket_id)
    return None if shards is None else list(dict.fromkeys(shard.group for shard in shards))


def metadata_shards(http: Http) -> dict[str, tuple[ShardInfo, ...]]:
    """By a bucket's id its shards, without those that retention deleted. Raises as ``metadata_groups``."""
    for left in reversed(range(WHOLE_TRIES)):
        try:
            return _metadata_shards(http)
        except IncompleteReadError:
            if not left:
                raise
    raise AssertionError("unreachable")


def _metadata_shards(http: Http) -> dict[str, tuple[ShardInfo, ...]]:
    with http.stream("GET", "/api/v2/backup/metadata") as response:
        body = ByteStream(response, http.name)
        if response.status != 200:
            raise status_error(http.name, Reply(response.status, response.headers, body.read(_BLOCK)))
        found = _BOUNDARY.search(response.headers.get("Content-Type", ""))
        if not found:
            raise IncompleteReadError(f"{http.name} answers the backup metadata without parts.")
        listing = multipart_part(body.read, found[1].encode(), b"buckets", http.name)
    try:
        return {bucket["bucketID"]: listed_shards(bucket) for bucket in json.loads(listing)}
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{http.name} lists buckets in a form that is not known: {error!r}.") from error


def listed_shards(bucket: Any) -> tuple[ShardInfo, ...]:
    """The shards of one bucket of the parsed ``buckets`` part; KeyError, TypeError or ValueError for another form."""
    found = []
    for policy in bucket["retentionPolicies"]:
        for group in policy["shardGroups"] or []:
            window = group_window(group["startTime"], group["endTime"]) if _is_live(group) else None
            if window is not None:
                found += [ShardInfo(int(shard["id"]), window) for shard in group["shards"] or []]
    return tuple(found)


def _is_live(group: dict[str, object]) -> bool:
    return not group.get("deletedAt")


def multipart_part(read: Callable[[int], bytes], boundary: bytes, name: bytes, server: str) -> bytes:
    """
    One part of a multipart reply; the others are dropped while they arrive.

    Raises IncompleteReadError when the part is absent or the reply does not end as multipart does, since an error
    in the middle of such a reply only ends it.
    """
    delimiter = b"\r\n--" + boundary
    source = _Source(read, b"\r\n")
    kept: bytes | None = None
    source.until(delimiter, keep=False)
    while not source.ended:
        if source.take(2) == b"--":
            if kept is None:
                break
            return kept
        headers = source.until(b"\r\n\r\n", keep=True, limit=_LONGEST_HEADERS)
        found = _NAME.search(headers)
        wanted = found is not None and found[1] == name
        content = source.until(delimiter, keep=wanted)
        if wanted:
            kept = content
    raise IncompleteReadError(f"The backup metadata of {server} ends early or has no part {name.decode()}.")


class _Source:
    """Bytes that are read up to a mark."""

    def __init__(self, read: Callable[[int], bytes], first: bytes) -> None:
        self._read = read
        self._buffer = first
        self.ended = False

    def take(self, count: int) -> bytes:
        """The next bytes; fewer at the end."""
        while len(self._buffer) < count and self._more():
            pass
        out, self._buffer = self._buffer[:count], self._buffer[count:]
        return out

    def until(self, mark: bytes, *, keep: bool, limit: int | None = None) -> bytes:
        """What stands before the mark, which is taken as well; b"" unless ``keep``."""
        kept: list[bytes] = []
        size = 0
        while True:
            position = self._buffer.find(mark)
            if position >= 0:
                kept.append(self._buffer[:position])
                self._buffer = self._buffer[position + len(mark) :]
                break
            safe = max(0, len(self._buffer) - len(mark) + 1)
            if keep:
                kept.append(self._buffer[:safe])
            size += safe
            self._buffer = self._buffer[safe:]
            if (limit is not None and size > limit) or not self._more():
                self.ended = True
                break
        return b"".join(kept) if keep else b""

    def _more(self) -> bool:
        block = self._read(_BLOCK)
        self._buffer += block
        return bool(block)
