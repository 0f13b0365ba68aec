"""
The archive in which a server sends a shard: spooled to disk or digested as it arrives, and proved to be whole.

The status of a reply proves nothing: it is sent before the files are opened. An error in the middle cuts the archive
or is appended to it (2.9.1), so its end has to be the two empty records with nothing but empty bytes behind them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.shard_door import SpooledFile
from influxdb_backup.influx.tar import RECORD, Member, TarError, members
from influxdb_backup.model import printable

_BLOCK = 1 << 20
_SEEN_BYTES = 8 << 20
"""written between two looks at the disk"""
_LEFT_BYTES = 32 << 20
"""that stay free for the parts"""
_ENDINGS = (".tsm", ".tombstone")
_WANTED = re.compile(r"[0-9]{1,19}-[0-9]{1,19}\.(tsm|tombstone)\Z")
_LONGEST_WORDS = 300
_NO_END = 2**63
"""of an archive that is read as it arrives"""


def spool(read: Callable[[int], bytes], path: Path, first: bytes = b"") -> None:
    """
    Writes everything that ``read`` gives to a new file. Raises IncompleteReadError when the disk is full, or nearly.

    A copy may fail, and queries take over; the parts of the backup that are written beside it may not.
    """
    try:
        with path.open("wb") as file:
            file.write(first)
            unseen = _SEEN_BYTES
            while block := read(_BLOCK):
                unseen += len(block)
                if unseen >= _SEEN_BYTES:
                    unseen = 0
                    if shutil.disk_usage(path.parent).free < _LEFT_BYTES:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                file.write(block)
    except OSError as error:
        raise IncompleteReadError(
            f"A copy of a shard cannot be kept in {path.parent}: {error.strerror}.",
            hint="Set TMPDIR to a folder with room for the largest shard, or reader: query in the plan.",
            kind="spool",
        ) from error


def archived_files(path: Path, name: str) -> tuple[SpooledFile, ...]:
    """
    The TSM files and tombstones of a spooled archive, in its order.

    Raises IncompleteReadError, calling the shard ``name``, when the archive is not whole.
    """
    size = path.stat().st_size
    files: list[SpooledFile] = []
    end = 0
    try:
        with path.open("rb") as stream:
            for member in members(stream, size):
                end = member.end
                base = _wanted_name(member, name, size)
                if base:
                    files.append(SpooledFile(base, path, member.offset, member.size))
            stream.seek(end)
            rest = stream.read(_BLOCK)
    except TarError as error:
        raise _not_whole(size, name, str(error)) from error
    _prove_end(rest, name, end, size)
    if len({file.name for file in files}) < len(files):
        raise _not_whole(size, name, "it names a file twice")
    return tuple(files)


def archived_digests(read: Callable[[int], bytes], name: str, most: int, first: bytes = b"") -> frozenset[str]:
    """
    SHA-256 of each file that ``archived_files`` would give of what ``read`` gives, which is kept nowhere.

    ``first`` was read before. Raises as ``archived_files`` does, and for more than ``most`` bytes.
    """
    stream = _Arriving(read, first, most)
    digests: dict[str, str] = {}
    end = 0
    try:
        for member in members(stream, _NO_END):
            end = member.end
            base = _wanted_name(member, name, stream.at)
            if not base:
                continue
            if base in digests:
                raise TarError("it names a file twice")
            digests[base] = _digest(stream, member)
        stream.seek(end)
        rest = stream.read(_BLOCK + 1)
    except TarError as error:
        raise _not_whole(stream.at, name, str(error)) from error
    _prove_end(rest, name, end, stream.at)
    return frozenset(digests.values())


def _digest(stream: _Arriving, member: Member) -> str:
    state, left = hashlib.sha256(), member.size
    while left:
        block = stream.some(left)
        if not block:
            raise TarError(f"it ends inside of a file (its entry ends at byte {member.end})")
        state.update(block)
        left -= len(block)
    return state.hexdigest()


class _Arriving:
    """An archive as ``read`` gives it, from front to back; ``at`` is where the next byte stands."""

    def __init__(self, read: Callable[[int], bytes], first: bytes, most: int) -> None:
        self.at = 0
        self._read = read
        self._most = most
        self._held = memoryview(first)
        self._last = b""
        """what ``read`` gave, if nothing was given since: the only bytes that it can go back to"""

    def some(self, most: int) -> memoryview:
        """The next bytes, so many at most; none at the end. Raises TarError when there are too many."""
        if not self._held:
            self._held = memoryview(self._read(_BLOCK))
        block, self._held = self._held[:most], self._held[most:]
        self.at += len(block)
        if self.at > self._most:
            raise TarError(f"it has more than {self._most} bytes")
        self._last = b""
        return block

    def read(self, size: int) -> bytes:
        """See ``tar.Stream``."""
        parts: list[memoryview] = []
        while size and (block := self.some(size)):
            parts.append(block)
            size -= len(block)
        self._last = b"".join(parts)
        return self._last

    def seek(self, at: int) -> None:
        """See ``tar.Stream``; back by what was read last at most."""
        back = self.at - at
        if back > len(self._last):
            raise ValueError(f"byte {at} is gone")
        if back > 0:
            self._held = memoryview(self._last[-back:] + bytes(self._held))
            self.at, self._last = at, b""
        while self.at < at and self.some(at - self.at):
            pass


def _wanted_name(member: Member, name: str, size: int) -> str | None:
    """What a TSM file or tombstone is called, None for other entries. Raises IncompleteReadError for a strange name."""
    base = member.name.rsplit("/", 1)[-1]
    if not member.regular or "/index/" in member.name or not base.endswith(_ENDINGS):
        return None
    if not _WANTED.match(base):
        raise _not_whole(size, name, f"the name {printable(base[:_LONGEST_WORDS])} is not of a server's file")
    return base


def _prove_end(rest: bytes, name: str, end: int, size: int) -> None:
    if rest.strip(b"\0"):
        words = rest.strip(b"\0")[:_LONGEST_WORDS].decode("utf-8", "replace")
        raise _not_whole(size, name, f"behind its files stands {printable(words)}")
    if size - end > _BLOCK:
        raise _not_whole(size, name, f"behind its files stand {size - end} bytes more")
    if size - end < 2 * RECORD:
        raise _not_whole(size, name, "its end is missing")


def _not_whole(size: int, name: str, what: str) -> IncompleteReadError:
    return IncompleteReadError(
        f"The copy of {name} ({size} bytes) is not whole: {what}.",
        hint="The server's log may say why.",
        kind="shard-copy",
    )
