"""From the chunks of tables to the sorted, typed cells of one TSM file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.influx.pooled import pooled_bytes
from influxdb_backup.influx.tsm.encode_series import put_pool, series_order
from influxdb_backup.influx.tsm.format import BlockType
from influxdb_backup.influx.tsm.writing import TableRows, TsmWriter
from influxdb_backup.model import InfluxType, encode_name

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_KINDS = {
    InfluxType.FLOAT: BlockType.FLOAT,
    InfluxType.INTEGER: BlockType.INTEGER,
    InfluxType.BOOLEAN: BlockType.BOOLEAN,
    InfluxType.STRING: BlockType.STRING,
    InfluxType.UNSIGNED: BlockType.UNSIGNED,
}
_KEY_COPIES = 8
_MUCH_BYTES = 32 << 20
"""of texts that were moved, after which memory is given back: that and taking it again costs more than moving"""
_WORTH_A_THREAD = 1 << 18
"""cells of a table from which on two threads write it"""
_LED_FROM_SERIES = 10_000
_LED_FROM_FIELDS = 5
"""
Series and fields of a table from which on one field introduces the series. The servers' index takes keys in their
order, 2.9.1 10,000 at a time with some 70 calls of fsync for each lot that has new series: 100,000 series of 10 fields
cost it 5.4 s, and 3.6 s when each series comes first in 10 lots and the other 90 bring none (1.6.7: 3.7 and 2.5 s;
1.12.4: 3.8 and 3.3 s). With 3 fields nothing is gained.
"""
_LARGEST_LENGTH = 5
"""bytes that the length of a string may take in a block"""
_SMALLEST_SHARE = 8
"""of all cells of a file that makes a table a large one"""


@dataclass(frozen=True)
class Chunk:
    """
    One batch's points: times, the series of each row, the keys of those series, and the fields that have values.

    ``keys`` is None once they were put together with those of other chunks.
    """

    times: I64
    series: I64
    keys: Any
    fields: tuple[tuple[str, Any], ...]

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about; keys take several times theirs while they are sorted."""
        size = 16 * len(self.times) + _KEY_COPIES * self.keys.nbytes
        for _, array in self.fields:
            size += (9 if array.null_count else 8) * len(array) + (2 * array.nbytes if _is_text(array) else 0)
        return int(size)


def _fresh(words: int) -> U64:
    """
    Memory in pages of the smallest size: a table of many fields touches a place here and there, of which each would
    have a huge page.
    """
    memory = mmap.mmap(-1, 8 * words)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint64)


@dataclass
class SpareCells:
    """
    Memory of cells that are in files by now, for the next ones: fresh memory costs more than filling it.

    A table that is large takes ``words`` at once, so that it need not move when it grows; what it does not use is no
    memory yet. One such piece is kept.
    """

    words: int
    _kept: U64 | None = None

    def take(self, count: int) -> U64:
        """So many words or more, of any content."""
        if not self.words // _SMALLEST_SHARE < count <= self.words:
            return np.empty(count, np.uint64)
        taken, self._kept = self._kept, None
        return _fresh(self.words) if taken is None else taken

    def give(self, words: U64) -> None:
        """Takes words that nobody uses any more."""
        if len(words) == self.words:
            self._kept = words


@dataclass(frozen=True)
class _Held:
    """One field of a chunk whose numbers are cells by now: texts wait for their file, of numbers the nulls are left."""

    values: int
    valid: Any
    """whether each row has it; None: all have"""
    texts: Any = None


@dataclass(frozen=True)
class HeldChunk:
    """What is left of a chunk whose numbers are cells."""

    times: I64
    series: I64
    keys: Any
    fields: dict[str, _Held]


