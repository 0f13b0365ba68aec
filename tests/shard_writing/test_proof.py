"""What was sent as whole shards is proved to answer, also after a server that was killed while it took a shard in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import InfluxdbBackupError, TargetError
from influxdb_backup.influx.protocol import NewShards, Server
from influxdb_backup.jobs import shard_building, shard_proof
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_documents import RestoreReport
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.model import Column, InfluxType, RetentionPolicy, Role, Table, Window
from tests.jobs.support import (
    DAY,
    DAY_NS,
    Wrapped,
    back_up,
    fingerprints,
    local_repository,
    manifest_of,
    new_database,
    new_name,
    opened,
    plan,
    restore_into,
    window,
)
from tests.servers import DEBIANS, NEWER, RunningServer, _wait, daemon, start_influxdb1

TWO_DAYS = window(DAY.start, DAY.start + 2 * DAY_NS)
NAMES = {
    "a b": "1",
    "select": "2i",
    "ü": "true",
    'x"y': '"text"',
    "a,b": "3",
    "back\\slash": "1",
    "c, d": "4",
    "9": "5",
}
KINDS = (InfluxType.FLOAT, InfluxType.INTEGER, InfluxType.BOOLEAN, InfluxType.STRING, *[InfluxType.FLOAT] * 4)


def field(name: str, kind: InfluxType = InfluxType.FLOAT) -> Column:
    """A field."""
    return Column(role=Role.FIELD, name=name, type=kind)


def test_the_fields_that_one_shard_knows(any_influx: RunningServer) -> None:
    """Whatever their names; not those of other shards, of other types or of tags."""
    database, table = new_name(), Table(retention_policy="autogen", measurement="m x")
    first, second = (Window(start=start, end=start + DAY_NS) for start in (DAY.start, DAY.end))
    with opened(any_influx) as server:
        policy = RetentionPolicy(name="autogen", duration=0, shard_duration=DAY_NS, default=True)
        server.create_database(database, [policy])
        keys = [name.replace(",", "\\,").replace(" ", "\\ ") for name in NAMES]
        escaped = [f"{key}={value}" for key, value in zip(keys, NAMES.values(), strict=True)]
        any_influx.write(f"m\\ x,t=1 late=1 {second.start}\nm\\ x,t=1 {','.join(escaped)} {first.start}", database)
        known = [field(name, kind) for name, kind in zip(NAMES, KINDS, strict=True)]
        assert server.has_fields(database, table, first, known)
        assert server.has_fields(database, table, second, [field("late")])
        for wanted in (field("late"), field("select"), field("t"), field("b"), field("a")):
            assert not server.has_fields(database, table, first, [*known, wanted])
        assert not server.has_fields(database, Table(retention_policy="autogen", measurement="n"), first, [field("v")])


class Struck(Wrapped):
    """A 1.x server that is killed with all files of the second shard in place, before it lists the fields of most."""

    def __init__(self, server: object, running: RunningServer, restarts: list[subprocess.Popen[bytes]]) -> None:
        super().__init__(server)  # type: ignore[arg-type]
        self.running, self.restarts = running, restarts
        self.first: Sequence[Path] = ()

    def create_with_shards(self, *arguments: object, **named: object) -> NewShards:
        """The real shards, sent to by way of these."""
        return Struck(self.server.create_with_shards(*arguments, **named), self.running, self.restarts)  # type: ignore[return-value]

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """The second group without what introduces its fields, which is there once the server was killed."""
        if group.start != DAY.end:
            self.server.send(retention_policy, group, files)  # type: ignore[attr-defined]
            return
        if not self.first:
            self.first = files
            self.server.send(retention_policy, group, files[1:])  # type: ignore[attr-defined]
            return
        folder, process = self.running.folder, self.running.pid
        assert folder is not None
        shard = max(folder.glob(f"data/{self.database}/{retention_policy}/*"), key=lambda path: int(path.name))  # type: ignore[attr-defined]
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        for number, file in enumerate((self.first[0], *files), 7):
            shutil.copy(file, shard / f"{number:09d}-000000001.tsm")
        self.restarts.append(started_again(self.running))


def test_a_restore_is_stopped_while_the_server_stands_still(influx1: RunningServer, tmp_path: Path) -> None:
    """Whoever stops it does not wait until the server goes on, and the same id ends it then."""
    repository, target = local_repository(tmp_path), new_name("target")
    with (
        own_server(tmp_path, daemon(DEBIANS)) as (running, _),
        opened(running, snapshot_address=running.backup_address) as server,
    ):
        database = new_database(running)
        running.write(f"m,host=a v=1 {DAY.start}", database)
        first = back_up(repository, server, plan(database), DAY)

        def stop(moment: Progress) -> None:
            if moment.stage == "write" and not moment.done:
                raise KeyboardInterrupt

        standing = Standing(server, running)
        asked = RestoreRequest(refs=(first.ref,), target_database=target, restore_id="run 6", writer="auto")
        try:
            began = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                restore(asked, repository=repository, target=standing, progress=stop)  # type: ignore[arg-type]
            assert time.monotonic() - began < 5
        finally:
            os.kill(running.pid, signal.SIGCONT)
        assert _restored_in_time(asked, repository, server).rows == 1


def _restored_in_time(asked: RestoreRequest, repository: Repository, server: Server) -> RestoreReport:
    """The restore, asked for again while the server still ends what it was told before it stood still."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return restore(asked, repository=repository, target=server)
        except InfluxdbBackupError as error:
            if not error.retryable or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


