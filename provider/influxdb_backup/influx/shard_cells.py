"""From the chunks of tables to the sorted, typed cells of one TSM file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.influx.pooled import pooled_words
from influxdb_backup.influx.tsm.encode_series import put_pool, series_order
from influxdb_backup.influx.tsm.format import BlockType
from influxdb_backup.influx.tsm.writing import TableRows, TsmWriter
from influxdb_backup.model import InfluxType, encode_name

I64 = npt.NDArray[np.int64]

_KINDS = {
    InfluxType.FLOAT: BlockType.FLOAT,
    InfluxType.INTEGER: BlockType.INTEGER,
    InfluxType.BOOLEAN: BlockType.BOOLEAN,
    InfluxType.STRING: BlockType.STRING,
    InfluxType.UNSIGNED: BlockType.UNSIGNED,
}
_KEY_COPIES = 4
_MUCH_BYTES = 32 << 20
"""of cells that were moved, after which memory is given back: that and taking it again costs more than moving"""
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


@dataclass
class Table:
    """
    What was added of one measurement: the type of each field ever, and the chunks that are in no file yet.

    ``leading`` is the field that introduces the series in files of its own, None when none does. It is chosen with the
    first file and stays: a server that numbers files as they come must find the values of a key in their order.
    """

    types: dict[str, InfluxType] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    leading: str | None = None
    begun: bool = False


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


def size_of(chunk: Chunk) -> int:
    """Bytes that the chunk will take as cells, about; keys take several times theirs while they are sorted."""
    size = 16 * len(chunk.times) + _KEY_COPIES * chunk.keys.nbytes
    for _, array in chunk.fields:
        size += (9 if array.null_count else 8) * len(array) + (2 * array.nbytes if _is_text(array) else 0)
    return int(size)


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
    Writes all points of these tables in the order of their keys, whatever table those are of; empties the chunks.

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


def _value_counts(chunks: Sequence[Chunk]) -> dict[str, int]:
    """How many values each field has."""
    values: dict[str, int] = {}
    for chunk in chunks:
        for name, array in chunk.fields:
            values[name] = values.get(name, 0) + len(array) - array.null_count
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
    chunks, table.chunks = table.chunks, []
    times = np.concatenate([chunk.times for chunk in chunks])
    rank = np.empty(len(ranked), np.int64)
    rank[ranked] = np.arange(len(ranked))
    starts = np.empty(len(ranked) + 1, np.int64)
    order = series_order(rank[keys.series], times, starts)
    values = _value_counts(chunks)
    names = _field_order(table, values, len(ranked))
    kinds = np.array([_KINDS[table.types[name]] for name in names], np.int64)
    lengths, arrays = [len(chunk.times) for chunk in chunks], [dict(chunk.fields) for chunk in chunks]
    del chunks
    cells, masks, mask_of, pool, longest = _cells(lengths, arrays, names, values)
    series_bytes, series_offsets = _bytes_of(keys.texts.take(pa.array(ranked)))
    field_bytes, field_offsets = _bytes_of(pa.array([encode_name(name) for name in names], pa.binary()))
    rows = TableRows(
        starts=starts,
        order=order,
        times=times,
        cells=cells,
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


def _cells(
    lengths: Sequence[int], arrays: Sequence[dict[str, Any]], names: Sequence[str], values: Mapping[str, int]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8], I64, npt.NDArray[np.uint8], int]:
    """Moves each field of the chunks (``arrays``, by name) to its cells: what was moved is held there alone."""
    rows = sum(lengths)
    texts = sum(
        array.nbytes + _LARGEST_LENGTH * len(array) for fields in arrays for array in fields.values() if _is_text(array)
    )
    mask_of = np.full(len(names), -1, np.int64)
    sparse = [number for number, name in enumerate(names) if values[name] < rows]
    mask_of[sparse] = np.arange(len(sparse))
    masks = np.zeros((len(sparse), rows), np.uint8)
    cells = pooled_words(len(names) * rows).reshape(len(names), rows)
    pool = np.empty(texts, np.uint8)
    filled = longest = moved = 0
    for number, name in enumerate(names):
        at = 0
        for length, fields in zip(lengths, arrays, strict=True):
            array, stop = fields.pop(name, None), at + length
            if array is not None:
                if mask_of[number] >= 0:
                    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else True
                    masks[mask_of[number], at:stop] = valid
                if _is_text(array):
                    filled, widest = _add_texts(pool, filled, array, cells[number, at:stop])
                    longest = max(longest, widest)
                else:
                    cells[number, at:stop] = _bits(array)
            at = stop
        moved += cells[number].nbytes
        if moved >= _MUCH_BYTES:
            pa.default_memory_pool().release_unused()  # or it keeps what was moved, for batches that do not come
            moved = 0
    return cells, masks, mask_of, pool[:filled], longest


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
