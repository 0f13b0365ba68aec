"""
The archive in which a server sends a shard: spooled to disk, and proved to be whole.

The status of a reply proves nothing: it is sent before the files are opened. An error in the middle cuts the archive
or is appended to it (2.9.1), so its end has to be the two empty records with nothing but empty bytes behind them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.shard_door import SpooledFile
from influxdb_backup.influx.tar import RECORD, TarError, members
from influxdb_backup.model import printable

_BLOCK = 1 << 20
_SEEN_BYTES = 8 << 20
"""written between two looks at the disk"""
_LEFT_BYTES = 32 << 20
"""that stay free for the parts"""
_ENDINGS = (".tsm", ".tombstone")
_WANTED = re.compile(r"[0-9]{1,19}-[0-9]{1,19}\.(tsm|tombstone)\Z")
_LONGEST_WORDS = 300


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
                base = member.name.rsplit("/", 1)[-1]
                if not member.regular or "/index/" in member.name or not base.endswith(_ENDINGS):
                    continue
                if not _WANTED.match(base):
                    raise _not_whole(
                        path, name, f"the name {printable(base[:_LONGEST_WORDS])} is not of a server's file"
                    )
                files.append(SpooledFile(base, path, member.offset, member.size))
    except TarError as error:
        raise _not_whole(path, name, str(error)) from error
    _prove_end(path, name, end, size)
    if len({file.name for file in files}) < len(files):
        raise _not_whole(path, name, "it names a file twice")
    return tuple(files)


def _prove_end(path: Path, name: str, end: int, size: int) -> None:
    with path.open("rb") as file:
        file.seek(end)
        rest = file.read(_BLOCK)
    if rest.strip(b"\0"):
        words = rest.strip(b"\0")[:_LONGEST_WORDS].decode("utf-8", "replace")
        raise _not_whole(path, name, f"behind its files stands {printable(words)}")
    if size - end > _BLOCK:
        raise _not_whole(path, name, f"behind its files stand {size - end} bytes more")
    if size - end < 2 * RECORD:
        raise _not_whole(path, name, "its end is missing")


def _not_whole(path: Path, name: str, what: str) -> IncompleteReadError:
    return IncompleteReadError(
        f"The copy of {name} ({path.stat().st_size} bytes) is not whole: {what}.",
        hint="The server's log may say why.",
        kind="shard-copy",
    )