class Standing(Wrapped):
    """A server that stands still once it has made the database and shows that the restore writes there."""

    def __init__(self, server: object, running: RunningServer) -> None:
        super().__init__(server)  # type: ignore[arg-type]
        self.running = running

    def mark_restore(self, *arguments: object) -> None:
        """The real mark, of a process that does nothing from then on."""
        self.server.mark_restore(*arguments)  # type: ignore[arg-type]
        os.kill(self.running.pid, signal.SIGSTOP)


def started_again(running: RunningServer) -> subprocess.Popen[bytes]:
    """The server with the same settings, folder and ports."""
    assert running.folder is not None
    log = running.folder / "again.log"
    with log.open("wb") as output:
        command = [running.binary, "-config", str(running.folder / "influxdb.conf")]
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=running.folder)
    _wait(running.url, process, log)
    return process


@contextmanager
def own_server(folder: Path, binary: str) -> Iterator[tuple[RunningServer, list[subprocess.Popen[bytes]]]]:
    """A 1.x server that keeps its index on disk, and what it was started again as."""
    again: list[subprocess.Popen[bytes]] = []
    try:
        with start_influxdb1(folder / "influxd", binary, data_options='index-version = "tsi1"') as running:
            yield running, again
    finally:
        for process in again:
            process.kill()
            process.wait()


@pytest.fixture(params=[DEBIANS, NEWER])
def binary(request: pytest.FixtureRequest) -> str:
    """Each 1.x daemon that is at hand."""
    return daemon(request.param)


@pytest.fixture
def led(influx1: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Repository, str]:
    """A backup of two days, whose table of 20 series is led by one field, and of a small table beside it."""
    monkeypatch.setattr("influxdb_backup.influx.shard_cells._LED_FROM_SERIES", 10)
    repository, database = local_repository(tmp_path), new_database(influx1)
    with opened(influx1) as source:
        policy = RetentionPolicy(name="days", duration=0, shard_duration=DAY_NS)
        source.create_database(database, [policy])
        times = [DAY.start + day * DAY_NS for day in (0, 1)]
        rows = [f"m,host=h{n:02d} a=1,b=2,c=3,d=4,e=5 {time}" for time in times for n in range(20)]
        rows += [f"small,host=h{n:02d} late={n}i {time}" for time in times for n in range(2)]
        influx1.write("\n".join(rows), database, "days")
        return repository, back_up(repository, source, plan(database, retention_policies=["days"]), TWO_DAYS).ref


