"""The reject file: the lines that a server refused, each under a comment with the reason; zstd."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import zstandard

from influxdb_backup.model import printable

REASON_CHARACTERS = 400
"""A server may repeat the whole refused line in its answer."""


class RejectFile:
    """
    Appends refused lines to a file, which is created at the first of them. Thread-safe.

    Every refused line is flushed to the file before ``add`` returns, so that a killed process leaves a file
    that can be read to its last line. An existing file is continued, never overwritten. A comment line
    ``# <reason>`` stands above each line: the file is line protocol as it is, to be corrected and written.
    """

    def __init__(self, path: Path | None) -> None:
        """``path`` None: a new file in the system's folder for temporary files."""
        self._wanted = path
        self._lock = Lock()
        self._file: BinaryIO | None = None
        self._path: Path | None = None

    @property
    def path(self) -> Path | None:
        """Where the file is; None while nothing was refused."""
        return self._path

    def add(self, line: bytes, reason: str) -> None:
        """Appends one line (with its newline) and the server's reason."""
        comment = f"# {printable(reason)[:REASON_CHARACTERS]}\n".encode()
        frame = zstandard.ZstdCompressor().compress(comment + line)
        with self._lock:
            if self._file is None:
                self._file = self._open()
            self._file.write(frame)
            self._file.flush()

    def _open(self) -> BinaryIO:
        if self._wanted is None:
            descriptor, name = tempfile.mkstemp(prefix="influxdb-backup-rejects-", suffix=".lp.zst")
            self._path = Path(name)
            return os.fdopen(descriptor, "ab")
        self._wanted.parent.mkdir(parents=True, exist_ok=True)
        self._path = self._wanted
        return self._wanted.open("ab")

    def close(self) -> None:
        """Makes the file durable and closes it; a file that was never needed does not exist."""
        with self._lock:
            if self._file is not None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None


def read_reject_file(path: Path) -> Iterator[bytes]:
    """The decompressed content in blocks."""
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as reader:
        while block := reader.read(2**16):
            yield block
