"""One TSM file: its index as arrays, and the proof that every block is as it was written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
from influxdb_backup.influx.tsm.jit import kernel
from influxdb_backup.model import decode_name, printable

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

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
    The index of one file; keys ascend. Key ``k`` has the blocks ``first_block[k]`` to ``first_block[k + 1]``.

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
def _count_index(data: U8, at: int, stop: int) -> tuple[int, int, int]:
    """Keys, blocks and the place up to which the index is whole."""
    keys, blocks = 0, 0
    while at < stop:
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
    data: U8, at: int, keys: int, index_start: int, mark: U8, key_table: I64, first_block: I64, blocks: I64
) -> tuple[int, int]:
    """Fills the tables (columns as in TsmIndex); the number of the first bad key and what is wrong with it, or -1."""
    number = 0
    following = HEADER_BYTES
    for key in range(keys):
        size = (int(np.int64(data[at])) << 8) | int(np.int64(data[at + 1]))
        head = at + 2 + size
        count = (int(np.int64(data[head + 1])) << 8) | int(np.int64(data[head + 2]))
        key_table[0, key] = at + 2
        key_table[1, key] = size
        key_table[2, key] = _separator(data, at + 2, size, mark)
        key_table[3, key] = int(np.int64(data[head]))
        if key_table[2, key] <= 0:
            return key, 1
        if key > 0 and not _ascends(data, key_table[0, key - 1], key_table[1, key - 1], at + 2, size):
            return key, 2
        first_block[key] = number
        entry = head + 3
        for _ in range(count):
            blocks[0, number] = np.int64(get_u64(data, entry))
            blocks[1, number] = np.int64(get_u64(data, entry + 8))
            blocks[2, number] = np.int64(get_u64(data, entry + 16))
            blocks[3, number] = get_u32(data, entry + 24)
            place, length = blocks[2, number], blocks[3, number]
            if blocks[0, number] > blocks[1, number]:
                return key, 3
            if place != following or length < _SMALLEST_BLOCK or length > index_start - place:
                return key, 4
            if data[place + CRC_BYTES] != key_table[3, key]:
                return key, 5
            following = place + length
            entry += ENTRY_BYTES
            number += 1
        at = entry
    first_block[keys] = number
    if following != index_start:
        return max(keys - 1, 0), 6
    return -1, 0


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


def read_index(name: str, data: U8) -> TsmIndex:
    """
    Reads and checks the index of a file, and the checksum of every block, which ``damaged`` tells.

    Raises CorruptShardError naming ``name`` when the index cannot be right.
    """
    if len(data) < HEADER_BYTES + FOOTER_BYTES or get_u32(data, 0) != MAGIC or data[4] != VERSION:
        raise corrupt(name, "it does not begin as a TSM file of version 1 does", place=0)
    stop = len(data) - FOOTER_BYTES
    start = int(get_u64(data, stop))
    if not HEADER_BYTES <= start <= stop:
        raise corrupt(name, "its index begins outside of the file", place=stop)
    keys, blocks, whole = _count_index(data, start, stop)
    if whole != stop:
        raise corrupt(name, "its index cannot be read", place=whole)
    key_table = np.empty((4, keys), np.int64)
    first_block = np.zeros(keys + 1, np.int64)
    block_table = np.empty((4, blocks), np.int64)
    mark = np.frombuffer(SEPARATOR, np.uint8)
    bad, wrong = _read_index(data, start, keys, start, mark, key_table, first_block, block_table)
    key_at, key_size, separators, kinds = key_table
    if bad >= 0:
        at, size = (int(key_at[bad]), int(key_size[bad])) if keys else (start, 0)
        raise corrupt(name, _WRONG[wrong], key=data[at : at + size].tobytes(), place=at)
    flags = np.zeros(blocks, np.uint8)
    _bad_checksums(data, block_table[2], block_table[3], flags)
    damaged = np.flatnonzero(flags)
    low, high, places, sizes = block_table
    return TsmIndex(name, data, key_at, key_size, separators, kinds, first_block, low, high, places, sizes, damaged)
