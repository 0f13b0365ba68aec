"""
Makes TSM files of one shard group from record batches, for a new shard that a server takes as a whole.

The servers check nothing of what they take (run on 1.6.7, 1.12.4 and 2.9.1): a point outside of the group is stored and
not found, a field of two types hides the whole shard, a point that stands twice in a file is answered twice. So all of
that is refused or settled here, before anything is sent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.columns import batch_columns
from influxdb_backup.errors import TargetError, UnrepresentableError
from influxdb_backup.influx.dialect import DIALECT_1X, DIALECT_2X, name_conflicts
from influxdb_backup.influx.protocol import WriteOptions
from influxdb_backup.influx.tsm.build_keys import distinct_rows, series_keys, tag_codes
from influxdb_backup.influx.tsm.encode_series import put_pool, series_order
from influxdb_backup.influx.tsm.format import MAX_KEY_BYTES, SEPARATOR, BlockType
from influxdb_backup.influx.tsm.writing import TableRows, TsmWriter
from influxdb_backup.model import Column, InfluxType, Role, Window, decode_name, encode_name, printable
from influxdb_backup.windows import format_instant, format_window

I64 = npt.NDArray[np.int64]

_KINDS = {
    InfluxType.FLOAT: BlockType.FLOAT,
    InfluxType.INTEGER: BlockType.INTEGER,
    InfluxType.BOOLEAN: BlockType.BOOLEAN,
    InfluxType.STRING: BlockType.STRING,
    InfluxType.UNSIGNED: BlockType.UNSIGNED,
}
_MOST_BUFFERED = 2**30
_LARGEST_LENGTH = 5
"""bytes that the length of a string may take in a block"""


@dataclass(frozen=True)
class _Chunk:
    """One batch's points: times, the series of each row, the keys of those series, and the fields that have values."""

    times: I64
    series: I64
    keys: Any
    fields: tuple[tuple[str, Any], ...]


@dataclass
class _Table:
    """What was added of one measurement: the type of each field ever, and the chunks that are in no file yet."""

    types: dict[str, InfluxType] = field(default_factory=dict)
    chunks: list[_Chunk] = field(default_factory=list)


class ShardFileBuilder:
    """
    Collects tables of one shard group and writes them to ``folder`` as TSM files, each sorted and free of duplicates.

    At most about ``buffer_bytes`` of points are held (8 bytes a time and a value, strings at their length); then a file
    is finished, and the next one has the next generation, so that a point that comes again later wins, as it does in
    line protocol. ``generation`` (1 or 2) is the target's; it says which names and types the target can hold.
    """

    def __init__(self, folder: Path, group: Window, *, generation: int, buffer_bytes: int = 128 * 2**20) -> None:
        if not 0 < buffer_bytes <= _MOST_BUFFERED:
            raise ValueError(f"buffer_bytes must be 1 to {_MOST_BUFFERED}: {buffer_bytes}")
        self._folder = folder
        self._group = group
        self._dialect = DIALECT_1X if generation == 1 else DIALECT_2X
        self._limit = buffer_bytes
        self._tables: dict[str, _Table] = {}
        self._buffered = 0
        self._files: list[Path] = []
        self._values = 0

    @property
    def values(self) -> int:
        """Values in the files that are finished, duplicates within a file counted once."""
        return self._values

    def add(self, measurement: str, batch: pa.RecordBatch) -> None:
        """
        Takes the points of a batch, rows in any order; a row without any field is no point.

        Raises UnrepresentableError for a name, type or value that the target's shard cannot hold, and TargetError for
        a time outside of the group. Nothing of the batch is taken then.
        """
        columns = zip(batch_columns(batch.schema), batch.columns[1:], strict=True)
        used = [(column, array) for column, array in columns if array.null_count < len(array)]
        tags = [(column, array) for column, array in used if column.role is Role.TAG]
        fields = [(column, array) for column, array in used if column.role is Role.FIELD]
        if not fields or not batch.num_rows:
            return
        times = self._times(measurement, batch.column(0))
        known = self._tables.get(measurement, _Table())
        self._check_names(measurement, [column for column, _ in used])
        types = _merged_types(measurement, known.types, [column for column, _ in fields])
        for column, array in fields:
            _check_values(measurement, column, array)
        chunk = _chunk(measurement, times, tags, fields)
        self._tables[measurement] = known
        known.types.update(types)
        known.chunks.append(chunk)
        self._buffered += _size(chunk)
        if self._buffered >= self._limit:
            self._spill()

    def finish(self) -> tuple[Path, ...]:
        """Finishes the last file and returns all of them, oldest first; none when no point was added."""
        self._spill()
        return tuple(self._files)

    def _times(self, measurement: str, array: Any) -> I64:
        if array.null_count:
            raise UnrepresentableError(f"A point of {printable(measurement)!r} has no time.")
        times: I64 = array.cast(pa.timestamp("ns", tz="UTC")).view(pa.int64()).to_numpy(zero_copy_only=False)
        for wrong in (int(times.min()), int(times.max())):
            if not self._group.start <= wrong < self._group.end:
                raise TargetError(
                    f"A point of {printable(measurement)!r} at {format_instant(wrong)} ({wrong}) is outside of the "
                    f"shard group {format_window(self._group)}.",
                    hint="Give each shard group its own points.",
                )
        return times

    def _check_names(self, measurement: str, columns: Sequence[Column]) -> None:
        found = name_conflicts(measurement, columns, self._dialect, WriteOptions())
        problems = [f"{item.conflict.value} {printable(item.name)[:200]!r}: {item.reason}" for item in found]
        if SEPARATOR in encode_name(measurement):
            problems.append("the measurement holds #!~#, which separates series and field in a shard")
        problems += [
            f"tag-key {printable(column.name)[:200]!r}: it holds #!~#, which separates series and field in a shard"
            for column in columns
            if column.role is Role.TAG and SEPARATOR in encode_name(column.name)
        ]
        if problems:
            raise _unrepresentable(measurement, "; ".join(problems[:5]))

    def _spill(self) -> None:
        tables = [(name, table) for name, table in self._tables.items() if table.chunks]
        if not tables:
            return
        number = len(self._files) + 1
        path = self._folder / f"{number:09d}-000000001.tsm"
        with path.open("wb") as stream, tempfile.TemporaryFile(dir=self._folder) as spool:
            writer = TsmWriter(stream, spool)
            _write_tables(writer, tables)
            writer.finish()
        self._values += writer.values
        self._files.append(path)
        self._buffered = 0


