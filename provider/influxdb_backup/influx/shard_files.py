"""
Makes TSM files of one shard group from record batches, for a new shard that a server takes as a whole.

The servers check nothing of what they take (run on 1.6.7, 1.12.4 and 2.9.1): a point outside of the group is stored and
not found, a field of two types hides the whole shard, a point that stands twice in a file is answered twice. So all of
that is refused or settled here, before anything is sent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.columns import ARROW_TYPES, TIME_TYPE, arrow_schema, batch_columns
from influxdb_backup.errors import TargetError, UnrepresentableError
from influxdb_backup.influx.dialect import DIALECT_1X, DIALECT_2X, name_conflicts
from influxdb_backup.influx.protocol import WriteOptions
from influxdb_backup.influx.shard_cells import Chunk, FieldFiles, SpareCells, Table, write_tables
from influxdb_backup.influx.tsm.build_keys import distinct_rows, series_keys, tag_codes
from influxdb_backup.influx.tsm.format import MAX_KEY_BYTES, SEPARATOR
from influxdb_backup.influx.tsm.keys import spelled_series
from influxdb_backup.influx.tsm.writing import TsmWriter
from influxdb_backup.model import Column, InfluxType, Role, Window, decode_name, encode_name, printable
from influxdb_backup.windows import format_instant, format_window

I64 = npt.NDArray[np.int64]

_MOST_BUFFERED = 2**30
_CELL_BYTES = 8
"""of each point and field of a file's tables, though most of their points may lack most fields"""
_FIELD_TYPES: dict[InfluxType, object] = {
    InfluxType.FLOAT: 1.0,
    InfluxType.INTEGER: 1,
    InfluxType.UNSIGNED: 1,
    InfluxType.BOOLEAN: True,
    InfluxType.STRING: "text",
}


