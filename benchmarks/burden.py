"""What a backup costs the server and those who ask it meanwhile: processor seconds, and how long a dashboard waits."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import urllib3

from benchmarks import archives, command, native
from benchmarks.archives import Shape
from benchmarks.data import DAY, START
from benchmarks.shards import ShardBed
from benchmarks.table import Result, ratio
from influxdb_backup.jobs.export import export

RATE = 10
"""queries of the dashboard a second, whatever the server does"""
_EXPORTS = 3
_MOST_PROCESSOR, _MOST_WAIT = 0.01, 1.5


def measure(bed: ShardBed, runs: int, *, hours: int, seconds: float) -> list[Result]:
    """The server's processor for an export by shards, and what a dashboard waits in so many seconds of each way."""
    dense, words = archives.dense(1), archives.states(hours)
    found = []
    for shape in (dense, words):
        archives.fill(bed.server, bed.repository("fill"), shape.measurement, shape)
        found += _processor(bed, shape, runs)
    found += _waits(bed, words, runs, seconds=seconds)
    for shape in (dense, words):
        bed.drop(shape.measurement)
    return found


def _processor(bed: ShardBed, shape: Shape, runs: int) -> list[Result]:
    """Of several exports each, since the kernel counts in steps of 10 ms; beside them those of a native backup."""
    plan, million = bed.plan(shape.measurement), shape.values / 1e6

    def exported() -> None:
        rows = export(plan, shape.window, server=bed.server, repository=bed.repository("burden")).rows
        if rows != shape.rows:
            raise RuntimeError(f"{rows} rows of {shape.rows} were exported")

    def copied() -> None:
        native.back_up(bed, shape.measurement, bed.folder / "raw")

    exported()
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(_used(bed, exported) / _EXPORTS / million)
        theirs.append(_used(bed, copied) / _EXPORTS / million)
    what = f"{bed.name}: the server's processor seconds per million values, {shape.name}"
    short = f"the server's processor seconds for an export by shards, per million values ({bed.name})"
    way = native.BACKUP[bed.running.generation]
    return [
        ratio(f"{what}, export by shards", ours, most=_MOST_PROCESSOR, digits=4, short=short),
        ratio(f"{what}, {way}", theirs, digits=4),
    ]


def _used(bed: ShardBed, act: Callable[[], None]) -> float:
    before = native.processor_seconds(bed.running.pid)
    for _ in range(_EXPORTS):
        act()
    return native.processor_seconds(bed.running.pid) - before


def _waits(bed: ShardBed, shape: Shape, runs: int, *, seconds: float) -> list[Result]:
    """Alone, and beside exports and native backups, each of which begins when the one before has ended."""
    ways: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "nothing else": nullcontext,
        "exports by shards": partial(_exporting, bed, shape, "shard"),
        "native backups": partial(_backing_up, bed, shape),
        "exports by query": partial(_exporting, bed, shape, "query"),
    }
    ends: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, going in ways.items():
            with going():
                ends[way].append(_p99(bed, shape, seconds))
    native_way = native.BACKUP[bed.running.generation]
    pairs = zip(ends["exports by shards"], ends["native backups"], strict=True)
    what = f"{bed.name}: p99 of a dashboard's query beside exports by shards of {shape.name}"
    short = f"p99 of a dashboard's query beside exports by shards / beside native backups ({bed.name})"
    return [
        ratio(f"{what} / beside {native_way}", [ours / theirs for ours, theirs in pairs], most=_MOST_WAIT, short=short),
        *(
            ratio(f"{bed.name}: p99 of a dashboard's query beside {way}, ms", [end * 1e3 for end in taken], digits=0)
            for way, taken in ends.items()
        ),
    ]


def _p99(bed: ShardBed, shape: Shape, seconds: float) -> float:
    """
    Seconds that all but one of a hundred answers took, from the moment at which each was due.

    The means of a minute each of an hour of 20 hosts, as a panel asks for them.
    """
    hour = DAY // 24
    statement = (
        f'SELECT mean("load") FROM "{shape.measurement}" WHERE time >= {START} AND time < {START + hour} '
        "AND host =~ /^host_000[01].$/ GROUP BY time(1m)"
    )
    headers = {"Authorization": f"Token {bed.running.token}"} if bed.running.token else {}
    pool = urllib3.PoolManager(headers=headers, maxsize=8)

    def ask(due: float) -> float:
        time.sleep(max(0.0, due - time.perf_counter()))
        fields = {"db": shape.measurement, "epoch": "ms", "q": statement}
        reply = pool.request("GET", f"{bed.running.url}/query", fields=fields, timeout=60)
        if b'"values"' not in reply.data:
            raise RuntimeError(f"the dashboard was told {reply.status} {reply.data[:300]!r}")
        return time.perf_counter() - due

    began = time.perf_counter() + 0.1
    with ThreadPoolExecutor(8) as asking:
        waits = list(asking.map(ask, [began + number / RATE for number in range(int(seconds * RATE))]))
    return float(np.quantile(waits, 0.99))


@contextmanager
def _exporting(bed: ShardBed, shape: Shape, reader: str) -> Iterator[None]:
    """A warm process exports again and again; the first export is over when this begins."""
    arguments = [command.connection(bed), shape.measurement, reader, str(bed.folder / "again")]
    arguments += [str(shape.window.start), str(shape.window.end), str(shape.rows)]
    child = [sys.executable, "-m", "benchmarks.burden_child", json.dumps(arguments)]
    with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise RuntimeError("the process that exports again and again ended")
            yield
            if process.poll() is not None:
                raise RuntimeError(f"the process that exports again and again ended with {process.returncode}")
        finally:
            process.terminate()


@contextmanager
def _backing_up(bed: ShardBed, shape: Shape) -> Iterator[None]:
    """Native backups again and again."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            native.back_up(bed, shape.measurement, Path(bed.folder / "raw"))

    with ThreadPoolExecutor(1) as backing:
        going = backing.submit(go_on)
        try:
            yield
        finally:
            ended.set()
        going.result()
