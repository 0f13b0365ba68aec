"""
One TSM file: its index as arrays, a stretch of keys at a time, and the proof that every block is as it was written.

An index may have tens of millions of keys, so only marks in it are kept; what lies between them is read when asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

try:
    from isal.isal_zlib import crc32 as crc32_of
except ImportError:  # where numba was installed without the rest of the extra
    from zlib import crc32 as crc32_of

from influxdb_backup.errors import SourceError
from influxdb_backup.influx.tsm.checksum import crc32
from influxdb_backup.influx.tsm.decode_words import get_u32, get_u64
from influxdb_backup.influx.tsm.format import (
    CRC_BYTES,
    ENTRY_BYTES,
    FOOTER_BYTES,
    HEADER_BYTES,
    MAGIC,
    SEPARATOR,
    VERSION,
)
from influxdb_backup.jit import kernel
from influxdb_backup.model import decode_name, printable
from influxdb_backup.resident import let_go_of_file

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_WORTH_A_THREAD = 1 << 22
"""bytes of blocks whose checksums are computed by two threads"""
_WORTH_A_CALL = 1 << 10
"""bytes of a block, on average, from which on a call of the library is faster than the loop"""
_MAPPED_BYTES = 16 << 20
"""bytes of blocks that are looked at before the file's pages are let go of"""
MARK_KEYS = 1 << 12
"""keys from one mark to the next"""
_SMALLEST_BLOCK = CRC_BYTES + 3
_HIGHEST_TYPE = 4


class CorruptShardError(SourceError):
    """A file of a shard is damaged: the message names the file, the key where one is known, and the place."""


def corrupt(file: str, what: str, *, key: bytes = b"", place: int | None = None) -> CorruptShardError:
    """The error for one place of one file."""
    named = f", series {printable(decode_name(key))}" if key else ""
    where = f", at byte {place}" if place is not None else ""
    return CorruptShardError(
        f"The server's own file {file} is damaged{named}{where}: {what}.",
        kind="source-damaged",
        hint="Queries serve what stands there as if it were right: restore that range from an older backup. "
        "With reader: query the plan backs up what the server still answers.",
    )


@dataclass(frozen=True)
class TsmIndex:
    """
    The index of one file, or a stretch of it; keys ascend, and keys and blocks are numbered from its beginning on.

    Key ``k`` has the blocks ``first_block[k]`` to ``first_block[k + 1]``.

    Places and sizes are bytes in ``data``; times are ns; ``kinds`` are BlockType numbers; ``separators`` is the place
    in each key where series and field part.
    """

    name: str
    data: U8
    key_at: I64
    key_size: I64
    separators: I64
    kinds: I64
    first_block: I64
    block_min: I64
    block_max: I64
    block_at: I64
    block_size: I64
    damaged: I64
    """numbers of the blocks whose checksum differs, ascending"""

    def key(self, number: int) -> bytes:
        """The composite key."""
        at = int(self.key_at[number])
        return self.data[at : at + int(self.key_size[number])].tobytes()

    def block_error(self, number: int, what: str) -> CorruptShardError:
        """The error for one block."""
        key = int(np.searchsorted(self.first_block, number, side="right")) - 1
        low, high = int(self.block_min[number]), int(self.block_max[number])
        return corrupt(
            self.name,
            f"the block with the times {low} to {high} ns {what}",
            key=self.key(key),
            place=int(self.block_at[number]),
        )


@kernel
def _count_index(data: U8, at: int, stop: int, most: int) -> tuple[int, int, int]:
    """Keys, ``most`` at most, their blocks, and the place up to which the index is whole."""
    keys, blocks = 0, 0
    while at < stop and keys < most:
        if at + 2 > stop:
            return keys, blocks, at
        size = (int(np.int64(data[at])) << 8) | int(np.int64(data[at + 1]))
        head = at + 2 + size
        if head + 3 > stop:
            return keys, blocks, at
        count = (int(np.int64(data[head + 1])) << 8) | int(np.int64(data[head + 2]))
        if head + 3 + count * ENTRY_BYTES > stop or count == 0 or size == 0 or data[head] > _HIGHEST_TYPE:
            return keys, blocks, at
        keys += 1
        blocks += count
        at = head + 3 + count * ENTRY_BYTES
    return keys, blocks, at


