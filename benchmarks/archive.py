"""What needs no server: verification, the fingerprint, and building the DAGs of many plans."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.data import START, walks
from benchmarks.table import Result, ratio
from influxdb_backup.archive.commit import ManifestDraft
from influxdb_backup.archive.parts import table_entry
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.columns import TIME_TYPE, arrow_schema, batch_columns
from influxdb_backup.fingerprint import TableFingerprint
from influxdb_backup.jobs.verify import verify
from influxdb_backup.model import (
    Column,
    Evidence,
    InfluxType,
    Ref,
    Role,
    Scope,
    Source,
    Table,
    VerifyLevel,
    Window,
)

GIB = 2**30


def commit_table(repository: Repository, measurement: str, batches: Iterable[pa.RecordBatch], window: Window) -> Ref:
    """A backup of one table."""
    table = Table(retention_policy="autogen", measurement=measurement)
    stream = iter(batches)
    first = next(stream)
    with repository.begin("bench", window) as attempt:
        writer = attempt.part_writer(0, table, first.schema, window)
        for batch in chain([first], stream):
            writer.write(batch)
        entry = table_entry(0, table, batch_columns(first.schema), writer.close())
        draft = ManifestDraft(
            source=Source(product="influxdb", version="1", generation=1, database="bench"),
            scope=Scope(),
            evidence=Evidence(
                predicate="",
                read_start=START,
                read_end=START,
                settle=0,
                open=False,
                pieces=(),
                counts=(),
                unreadable=(),
            ),
            tables=(entry,),
        )
        return attempt.commit(draft).ref


def _big_backup(repository: Repository, size: int) -> Ref:
    """A backup of about ``size`` bytes of floats that do not compress."""
    random = np.random.default_rng(3)
    schema = arrow_schema([Column(role=Role.FIELD, name=f"f{n}", type=InfluxType.FLOAT) for n in range(16)])
    rows, batch_rows = size // (16 * 8), 65_536
    window = Window(start=START, end=START + (rows + batch_rows) * 10**9)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, batch_rows):
            times = pa.array(START + (start + np.arange(batch_rows, dtype=np.int64)) * 10**9).cast(TIME_TYPE)
            values = [pa.array(random.random(batch_rows)) for _ in range(16)]
            yield pa.RecordBatch.from_arrays([times, *values], schema=schema)

    return commit_table(repository, "noise", batches(), window)


def measure_verify(folder: Path, runs: int) -> list[Result]:
    """Verification at level complete of 1 GiB against sha256sum of the same files, both from the page cache."""
    repository = Repository.init(open_store(f"file://{folder / 'verify'}"))
    ref = _big_backup(repository, GIB)
    files = [str(path) for path in (folder / "verify" / "data").rglob("*.parquet")]
    ratios = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL)
        hashed = time.perf_counter() - started
        report = verify(repository, ref, VerifyLevel.COMPLETE, record=False)
        if not report.ok:
            raise RuntimeError(report.problems[0].message)
        ratios.append(report.seconds / hashed)
    short = "verify `complete` / `sha256sum` of the same files, which uses one core"
    return [ratio(f"verify complete of {ref.bytes / GIB:.2f} GiB / sha256sum", ratios[1:], most=1.3, short=short)]


def measure_fingerprint(runs: int) -> list[Result]:
    """Million values per second of one thread."""
    data = walks()
    batches = pa.Table.from_batches(data.batches).combine_chunks().to_batches(max_chunksize=65_536)
    speeds = []
    for _ in range(runs):
        started = time.perf_counter()
        table = TableFingerprint(data.measurement)
        for batch in batches:
            table.add(batch)
        speeds.append(table.values / (time.perf_counter() - started) / 1e6)
    schema = arrow_schema([Column(role=Role.FIELD, name="s", type=InfluxType.STRING)])
    times = pa.array(START + np.arange(200_000, dtype=np.int64)).cast(TIME_TYPE)
    string_speeds = []
    for distinct in (200_000, 1_000):
        values = pa.array([f"a status text {number % distinct}" for number in range(200_000)])
        batch = pa.RecordBatch.from_arrays([times, values], schema=schema)
        started = time.perf_counter()
        TableFingerprint("s").add(batch)
        string_speeds.append(200_000 / (time.perf_counter() - started) / 1e6)
    return [
        ratio("fingerprint, million numeric values/s", speeds, least=50.0),
        Result(
            "fingerprint, million strings/s",
            "shown",
            f"{string_speeds[0]:.1f} distinct, {string_speeds[1]:.1f} repeated",
            "",
            None,
            "fingerprint, million strings/s",
        ),
    ]


_PLANS = """
import sys, time
from pathlib import Path
from influxdb_backup.factory import build_dags
import influxdb_backup.factory.build, influxdb_backup.factory.backup, influxdb_backup.factory.restore
import influxdb_backup.factory.drill
path = Path(sys.argv[1])
small = path.with_name("one.yaml")
build_dags(small)
started = time.perf_counter()
dags = build_dags(path)
print(time.perf_counter() - started, len(dags))
"""


def measure_plans(runs: int) -> list[Result]:
    """Seconds that one process takes to build the DAGs of 200 plans from YAML, imports apart."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        head = "repositories:\n  primary: {url: 'file:///srv/backups'}\nplans:\n"
        line = "  plan_{n}: {{database: db_{n}, drill: {{schedule: '0 6 * * 0'}}}}\n"
        path = Path(folder) / "many.yaml"
        path.write_text(head + "".join(line.format(n=n) for n in range(200)))
        path.with_name("one.yaml").write_text(head + line.format(n=0))
        for _ in range(runs):
            done = subprocess.run([sys.executable, "-c", _PLANS, str(path)], check=True, capture_output=True, text=True)
            taken, count = done.stdout.split()[-2:]
            if int(count) != 600:
                raise RuntimeError(f"{count} DAGs were built of 200 plans")
            seconds.append(float(taken))
    return [ratio("200 plans (600 DAGs), s", seconds, most=2.0)]
