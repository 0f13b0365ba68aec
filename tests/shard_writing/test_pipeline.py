"""A restore by shards builds and sends a few shard groups at a time, and what ends it in the middle leaves nothing."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import IntegrityError, TargetError
from influxdb_backup.influx.protocol import NewShards, Server
from influxdb_backup.jobs.drill import drill
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_request import RestoreRequest, Unit
from influxdb_backup.jobs.shard_building import MOST_BUILT, lots_of
from influxdb_backup.model import Part, RetentionPolicy, Table
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    WEEK,
    Wrapped,
    back_up,
    fingerprints,
    manifest_of,
    memory_repository,
    new_database,
    new_name,
    opened,
    plan,
    restore_into,
    window,
)
from tests.servers import RunningServer

DAYS = 9
SOME_DAYS = window(DAY.start, DAY.start + DAYS * DAY_NS)
DAILY = RetentionPolicy(name="autogen", duration=0, shard_duration=DAY_NS, default=True)


def filled(running: RunningServer, server: Server, *more: str) -> str:
    """A database of some days with a shard group and a point each hour in each; ``more`` are lines beside them."""
    database = new_name()
    server.create_database(database, [DAILY])
    rows = [f"m,host=h{n % 3} f={n * 0.37},i={n}i {DAY.start + n * HOUR}" for n in range(24 * DAYS)]
    running.write("\n".join([*rows, *more]), database)
    return database


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are, and nothing else."""
    found = tmp_path / "temporary"
    found.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    return found


class Watched(Wrapped):
    """Notes which groups were sent, and of how many there are files at that moment; it takes its time."""

    def __init__(self, server: object, folder: Path) -> None:
        super().__init__(server)  # type: ignore[arg-type]
        self.folder = folder
        self.sent: list[int] = []
        self.held: list[int] = []

    def create_with_shards(self, *arguments: object, **named: object) -> NewShards:
        """The real shards, sent to by way of others."""
        watched = WatchedShards(self.server.create_with_shards(*arguments, **named))  # type: ignore[arg-type]
        watched.watching = self
        return watched  # type: ignore[return-value]


class WatchedShards(Wrapped):
    """See Watched."""

    watching: Watched

    def send(self, retention_policy: str, group: Any, files: Sequence[Path]) -> None:
        """The files, a moment later."""
        self.watching.sent.append(group.start)
        for _ in range(5):
            self.watching.held.append(len({file.parent for file in groups_files(self.watching.folder)}))
            time.sleep(0.02)
        self.server.send(retention_policy, group, files)  # type: ignore[attr-defined]


def groups_files(folder: Path) -> Iterator[Path]:
    """The shard files that a restore has on this machine."""
    return (file for file in folder.glob("influxdb-backup-restore-*/*/*") if file.is_file())


def copies(running: RunningServer, server: Server, repository: Repository, target: str, ref: str) -> None:
    """The target has the fingerprints of the backup."""
    second = back_up(memory := memory_repository(), server, plan(target, name="again", reader="query"), SOME_DAYS)
    assert fingerprints(manifest_of(memory, second.ref)) == fingerprints(manifest_of(repository, ref))


def test_files_of_three_groups_at_most(
    any_influx: RunningServer, server: Server, repository: Repository, folder: Path
) -> None:
    """However many groups there are, and however slowly the server takes them; nothing stays behind."""
    first = back_up(repository, server, plan(filled(any_influx, server)), SOME_DAYS)
    watched, target = Watched(server, folder), new_name("target")
    report = restore_into(repository, watched, target, refs=(first.ref,), writer="shard")  # type: ignore[arg-type]
    assert report.rows == first.rows
    assert len(watched.sent) == DAYS
    assert 1 < max(watched.held) <= MOST_BUILT
    assert not list(folder.iterdir())
    copies(any_influx, server, repository, target, first.ref)


