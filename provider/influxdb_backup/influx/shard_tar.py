"""
The archive in which a server sends a shard: spooled to disk, and proved to be whole.

The status of a reply proves nothing: it is sent before the files are opened. An error in the middle cuts the archive
or is appended to it (2.9.1), so its end has to be the two empty records with nothing but empty bytes behind them.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from pathlib import Path

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.shard_door import SpooledFile
from influxdb_backup.model import printable

_BLOCK = 1 << 20
_WANTED = re.compile(r"\d+-\d+\.(tsm|tombstone)\Z")
_LONGEST_WORDS = 300


def spool(read: Callable[[int], bytes], path: Path, first: bytes = b"") -> None:
    """Writes everything that ``read`` gives to a new file. Raises IncompleteReadError when the disk is full."""
    try:
        with path.open("wb") as file:
            file.write(first)
            while block := read(_BLOCK):
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
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                end = member.offset_data + (-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
                if member.isdir():
                    end = member.offset_data
                base = member.name.rsplit("/", 1)[-1]
                if member.isreg() and "/index/" not in member.name and _WANTED.match(base):
                    files.append(SpooledFile(base, path, member.offset_data, member.size))
    except (tarfile.TarError, ValueError) as error:
        raise _not_whole(path, name, f"it is no archive ({printable(str(error))})") from error
    if end > size:
        raise _not_whole(path, name, "it ends inside of a file")
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
    if size - end < 2 * tarfile.BLOCKSIZE:
        raise _not_whole(path, name, "its end is missing")


def _not_whole(path: Path, name: str, what: str) -> IncompleteReadError:
    return IncompleteReadError(
        f"The copy of {name} ({path.stat().st_size} bytes) is not whole: {what}.",
        hint="The server's log may say why.",
        kind="shard-copy",
    )
