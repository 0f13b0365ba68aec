"""
The encodings of parts: seconds and bytes of each candidate on each shape of a column, and of whole files.

The two tables that decided it are printed as they are; what is judged goes into the common table.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import shapes
from benchmarks.archive import commit_table
from benchmarks.data import walks
from benchmarks.table import Result, ratio
from influxdb_backup.archive.encoding import DELTA, DICTIONARY, LENGTHS, PLAIN, SPLIT, choose_encodings, writer_options
from influxdb_backup.archive.encoding import usual_encodings as usual
from influxdb_backup.archive.parquet import ROW_GROUP_ROWS
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.columns import TIME_TYPE, arrow_schema
from influxdb_backup.model import Column, InfluxType, Role

Options = Mapping[str, Any]
Kinds = Mapping[str, tuple[Callable[[], Mapping[str, pa.Array]], tuple[str, ...], Column | None]]


def _field(kind: InfluxType) -> Column:
    return Column(role=Role.TAG if kind is InfluxType.TAG else Role.FIELD, name="x", type=kind)


_KINDS: Kinds = {
    "float": (shapes.floats, (SPLIT, PLAIN, DICTIONARY), _field(InfluxType.FLOAT)),
    "integer": (shapes.integers, (DELTA, DICTIONARY, SPLIT, PLAIN), _field(InfluxType.INTEGER)),
    "time": (shapes.times, (DELTA, DICTIONARY, SPLIT, PLAIN), None),
    "string": (shapes.strings, (DICTIONARY, LENGTHS, PLAIN, "DELTA_BYTE_ARRAY"), _field(InfluxType.STRING)),
    "boolean": (shapes.booleans, (PLAIN, "RLE"), _field(InfluxType.BOOLEAN)),
    "tag": (shapes.tags, (DICTIONARY, PLAIN), _field(InfluxType.TAG)),
}

_FILES: Mapping[str, Options] = {
    "as it is": {},
    "row groups of 64k rows": {"rows": 65_536},
    "row groups of 256k rows": {"rows": 262_144},
    "row groups of 512k rows": {"rows": 524_288},
    "row groups of 1M rows": {"rows": 1_048_576},
    "zstd -1": {"compression_level": -1},
    "zstd 2": {"compression_level": 2},
    "zstd 3": {"compression_level": 3},
    "lz4": {"compression": "lz4", "compression_level": None},
    "no compression": {"compression": "none", "compression_level": None},
    "pages of 128 KB": {"data_page_size": 128 << 10},
    "pages of 4 MB": {"data_page_size": 4 << 20},
    "data pages version 2": {"data_page_version": "2.0"},
    "write_batch_size 1k": {"write_batch_size": 1024},
    "write_batch_size 64k": {"write_batch_size": 65_536},
    "dictionary limit 128 KB": {"dictionary_pagesize_limit": 128 << 10},
    "dictionary limit 8 MB": {"dictionary_pagesize_limit": 8 << 20},
    "no statistics": {"write_statistics": False},
    "statistics of all columns": {"write_statistics": True},
    "page index": {"write_page_index": True},
}


def _encode(table: pa.Table, rows: int, options: Options) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        for start in range(0, table.num_rows, rows):
            writer.write_table(table.slice(start, rows), row_group_size=rows)
    return sink.getvalue()


def _decode(data: pa.Buffer) -> None:
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        for group in range(file.metadata.num_row_groups):
            file.read_row_group(group)


def _measured(table: pa.Table, rows: int, options: Options, runs: int) -> tuple[float, float, int]:
    """The least seconds of writing and of reading back, and the bytes."""
    written, read, size = [], [], 0
    for _ in range(runs):
        started = time.perf_counter()
        data = _encode(table, rows, options)
        written.append(time.perf_counter() - started)
        started = time.perf_counter()
        _decode(data)
        read.append(time.perf_counter() - started)
        size = len(data)
    return min(written), min(read), size


def _table_of(values: pa.Array, column: Column | None) -> pa.Table:
    if column is None:
        return pa.Table.from_arrays([values], schema=arrow_schema([]))
    times = pa.array(range(len(values)), pa.int64()).cast(TIME_TYPE)
    return pa.Table.from_arrays([times, values], schema=arrow_schema([column]))


def columns(runs: int) -> str:
    """Markdown: each shape of a column in each encoding, the chosen one marked."""
    head = "| column | values | encoding: ns a value to write / to read, bytes a value (zstd 1; chosen in bold) |"
    lines = [head, "|---|---|---|"]
    for kind, (made, encodings, column) in _KINDS.items():
        for shape, values in made().items():
            whole = _table_of(values, column)
            name = whole.schema.names[-1]
            chosen = choose_encodings(whole.slice(0, ROW_GROUP_ROWS))[name]
            alone, cells = whole.select([name]), []
            for encoding in encodings:
                options = writer_options({name: encoding}, [name] if kind != "string" else [])
                write, read, size = _measured(alone, ROW_GROUP_ROWS, options, runs)
                each = 1e9 / len(values)
                cell = f"{encoding} {write * each:.0f} / {read * each:.0f}, {size / len(values):.2f}"
                cells.append(f"**{cell}**" if encoding == chosen else cell)
            lines.append(f"| {kind} | {shape} | {'<br>'.join(cells)} |")
    return "\n".join(lines)


def files(table: pa.Table, runs: int) -> str:
    """Markdown: one table as a file, with one setting changed at a time."""
    chosen = choose_encodings(table.slice(0, ROW_GROUP_ROWS))
    before = writer_options(usual(table.schema), table.schema.names)
    base = writer_options(chosen, table.schema.names)
    lines = ["| 8.64 M values as one file | write s | read s | MB |", "|---|---|---|---|"]
    variants = {"fixed encodings, no choice": before, **{name: {**base, **change} for name, change in _FILES.items()}}
    for name, variant in variants.items():
        options = dict(variant)
        rows = options.pop("rows", ROW_GROUP_ROWS)
        write, read, size = _measured(table, rows, options, runs)
        lines.append(f"| {name} | {write:.3f} | {read:.3f} | {size / 1e6:.2f} |")
    started = time.perf_counter()
    for _ in range(runs):
        choose_encodings(table.slice(0, ROW_GROUP_ROWS))
    lines.append(f"| the choice alone, once for each part | {(time.perf_counter() - started) / runs:.3f} | | |")
    return "\n".join(lines)


def measure(folder: Path, runs: int) -> list[Result]:
    """Prints the tables, and judges the archive's side of an export: batches in memory to a committed backup."""
    data = walks()
    whole = pa.Table.from_batches(data.batches).unify_dictionaries().combine_chunks()
    print(f"{columns(3)}\n\n{files(whole, 3)}\n")
    batches = whole.to_batches(max_chunksize=65_536)
    seconds, size = [], 0
    fixed = len(_encode(whole, ROW_GROUP_ROWS, writer_options(usual(whole.schema), whole.schema.names)))
    for number in range(runs + 1):
        root = folder / f"encoding-{number}"
        repository = Repository.init(open_store(f"file://{root}"))
        started = time.perf_counter()
        size = commit_table(repository, data.measurement, batches, data.window).bytes
        seconds.append(time.perf_counter() - started)
        shutil.rmtree(root)
    return [
        Result("8.64 M values in memory to a committed backup, s", "shown", f"{median(seconds[1:]):.3f}", "", None),
        ratio(f"bytes of the archive ({size / 1e6:.1f} MB) / with fixed encodings", [size / fixed], most=0.8),
    ]
