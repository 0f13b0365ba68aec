"""Others use the server while a restore makes a database with whole shards, and lose nothing by it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import TargetError
from influxdb_backup.influx.protocol import NewShards, Server
from influxdb_backup.model import RetentionPolicy, Window
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    Wrapped,
    back_up,
    new_database,
    new_name,
    opened,
    plan,
    restore_into,
)
from tests.servers import RunningServer

DAILY = RetentionPolicy(name="autogen", duration=0, shard_duration=DAY_NS, default=True)
GROUPS = [Window(start=DAY.start + n * DAY_NS, end=DAY.start + (n + 1) * DAY_NS) for n in range(20)]


def at_once(jobs: Sequence[Callable[[], object]]) -> list[object]:
    """What the jobs return that begin in the same moment."""
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> object:
        start.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


def test_what_others_write_meanwhile_stays(any_influx: RunningServer, server: Server) -> None:
    """Points that begin shard groups of another database at the moment at which one is made are all found."""
    database = new_database(any_influx)
    times = iter(range(DAY.start - 2000 * 7 * DAY_NS, DAY.start, 7 * DAY_NS))

    def write(lot: Sequence[int]) -> None:
        for time in lot:
            any_influx.write(f"live v=1 {time}", database)

    def create() -> None:
        made = server.create_with_shards(new_name("new"), [DAILY])
        for group in GROUPS:
            made.open("autogen", {group: b"m"})

    written = 0
    for _ in range(8):
        lots = [[next(times) for _ in range(8)] for _ in range(3)]
        written += sum(map(len, lots))
        at_once([*(partial(write, lot) for lot in lots), create])
    (row,) = server.select(database, "autogen", "SELECT count(v) FROM live")
    assert row["count"] == written


class Starting(Wrapped):
    """Makes its database in the same moment as another does."""

    def __init__(self, server: Server, start: threading.Barrier) -> None:
        super().__init__(server)
        self.start = start

    def create_with_shards(self, *arguments: object, **named: object) -> NewShards:
        """The real shards, a moment later."""
        self.start.wait()
        return self.server.create_with_shards(*arguments, **named)  # type: ignore[arg-type]


def test_restores_at_once_do_not_share_shards(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """Each has its own, whatever the other then does with its database."""
    database = new_database(any_influx)
    any_influx.write("\n".join(f"m v={n} {DAY.start + n * HOUR}" for n in range(24)), database)
    ref = back_up(repository, server, plan(database), DAY).ref
    for _ in range(6):
        start, names = threading.Barrier(2), [new_name("one"), new_name("other")]
        beside: Any = Starting(server, start)
        jobs = [partial(restore_into, repository, beside, name, refs=(ref,), writer="shard") for name in names]
        assert [report.rows for report in at_once(jobs)] == [24, 24]  # type: ignore[attr-defined]
        if any_influx.generation == 1:
            any_influx.query(f'DROP DATABASE "{names[0]}"')
        server.drop_unpublished(names[0])
        (row,) = server.select(names[1], "autogen", "SELECT count(v) FROM m")
        assert row["count"] == 24


class Shared(Wrapped):
    """A server on which somebody writes into the new database, and a file of a shard is lost."""

    def __init__(self, server: Server, running: RunningServer, line: str) -> None:
        super().__init__(server)
        self.running, self.line = running, line

    def create_with_shards(self, database: str, *arguments: object, **named: object) -> NewShards:
        """The real shards, sent to by way of others."""
        made = self.server.create_with_shards(database, *arguments, **named)  # type: ignore[arg-type]
        self.running.write(self.line, database)
        return Losing(made)  # type: ignore[arg-type, return-value]


class Losing(Wrapped):
    """See Shared."""

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """Nothing arrives."""


@pytest.mark.parametrize("line", ["strange v=1", f"m w=1 {DAY.start + 1}", f"m v=1 {DAY.start + 90 * DAY_NS}"])
def test_points_of_others_are_not_dropped(one: RunningServer, repository: Repository, line: str) -> None:
    """A new database of 1.x has its name from the beginning: what somebody wrote there stays, whatever else failed."""
    database, target = new_database(one), new_name("target")
    one.write("\n".join(f"m v={n} {DAY.start + n * HOUR}" for n in range(24)), database)
    with opened(one, snapshot_address=one.backup_address) as server:
        ref = back_up(repository, server, plan(database), DAY).ref
        shared: Any = Shared(server, one, line)
        with pytest.raises(TargetError, match="Somebody else writes into") as caught:
            restore_into(repository, shared, target, refs=(ref,), restore_id="r")
        assert caught.value.kind == "target-not-empty"
        (row,) = server.select(target, "autogen", "SELECT count(*) FROM /.*/")
        assert 1 in row.values()
        report = restore_into(repository, server, target, refs=(ref,), restore_id="r")
        assert (report.writer, report.rows) == ("lines", 24)


def test_a_measurement_that_appears_while_they_are_listed(one: RunningServer) -> None:
    """It is not taken for one without fields, since its fields are asked for again."""
    database, stop = new_database(one), threading.Event()

    def write() -> None:
        for number in range(3000):
            if stop.is_set():
                return
            one.write(f"m{number} v=1", database)

    with opened(one) as server, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            found = [server.schema(database, "autogen").unreadable for _ in range(60)]
        finally:
            stop.set()
            writing.result()
    assert found == [()] * 60
