"""The memory of an export, a restore and a drill is bounded by batches, never by the window."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from influxdb_backup.fast import why_not_fast
from tests.jobs.support import DAY, SECOND, lines, new_database, new_name
from tests.servers import RunningServer

ROOT = Path(__file__).parents[2]
LIMIT = 400 * 10**6
"""bytes that are resident, the compiled loops and all libraries among them"""
ROWS = 3000


def peak(job: str, running: RunningServer, folder: Path, database: str, target: str, loops: str) -> tuple[int, int]:
    """Rows and peak memory of one job in a process of its own."""
    no_loops = {"NUMBA_CACHE_DIR": str(folder)} if loops == "numpy" else {}
    door = (running.backup_address or "") if job == "drill" else ""
    command = [sys.executable, str(ROOT / "tests" / "jobs" / "memory.py"), job, running.url]
    done = subprocess.run(
        [*command, str(folder / "repository"), database, target, door],
        env={**os.environ, **no_loops, "PYTHONPATH": f"{ROOT / 'provider'}:{ROOT}"},
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    rows, size = done.stdout.split()
    return int(rows), int(size)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("loops", ["numpy", "compiled"])
def test_long_strings_need_bounded_memory(influx1: RunningServer, tmp_path: Path, loops: str) -> None:
    """3,000 strings of 64 KB are exported, restored and, with numba, drilled by shards in less than 400 MB."""
    database, target = new_database(influx1), new_name("target")
    for part in range(0, ROWS, 200):
        text = os.urandom(32 * 1024).hex()
        rows = (
            (f"log,n={n % 3}", f'v="{n}{text[: 65_000 + n]}"', DAY.start + n * SECOND) for n in range(part, part + 200)
        )
        influx1.write(lines(rows), database)
    jobs = ["export", "restore"]
    if loops == "compiled" and why_not_fast() is None and influx1.backup_address:
        jobs.append("drill")
    for job in jobs:
        sizes: list[int] = []
        while len(sizes) < 3 and (not sizes or sizes[-1] >= LIMIT):
            # where other tests have the cores, what is freed a moment later is held beside what comes next
            rows_done, size = peak(job, influx1, tmp_path, database, f"{target}_{len(sizes)}", loops)
            assert rows_done == ROWS
            sizes.append(size)
        assert min(sizes) < LIMIT, f"{job}: {[f'{size / 1e6:.0f} MB' for size in sizes]}"
    for name in (database, *(f"{target}_{number}" for number in range(3))):
        influx1.query(f'DROP DATABASE "{name}"')
