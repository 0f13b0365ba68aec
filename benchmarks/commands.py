"""What a command costs before it does anything, the job of ten minutes in a warm process, and many windows in one."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from urllib.parse import urlencode

import urllib3

from benchmarks import archives, command, native
from benchmarks.archives import Shape
from benchmarks.command import Site
from benchmarks.data import DAY, ROWS, START
from benchmarks.shards import ShardBed
from benchmarks.table import Result, ratio, seconds
from influxdb_backup.influx.influxql import call_all, select_all
from influxdb_backup.influx.query import DEFAULT_CHUNK, MSGPACK
from influxdb_backup.jobs.export import export
from influxdb_backup.model import Window

_MOST_PROCESS, _MOST_JOB, _MOST_WINDOWS = 0.6, 0.15, 1.5
_MORE = 3
"""times as many runs of what takes a second"""
_LIBRARIES = "numpy, pyarrow.compute, pyarrow.parquet, pydantic, typer, urllib3, yaml"
TEN_MINUTES = 600 * 10**9


def measure(bed: ShardBed, runs: int) -> list[Result]:
    """The costs that do not depend on the points."""
    shape = archives.dense(1)
    archives.fill(bed.server, bed.repository("fill"), "fixed", shape)
    found = [*_processes(bed, shape, _MORE * runs), *_jobs(bed, shape, _MORE * runs)]
    bed.drop("fixed")
    return found


def _tens(shape: Shape) -> list[Window]:
    """Stretches of ten minutes, one after the other."""
    starts = range(shape.window.start, shape.window.end, TEN_MINUTES)
    return [Window(start=start, end=start + TEN_MINUTES) for start in starts]


def _processes(bed: ShardBed, shape: Shape, runs: int) -> list[Result]:
    site = command.site(bed, "fixed")
    site.export(shape.window, again=True)
    version, listing, fixed, exports, used, libraries = [], [], [], [], [], []
    for window in itertools.islice(_tens(shape), runs):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", f"import {_LIBRARIES}"], check=True, env={**os.environ, **command.COMPILED}
        )
        libraries.append(time.perf_counter() - began)
        version.append(site.call("--version").seconds)
        listing.append(site.call("list", "plan").seconds)
        called = site.export(window)
        exports.append(called.seconds)
        used.append(called.processor)
        fixed.append(called.seconds - called.inner)
    name = "`influxdb-backup export` of ten minutes"
    return [
        *(
            ratio(
                f"{bed.name}: {what}, seconds",
                taken,
                most=_MOST_PROCESS,
                short=f"{what}, seconds ({bed.name})",
            )
            for what, taken in (
                ("`influxdb-backup --version`, whole command", version),
                ("`influxdb-backup list` of one backup, whole command", listing),
                (f"{name}, process and imports: the command without its job", fixed),
            )
        ),
        seconds(f"{bed.name}: a process that imports the libraries an export stands on, and ends", libraries),
        seconds(f"{bed.name}: {name}, whole command", exports),
        seconds(f"{bed.name}: {name}, the command's own processor", used),
    ]


def _jobs(bed: ShardBed, shape: Shape, runs: int) -> list[Result]:
    taken: dict[str, list[float]] = {"auto": [], "query": []}
    alone: list[float] = []
    with urllib3.PoolManager() as client:
        for reader, spent in taken.items():
            repository, plan = bed.repository("warm"), bed.plan("fixed", reader)
            for number, window in enumerate(itertools.islice(_tens(shape), runs + 1)):
                started = time.perf_counter()
                rows = export(plan, window, server=bed.server, repository=repository).rows
                ended = time.perf_counter()
                if rows != shape.rows // 144:
                    raise RuntimeError(f"{rows} rows of ten minutes were exported")
                queried = _queried(bed, client, shape, window)
                if number:
                    spent.append(ended - started)
                    alone += [queried] if reader == "auto" else []
    what = f"{bed.name}: export of ten minutes ({shape.rows // 144:,} points) in a warm process"
    short = f"export of ten minutes in a warm process, seconds ({bed.name})"
    return [
        ratio(f"{what}, seconds", taken["auto"], most=_MOST_JOB, digits=3, short=short),
        seconds(f"{what}, `reader: query`", taken["query"]),
        seconds(f"{bed.name}: the queries for these points and for their count alone, answers thrown away", alone),
        seconds(
            f"{bed.name}: what the export takes beside these two queries",
            [whole - own for whole, own in zip(taken["auto"], alone, strict=True)],
        ),
    ]


def _queried(bed: ShardBed, client: urllib3.PoolManager, shape: Shape, window: Window) -> float:
    """Seconds of the two queries that an export cannot do without, one after the other on a connection that stands."""
    named = ("autogen", shape.measurement, window)
    token = {"Authorization": f"Token {bed.running.token}"} if bed.running.token else {}
    headers = {"Accept": MSGPACK, "Content-Type": "application/x-www-form-urlencoded", **token}
    common = {"db": "fixed", "rp": "autogen", "epoch": "ns", "chunked": "true", "chunk_size": DEFAULT_CHUNK}
    started = time.perf_counter()
    for statement in (select_all(*named), call_all("count", *named)):
        body = urlencode({**common, "q": statement})
        reply = client.request("POST", f"{bed.running.url}/query", body=body, headers=headers)
        if reply.status != 200 or b"error" in reply.data[:200]:
            raise RuntimeError(f"{statement}: {reply.status} {reply.data[:200]!r}")
    return time.perf_counter() - started


def measure_windows(bed: ShardBed, runs: int, *, days: int) -> list[Result]:
    """Days of one range as backups of their own, in one command, against the range as one backup."""
    shape = archives.daily(days)
    archives.fill(bed.server, bed.repository("fill"), "windows", shape)
    shutil.rmtree(bed.folder / "fill")
    site = command.site(bed, "windows", start=START)
    several, single, ratios, copies = [], [], [], []
    for number in range(runs + 1):
        copied = native.back_up(bed, "windows", bed.folder / "raw")
        one = _exported(site, shape, "--as-one")
        many = _exported(site, shape)
        if number:  # the first run touches fresh memory
            copies.append(copied)
            several.append(many)
            single.append(one)
            ratios.append(many / one)
    shutil.rmtree(bed.folder / "raw")
    single_day = [site.export(Window(start=START, end=START + DAY)).seconds for _ in range(_MORE)]
    bed.drop("windows")
    what = f"{bed.name}: {days} windows of a day in one command"
    short = f"{days} windows of a day in one command / the range as one window ({bed.name})"
    return [
        ratio(f"{what} / the same {days} days as one window, whole commands", ratios, most=_MOST_WINDOWS, short=short),
        seconds(f"{what}, whole command", several),
        seconds(f"{bed.name}: {days} days as one window, whole command", single),
        seconds(f"{bed.name}: a command for one of these days alone", single_day),
        seconds(f"{bed.name}: {native.BACKUP[bed.running.generation]} of {days} days", copies),
    ]


def _exported(site: Site, shape: Shape, *options: str) -> float:
    called = site.export(shape.window, *options)
    document = called.document
    rows = document["rows"] if options else sum(window["rows"] for window in document["windows"])
    if rows != shape.rows or (not options and len(document["windows"]) != shape.rows // ROWS):
        raise RuntimeError(f"{rows} rows of {shape.rows} were exported")
    return called.seconds