class ShardFileBuilder:
    """
    Collects tables of one shard group and writes them to ``folder`` as TSM files, each sorted and free of duplicates.

    At most about ``buffer_bytes`` of points are held (8 bytes a time and a value, strings at their length), and as many
    of the cells of all tables, which a point has for fields too that it lacks; then a file is finished (or several, of
    different series and fields), and the next one has the next generation, so that a point that comes again later wins,
    as it does in line protocol. ``generation`` (1 or 2) is the target's; it says which names and types the target can
    hold.

    Of a table with many series and several fields, one field goes into files of its own. A server that gets those
    first has each series once in them and the later files bring no new one, which is what its index is slow at. With
    them goes a file (or several, of many sparse fields) that has every field of every table once: 1.x up to 1.8 with
    ``index-version = "tsi1"`` learns the fields of a shard from what it gets first, and of later files only those that
    it knows by then (run on 1.6.7; source of 1.7.11 and 1.8.10).
    """

    def __init__(
        self,
        folder: Path,
        group: Window,
        *,
        generation: int,
        buffer_bytes: int = 64 * 2**20,
        loads: bool = True,
        spare: SpareCells | None = None,
    ) -> None:
        """
        ``loads`` has the compiled loops loaded first, while no points are in memory beside the compiler. ``spare`` is
        the memory of builders before this one, and then of those after it.
        """
        if not 0 < buffer_bytes <= _MOST_BUFFERED:
            raise ValueError(f"buffer_bytes must be 1 to {_MOST_BUFFERED}: {buffer_bytes}")
        if loads:
            load_loops()
        self._folder = folder
        self._group = group
        self._dialect = replace(DIALECT_1X, utf8_names=True) if generation == 1 else DIALECT_2X
        self._limit = buffer_bytes
        self._spare = spare or SpareCells(buffer_bytes // 8)
        self._tables: dict[str, Table] = {}
        self._first: dict[str, list[Chunk]] = {}
        """of each table a point of every field: as cells, thousands of sparse fields would have millions"""
        self._buffered = 0
        self._cells = 0
        """of all tables, what is in no file yet"""
        self._files: list[Path] = []
        self._leading: set[Path] = set()
        self._written = 0
        self._values = 0
        self._keys = 0
        self._failed = False

    @property
    def values(self) -> int:
        """Values in the files that are finished, duplicates within a file counted once."""
        return self._values

    @property
    def keys(self) -> int:
        """Fields of series in the files that are finished, counted in each file."""
        return self._keys

    @property
    def leading(self) -> frozenset[Path]:
        """Those of the finished files that introduce series and fields: they must be sent before the others."""
        return frozenset(self._leading)

    @property
    def series(self) -> bytes | None:
        """The first series of the finished files that line protocol can spell."""
        for file in self._files:
            series = spelled_series(np.memmap(file, np.uint8, mode="r"))
            if series is not None:
                return series
        return None

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
        known = self._tables.get(measurement, Table())
        self._check_names(measurement, [column for column, _ in used])
        types = _merged_types(measurement, known.types, [column for column, _ in fields])
        for column, array in fields:
            _check_values(measurement, column, array)
        chunk = _chunk(measurement, times, tags, fields)
        if self._cells_with(known, chunk) * _CELL_BYTES > self._limit:
            self._spill()
        self._tables[measurement] = known
        new = [(column, array) for column, array in fields if column.name not in known.types]
        if new:
            self._introduce(measurement, times, tags, new)
        known.types.update(types)
        self._cells = self._cells_with(known, chunk)
        known.add(chunk, self._spare)
        self._buffered += chunk.size
        if self._buffered >= self._limit:
            self._spill()

    def finish(self) -> tuple[Path, ...]:
        """
        Finishes the last file and returns all of them, oldest first; none when no point was added.

        Raises OSError when a file cannot be written, and TargetError when one could not be before: its points are lost.
        """
        self._spill()
        if self._leading and self._first:
            named = [file for file in self._files if file.suffix == ".tsm"]
            later = self._files[len(named) :]
            self._files = named
            for tables in self._introducing():
                self._write(tables, introduces=True)
            self._files += later
            self._first.clear()
        self._name()
        return tuple(self._files)

    def _introduce(
        self, measurement: str, times: I64, tags: Sequence[tuple[Column, Any]], fields: Sequence[tuple[Column, Any]]
    ) -> None:
        """Keeps a point of each of these fields, which the table did not have before."""
        rows: list[int] = []
        for _, array in fields:
            if not any(array[row].is_valid for row in rows):
                rows.append(pc.index(array.is_valid(), True).as_py())
        at = np.unique(np.array(rows, np.int64))
        few = [(column, array.take(pa.array(at))) for column, array in fields]
        own = [(column, _decoded(array.take(pa.array(at)))) for column, array in tags]
        self._first.setdefault(measurement, []).append(_chunk(measurement, times[at], own, few))

    def _introducing(self) -> Iterator[list[Table]]:
        """The tables of each file that introduces fields: one, or more where their cells are more than may be held."""
        tables: list[Table] = []
        cells = 0
        for measurement, chunks in self._first.items():
            table = Table(types=self._tables[measurement].types, begun=True)
            for chunk in chunks:
                if tables and (cells + table.cells_with(chunk) - table.cells) * _CELL_BYTES > self._limit:
                    yield tables
                    table, tables, cells = Table(types=table.types, begun=True), [], 0
                if not table.rows:
                    tables.append(table)
                cells += table.cells_with(chunk) - table.cells
                table.add(chunk, self._spare)
        yield tables

    def _cells_with(self, table: Table, chunk: Chunk) -> int:
        return self._cells - table.cells + table.cells_with(chunk)

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
        if self._failed:
            raise TargetError(
                f"A file of this shard group could not be written to {self._folder}.", hint="Build the group anew."
            )
        tables = [table for table in self._tables.values() if table.rows]
        if tables:
            self._write(tables, introduces=False)
            self._buffered = self._cells = 0
            pa.default_memory_pool().release_unused()  # which would be held beside the batches that fill the next one

    def _write(self, tables: Sequence[Table], *, introduces: bool) -> None:
        self._failed = True
        with ExitStack() as stack:
            opened = [self._open(stack, number) for number in range(4)]
            writers = [writer for _, writer in opened]
            write_tables((FieldFiles(*writers[::2]), FieldFiles(*writers[1::2])), tables)
            for table in tables:
                table.forget(self._spare)
            for number, (path, writer) in enumerate(opened):
                writer.finish()
                if writer.values:
                    self._keep(path, writer, leading=introduces or number < 2)
                else:
                    path.unlink()
        self._failed = False

    def _open(self, stack: ExitStack, number: int) -> tuple[Path, TsmWriter]:
        path = self._folder / f"{number}.part"
        stream = stack.enter_context(path.open("wb"))
        return path, TsmWriter(stream, stack.enter_context(tempfile.TemporaryFile(dir=self._folder)))

    def _keep(self, path: Path, writer: TsmWriter, *, leading: bool) -> None:
        self._written += 1
        kept = path.rename(self._folder / f"{self._written}.whole")
        self._files.append(kept)
        if leading:
            self._leading.add(kept)
        self._values += writer.values
        self._keys += writer.keys

    def _name(self) -> None:
        """Gives files that have none yet names in their order, by which a server knows what is newer."""
        for at, file in enumerate(self._files):
            if file.suffix == ".tsm":
                continue
            self._files[at] = file.rename(self._folder / f"{at + 1:09d}-000000001.tsm")
            if file in self._leading:
                self._leading.remove(file)
                self._leading.add(self._files[at])


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


def _decoded(array: Any) -> Any:
    """Without the dictionary of a large batch, of which this needs few values."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _chunk(
    measurement: str, times: I64, tags: Sequence[tuple[Column, Any]], fields: Sequence[tuple[Column, Any]]
) -> Chunk:
    coded = [(column, *tag_codes(array)) for column, array in tags]
    rows, series = distinct_rows([codes for _, codes, _ in coded], [len(values) for _, _, values in coded], len(times))
    for column, codes, values in coded:
        _check_tag_values(measurement, column, values.take(pa.array(_used(codes[rows]))))
    keys = series_keys(measurement, coded, rows)
    _check_keys(measurement, keys, max(len(encode_name(column.name)) for column, _ in fields))
    return Chunk(times, series, keys, tuple((column.name, array) for column, array in fields))


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


@cache
def load_loops() -> None:
    """Loads the compiled loops: to be done before points are read, so that these are not held beside the compiler."""
    with tempfile.TemporaryDirectory() as folder:
        exercise(Path(folder), "loops.tsm", 1)


def exercise(folder: Path, name: str, value: int) -> Path:
    """
    Runs every loop that encodes shards once, so that numba compiles it and keeps the machine code.

    Leaves a file ``name`` whose one measurement ``m`` has each type, with ``value`` as its integer.
    """
    fields = [Column(role=Role.FIELD, name=kind.value, type=kind) for kind in _FIELD_TYPES]
    columns = (Column(role=Role.TAG, name="t", type=InfluxType.TAG), *fields)
    examples = {**_FIELD_TYPES, InfluxType.INTEGER: value}
    values = [pa.array([example, None], ARROW_TYPES[kind]) for kind, example in examples.items()]
    arrays = [pa.array([1, 0], TIME_TYPE), pa.array(["a", "a"]).dictionary_encode(), *values]
    own = folder / name.replace(".", "-")
    own.mkdir()
    builder = ShardFileBuilder(own, Window(start=0, end=2), generation=2, loads=False)
    builder.add("m", pa.record_batch(arrays, schema=arrow_schema(columns)))
    (file,) = builder.finish()
    return file.rename(folder / name)
