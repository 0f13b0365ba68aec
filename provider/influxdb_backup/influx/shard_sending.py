"""The archive in which a server takes the files of a shard."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_BLOCK = 1 << 20


def archive_size(files: Sequence[Path], folder: str) -> int:
    """Bytes that ``archive_chunks`` gives."""
    return sum(len(_header(file, folder)) + _padded(file.stat().st_size) for file in files) + 2 * tarfile.BLOCKSIZE


def archive_chunks(files: Sequence[Path], folder: str) -> Iterator[bytes]:
    """The files as a tar archive, each under ``folder`` and its own name."""
    for file in files:
        yield _header(file, folder)
        size = file.stat().st_size
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block
        yield b"\0" * (_padded(size) - size)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _header(file: Path, folder: str) -> bytes:
    entry = tarfile.TarInfo(f"{folder}/{file.name}")
    entry.size = file.stat().st_size
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