@kernel
def _seek(data: U8, at: int, stop: int, wanted: U8) -> tuple[int, int, int]:
    """From the key at ``at`` on: how many keys and blocks come before ``wanted``, and where the first other begins."""
    keys, blocks = 0, 0
    while at < stop:
        size = (int(np.int64(data[at])) << 8) | int(np.int64(data[at + 1]))
        position, shared = 0, min(size, len(wanted))
        while position < shared and data[at + 2 + position] == wanted[position]:
            position += 1
        if position == len(wanted) or (position < shared and data[at + 2 + position] > wanted[position]):
            break
        head = at + 2 + size
        count = (int(np.int64(data[head + 1])) << 8) | int(np.int64(data[head + 2]))
        keys += 1
        blocks += count
        at = head + 3 + count * ENTRY_BYTES
    return keys, blocks, at


@kernel
def _ascends(data: U8, first: int, first_size: int, second: int, second_size: int) -> bool:
    for position in range(min(first_size, second_size)):
        if data[first + position] != data[second + position]:
            return bool(data[first + position] < data[second + position])
    return first_size < second_size


@kernel
def _separator(data: U8, at: int, size: int, mark: U8) -> int:
    for position in range(size - len(mark) + 1):
        found = True
        for step in range(len(mark)):
            if data[at + position + step] != mark[step]:
                found = False
                break
        if found:
            return position
    return -1


@kernel
def _read_index(
    data: U8,
    at: int,
    keys: int,
    index_start: int,
    following: int,
    mark: U8,
    key_table: I64,
    first_block: I64,
    blocks: I64,
) -> tuple[int, int, int]:
    """
    Fills the tables (columns as in TsmIndex) from ``at`` on, where the next block stands at ``following``.

    Returns the number of the first bad key and what is wrong with it, or -1; and where the block after these stands.
    """
    number = 0
    for key in range(keys):
        size = (int(np.int64(data[at])) << 8) | int(np.int64(data[at + 1]))
        head = at + 2 + size
        count = (int(np.int64(data[head + 1])) << 8) | int(np.int64(data[head + 2]))
        key_table[0, key] = at + 2
        key_table[1, key] = size
        key_table[2, key] = _separator(data, at + 2, size, mark)
        key_table[3, key] = int(np.int64(data[head]))
        if key_table[2, key] <= 0:
            return key, 1, following
        if key > 0 and not _ascends(data, key_table[0, key - 1], key_table[1, key - 1], at + 2, size):
            return key, 2, following
        first_block[key] = number
        entry = head + 3
        for _ in range(count):
            blocks[0, number] = np.int64(get_u64(data, entry))
            blocks[1, number] = np.int64(get_u64(data, entry + 8))
            blocks[2, number] = np.int64(get_u64(data, entry + 16))
            blocks[3, number] = get_u32(data, entry + 24)
            place, length = blocks[2, number], blocks[3, number]
            if blocks[0, number] > blocks[1, number]:
                return key, 3, following
            if place != following or length < _SMALLEST_BLOCK or length > index_start - place:
                return key, 4, following
            following = place + length
            entry += ENTRY_BYTES
            number += 1
        at = entry
    first_block[keys] = number
    return -1, 0, following


_WRONG = {
    1: "its key has no field",
    2: "its key is not in order",
    3: "a block ends before it begins",
    4: "a block does not follow the one before it",
    5: "a block has another type than its key",
    6: "behind its last block stands something else than the index",
}


@kernel
def _bad_checksums(data: U8, places: I64, sizes: I64, bad: U8) -> None:
    for number in range(len(places)):
        at = places[number]
        if crc32(data, at + CRC_BYTES, at + sizes[number]) != get_u32(data, at):
            bad[number] = 1


