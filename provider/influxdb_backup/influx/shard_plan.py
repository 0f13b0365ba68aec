"""Which blocks of a shard's files hold which series and field: the work on keys, without a Python step for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.influx.tsm.format import SEPARATOR, BlockType
from influxdb_backup.influx.tsm.index import CorruptShardError, TsmIndex, corrupt
from influxdb_backup.influx.tsm.keys import measurement_ends, series_begin, tag_places
from influxdb_backup.model import Column, InfluxType, Role, decode_name

I64 = npt.NDArray[np.int64]

KINDS = {
    BlockType.FLOAT: InfluxType.FLOAT,
    BlockType.INTEGER: InfluxType.INTEGER,
    BlockType.BOOLEAN: InfluxType.BOOLEAN,
    BlockType.STRING: InfluxType.STRING,
    BlockType.UNSIGNED: InfluxType.UNSIGNED,
}


@dataclass(frozen=True)
class TagColumn:
    """One tag of a measurement: the series that have it, ascending, and of each the position in ``values`` (binary)."""

    raw: bytes
    """its name as the keys have it"""
    column: Column
    owners: npt.NDArray[np.int32]
    codes: npt.NDArray[np.int32]
    values: Any

    def of(self, series: I64) -> I64:
        """The positions in ``values`` of these series, -1 for those without the tag."""
        if not len(self.owners):
            return np.full(len(series), -1, np.int64)
        place = np.minimum(np.searchsorted(self.owners, series.astype(np.int32)), len(self.owners) - 1)
        return np.where(self.owners[place] == series, self.codes[place], -1).astype(np.int64)


@dataclass(frozen=True)
class TablePlan:
    """
    One measurement in one stretch of a shard's keys.

    Its blocks stand in the order series, field, file, place; ``block_series`` and ``block_field`` are positions in the
    series and in ``fields``.
    """

    raw: bytes
    """its name as the keys have it"""
    tags: tuple[TagColumn, ...]
    fields: tuple[tuple[Column, int], ...]
    """with the BlockType"""
    series: int
    block_series: I64
    block_field: I64
    block_file: I64
    block_number: I64
    binary: frozenset[Column]
    """tags with values that are not UTF-8"""

    def kinds_of(self, blocks: I64) -> I64:
        """The BlockType of each of these blocks."""
        return np.array([kind for _, kind in self.fields], np.int64)[self.block_field[blocks]]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Tags and fields."""
        return (*(tag.column for tag in self.tags), *(column for column, _ in self.fields))


def _pieces(data: npt.NDArray[np.uint8], starts: I64, stops: I64) -> Any:
    """The bytes from each start to its stop, as a large binary array."""
    bounds = np.empty(2 * len(starts), np.int64)
    bounds[0::2], bounds[1::2] = starts, stops
    both = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), max(0, len(bounds) - 1), [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )
    return both.take(pa.array(np.arange(0, len(bounds), 2)))


def _codes(array: Any) -> tuple[I64, Any]:
    """Codes and distinct values of an array without nulls."""
    encoded = array.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    return encoded.indices.cast(pa.int64()).to_numpy(zero_copy_only=False), encoded.dictionary


@dataclass(frozen=True)
class _Keys:
    """The keys of all files in order: series (position in ``series``), field with type (position in ``fields``)."""

    series_of: I64
    series: Any
    field_of: I64
    fields: tuple[tuple[bytes, int], ...]
    file_of: I64
    key_of: I64
    indexes: Sequence[TsmIndex]

    def error(self, series: int, what: str) -> CorruptShardError:
        """The error for the first key of a series."""
        key = int(np.flatnonzero(self.series_of == series)[0])
        index, number = self.indexes[self.file_of[key]], int(self.key_of[key])
        return corrupt(index.name, what, key=index.key(number), place=int(index.key_at[number]))