@dataclass
class Table:
    """
    What was added of one measurement: the type of each field ever, and the points that are in no file yet.

    ``leading`` is the field that introduces the series in files of its own, None when none does. It is chosen with the
    first file and stays: a server that numbers files as they come must find the values of a key in their order.
    """

    types: dict[str, InfluxType] = field(default_factory=dict)
    leading: str | None = None
    begun: bool = False
    rows: int = 0
    """that are in no file yet"""
    chunks: list[HeldChunk] = field(default_factory=list)
    _words: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    _cells: U64 = field(default_factory=lambda: np.empty((0, 0), np.uint64))
    """of ``_words``: a line for each field, a place for each row, with room for more of both"""
    _lines: dict[str, int] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        """That are in no file yet: one for each row and field, also of rows that lack the field."""
        return self.rows * len(self._lines)

    def cells_with(self, chunk: Chunk) -> int:
        """As ``cells``, once the chunk was added."""
        new = sum(name not in self._lines for name, _ in chunk.fields)
        return (self.rows + len(chunk.times)) * (len(self._lines) + new)

    def add(self, chunk: Chunk, spare: SpareCells) -> None:
        """Takes the points of a chunk, whose numbers are copied."""
        until = self.rows + len(chunk.times)
        for name, _ in chunk.fields:
            self._lines.setdefault(name, len(self._lines))
        self._make_room(until, spare)
        held = {}
        for name, array in chunk.fields:
            text = _is_text(array)
            if not text:
                self._cells[self._lines[name], self.rows : until] = _bits(array)
            valid = array.is_valid() if array.null_count else None
            held[name] = _Held(len(array) - array.null_count, valid, array if text else None)
        self.chunks.append(HeldChunk(chunk.times, chunk.series, chunk.keys, held))
        self.rows = until

    def _make_room(self, rows: int, spare: SpareCells) -> None:
        lines, places = self._cells.shape
        if len(self._lines) <= lines and rows <= places:
            return
        before, old = self._cells, self._words
        more = lines if len(self._lines) <= lines else lines + lines // 2
        lines = max(len(self._lines), min(more, max(spare.words, len(old)) // rows))
        if lines * rows > len(old):
            self._words = spare.take(lines * max(rows, min(2 * places, spare.words // lines)))
        self._cells = self._words[: len(self._words) // lines * lines].reshape(lines, -1)
        kept = range(min(lines, len(before)))
        # in the same memory no line may come to lie where one is that moves after it
        for number in kept if self._cells.shape[1] <= places else reversed(kept):
            self._cells[number, : self.rows] = before[number, : self.rows]
        if old is not self._words:
            spare.give(old)

    def taken(self) -> tuple[list[HeldChunk], U64, dict[str, int]]:
        """What is in no file yet: the chunks, which are forgotten, the cells, and the line of each field there."""
        chunks, self.chunks = self.chunks, []
        return chunks, self._cells, self._lines

    def forget(self, spare: SpareCells) -> None:
        """Gives up the cells, which are in a file by now."""
        spare.give(self._words)
        self._words = np.empty(0, np.uint64)
        self._cells, self._lines, self.rows = np.empty((0, 0), np.uint64), {}, 0


@dataclass(frozen=True)
class FieldFiles:
    """Where the points of some series go: the leading field of tables that have one, and all other fields."""

    leading: TsmWriter
    others: TsmWriter


@dataclass(frozen=True)
class _FieldRows:
    """One table's points, divided as FieldFiles are; ``others`` has every field when none leads."""

    leading: TableRows | None
    others: TableRows

    def write(self, files: FieldFiles, first: int, until: int) -> None:
        if self.leading is not None:
            files.leading.write(self.leading, first, until)
        files.others.write(self.others, first, until)


def _is_text(array: Any) -> bool:
    kind = array.type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


@dataclass(frozen=True)
class _Keys:
    """Distinct series of one table in this file, and the number of each row's series in the order of the file."""

    texts: Any
    series: I64


def write_tables(halves: tuple[FieldFiles, FieldFiles], tables: Sequence[Table]) -> None:
    """
    Writes all points of these tables in the order of their keys, whatever table those are of; forgets the chunks.

    The second half takes the second half of the series of large tables, in a thread beside the first.
    """
    keys = dict(enumerate(_distinct_keys(table) for table in tables))
    owners = np.repeat(np.arange(len(tables)), [len(item.texts) for item in keys.values()])
    texts = pa.chunked_array([item.texts.cast(pa.large_binary()) for item in keys.values()])
    ranked = pc.sort_indices(texts).to_numpy()
    del texts
    grouped = ranked[np.argsort(owners[ranked], kind="stable")]
    rows: dict[int, _FieldRows] = {}
    done = np.zeros(len(tables), np.int64)
    first_key = np.searchsorted(owners, np.arange(len(tables) + 1))
    left = np.diff(first_key)
    for owner, count in _runs(owners[ranked]):
        if owner not in rows:
            own = grouped[first_key[owner] : first_key[owner + 1]] - first_key[owner]
            rows[owner] = _table_rows(tables[owner], keys.pop(owner), own.astype(np.int64))
        first = int(done[owner])
        _write(halves, rows[owner], first, first + count)
        done[owner] += count
        left[owner] -= count
        if not left[owner]:
            del rows[owner]


def _write(halves: tuple[FieldFiles, FieldFiles], rows: _FieldRows, first: int, until: int) -> None:
    starts = rows.others.starts
    begin, end = int(starts[first]), int(starts[until])
    half = int(np.searchsorted(starts[first:until], (begin + end) // 2)) + first
    if (end - begin) * len(rows.others.kinds) < _WORTH_A_THREAD or not first < half < until:
        rows.write(halves[0], first, until)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="shard-file") as pool:
        second = pool.submit(rows.write, halves[1], half, until)
        rows.write(halves[0], first, half)
        second.result()


def _value_counts(chunks: Sequence[HeldChunk]) -> dict[str, int]:
    """How many values each field has."""
    values: dict[str, int] = {}
    for chunk in chunks:
        for name, held in chunk.fields.items():
            values[name] = values.get(name, 0) + held.values
    return values


def _field_order(table: Table, values: Mapping[str, int], series: int) -> list[str]:
    """Fields with so many values in the order of their keys, but for the leading one, which comes first."""
    names = sorted(values, key=encode_name)
    if not table.begun and series >= _LED_FROM_SERIES and len(names) >= _LED_FROM_FIELDS:
        table.leading = max(names, key=values.__getitem__)
    table.begun = True
    return sorted(names, key=lambda name: name != table.leading)


def _runs(owners: I64) -> Iterator[tuple[int, int]]:
    """Stretches of equal owners: owner and length."""
    edges = np.flatnonzero(np.diff(owners)) + 1
    bounds = [0, *edges.tolist(), len(owners)]
    for start, stop in pairwise(bounds):
        yield int(owners[start]), stop - start


def _distinct_keys(table: Table) -> _Keys:
    """Takes the keys out of a table's chunks: those of a million series must not be held twice."""
    chunks = table.chunks
    lengths = [len(chunk.keys) for chunk in chunks]
    encoded = pa.chunked_array([chunk.keys for chunk in chunks]).dictionary_encode().combine_chunks()
    table.chunks = [replace(chunk, keys=None) for chunk in chunks]
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    series = np.empty(sum(len(chunk.series) for chunk in chunks), np.int64)
    at = offset = 0
    for chunk, length in zip(chunks, lengths, strict=True):
        series[at : at + len(chunk.series)] = codes[offset : offset + length][chunk.series]
        at, offset = at + len(chunk.series), offset + length
    return _Keys(encoded.dictionary, series)


def _table_rows(table: Table, keys: _Keys, ranked: I64) -> _FieldRows:
    """Turns a table's chunks into cells, and forgets the chunks. ``ranked`` has its series in the file's order."""
    chunks, cells, lines = table.taken()
    times = np.concatenate([chunk.times for chunk in chunks])
    rank = np.empty(len(ranked), np.int64)
    rank[ranked] = np.arange(len(ranked))
    starts = np.empty(len(ranked) + 1, np.int64)
    order = series_order(rank[keys.series], times, starts)
    values = _value_counts(chunks)
    names = _field_order(table, values, len(ranked))
    kinds = np.array([_KINDS[table.types[name]] for name in names], np.int64)
    masks, mask_of = _masks(chunks, names, values)
    pool, longest = _add_all_texts(chunks, cells, lines)
    series_bytes, series_offsets = _bytes_of(keys.texts.take(pa.array(ranked)))
    field_bytes, field_offsets = _bytes_of(pa.array([encode_name(name) for name in names], pa.binary()))
    rows = TableRows(
        starts=starts,
        order=order,
        times=times,
        cells=cells,
        cell_of=np.array([lines[name] for name in names], np.int64),
        mask_of=mask_of,
        masks=masks,
        kinds=kinds,
        pool=pool,
        longest_text=longest,
        series_bytes=series_bytes,
        series_offsets=series_offsets,
        field_bytes=field_bytes,
        field_offsets=field_offsets,
    )
    if names[0] != table.leading:
        return _FieldRows(None, rows)
    return _FieldRows(rows.of_fields(0, 1), rows.of_fields(1, len(names)))


def _masks(
    chunks: Sequence[HeldChunk], names: Sequence[str], values: Mapping[str, int]
) -> tuple[npt.NDArray[np.uint8], I64]:
    """Which rows have each field that some lack, and where each field's mask is (-1: all rows have it)."""
    rows = sum(len(chunk.times) for chunk in chunks)
    mask_of = np.full(len(names), -1, np.int64)
    sparse = [number for number, name in enumerate(names) if values[name] < rows]
    mask_of[sparse] = np.arange(len(sparse))
    masks = np.zeros((len(sparse), rows), np.uint8)
    at = 0
    for chunk in chunks:
        stop = at + len(chunk.times)
        for mask, number in zip(masks, sparse, strict=True):
            held = chunk.fields.get(names[number])
            if held is not None:
                mask[at:stop] = True if held.valid is None else held.valid.to_numpy(zero_copy_only=False)
        at = stop
    return masks, mask_of


def _add_all_texts(
    chunks: Sequence[HeldChunk], cells: U64, lines: Mapping[str, int]
) -> tuple[npt.NDArray[np.uint8], int]:
    """Moves the texts of the chunks to a pool, in whose places their cells are, and how long the longest is."""
    arrays = [held.texts for chunk in chunks for held in chunk.fields.values() if held.texts is not None]
    pool = pooled_bytes(sum(array.nbytes + _LARGEST_LENGTH * len(array) for array in arrays))
    del arrays
    filled = longest = at = released = 0
    for chunk in chunks:
        stop = at + len(chunk.times)
        for name, held in chunk.fields.items():
            if held.texts is not None:
                chunk.fields[name] = replace(held, texts=None)
                filled, widest = _add_texts(pool, filled, held.texts, cells[lines[name], at:stop])
                longest = max(longest, widest)
        at = stop
        if filled - released >= _MUCH_BYTES:
            pa.default_memory_pool().release_unused()  # or it keeps what was moved, for batches that do not come
            released = filled
    return pool[:filled], longest


def _bits(array: Any) -> npt.NDArray[Any]:
    """Numbers as 64 bits, whatever stands where there is none."""
    if pa.types.is_boolean(array.type):
        return np.asarray(array.cast(pa.uint8()).fill_null(0).to_numpy(zero_copy_only=False))
    return np.frombuffer(array.buffers()[1], np.uint64, len(array), array.offset * 8)


def _add_texts(pool: npt.NDArray[np.uint8], filled: int, array: Any, cells: npt.NDArray[np.uint64]) -> tuple[int, int]:
    data, offsets = _bytes_of(array)
    valid = np.empty(0, np.uint8)
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)
    end = put_pool(pool, filled, data, offsets, valid, cells)
    return end, int(np.diff(offsets).max(initial=0)) + _LARGEST_LENGTH


def _bytes_of(array: Any) -> tuple[npt.NDArray[np.uint8], I64]:
    """
    The bytes of a string or binary array and where each value begins in them, and the last one ends.

    The bytes are read-only, whatever Arrow's buffer is, so that kernels are compiled for one kind of array.
    """
    large = pa.types.is_large_binary(array.type) or pa.types.is_large_string(array.type)
    _, offsets, data = array.buffers()
    kind = np.int64 if large else np.int32
    bounds = np.frombuffer(offsets, kind)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    values = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    values.flags.writeable = False
    return values, bounds
