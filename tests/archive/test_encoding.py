"""How values are encoded is chosen column by column: never at the cost of a value, a reader or the memory's bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from influxdb_backup.archive.encoding import DELTA, DICTIONARY, LENGTHS, PLAIN, SPLIT, choose_encodings, usual_encodings
from influxdb_backup.archive.parquet import ParquetFile, read_batches, sliced
from influxdb_backup.columns import TIME_TYPE, arrow_schema
from influxdb_backup.fingerprint import fingerprint_batches
from influxdb_backup.model import Column, InfluxType, Role
from tests.archive.build import DAY, HOST, TABLE

ROWS = 140_000
RANDOM = np.random.default_rng(4)
SPECIAL = np.array([0, 1 << 63, 1, 0x8000000000000001, 0x7FF8000000000001, 0x7FF8000000000002], np.uint64).view(float)
TEXTS = [f"line {n} of {n * 7919 % 100_003}" for n in range(ROWS)]

COLUMNS = {
    "all bits": (InfluxType.FLOAT, RANDOM.random(ROWS), SPLIT),
    "4 decimals": (InfluxType.FLOAT, np.round(50 + np.cumsum(RANDOM.normal(0, 0.2, ROWS)), 4), PLAIN),
    "1 decimal": (InfluxType.FLOAT, np.round(RANDOM.normal(21, 3, ROWS), 1), DICTIONARY),
    "zeros of both signs": (InfluxType.FLOAT, SPECIAL[RANDOM.integers(0, len(SPECIAL), ROWS)], DICTIONARY),
    "counter": (InfluxType.INTEGER, np.cumsum(RANDOM.integers(0, 1000, ROWS)), DELTA),
    "percent": (InfluxType.INTEGER, RANDOM.integers(0, 101, ROWS), DICTIONARY),
    "large": (InfluxType.UNSIGNED, RANDOM.integers(2**63, 2**64 - 1, ROWS, np.uint64), DELTA),
    "words": (InfluxType.STRING, np.array(["up", "", "down"])[RANDOM.integers(0, 3, ROWS)].tolist(), DICTIONARY),
    "log": (InfluxType.STRING, TEXTS, LENGTHS),
    "flag": (InfluxType.BOOLEAN, RANDOM.random(ROWS) < 0.1, PLAIN),
}


def batch(rows: int = ROWS, holes: float = 0.0) -> pa.RecordBatch:
    """One series with a column of each kind."""
    fields = [Column(role=Role.FIELD, name=name, type=kind) for name, (kind, _, _) in COLUMNS.items()]
    schema = arrow_schema([HOST, *fields])
    times = pa.array(DAY.start + np.arange(rows, dtype=np.int64) * 10**8).cast(TIME_TYPE)
    host = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array(["a"]))
    mask = np.random.default_rng(1).random(rows) < holes
    arrays = [pa.array(values[:rows], mask=mask) for _, values, _ in COLUMNS.values()]
    return pa.RecordBatch.from_arrays([times, host, *arrays], schema=schema)


def write(path: Path, *batches: pa.RecordBatch) -> Path:
    """A part with these rows."""
    with ParquetFile(path, batches[0].schema, plan="p", window=DAY, table=TABLE, piece=DAY) as file:
        for one in batches:
            for rows in sliced(one):
                file.write(rows)
    return path


def test_each_column_gets_what_fits_it() -> None:
    """By the bytes that a sample takes, the same choice each time."""
    table = pa.Table.from_batches([batch()])
    chosen = choose_encodings(table)
    assert {name: chosen[name] for name in COLUMNS} == {name: encoding for name, (_, _, encoding) in COLUMNS.items()}
    assert (chosen["time"], chosen["host"]) == (DELTA, DICTIONARY)
    assert choose_encodings(table) == chosen
    few = table.slice(0, 100)
    assert choose_encodings(few) == usual_encodings(few.schema)


@pytest.mark.parametrize("holes", [0.0, 0.7, 1.0])
def test_every_bit_comes_back_in_every_encoding(tmp_path: Path, holes: float) -> None:
    """Zeros of both signs, denormals and NaNs too, through dictionaries, in columns that are mostly or wholly empty."""
    written = batch(holes=holes)
    path = write(tmp_path / "x.parquet", written)
    read = list(read_batches(path, "x"))
    assert fingerprint_batches("m", read).hexadecimal == fingerprint_batches("m", [written]).hexadecimal
    assert sum(one.num_rows for one in read) == ROWS
    assert all(one.schema.equals(written.schema, check_metadata=True) for one in read)


def test_a_sample_unlike_the_rest_costs_no_value(tmp_path: Path) -> None:
    """A dictionary chosen for 131,072 equal values meets values that are all different, and the other way round."""
    kinds = (InfluxType.FLOAT, InfluxType.INTEGER, InfluxType.STRING)
    schema = arrow_schema([Column(role=Role.FIELD, name=kind.value, type=kind) for kind in kinds])
    numbers = np.arange(ROWS, dtype=np.int64) * 7919
    halves = []
    for half, values in enumerate((np.full(ROWS, 5), numbers)):
        times = pa.array(DAY.start + (half * ROWS + np.arange(ROWS, dtype=np.int64)) * 10**8).cast(TIME_TYPE)
        arrays = [pa.array(values / 7), pa.array(values), pa.array(values.astype(str).tolist())]
        halves.append(pa.RecordBatch.from_arrays([times, *arrays], schema=schema))
    for order in (halves, halves[::-1]):
        read = read_batches(write(tmp_path / "x.parquet", *order), "x")
        assert fingerprint_batches("m", read).hexadecimal == fingerprint_batches("m", halves).hexadecimal


@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_another_reader_reads_every_encoding(tmp_path: Path, holes: float) -> None:
    """DuckDB, which shares no code with pyarrow, finds every value of every encoding that a part may have."""
    duckdb = pytest.importorskip("duckdb")
    written = batch(holes=holes)
    path = write(tmp_path / "x.parquet", written)
    metadata = pq.read_metadata(path).row_group(0)
    used = {encoding for n in range(metadata.num_columns) for encoding in metadata.column(n).encodings}
    assert used == {"RLE", "PLAIN", "RLE_DICTIONARY", DELTA, SPLIT, LENGTHS}
    names = [written.schema.field(2 + n).name for n in range(len(COLUMNS))]
    selected = ", ".join(f'"{name}"' for name in names)
    found = duckdb.sql(f"SELECT {selected} FROM read_parquet('{path}', file_row_number=true) ORDER BY file_row_number")
    table = found.to_arrow_table()
    for name in names:
        theirs, ours = table.column(name).combine_chunks(), written.column(name)
        if pa.types.is_floating(ours.type):
            theirs, ours = theirs.drop_null().view(pa.int64()), ours.drop_null().view(pa.int64())
        assert theirs.cast(ours.type).equals(ours), name
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet('{path}') WHERE percent = 7").fetchall() == [
        (int((pc.equal(written.column("percent"), 7)).true_count),)
    ]


def test_what_fails_in_the_thread_is_raised(tmp_path: Path) -> None:
    """A disk that fills up behind the caller's back ends the write, and leaves a file that is no part."""
    one = batch()
    file = ParquetFile(Path("/dev/full"), one.schema, plan="p", window=DAY, table=TABLE, piece=DAY)
    with pytest.raises(OSError, match="No space left"):
        for _ in range(3):
            for rows in sliced(one):
                file.write(rows)
    file.abandon()
