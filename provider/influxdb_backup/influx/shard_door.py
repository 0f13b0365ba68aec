"""The doors through which a server hands out the files of whole shards: what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.model import Window


@dataclass(frozen=True)
class ShardInfo:
    """One shard: the server's number for it, and the times of its group."""

    id: int
    group: Window


class ShardNotOpenError(IncompleteReadError):
    """
    The server lists a shard and has it not open.

    It makes groups before anything is written to them, and no door tells one of these from a shard whose files it could
    not open when it started (run on 1.6.7, 1.12.4 and 2.9.1).
    """

    default_kind = "shard-not-open"
    group: Window
    """the times of the shard's group"""

    @classmethod
    def of(cls, name: str, group: Window) -> ShardNotOpenError:
        """The error about the shard of this name and these times."""
        error = cls(
            f"The server lists {name} and has it not open: nothing was written to it yet, or its files could not be "
            f"read when the server started, and then no answer has what is in them.",
            hint="Look for 'Failed to open shard' in the server's log.",
        )
        error.group = group
        return error


class ShardRefusedError(IncompleteReadError):
    """The server gives no copy of a shard that it has open: mostly since it could not write the shard's cache."""

    default_kind = "shard-copy"


class HotShardError(IncompleteReadError):
    """
    A copy of the shard would have the server write its cache to a file, or nobody knows that it would not.

    Servers lose overwritten values to that: their merge of many small files that overlap takes an older value than they
    confirmed (run on 1.6.7, 1.12.4 and 2.9.1, with the raw request alone).
    """

    default_kind = "shard-hot"

    @classmethod
    def of(cls, name: str, why: str) -> HotShardError:
        """The error about the shard of this name."""
        return cls(
            f"{name[:1].upper()}{name[1:]} is not copied, since {why}: a copy would have the server write its cache to "
            f"another small file, and servers lose overwritten values when they merge those.",
            hint="Wait until the server has written it (10 minutes after the last write, unless "
            "cache-snapshot-write-cold-duration says otherwise), or allow it: hot_shards: allow in the plan.",
        )


@dataclass(frozen=True)
class SpooledFile:
    """A file of a shard inside of a spooled archive on this machine."""

    name: str
    path: Path
    """of the archive"""
    offset: int
    size: int


@dataclass(frozen=True)
class Spooled:
    """One reply of a door, whole."""

    files: tuple[SpooledFile, ...]
    """TSM files and tombstones; other files of the shard are left out"""
    quick: bool
    """
    whether the reply began before the server can have given up on its cache: a busy 1.8 or later tries four times
    within 1.06 s and then goes on without it (source of 1.8.10, 1.12.4, 2.4.0 and 2.9.1: ``CreateSnapshot``)
    """


@dataclass(frozen=True)
class StoredFiles:
    """What a server says of the files that it answers queries about one shard from."""

    count: int
    """of TSM files"""
    bytes: int
    """of these, with the tombstones that it had when it last added them up: a deletion does not"""

    def are(self, copied: Sequence[SpooledFile]) -> bool:
        """Whether these are the files of a copy, by number and size."""
        sizes = [file.size for file in copied if file.name.endswith(".tsm")]
        tombstones = sum(file.size for file in copied) - sum(sizes)
        return self.count == len(sizes) and sum(sizes) <= self.bytes <= sum(sizes) + tombstones


class ShardDoor(Protocol):
    """A server's own door for backups. Thread-safe."""

    def closed(self) -> str | None:
        """Why no shard can be copied, in a few words for a log line; None when they can."""

    def shards(self, database: str, retention_policy: str) -> tuple[ShardInfo, ...]:
        """The shards of a policy that retention has not dropped. May be remembered."""

    def refuse_hot(self, database: str, retention_policy: str, shard: ShardInfo) -> None:
        """
        Raises HotShardError unless the server says now that there are no writes in the shard's cache.

        A shard that is not open has none.
        """

    def stored_files(self, database: str, retention_policy: str, shard: ShardInfo) -> StoredFiles | None:
        """What the server says now that it has in a shard, after it was asked anew; None when it does not say."""

    def fetch(self, database: str, retention_policy: str, shard: ShardInfo, since: int | None, path: Path) -> Spooled:
        """
        Has the server write its cache to files and spools them to ``path``, those changed after ``since`` (ns).

        Raises IncompleteReadError when the reply is not whole, ShardNotOpenError, and the errors of a request.
        """

    def digests(self, database: str, retention_policy: str, shard: ShardInfo, most: int) -> frozenset[str]:
        """As ``fetch`` of everything (``most`` bytes), but SHA-256 of each file; nothing is kept. Raises as that."""
