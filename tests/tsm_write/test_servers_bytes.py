"""The servers' own files are the measure: what their compactor writes of the same points has the same bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from influxdb_backup.influx.dialect import DIALECT_1X, DIALECT_2X
from influxdb_backup.influx.line_protocol import encode
from influxdb_backup.influx.protocol import WriteOptions
from influxdb_backup.influx.shard_files import ShardFileBuilder
from influxdb_backup.model import InfluxType
from tests.servers import (
    NEWER,
    TWO,
    RunningServer,
    daemon,
    start_influxdb1,
    start_influxdb2,
)
from tests.tsm_write.tables import GROUP, every_encoding

KINDS = (InfluxType.FLOAT, InfluxType.INTEGER, InfluxType.BOOLEAN, InfluxType.STRING)
SIZES = (2, 3, 119, 121, 240, 241, 999, 1000, 1001, 2500)


def _compacted(server: RunningServer, folder: Path, batches: Sequence[pa.RecordBatch]) -> bytes:
    """The file that the server makes of the points, given in two halves so that it must merge every key."""
    dialect = DIALECT_1X if server.generation == 1 else DIALECT_2X
    server.create_database("db")
    for half in (0, 1):
        for whole in batches:
            middle = whole.num_rows // 2
            for lines in encode(
                "m x", whole.slice(middle) if half else whole.slice(0, middle), dialect, WriteOptions()
            ):
                server.write(lines.body, "db")
        _wait_for(folder, half + 1)
    return _wait_for(folder, 1)[0].read_bytes()


def _wait_for(folder: Path, count: int) -> list[Path]:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        files = list(folder.rglob("*.tsm"))
        if len(files) == count:
            return files
        time.sleep(0.2)
    raise AssertionError(f"the server has {files} and not {count} files")


@pytest.mark.parametrize(("generation", "kind"), [(1, NEWER), (2, TWO)])
def test_same_bytes_as_the_compactor(folder: Path, generation: int, kind: str) -> None:
    """Every type in every encoding, strings and nulls included, is byte for byte what 1.12.4 and 2.9.1 compact it to."""
    binary = daemon(kind)
    kinds = KINDS if generation == 1 else (*KINDS, InfluxType.UNSIGNED)
    batches = every_encoding(kinds, SIZES)
    (folder / "own").mkdir()
    builder = ShardFileBuilder(folder / "own", GROUP, generation=generation)
    for item in batches:
        builder.add("m x", item)
    (own,) = builder.finish()
    home = folder / "server"
    if generation == 1:
        options = '  compact-full-write-cold-duration = "1s"\n  cache-snapshot-write-cold-duration = "1s"\n'
        with start_influxdb1(home, binary, data_options=options) as server:
            theirs = _compacted(server, home, batches)
    else:
        cold = ("--storage-compact-full-write-cold-duration=1s", "--storage-cache-snapshot-write-cold-duration=1s")
        with start_influxdb2(home, binary, *cold) as server:
            theirs = _compacted(server, home, batches)
    assert own.read_bytes() == theirs