@pytest.mark.parametrize(("counted", "held"), [(20_000_000, 4 << 20), (1e-6, 4 << 20), (1e-6, 1)])
def test_a_server_that_keeps_its_index_on_disk_learns_all_fields(
    led: tuple[Repository, str], binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: float, held: int
) -> None:
    """
    A table that is sent in two parts, and one that comes with the second, whatever proves them; also after a start.

    And also where what introduces the fields is more than one file may have.
    """
    monkeypatch.setattr(shard_proof, "COUNTED_PER_SECOND", counted)
    monkeypatch.setattr(shard_building, "_BUFFER_BYTES", held)
    monkeypatch.setattr(shard_building, "_LEAST_BUFFER", held)
    (repository, ref), target = led, new_name("target")
    with own_server(tmp_path, binary) as (running, again):
        with opened(running, snapshot_address=running.backup_address) as server:
            report = restore_into(repository, server, target, refs=(ref,), writer="shard")
            assert (report.writer, report.rows) == ("shard", 44)
        os.kill(running.pid, signal.SIGKILL)
        os.waitpid(running.pid, 0)
        again.append(started_again(running))
        with opened(running, snapshot_address=running.backup_address) as server:
            second = back_up(repository, server, plan(target, name="again", retention_policies=["days"]), TWO_DAYS)
        assert fingerprints(manifest_of(repository, second.ref)) == fingerprints(manifest_of(repository, ref))


def test_a_server_killed_while_it_took_a_shard_in(
    led: tuple[Repository, str], binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has every byte and counts every row by its first field, and no query finds the others: nothing is restored."""
    monkeypatch.setattr(shard_proof, "COUNTED_PER_SECOND", 1e-6)
    monkeypatch.setattr("influxdb_backup.jobs.shard_pipeline.SENDERS", 1)
    (repository, ref), target = led, new_name("target")
    with (
        own_server(tmp_path, binary) as (running, again),
        opened(running, snapshot_address=running.backup_address) as server,
    ):
        assert restore_into(repository, server, new_name("whole"), refs=(ref,), writer="shard").rows == 44
        with pytest.raises(TargetError, match="field 'b': 20 written, 0 there"):
            restore_into(repository, Struck(server, running, again), target, refs=(ref,), writer="shard")  # type: ignore[arg-type]
        assert again
        assert target not in server.databases()
        assert restore_into(repository, server, target, refs=(ref,), writer="shard").rows == 44


class Flipping(Wrapped):
    """A server on the way to which a bit of every shard file changes."""

    def create_with_shards(self, *arguments: object, **named: object) -> NewShards:
        """The real shards, sent to by way of others."""
        return FlippedShards(self.server.create_with_shards(*arguments, **named))  # type: ignore[arg-type, return-value]


class FlippedShards(Wrapped):
    """See Flipping."""

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """The files, with one bit of a value's block another."""
        for file in files:
            data = bytearray(file.read_bytes())
            data[5 + 4 + (len(data) - 5) // 8] ^= 1
            file.chmod(0o644)
            file.write_bytes(data)
        self.server.send(retention_policy, group, files)  # type: ignore[attr-defined]


@pytest.mark.parametrize("slow", [True, False], ids=["proved by counts", "proved by files"])
def test_a_bit_that_changes_on_the_way_of_a_shard_is_found(
    any_influx: RunningServer, repository: Repository, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    """Counts do not see it, so the files are compared always; the points are written as lines then, and are right."""
    monkeypatch.setattr(shard_proof, "COUNTED_PER_SECOND", 1e12 if slow else 1e-6)
    database, target = new_database(any_influx), new_name("target")
    any_influx.write("\n".join(f"m v={n * n / 7} {DAY.start + n * 10**9}" for n in range(4000)), database)
    with opened(any_influx, snapshot_address=any_influx.backup_address) as server:
        ref = back_up(repository, server, plan(database), DAY).ref
        beside: Any = Flipping(server)
        report = restore_into(repository, beside, target, refs=(ref,))
        assert (report.writer, report.rows, report.read_back) == ("lines", 4000, ("counts",))
        second = back_up(repository, server, plan(target, name="again"), DAY)
        assert fingerprints(manifest_of(repository, second.ref)) == fingerprints(manifest_of(repository, ref))
        whole = restore_into(repository, server, new_name(), refs=(ref,))
        assert (whole.writer, whole.read_back) == ("shard", ("counts", "files"))