def _unrepresentable(measurement: str, reason: str) -> UnrepresentableError:
    return UnrepresentableError(
        f"A shard cannot hold the measurement {printable(measurement)!r}: {reason}.",
        hint="Restore it with line protocol, or leave the measurement out.",
    )


def _merged_types(measurement: str, known: dict[str, InfluxType], fields: Sequence[Column]) -> dict[str, InfluxType]:
    merged = dict(known)
    for column in fields:
        if merged.setdefault(column.name, column.type) is not column.type:
            reason = (
                f"the field {printable(column.name)!r} is {merged[column.name].value} and {column.type.value} within "
                "one shard group, and the server would hide the whole shard"
            )
            raise _unrepresentable(measurement, reason)
    return merged


def _check_values(measurement: str, column: Column, array: Any) -> None:
    if column.type is InfluxType.FLOAT and not pc.all(pc.is_finite(array)).as_py():
        raise _unrepresentable(measurement, f"the field {printable(column.name)!r} holds NaN or an infinity")


def _chunk(
    measurement: str, times: I64, tags: Sequence[tuple[Column, Any]], fields: Sequence[tuple[Column, Any]]
) -> _Chunk:
    coded = [(column, *tag_codes(array)) for column, array in tags]
    rows, series = distinct_rows([codes for _, codes, _ in coded], [len(values) for _, _, values in coded], len(times))
    for column, codes, values in coded:
        _check_tag_values(measurement, column, values.take(pa.array(_used(codes[rows]))))
    keys = series_keys(measurement, coded, rows)
    _check_keys(measurement, keys, max(len(encode_name(column.name)) for column, _ in fields))
    return _Chunk(times, series, keys, tuple((column.name, array) for column, array in fields))


def _used(codes: I64) -> I64:
    return np.unique(codes[codes >= 0])


def _check_tag_values(measurement: str, column: Column, values: Any) -> None:
    for wrong, reason in (
        (pc.ends_with(values, "\\"), "ends in a backslash"),
        (pc.match_substring(values, SEPARATOR), "holds #!~#, which separates series and field in a shard"),
    ):
        found = values.filter(wrong)
        if len(found):
            value = printable(decode_name(found[0].as_py()))[:200]
            raise _unrepresentable(measurement, f"the value {value!r} of the tag {printable(column.name)!r} {reason}")


def _check_keys(measurement: str, keys: Any, longest_field: int) -> None:
    lengths = pc.binary_length(keys).to_numpy(zero_copy_only=False)
    if lengths.max() + longest_field > MAX_KEY_BYTES:
        reason = f"a key has {lengths.max() + longest_field} bytes with its tags and longest field; {MAX_KEY_BYTES} fit"
        raise _unrepresentable(measurement, reason)
    early = pc.find_substring(keys, SEPARATOR).to_numpy(zero_copy_only=False) < lengths - len(SEPARATOR)
    if early.any():
        key = printable(decode_name(keys[int(np.flatnonzero(early)[0])].as_py()))[:200]
        raise _unrepresentable(measurement, f"the series {key!r} ends in #!~, which a shard cannot tell from its field")