def stretches_to_map(sizes: I64) -> Iterator[tuple[int, int]]:
    """Where blocks of these sizes are cut, so that after each stretch its pages can be let go of."""
    shares = np.cumsum(sizes) // _MAPPED_BYTES
    return pairwise([0, *(np.flatnonzero(np.diff(shares)) + 1).tolist(), len(sizes)])


def _damaged(index: TsmIndex) -> I64:
    """
    The blocks whose checksum differs, which stand one behind the other. A file's pages are read once for all proofs.

    Raises CorruptShardError for a block of another type than its key.
    """
    places, sizes = index.block_at, index.block_size
    kinds = np.repeat(index.kinds, np.diff(index.first_block))
    found = []
    for first, last in stretches_to_map(sizes):
        found.append(_damaged_among(index.data, places[first:last], sizes[first:last]) + first)
        others = np.flatnonzero(index.data[places[first:last] + CRC_BYTES] != kinds[first:last])
        if len(others):
            key = int(np.searchsorted(index.first_block, first + others[0], side="right")) - 1
            raise _wrong(index.name, index.data, int(index.key_at[key]), int(index.key_size[key]), 5)
        if last > first:
            let_go_of_file(index.data[places[first] : places[last - 1] + sizes[last - 1]])
    return np.concatenate(found)


def _damaged_among(data: U8, places: I64, sizes: I64) -> I64:
    """The numbers of these blocks whose checksum differs; two threads look at many small ones."""
    if sizes.sum() >= _WORTH_A_CALL * max(1, len(sizes)):
        return _damaged_long(data, places, sizes)
    flags = np.zeros(len(places), np.uint8)
    half = len(places) // 2
    if sizes.sum() < _WORTH_A_THREAD:
        _bad_checksums(data, places, sizes, flags)
    else:
        with ThreadPoolExecutor(1, thread_name_prefix="checksums") as pool:
            other = pool.submit(_bad_checksums, data, places[half:], sizes[half:], flags[half:])
            _bad_checksums(data, places[:half], sizes[:half], flags[:half])
            other.result()
    return np.flatnonzero(flags).astype(np.int64)


def _damaged_long(data: U8, places: I64, sizes: I64) -> I64:
    """The same by a library, for blocks that are worth a call: isal takes a fifth of the time of the compiled loop."""
    whole: memoryview = data.data
    bounds = zip((places + CRC_BYTES).tolist(), (places + sizes).tolist(), strict=True)
    found = np.array([crc32_of(whole[start:stop]) for start, stop in bounds], np.int64)
    written = data[places[:, None] + np.arange(CRC_BYTES)].view(">u4")[:, 0]
    return np.flatnonzero(found != written).astype(np.int64)


@dataclass(frozen=True)
class Mark:
    """A place in the index of a file: where a key begins, or the end; what comes before, and where its block stands."""

    at: int
    keys: int
    blocks: int
    block_at: int


@dataclass(frozen=True)
class TsmFile:
    """A file whose index and checksums were checked. ``marks`` go from the first key to the end."""

    name: str
    data: U8
    marks: tuple[Mark, ...]
    damaged: I64
    """numbers of the blocks whose checksum differs, ascending"""

    @property
    def keys(self) -> int:
        """How many keys it has."""
        return self.marks[-1].keys

    def key(self, mark: Mark) -> bytes:
        """The composite key that begins at a mark."""
        size = int.from_bytes(self.data[mark.at : mark.at + 2].tobytes(), "big")
        return self.data[mark.at + 2 : mark.at + 2 + size].tobytes()

    def seek(self, key: bytes) -> Mark:
        """The place of the first key that is not before ``key``."""
        before = self.marks[max(0, bisect_right(self.marks[:-1], key, key=self.key) - 1)]
        end = self.marks[-1]
        keys, blocks, at = _seek(self.data, before.at, end.at, np.frombuffer(key, np.uint8))
        if at == end.at:
            return end
        place = at + 2 + int.from_bytes(self.data[at : at + 2].tobytes(), "big") + 3 + 16
        return Mark(at, before.keys + keys, before.blocks + blocks, int(get_u64(self.data, place)))

    def index(self, first: Mark, last: Mark) -> TsmIndex:
        """The keys from one mark to before another."""
        found, _ = _stretch(self.name, self.data, first, last.keys - first.keys, last.blocks - first.blocks)
        inside = slice(*np.searchsorted(self.damaged, [first.blocks, last.blocks]).tolist())
        return replace(found, damaged=self.damaged[inside] - first.blocks)

    def damages(self) -> Iterator[tuple[int, int, CorruptShardError]]:
        """For each damaged block the first and last time it should have, and its error."""
        for first, last in pairwise(self.marks):
            inside = self.damaged[(self.damaged >= first.blocks) & (self.damaged < last.blocks)]
            if len(inside):
                index = self.index(first, last)
                for number in (inside - first.blocks).tolist():
                    error = index.block_error(number, "has another checksum than was written")
                    yield int(index.block_min[number]), int(index.block_max[number]), error


