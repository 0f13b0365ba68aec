"""
Peak memory of every job, each in a process of its own.

All resident memory counts. With numba what of it is anonymous stands beside it: the rest are mapped files, copies of
shards among them, which the kernel drops when it needs the room.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import archives, shards
from benchmarks.archives import Shape
from benchmarks.shards import ShardBed
from benchmarks.table import Result
from influxdb_backup.archive.repository import Repository
from influxdb_backup.model import Ref

SERVER = "1.6"
MOST_MB = 400
MEGA = 10**6
_BIG = 250_000_000
"""values of the largest shard: 2 GB"""

PLAIN = ("export by queries", "verify valid", "restore by lines")
FAST = (
    "export by queries",
    "verify valid",
    "restore by lines",
    "export by shards",
    "restore by shards",
    "drill by shards",
    "scrub-server",
)
WHOLE = ("export by shards", "verify valid", "restore by shards", "drill by shards", "scrub-server")
"""what handles whole shards: for sizes at which the others take many minutes and do nothing else than before"""

BY_SHARDS = ("export by shards", "restore by shards", "drill by shards")


def shapes(*, quick: bool) -> list[tuple[Shape, tuple[str, ...], tuple[str, ...]]]:
    """What is measured, by which jobs without numba and with it."""
    once: list[tuple[Shape, tuple[str, ...], tuple[str, ...]]] = [
        (archives.dense(1), PLAIN, FAST),
        (archives.long_texts(3_000), PLAIN, FAST),
    ]
    if quick:
        return once
    return [
        *once,
        (archives.states(6), (), FAST),
        (archives.sparse(), (), BY_SHARDS),
        (archives.daily(10), (), WHOLE),
        (archives.dense(10), ("export by queries",), ("export by queries", *WHOLE)),
        (archives.many(1_000_000, 2_000_000), PLAIN, FAST),
        (archives.noise(_BIG), (), WHOLE),
    ]


def measure(folder: Path, *, quick: bool) -> list[Result]:
    """A row for each shape, job and kind of memory."""
    folder.mkdir()
    results = []
    with shards.beds(folder, only=[SERVER]) as found:
        for bed in found:
            for shape, plain, fast in shapes(quick=quick):
                results += measure_shape(bed, shape, plain, fast)
    return results


def measure_shape(bed: ShardBed, shape: Shape, plain: tuple[str, ...], fast: tuple[str, ...]) -> list[Result]:
    """The rows of one shape."""
    repository = bed.repository("memory")
    database = f"memory_{shape.measurement}"
    ref = archives.fill(bed.server, repository, database, shape)
    results = []
    for jobs, compiled in ((plain, False), (fast, True)):
        loops = "with numba" if compiled else "without numba"
        for job in jobs:
            peaks = _peak(bed, job, repository, database, ref, shape, compiled=compiled)
            resident, anonymous = peaks["resident"] / MEGA, peaks["anonymous"] / MEGA
            what = f"peak memory of {job}, {shape.name} ({shape.rows:,} points), {loops}"
            short = f"peak memory of any job and shape, {loops}, resident, MB"
            ok = resident <= MOST_MB
            figure = f"{resident:.0f}"
            results.append(Result(f"{what}, resident, MB", f"<= {MOST_MB}", figure, figure, ok, short))
            if compiled:
                shown = f"{anonymous:.0f}"
                results.append(Result(f"{what}, anonymous, MB", "shown", shown, shown, None))
    bed.drop(database)
    return results


def _peak(
    bed: ShardBed, job: str, repository: Repository, database: str, ref: Ref, shape: Shape, *, compiled: bool
) -> dict[str, int]:
    root = repository.url
    connection = {"url": bed.running.url}
    if bed.running.backup_address:
        connection["snapshot_address"] = bed.running.backup_address
    if bed.running.token:
        connection["token"] = bed.running.token
    command = [sys.executable, "-m", "benchmarks.memory_child", job, json.dumps(connection), root, database, ref.id]
    nothing = bed.folder / "no-loops"
    nothing.mkdir(exist_ok=True)
    environment = {**os.environ, **({} if compiled else {"NUMBA_CACHE_DIR": str(nothing)})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{job} of {shape.name}: {done.stderr[-3000:]}")
    answer: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    if answer["rows"] != shape.rows:
        raise RuntimeError(f"{job} of {shape.name}: {answer['rows']} rows of {shape.rows}")
    if job.startswith("export"):
        shutil.rmtree(f"{root.removeprefix('file://')}-out")
    if job.startswith("restore"):
        bed.drop(f"{database}_copy")
    return answer
