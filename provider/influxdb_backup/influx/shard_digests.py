"""What the files of a shard are on the server, as digests: equal ones prove that every byte arrived."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from influxdb_backup.influx.shard_door import ShardDoor, ShardInfo

_HASHERS = 2
_MOST_TIMES, _MOST_MORE = 2, 64 << 20
"""what a copy may have more than the files that were sent: its headers, lists of series and fields, and what is new"""


def digests_of(files: Iterable[Path]) -> frozenset[str]:
    """SHA-256 of each of these files. Raises OSError."""
    with ThreadPoolExecutor(_HASHERS, thread_name_prefix="digest") as pool:
        return frozenset(pool.map(_digest, files))


def held_digests(door: ShardDoor, database: str, retention_policy: str, shard: ShardInfo, sent: int) -> frozenset[str]:
    """
    SHA-256 of each file that the server has in a shard, tombstones too, by a copy that is kept nowhere.

    ``sent`` is how many bytes were sent there: a copy that does not end is given up.
    Raises HotShardError when somebody has written into the shard, IncompleteReadError and the errors of a request.
    """
    door.refuse_hot(database, retention_policy, shard)
    return door.digests(database, retention_policy, shard, _MOST_TIMES * sent + _MOST_MORE)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
