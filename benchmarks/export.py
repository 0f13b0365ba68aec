"""Export by query against curl draining the same queries, and the archive against the server's own files."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.bed import Bed
from benchmarks.data import FIELDS, walks
from benchmarks.data import send as send_prepared
from benchmarks.table import Result, ratio
from influxdb_backup.influx.influxql import call_all, select_all
from influxdb_backup.jobs.export import export


def _curl(bed: Bed, database: str, statements: list[str], output: Path) -> float:
    started = time.perf_counter()
    for statement in statements:
        subprocess.run(
            [
                "curl", "--silent", "--fail", "--output", str(output), "-X", "POST",
                "-H", "Accept: application/x-msgpack",
                "--data-urlencode", f"q={statement}",
                f"{bed.running.url}/query?db={database}&epoch=ns&chunked=true",
            ],
            check=True,
        )  # fmt: skip
    return time.perf_counter() - started


def measure(bed: Bed, runs: int) -> list[Result]:
    """The ratio of whole exports (schema, read, count, fingerprint, Parquet, commit) to curl, and of sizes."""
    data = walks()
    bed.running.create_database("telemetry")
    send_prepared(bed.running.url, "telemetry", data.bodies())
    stored = bed.tsm_bytes("telemetry")
    plan = bed.plan("telemetry")
    statements = [
        select_all("autogen", data.measurement, data.window),
        call_all("count", "autogen", data.measurement, data.window),
    ]
    export(plan, data.window, server=bed.server, repository=bed.repository("warm"))
    ratios, size, ours, drains = [], 0, [], []
    for number in range(runs):
        repository = bed.repository(f"export-{number}")
        drained = _curl(bed, "telemetry", statements, bed.folder / "drained")
        result = export(plan, data.window, server=bed.server, repository=repository)
        if result.rows != data.rows or result.values != data.rows * FIELDS:
            raise RuntimeError(f"{result.rows} rows of {data.rows} were exported")
        ratios.append(result.seconds / drained)
        ours.append(result.seconds)
        drains.append(drained)
        size = result.bytes
    seconds = f"export {min(ours):.2f} s, curl {min(drains):.2f} s"
    return [
        ratio(f"export of {data.rows:,} x {FIELDS} / curl draining the same queries ({seconds})", ratios, most=1.3),
        ratio(
            f"archive bytes / compacted TSM bytes ({size / 1e6:.1f} MB / {stored / 1e6:.1f} MB)",
            [size / stored],
            most=0.95,
        ),
    ]


def measure_small_tables(bed: Bed, runs: int) -> list[Result]:
    """A window of 1,000 small tables against the same points in one table, beside what the requests alone cost."""
    tables, each = 1_000, 864
    bed.running.create_database("many")
    bed.running.create_database("one")
    for number in range(tables):
        data = walks(f"table_{number:04d}", rows=each, series=4, seed=number)
        send_prepared(bed.running.url, "many", data.bodies(), connections=1)
    whole = walks("whole", rows=each * tables, series=4 * tables)
    send_prepared(bed.running.url, "one", whole.bodies())
    window = whole.window
    requests = [
        statement
        for number in range(tables)
        for statement in (
            select_all("autogen", f"table_{number:04d}", window),
            call_all("count", "autogen", f"table_{number:04d}", window),
        )
    ]
    ratios, explained = [], []
    for number in range(runs):
        many = export(bed.plan("many"), window, server=bed.server, repository=bed.repository(f"many-{number}"))
        one = export(bed.plan("one"), window, server=bed.server, repository=bed.repository(f"one-{number}"))
        started = time.perf_counter()
        for statement in requests:
            bed.running.query(statement, db="many")
        drained = time.perf_counter() - started
        ratios.append(many.seconds / one.seconds)
        explained.append(many.seconds / drained)
    return [
        Result(
            f"a window of {tables:,} small tables / the same points in one table",
            "shown",
            f"{sorted(ratios)[len(ratios) // 2]:.2f}",
            " ".join(f"{value:.2f}" for value in ratios),
            None,
        ),
        ratio(f"the same {tables:,} tables / their {2 * tables:,} requests sent one by one", explained, most=1.3),
    ]