def _all_keys(indexes: Sequence[TsmIndex]) -> _Keys:
    series: list[Any] = []
    fields, kinds, files, numbers = [], [], [], []
    runs: list[I64] = []
    for position, index in enumerate(indexes):
        separator = index.key_at + index.separators
        begins = np.empty(len(index.kinds), np.bool_)
        series_begin(index.data, index.key_at, index.separators, begins)
        runs.append(np.cumsum(begins) - 1 + sum(len(array) for array in series))
        series.append(_pieces(index.data, index.key_at[begins], separator[begins]))
        fields.append(_pieces(index.data, separator + len(SEPARATOR), index.key_at + index.key_size))
        kinds.append(index.kinds)
        files.append(np.full(len(index.kinds), position, np.int64))
        numbers.append(np.arange(len(index.kinds), dtype=np.int64))
    run_of = np.concatenate(runs)
    held = [array for array in series if len(array)]
    if len(held) == 1:
        series_of, distinct = run_of, held[0]
    else:
        code_of, distinct = _codes(pa.concat_arrays(held))
        series_of = code_of[run_of]
    name_of, names = _codes(pa.concat_arrays(fields))
    combined = name_of * len(KINDS) + np.concatenate(kinds)
    known, field_of = np.unique(combined, return_inverse=True)
    raw = names.to_pylist()
    pairs = tuple((raw[code // len(KINDS)], int(code % len(KINDS))) for code in known.tolist())
    owners, own = np.concatenate(files), np.concatenate(numbers)
    return _Keys(series_of, distinct, field_of.astype(np.int64), pairs, owners, own, indexes)


def plan_tables(indexes: Sequence[TsmIndex]) -> Mapping[bytes, TablePlan]:
    """
    The measurements of a stretch of a shard's keys by name. ``indexes`` are that of its files, oldest first.

    Raises CorruptShardError for a series key that is none.
    """
    if not any(len(index.kinds) for index in indexes):
        return {}
    keys = _all_keys(indexes)
    data, offsets = _buffers(keys.series)
    ends, tag_counts = np.empty(len(keys.series), np.int64), np.empty(len(keys.series), np.int64)
    measurement_ends(data, offsets, ends, tag_counts)
    table_of, names = _codes(_pieces(data, offsets[:-1], ends))
    counts = np.concatenate([np.diff(index.first_block) for index in indexes])
    first = np.concatenate([index.first_block[:-1] for index in indexes])
    block_key = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(block_key)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    order = np.lexsort((keys.field_of[block_key], keys.series_of[block_key], table_of[keys.series_of[block_key]]))
    block_key, number = block_key[order], number[order]
    tables = table_of[keys.series_of[block_key]]
    cuts = np.searchsorted(tables, np.arange(len(names) + 1))
    found = {}
    for position, name in enumerate(names.to_pylist()):
        part = slice(int(cuts[position]), int(cuts[position + 1]))
        plain = _unescaped_measurement(name)
        if plain in found:
            raise keys.error(int(keys.series_of[block_key[part.start]]), "its measurement is written in two ways")
        found[plain] = _plan_table(name, keys, data, offsets, ends, tag_counts, block_key[part], number[part])
    return found


def _plan_table(
    raw: bytes,
    keys: _Keys,
    data: npt.NDArray[np.uint8],
    offsets: I64,
    ends: I64,
    tag_counts: I64,
    block_key: I64,
    number: I64,
) -> TablePlan:
    series, block_series = np.unique(keys.series_of[block_key], return_inverse=True)
    used, block_field = np.unique(keys.field_of[block_key], return_inverse=True)
    pairs = [keys.fields[code] for code in used.tolist()]
    ranks = sorted(range(len(pairs)), key=lambda position: pairs[position])
    rank_of = np.empty(len(pairs), np.int64)
    rank_of[ranks] = np.arange(len(pairs))
    block_field = rank_of[block_field]
    order = np.lexsort((block_field, block_series))  # stable: files and places keep their order
    fields = tuple(
        (
            Column(role=Role.FIELD, name=decode_name(pairs[rank][0]), type=KINDS[BlockType(pairs[rank][1])]),
            pairs[rank][1],
        )
        for rank in ranks
    )
    tags = _tags(keys, data, offsets, ends, tag_counts, series)
    return TablePlan(
        raw=raw,
        tags=tags,
        fields=fields,
        series=len(series),
        block_series=block_series[order].astype(np.int64),
        block_field=block_field[order],
        block_file=keys.file_of[block_key][order],
        block_number=number[order],
        binary=frozenset(tag.column for tag in tags if not is_utf8(tag.values)),
    )


def is_utf8(values: Any) -> bool:
    """Whether binary values are text."""
    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _tags(
    keys: _Keys, data: npt.NDArray[np.uint8], offsets: I64, ends: I64, tag_counts: I64, series: I64
) -> tuple[TagColumn, ...]:
    total = int(tag_counts[series].sum())
    owner = np.empty(total, np.int64)
    names, values = np.empty((2, total), np.int64), np.empty((2, total), np.int64)
    bad = tag_places(data, offsets, ends, series, owner, names, values)
    if bad >= 0:
        raise keys.error(int(series[bad]), "its key has a tag without a value")
    if not total:
        return ()
    code_of, distinct = _codes(_pieces(data, *names))
    texts = _pieces(data, *values)
    order = np.argsort(code_of, kind="stable")
    cuts = np.searchsorted(code_of[order], np.arange(len(distinct) + 1))
    found: dict[bytes, TagColumn] = {}
    for code, raw in enumerate(distinct.to_pylist()):
        chosen = order[cuts[code] : cuts[code + 1]]
        owners, name = owner[chosen], _unescaped_tag(raw)
        twice = np.flatnonzero(owners[1:] == owners[:-1])
        if len(twice) or name in found:
            place = int(twice[0]) if len(twice) else 0
            raise keys.error(int(series[owners[place]]), "its key has a tag twice, or written in two ways")
        own, kinds = _codes(texts.take(pa.array(chosen)))
        column = Column(role=Role.TAG, name=decode_name(name), type=InfluxType.TAG)
        found[name] = TagColumn(raw, column, owners.astype(np.int32), own.astype(np.int32), _unescaped_tags(kinds))
    return tuple(found[name] for name in sorted(found))


def _buffers(array: Any) -> tuple[npt.NDArray[np.uint8], I64]:
    """The bytes and offsets of a large binary array that begins at its buffers' start."""
    buffers = array.buffers()
    data = np.frombuffer(buffers[2], np.uint8) if buffers[2] is not None else np.empty(0, np.uint8)
    return data, np.frombuffer(buffers[1], np.int64)[array.offset : array.offset + len(array) + 1]


def _unescaped_measurement(raw: bytes) -> bytes:
    return raw.replace(b"\\,", b",").replace(b"\\ ", b" ")


def _unescaped_tag(raw: bytes) -> bytes:
    return raw.replace(b"\\,", b",").replace(b"\\=", b"=").replace(b"\\ ", b" ")


def _unescaped_tags(values: Any) -> Any:
    for special in (b",", b"=", b" "):
        values = pc.replace_substring(values, b"\\" + special, special)
    return values
