"""What the files of a shard are on the server, as digests: equal ones prove that every byte arrived."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from influxdb_backup.influx.shard_door import ShardDoor, ShardInfo
from influxdb_backup.temporary import temporary_folder

_BLOCK = 1 << 20
_HASHERS = 2


def digests_of(files: Iterable[Path]) -> frozenset[str]:
    """SHA-256 of each of these files. Raises OSError."""
    with ThreadPoolExecutor(_HASHERS, thread_name_prefix="digest") as pool:
        return frozenset(pool.map(lambda file: _digest(file, 0, file.stat().st_size), files))


def held_digests(door: ShardDoor, database: str, retention_policy: str, shard: ShardInfo) -> frozenset[str]:
    """
    SHA-256 of each file that the server has in a shard, tombstones too, by a copy that is not kept.

    Raises HotShardError when somebody has written into the shard, IncompleteReadError and the errors of a request.
    """
    door.refuse_hot(database, retention_policy, shard)
    with temporary_folder("proof") as folder:
        copy = door.fetch(database, retention_policy, shard, None, Path(folder) / "copy.tar")
        return frozenset(_digest(file.path, file.offset, file.size) for file in copy.files)


def _digest(path: Path, offset: int, size: int) -> str:
    state = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(offset)
        while size > 0 and (block := stream.read(min(_BLOCK, size))):
            state.update(block)
            size -= len(block)
    return state.hexdigest()
