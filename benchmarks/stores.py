"""Repositories in S3: how many requests an export makes, and what 30 ms a request cost where tables are many."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from benchmarks import archives, command, native
from benchmarks.data import START, send, walks
from benchmarks.shards import ShardBed
from benchmarks.table import Result, ratio, seconds
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.model import Window
from tests.archive.earlier import multiply
from tests.s3 import counting, create_bucket, start_s3

EARLIER = 200
DELAY = 0.03
"""seconds that each request waits"""
_LOCAL, _NEAR, _FAR = "local", "S3", f"S3 with {DELAY * 1e3:.0f} ms a request"
TABLES = 300
_MOST_REQUESTS = 12
_MOST = {"export": 1.5, "verify": 2.0, "restore": 2.0}
_AT_ONCE = 16
_CLIENT = """
import json, sys
from pathlib import Path
from s3fs import S3FileSystem
verb, local, remote, options = sys.argv[1:]
store = S3FileSystem(**json.loads(options))
if verb == "get":
    store.get(remote, local, recursive=True, batch_size={at_once})
else:
    files = list(Path(local).rglob("*.parquet"))
    names = [remote + "/" + str(file.relative_to(local)) for file in files]
    store.put([str(file) for file in files], names, batch_size={at_once})
"""
"""a program that moves a folder by S3's client and does nothing else"""


def measure(bed: ShardBed, runs: int, folder: Path) -> list[Result]:
    """Both, of one server, against moto's S3 server."""
    folder.mkdir(parents=True)
    with start_s3(folder) as endpoint:
        return [*_requests(bed, endpoint), *_tables(bed, endpoint, runs)]


def _requests(bed: ShardBed, endpoint: str) -> list[Result]:
    """Of a whole command, for a day of 144 points, as the first backup of its plan and after many."""
    days = archives.small(2)
    archives.fill(bed.server, bed.repository("fill"), "few", days)
    counts = {}
    with counting(endpoint) as counted:
        create_bucket(endpoint, "few")
        site = command.site(bed, "few", url="s3://few/backups", store=_connection(counted.url), start=START)
        for earlier, (window, _) in zip((0, EARLIER), days.pieces, strict=True):
            counted.requests.clear()
            called = site.export(window, again=True)
            counts[earlier] = counted.methods()
            if called.document["rows"] != days.rows // 2:
                raise RuntimeError(f"{called.document['rows']} rows of a day were exported")
            if not earlier:
                multiply(_repository(endpoint, "s3://few/backups"), called.document["ref"], EARLIER - 1)
    bed.drop("few")
    return [_counted(f"after {earlier} earlier windows", methods) for earlier, methods in counts.items()] + [
        _heads(sum((methods for methods in counts.values()), Counter()))
    ]


def _counted(when: str, methods: Counter[str]) -> Result:
    heads, listed = methods["HEAD"], ", ".join(f"{count} {method}" for method, count in sorted(methods.items()))
    number = methods.total() - heads
    what = f"requests of `influxdb-backup export` to S3, a small window of one table, {when}, HEADs apart"
    short = "requests of an export to S3, a small window of one table, without and with 200 earlier windows"
    return Result(what, f"<= {_MOST_REQUESTS}", str(number), listed, number <= _MOST_REQUESTS, short)


def _heads(methods: Counter[str]) -> Result:
    number = methods["HEAD"]
    return Result("HEADs of these exports", "0", str(number), str(number), number == 0, "HEADs of these exports")