def _size(chunk: _Chunk) -> int:
    size = 16 * len(chunk.times) + chunk.keys.nbytes
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


# --- one file -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Keys:
    """Distinct series of one table in this file, and the number of each row's series in the order of the file."""

    texts: Any
    series: I64


def _write_tables(writer: TsmWriter, tables: Sequence[tuple[str, _Table]]) -> None:
    keys = [_distinct_keys(table.chunks) for _, table in tables]
    owners = np.repeat(np.arange(len(tables)), [len(item.texts) for item in keys])
    texts = pa.chunked_array([item.texts.cast(pa.large_binary()) for item in keys]).combine_chunks()
    ranked = pc.sort_indices(texts).to_numpy()
    rows: dict[int, TableRows] = {}
    done = np.zeros(len(tables), np.int64)
    first_key = np.searchsorted(owners, np.arange(len(tables) + 1))
    left = np.diff(first_key)
    for owner, count in _runs(owners[ranked]):
        if owner not in rows:
            own = ranked[owners[ranked] == owner] - first_key[owner] if len(tables) > 1 else ranked
            rows[owner] = _table_rows(tables[owner][1], keys[owner], own.astype(np.int64))
        first = int(done[owner])
        writer.write(rows[owner], first, first + count)
        done[owner] += count
        left[owner] -= count
        if not left[owner]:
            del rows[owner]


def _runs(owners: I64) -> Iterator[tuple[int, int]]:
    """Stretches of equal owners: owner and length."""
    edges = np.flatnonzero(np.diff(owners)) + 1
    bounds = [0, *edges.tolist(), len(owners)]
    for start, stop in pairwise(bounds):
        yield int(owners[start]), stop - start


def _distinct_keys(chunks: Sequence[_Chunk]) -> _Keys:
    encoded = pa.chunked_array([chunk.keys for chunk in chunks]).combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    series = np.empty(sum(len(chunk.series) for chunk in chunks), np.int64)
    at = offset = 0
    for chunk in chunks:
        series[at : at + len(chunk.series)] = codes[offset : offset + len(chunk.keys)][chunk.series]
        at, offset = at + len(chunk.series), offset + len(chunk.keys)
    return _Keys(encoded.dictionary, series)


def _table_rows(table: _Table, keys: _Keys, ranked: I64) -> TableRows:
    """Turns a table's chunks into cells, and forgets the chunks. ``ranked`` has its series in the file's order."""
    chunks = table.chunks
    times = np.concatenate([chunk.times for chunk in chunks])
    rank = np.empty(len(ranked), np.int64)
    rank[ranked] = np.arange(len(ranked))
    starts = np.empty(len(ranked) + 1, np.int64)
    order = series_order(rank[keys.series], times, starts)
    present = {name for chunk in chunks for name, _ in chunk.fields}
    names = sorted(present, key=encode_name)
    kinds = np.array([_KINDS[table.types[name]] for name in names], np.int64)
    cells, masks, mask_of, pool, longest = _cells(chunks, names, len(times))
    table.chunks = []
    series_bytes, series_offsets = _bytes_of(keys.texts.take(pa.array(ranked)))
    field_bytes, field_offsets = _bytes_of(pa.array([encode_name(name) for name in names], pa.binary()))
    return TableRows(
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


def _cells(
    chunks: Sequence[_Chunk], names: Sequence[str], rows: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8], I64, npt.NDArray[np.uint8], int]:
    place = {name: number for number, name in enumerate(names)}
    always = dict.fromkeys(names, 0)
    texts = 0
    for chunk in chunks:
        for name, array in chunk.fields:
            always[name] += len(array) - array.null_count
            texts += array.nbytes + _LARGEST_LENGTH * len(array) if _is_text(array) else 0
    mask_of = np.full(len(names), -1, np.int64)
    sparse = [place[name] for name, count in always.items() if count < rows]
    mask_of[sparse] = np.arange(len(sparse))
    masks = np.zeros((len(sparse), rows), np.uint8)
    cells = np.empty((len(names), rows), np.uint64)
    pool = np.empty(texts, np.uint8)
    at = filled = longest = 0
    for chunk in chunks:
        stop = at + len(chunk.times)
        for name, array in chunk.fields:
            number = place[name]
            if mask_of[number] >= 0:
                valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else True
                masks[mask_of[number], at:stop] = valid
            if _is_text(array):
                filled, widest = _add_texts(pool, filled, array, cells[number, at:stop])
                longest = max(longest, widest)
            else:
                cells[number, at:stop] = _bits(array)
        at = stop
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
