"""Deleted ranges, which stand beside a file and of which the servers' own restores know nothing."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.tsm.deleted import clip_ranges, join_ranges, walk_entries, walk_lines
from influxdb_backup.influx.tsm.format import MAX_KEY_BYTES, SEPARATOR
from influxdb_backup.influx.tsm.index import TsmIndex, corrupt

I64 = npt.NDArray[np.int64]

_HEADER_BYTES = 4
_V2, _V3, _V4 = 0x1502, 0x1503, 0x1504
_PIECE = 1 << 20
"""plain bytes that are held at once"""
_COMPRESSED_PIECE = 1 << 14
_SMALLEST_ENTRY = 20
_PENDING = 1 << 21
"""ranges that are collected before they are joined"""
MOST_RANGES = 1 << 24
"""ranges that remain of one file when they are joined: each takes 16 bytes here, and far more in the server's memory"""


@dataclass(frozen=True)
class DeletedRanges:
    """
    What is deleted of one file: key ``k`` has the ranges ``first[k]`` to ``first[k + 1]``, apart and ascending.

    ``low`` and ``high`` are the first and last deleted instants (ns, both deleted), within the times of the key.
    """

    first: I64
    low: I64
    high: I64


def read_tombstones(name: str, data: bytes | npt.NDArray[np.uint8], index: TsmIndex) -> DeletedRanges | None:
    """
    What a tombstone file of any version deletes from the file it belongs to, whose index is given; None: nothing.

    Version 1 has no header and a key in each line; 2 has entries, 3 and 4 the same compressed (4: in several members).
    Keys that the file does not have are left out. Raises CorruptShardError.
    """
    view = data.data if isinstance(data, np.ndarray) else memoryview(data)
    version = int.from_bytes(view[:_HEADER_BYTES], "big")
    if version >> 8 == _V2 >> 8 and version not in (_V2, _V3, _V4):
        raise corrupt(name, "it has a version that is not known", place=0)
    if len(index.kinds) == 0 or len(view) == 0:
        return None
    found = _Ranges(name, index)
    if version in (_V2, _V3, _V4):
        pieces = _plain(view[_HEADER_BYTES:]) if version == _V2 else _decompressed(name, view)
        _walk(name, pieces, found, "" if version == _V2 else "byte {} of its plain entries: ")
    else:
        _walk_lines(name, _plain(view), found)
    return found.result()


class _Ranges:
    """Collects ranges; never holds more than about twice what remains of them when they are joined."""

    def __init__(self, name: str, index: TsmIndex) -> None:
        self._name = name
        self.index = index
        self._pending: list[tuple[I64, I64, I64]] = []
        self._size = 0
        self._joined = 0
        starts = index.first_block[:-1]
        self._lowest = np.minimum.reduceat(index.block_min, starts)
        self._highest = np.maximum.reduceat(index.block_max, starts)

    def add(self, keys: I64, low: I64, high: I64) -> None:
        """Ranges of these keys of the file."""
        count = clip_ranges(keys, low, high, self._lowest, self._highest)
        if not count:
            return
        self._pending.append((keys[:count].copy(), low[:count].copy(), high[:count].copy()))
        self._size += count
        if self._size > max(_PENDING, 2 * self._joined):
            self._join()

    def _join(self) -> None:
        keys, low, high = (np.concatenate(columns) for columns in zip(*self._pending, strict=True))
        self._pending = []
        if np.any((keys[1:] < keys[:-1]) | ((keys[1:] == keys[:-1]) & (low[1:] < low[:-1]))):
            order = np.lexsort((low, keys))
            keys, low, high = keys[order], low[order], high[order]
        count = join_ranges(keys, low, high)
        if count > MOST_RANGES:
            raise corrupt(self._name, f"it deletes more than {MOST_RANGES:,} separate ranges")
        self._pending = [(keys[:count].copy(), low[:count].copy(), high[:count].copy())]
        self._size = self._joined = count

    def result(self) -> DeletedRanges | None:
        """All of them by key."""
        if not self._pending:
            return None
        self._join()
        ((keys, low, high),) = self._pending
        counts = np.bincount(keys, minlength=len(self.index.kinds))
        return DeletedRanges(np.append(0, np.cumsum(counts)).astype(np.int64), low, high)


def _plain(data: memoryview) -> Iterator[tuple[bytes, bool]]:
    """Pieces, and whether an entry has to end with the piece."""
    for at in range(0, len(data), _PIECE):
        yield bytes(data[at : at + _PIECE]), at + _PIECE >= len(data)


def _decompressed(name: str, data: memoryview) -> Iterator[tuple[bytes, bool]]:
    at = _HEADER_BYTES
    while at < len(data):
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        begin = at
        while not member.eof:
            given = data[at : at + _COMPRESSED_PIECE]
            try:
                piece = member.decompress(given, _PIECE)
            except zlib.error as error:
                raise corrupt(name, f"its compressed entries cannot be read ({error})", place=at) from error
            at += len(given) - len(member.unconsumed_tail) - len(member.unused_data)
            if not member.eof and not piece and at >= len(data):
                raise corrupt(name, "its compressed entries end too soon", place=begin)
            yield piece, member.eof


def _walk(name: str, pieces: Iterator[tuple[bytes, bool]], found: _Ranges, inside: str) -> None:
    index, rest, begin = found.index, b"", 0 if inside else _HEADER_BYTES
    guess = 0
    for piece, ends in pieces:
        data = rest + piece
        keys, low, high = np.empty((3, len(data) // _SMALLEST_ENTRY), np.int64)
        at, count, guess = walk_entries(
            np.frombuffer(data, np.uint8), index.data, index.key_at, index.key_size, guess, keys, low, high
        )
        found.add(keys[:count], low[:count], high[:count])
        rest = data[at:]
        length = int.from_bytes(rest[:4], "big")
        place, where = (None, inside.format(begin + at)) if inside else (begin + at, "")
        if len(rest) >= 4 and length > MAX_KEY_BYTES:
            raise corrupt(name, f"{where}an entry's key has {length} bytes, and no key has that many", place=place)
        if ends and rest:
            raise corrupt(name, f"{where}an entry ends too soon", place=place)
        begin += at


def _walk_lines(name: str, pieces: Iterator[tuple[bytes, bool]], found: _Ranges) -> None:
    index, rest, begin, guess = found.index, b"", 0, 0
    mark = np.frombuffer(SEPARATOR, np.uint8)
    for piece, ends in pieces:
        data = rest + piece + (b"\n" if ends else b"")
        keys, low, high = np.empty((3, len(data) // (len(mark) + 1) + 1), np.int64)
        at, count, guess, bad = walk_lines(
            np.frombuffer(data, np.uint8), index.data, index.key_at, index.key_size, mark, guess, keys, low, high
        )
        rest = data[at:]
        if bad or len(rest) > MAX_KEY_BYTES + 1:
            raise corrupt(name, "a line is no key of a field", place=begin + at)
        found.add(keys[:count], low[:count], high[:count])
        begin += at