def _tables(bed: ShardBed, endpoint: str, runs: int) -> list[Result]:
    """Whole commands on a window of many small tables: a local folder, S3 as it is, S3 with a delay; in turns."""
    window = _fill_tables(bed)
    taken: dict[tuple[str, str], list[float]] = {}
    asked: dict[str, int] = {}
    used: dict[str, list[float]] = {}
    client: dict[str, list[float]] = {}
    with counting(endpoint) as near, counting(endpoint, DELAY) as far:
        for number in range(runs):
            for name, store in ((_LOCAL, None), (_NEAR, near), (_FAR, far)):
                url = ""
                if store is not None:
                    bucket = f"tables-{number}-{'far' if store is far else 'near'}"
                    create_bucket(endpoint, bucket)
                    url = f"s3://{bucket}/backups"
                site = command.site(bed, "tables", url=url, store=_connection(store.url) if store else "")
                for what, arguments in _commands(window).items():
                    if store is not None:
                        store.requests.clear()
                    before = _of_the_store()
                    called = site.call(*arguments)
                    taken.setdefault((what, name), []).append(called.seconds)
                    if store is far:
                        asked[what] = len(store.requests)
                        used.setdefault(what, []).append(_of_the_store() - before)
                bed.drop("tables_copy")
                if store is far:
                    parts = bed.folder / "parts"
                    for verb in ("get", "put"):
                        client.setdefault(verb, []).append(_moved(far.url, verb, parts, f"{bucket}/backups/data"))
                    shutil.rmtree(parts)
    bed.drop("tables")
    alone = f"a process in which S3's client alone, {_AT_ONCE} at once, {{}} the {TABLES} parts: {_FAR}"
    return [
        *(row for what in _MOST for row in _rows(what, taken, asked[what], used[what])),
        seconds(alone.format("writes"), client["put"]),
        seconds(alone.format("reads"), client["get"]),
    ]


def _moved(endpoint: str, verb: str, folder: Path, place: str) -> float:
    """Seconds of a process that gets the parts of a repository, or puts them to another place."""
    options = {"key": "testing", "secret": "testing", "config_kwargs": {"max_pool_connections": _AT_ONCE}}
    options["client_kwargs"] = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    remote = place if verb == "get" else f"{place}-alone"
    started = time.perf_counter()
    program = _CLIENT.format(at_once=_AT_ONCE)
    environment = {**os.environ, **command.COMPILED}
    subprocess.run(
        [sys.executable, "-c", program, verb, str(folder), remote, json.dumps(options)], check=True, env=environment
    )
    spent = time.perf_counter() - started
    found = sum(1 for _ in folder.rglob("*.parquet"))
    if found != TABLES:
        raise RuntimeError(f"{found} of {TABLES} parts were moved")
    return spent


def _of_the_store() -> float:
    """Processor seconds of moto's server, which answers one request at a time: no client is done sooner."""
    children = psutil.Process().children()
    return sum(native.processor_seconds(child.pid) for child in children if "tests.s3" in child.cmdline())


def _rows(what: str, taken: dict[tuple[str, str], list[float]], count: int, used: list[float]) -> list[Result]:
    local, near, far = (taken[what, name] for name in (_LOCAL, _NEAR, _FAR))
    whole = f"`influxdb-backup {what}`, {TABLES} tables"
    return [
        ratio(
            f"{whole}: {_FAR} / local, whole commands ({count} requests)",
            [there / here for there, here in zip(far, local, strict=True)],
            most=_MOST[what],
            short=f"{what} of {TABLES} tables, {_FAR} / local, whole commands",
        ),
        ratio(
            f"{whole}: the same, less the seconds that moto's own processor took",
            [(there - own) / here for there, own, here in zip(far, used, local, strict=True)],
        ),
        ratio(f"{whole}: S3 without a delay / local", [there / here for there, here in zip(near, local, strict=True)]),
        seconds(f"{whole}: local, whole command", local),
        seconds(f"{whole}: {_FAR}, whole command", far),
        seconds(f"{whole}: moto's own processor meanwhile", used),
    ]


def _commands(window: Window) -> dict[str, tuple[str, ...]]:
    between = command.between(window)
    return {
        "export": ("export", "plan", *between, "--json"),
        "verify": ("verify", "plan", "--level", "valid", "--json"),
        "restore": ("restore", "plan", *between, "--target-database", "tables_copy", "--json"),
    }


def _fill_tables(bed: ShardBed) -> Window:
    """The window of the tables, of 864 points of 10 fields each."""
    running = bed.running
    running.create_database("tables")
    sets = [walks(f"table_{number:04d}", rows=864, series=4, seed=number) for number in range(TABLES)]
    bodies = [body for data in sets for body in data.bodies()]
    send(running.url, "tables", bodies, 1, running.token, running.organization)
    running.wait_until_cold()
    return sets[0].window


def _connection(endpoint: str) -> str:
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    return json.dumps({"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra})


def _repository(endpoint: str, url: str) -> Repository:
    client = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    return Repository.open(open_store(url, {"key": "testing", "secret": "testing", "client_kwargs": client}))
