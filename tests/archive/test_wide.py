"""Tables of thousands of fields, of which each series has a few: what most points lack takes neither memory nor time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influxdb_backup.archive.parquet import Normaliser, ParquetFile, read_batches, sliced
from influxdb_backup.columns import ARROW_TYPES, TIME_TYPE, arrow_schema, null_column, row_bytes
from influxdb_backup.fingerprint import fingerprint_batches
from influxdb_backup.model import MAX_END, MIN_TIME, Column, InfluxType, Role, Table, Window

EVER = Window(start=MIN_TIME, end=MAX_END)
TABLE = Table(retention_policy="autogen", measurement="wide")
FIELDS, BATCHES, ROWS = 2000, 20, 2000
KINDS = (InfluxType.FLOAT, InfluxType.STRING, InfluxType.BOOLEAN, InfluxType.INTEGER, InfluxType.UNSIGNED)
COLUMNS = [
    Column(role=Role.TAG, name="host", type=InfluxType.TAG),
    *(Column(role=Role.FIELD, name=f"f{n:04d}", type=KINDS[n % 5]) for n in range(FIELDS)),
]


def sparse() -> Iterator[pa.RecordBatch]:
    """40,000 points of 20 series, each of which has 10 fields of its own."""
    schema = arrow_schema(COLUMNS)
    for number in range(BATCHES):
        times = pa.array(np.arange(ROWS) + 1).cast(TIME_TYPE)
        host = pa.DictionaryArray.from_arrays(pa.array(np.zeros(ROWS, np.int32)), pa.array([f"h{number}"]))
        fields = [
            pa.array(np.arange(ROWS)).cast(ARROW_TYPES[column.type])
            if n // 10 == number
            else null_column(ARROW_TYPES[column.type], ROWS)
            for n, column in enumerate(COLUMNS[1:])
        ]
        yield pa.RecordBatch.from_arrays([times, host, *fields], schema=schema)


def write(path: Path) -> None:
    """The points as one part's file."""
    first = next(sparse())
    with ParquetFile(path, Normaliser(first.schema)(first).schema, plan="p", window=EVER, table=TABLE, piece=EVER) as f:
        for one in sparse():
            for rows in sliced(Normaliser(one.schema)(one)):
                f.write(rows)


def test_columns_without_a_value_count_nothing_and_share_their_memory() -> None:
    """A batch of 2,000 fields counts for the ten that it has, and its others are one piece of memory."""
    one = next(sparse())
    assert row_bytes(one) < 13 * 9 * ROWS
    addresses = {
        buffer.address for array in one.columns if array.null_count == ROWS for buffer in array.buffers() if buffer
    }
    assert len(addresses) == 1
    for kind, arrow in ARROW_TYPES.items():
        if kind is not InfluxType.TAG:
            assert null_column(arrow, 3).to_pylist() == [None] * 3
            null_column(arrow, 3).validate(full=True)


def test_a_sparse_table_is_stored_in_few_row_groups_and_read_in_bounded_memory(tmp_path: Path) -> None:
    """40,000 points of 2,000 fields, 650 MB side by side, are few row groups, and less than 64 MB while they are read."""
    path = tmp_path / "part.parquet"
    write(path)
    assert pq.ParquetFile(path).num_row_groups <= 4
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for one in read_batches(path, "part"):
        most, rows = max(most, pa.total_allocated_bytes() - before), rows + one.num_rows
    assert rows == BATCHES * ROWS
    assert most < 64 << 20
    found = fingerprint_batches("wide", read_batches(path, "part"))
    wanted = fingerprint_batches("wide", sparse())
    assert (found.rows, found.value, found.counts) == (wanted.rows, wanted.value, wanted.counts)