def _stretch(name: str, data: U8, first: Mark, keys: int, blocks: int) -> tuple[TsmIndex, int]:
    """So many keys from a mark on, and where the block after theirs stands. Raises CorruptShardError."""
    key_table = np.empty((4, keys), np.int64)
    first_block = np.zeros(keys + 1, np.int64)
    block_table = np.empty((4, blocks), np.int64)
    start = int(get_u64(data, len(data) - FOOTER_BYTES))
    mark = np.frombuffer(SEPARATOR, np.uint8)
    bad, wrong, following = _read_index(
        data, first.at, keys, start, first.block_at, mark, key_table, first_block, block_table
    )
    key_at, key_size, separators, kinds = key_table
    if bad >= 0:
        raise _wrong(name, data, int(key_at[bad]), int(key_size[bad]), wrong)
    low, high, places, sizes = block_table
    none = np.empty(0, np.int64)
    index = TsmIndex(name, data, key_at, key_size, separators, kinds, first_block, low, high, places, sizes, none)
    return index, following


def _wrong(name: str, data: U8, at: int, size: int, what: int) -> CorruptShardError:
    return corrupt(name, _WRONG[what], key=data[at : at + size].tobytes(), place=at)


def open_file(name: str, data: U8) -> TsmFile:
    """
    Checks the index of a file, and the checksum of every block, which ``damaged`` tells.

    Raises CorruptShardError naming ``name`` when the index cannot be right.
    """
    if len(data) < HEADER_BYTES + FOOTER_BYTES or get_u32(data, 0) != MAGIC or data[4] != VERSION:
        raise corrupt(name, "it does not begin as a TSM file of version 1 does", place=0)
    stop = len(data) - FOOTER_BYTES
    start = int(get_u64(data, stop))
    if not HEADER_BYTES <= start <= stop:
        raise corrupt(name, "its index begins outside of the file", place=stop)
    here, marks, damaged = Mark(start, 0, 0, HEADER_BYTES), [], []
    before: tuple[int, int] | None = None
    while here.at < stop:
        keys, blocks, whole = _count_index(data, here.at, stop, MARK_KEYS)
        if keys < MARK_KEYS and whole != stop:
            raise corrupt(name, "its index cannot be read", place=whole)
        index, following = _stretch(name, data, here, keys, blocks)
        own = int(index.key_at[0]), int(index.key_size[0])
        if before is not None and not _ascends(data, *before, *own):
            raise _wrong(name, data, *own, 2)
        before = int(index.key_at[-1]), int(index.key_size[-1])
        damaged.append(_damaged(index) + here.blocks)
        marks.append(here)
        let_go_of_file(data[here.at : whole])
        here = Mark(whole, here.keys + keys, here.blocks + blocks, following)
    if here.block_at != start:
        raise _wrong(name, data, *(before or (start, 0)), 6)
    found = np.concatenate([np.empty(0, np.int64), *damaged]).astype(np.int64)
    return TsmFile(name, data, (*marks, here), found)


def read_index(name: str, data: U8) -> TsmIndex:
    """
    The whole index of a file.

    Raises CorruptShardError naming ``name`` when the index cannot be right.
    """
    file = open_file(name, data)
    return file.index(file.marks[0], file.marks[-1])