def test_parts_that_reach_into_many_groups(one: RunningServer, repository: Repository, folder: Path) -> None:
    """A part of a week for shards of a day is read once for every three of them, and no more files are there."""
    database, target = new_database(one), new_name("target")
    one.write("\n".join(f"m,host=h{n % 3} f={n * 0.37} {WEEK.start + n * HOUR}" for n in range(24 * 7)), database)
    one.query(f'ALTER RETENTION POLICY "autogen" ON "{database}" SHARD DURATION 1d')
    with opened(one, snapshot_address=one.backup_address) as server:
        first = back_up(repository, server, plan(database), WEEK)
        assert len(manifest_of(repository, first.ref).tables[0].parts) == 1
        watched = Watched(server, folder)
        report = restore_into(repository, watched, target, refs=(first.ref,), writer="shard")  # type: ignore[arg-type]
        assert (report.rows, len(watched.sent)) == (24 * 7, 7)
        assert max(watched.held) <= MOST_BUILT
        second = back_up(memory := memory_repository(), server, plan(target, reader="query"), WEEK)
        assert fingerprints(manifest_of(memory, second.ref)) == fingerprints(manifest_of(repository, first.ref))


def test_room_is_needed_for_three_groups(
    any_influx: RunningServer, server: Server, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than the whole backup may be free, and not less than the largest groups of it need."""
    first = back_up(repository, server, plan(filled(any_influx, server)), SOME_DAYS)
    sizes = sorted(part.size for part in manifest_of(repository, first.ref).tables[0].parts)
    needed, usage = 2 * sum(sizes[-MOST_BUILT:]), shutil.disk_usage(tempfile.gettempdir())
    for free, writer in ((needed, "shard"), (needed - 1, "lines")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert restore_into(repository, server, new_name("target"), refs=(first.ref,)).writer == writer


def part_in_the_middle(repository: Repository, ref: str) -> Path:
    """The file of the part of a day in the middle."""
    parts = sorted(manifest_of(repository, ref).tables[0].parts, key=lambda part: part.min_time)
    path = repository.store.local_path(parts[DAYS // 2].path)
    assert path is not None
    return path


@pytest.mark.parametrize("writer", ["auto", "shard"])
def test_a_damaged_part_in_the_middle_leaves_nothing(
    any_influx: RunningServer, server: Server, repository: Repository, folder: Path, writer: str
) -> None:
    """The database is dropped, the error names the part, and the same id restores by shards once it is whole."""
    first = back_up(repository, server, plan(filled(any_influx, server)), SOME_DAYS)
    part, before, target = part_in_the_middle(repository, first.ref), server.databases(), new_name("target")
    whole = part.read_bytes()
    part.chmod(0o644)
    part.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    watched = Watched(server, folder)
    asked = {"refs": (first.ref,), "writer": writer, "restore_id": new_name("r")}
    with pytest.raises(IntegrityError, match=part.name) as caught:
        restore_into(repository, watched, target, **asked)  # type: ignore[arg-type]
    assert caught.value.kind == "digest"
    assert watched.sent
    assert server.databases() == before
    assert not list(folder.iterdir())
    part.write_bytes(whole)
    report = restore_into(repository, server, target, **asked)
    assert (report.writer, report.rows) == ("shard", first.rows)
    copies(any_influx, server, repository, target, first.ref)


def test_a_drill_of_a_damaged_part_in_the_middle(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """It fails, names the part, and drops the scratch that it had made by then."""
    chosen = plan(filled(any_influx, server), drill={"writer": "shard"})
    first = back_up(repository, server, chosen, SOME_DAYS)
    part, before = part_in_the_middle(repository, first.ref), server.databases()
    part.chmod(0o644)
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    report = drill(chosen, repository=repository, server=server)
    assert not report.ok
    assert {problem.kind for problem in report.problems} == {"digest"}
    assert part.name in report.problems[0].message
    assert report.scratch_dropped
    assert server.databases() == before


class Untouched(Wrapped):
    """A server on which nothing is to be created."""

    def create_with_shards(self, *_: object, **__: object) -> NewShards:
        """Fails the test."""
        raise AssertionError


@pytest.mark.parametrize("change", ["missing", "size"])
def test_parts_that_are_not_there_are_told_before_anything_is_created(
    any_influx: RunningServer, server: Server, repository: Repository, change: str
) -> None:
    """Without reading any: a part that is gone, or cut, may be the last of many."""
    first = back_up(repository, server, plan(filled(any_influx, server)), SOME_DAYS)
    part = part_in_the_middle(repository, first.ref)
    part.chmod(0o644)
    if change == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=part.name) as caught:
        restore_into(repository, Untouched(server), new_name("target"), refs=(first.ref,))  # type: ignore[arg-type]
    assert caught.value.kind == change


def test_what_a_shard_cannot_hold_in_the_middle_is_written_by_lines(
    any_influx: RunningServer, server: Server, repository: Repository, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The database of which some groups were sent is dropped, and line protocol writes all of it."""
    strange = f"a#!~#b,host=h f=1,i=1i {DAY.start + 5 * DAY_NS + 1}"
    first = back_up(repository, server, plan(filled(any_influx, server, strange), reader="query"), SOME_DAYS)
    watched, target = Watched(server, folder), new_name("target")
    report = restore_into(repository, watched, target, refs=(first.ref,))  # type: ignore[arg-type]
    assert (report.writer, report.rows) == ("lines", first.rows)
    assert watched.sent
    assert "is dropped: A shard cannot hold the measurement 'a#!~#b'" in caplog.text
    copies(any_influx, server, repository, target, first.ref)
    with pytest.raises(TargetError, match="cannot hold the measurement") as caught:
        restore_into(repository, server, other := new_name("target"), refs=(first.ref,), writer="shard")
    assert caught.value.kind == "shard-writer"
    assert other not in server.databases()


def test_a_restore_is_stopped_in_the_middle(
    any_influx: RunningServer, server: Server, repository: Repository, folder: Path
) -> None:
    """Within seconds; nothing stays on 2.x, and on 1.x, which has no other name for it, the same id ends it."""
    first = back_up(repository, server, plan(filled(any_influx, server)), SOME_DAYS)
    target, before = new_name("target"), server.databases()
    asked = RestoreRequest(refs=(first.ref,), target_database=target, restore_id=new_name("r"), writer="auto")

    def stop(moment: Progress) -> None:
        if moment.stage == "write" and moment.done == 2:
            assert moment.total == DAYS
            raise KeyboardInterrupt

    watched, began = Watched(server, folder), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        restore(asked, repository=repository, target=watched, progress=stop)  # type: ignore[arg-type]
    assert time.monotonic() - began < 5
    assert not list(folder.iterdir())
    if any_influx.generation == 2:
        assert server.databases() == before
    report = restore(asked, repository=repository, target=server)
    assert (report.writer, report.rows) == ("lines" if any_influx.generation == 1 else "shard", first.rows)
    copies(any_influx, server, repository, target, first.ref)


def test_lots_are_groups_that_share_parts() -> None:
    """A part in one group is a lot of its own; one in more is read once for each three of its groups."""
    table = Table(retention_policy="autogen", measurement="m")

    def unit(name: str, first: int, last: int) -> Unit:
        part = Part.model_construct(path=name, min_time=first, max_time=last, size=10, rows=1)
        return Unit(table, part, window(first, last + 1), whole=True)

    units = [
        unit("a", 0, HOUR - 1),
        unit("b", HOUR, 6 * HOUR - 1),
        unit("c", 2 * HOUR, 2 * HOUR),
        unit("d", 8 * HOUR, 8 * HOUR),
    ]
    lots = lots_of(units, {table: "rp"}, {"rp": HOUR})
    found = [
        (lot.times.start // HOUR, lot.times.end // HOUR, "".join(unit.part.path for unit in lot.units)) for lot in lots
    ]
    assert found == [(0, 1, "a"), (1, 4, "bc"), (4, 6, "b"), (8, 9, "d")]
