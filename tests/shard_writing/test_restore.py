"""A restore by whole shards leaves a new database in which every query answers as at the source."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from urllib.error import HTTPError

import pyarrow as pa
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import (
    AccessError,
    ConfigError,
    IncompleteReadError,
    NotVisibleError,
    ServerUnavailableError,
    TargetError,
    UnrepresentableError,
)
from influxdb_backup.fingerprint import TableFingerprint
from influxdb_backup.influx.control2 import Bucket, ControlPlane, split_bucket
from influxdb_backup.influx.protocol import NewShards, ReadOptions, Server, ShardCopy
from influxdb_backup.jobs import shard_proof
from influxdb_backup.jobs.drill import drill
from influxdb_backup.jobs.drills import reports
from influxdb_backup.jobs.restore import plan_restore
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.jobs.restored_reading import sample_of
from influxdb_backup.model import InfluxType, RetentionPolicy, Table, TableSchema, Window
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    WEEK,
    Wrapped,
    back_up,
    create_policy,
    fingerprints,
    manifest_of,
    memory_repository,
    new_database,
    new_name,
    opened,
    plan,
    restore_into,
    settings_of,
    window,
)
from tests.jobs.test_round_trip import NAME_SETS, POINTS, expected_and_body
from tests.servers import DEBIANS, RunningServer, daemon, start_influxdb1
from tests.tsm_write import tables

ROOT = Path(__file__).parents[2]
MONTH = window(WEEK.start - 7 * DAY_NS, WEEK.end + 14 * DAY_NS)


def filled(running: RunningServer) -> str:
    """A database with four weeks of two tables, written in an order that is not that of time."""
    database = new_database(running)
    times = [time for start in range(3) for time in range(MONTH.start + start * HOUR, MONTH.end, 3 * HOUR)]
    rows = [f'm,host=h{n % 5} f={n * 0.37},i={n}i,s="text {n}" {time}' for n, time in enumerate(times)]
    rows += [f"other,a=b,c=d b={'true' if n % 3 else 'false'} {time + 1}" for n, time in enumerate(times[::7])]
    running.write("\n".join(rows), database)
    return database


def test_every_table_has_the_fingerprint_of_its_source(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """Several shard groups and tables, types and tags, backed up again from the restored database."""
    database = filled(any_influx)
    first = back_up(repository, server, plan(database), MONTH)
    target = new_name("target")
    report = restore_into(repository, server, target, refs=(first.ref,), writer="shard")
    assert (report.writer, report.rows, report.rejects) == ("shard", first.rows, 0)
    for reader in ("query", "shard"):
        second = back_up(memory := memory_repository(), server, plan(target, name="again", reader=reader), MONTH)
        assert fingerprints(manifest_of(memory, second.ref)) == fingerprints(manifest_of(repository, first.ref))


def test_series_that_one_field_introduces(
    any_influx: RunningServer, server: Server, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """Many series with several fields are sent in two parts, and every table is that of the source."""
    database, target = new_database(any_influx), new_name("target")
    rows = [f"m,host=h{n:05d} a=1,b={n}i,c=true" + (',d="x",e=0.5' if n % 3 else "") for n in range(10_000)]
    any_influx.write("\n".join(f"{row} {DAY.start + number % 2}" for number, row in enumerate(rows)), database)
    first = back_up(repository, server, plan(database), DAY)
    with caplog.at_level(logging.DEBUG, "influxdb_backup.jobs.shard_pipeline"):
        restore_into(repository, server, target, refs=(first.ref,), writer="shard")
    assert "in 2 parts" in caplog.text
    second = back_up(memory := memory_repository(), server, plan(target), DAY)
    assert fingerprints(manifest_of(memory, second.ref)) == fingerprints(manifest_of(repository, first.ref))


def test_later_files_win_in_both_parts(any_influx: RunningServer, server: Server, tmp_path: Path) -> None:
    """Of a point that comes again in a later file a server has the later value, also when it numbers files itself."""
    from influxdb_backup.influx.shard_files import ShardFileBuilder

    group = Window(start=DAY.start, end=DAY.start + DAY_NS)
    builder = ShardFileBuilder(tmp_path, group, generation=any_influx.generation, buffer_bytes=1)
    for value in (1, 2):
        hosts = [f"h{n:05d}" for n in range(10_000 // value)]
        fields = {name: (InfluxType.INTEGER, [value] * len(hosts)) for name in "abcde"}
        builder.add("m", tables.batch([group.start] * len(hosts), {"host": hosts}, fields))
    files, target = builder.finish(), new_name("target")
    policy = RetentionPolicy(name="autogen", duration=0, shard_duration=DAY_NS, default=True)
    made = server.create_with_shards(target, [policy])
    made.open("autogen", {group: builder.series})
    for leading in (True, False):
        made.send("autogen", group, [file for file in files if (file in builder.leading) is leading])
    made.publish()
    counts = server.counts(target, "autogen", "m", group, list("abcde"))
    assert dict(counts) == dict.fromkeys("abcde", 10_000)
    for name in "abcde":
        rows = server.select(target, "autogen", f"SELECT sum({name}) FROM m")
        assert [row["sum"] for row in rows] == [15_000]


@settings(max_examples=12, phases=(Phase.generate,))
@given(points=POINTS, names=NAME_SETS)
def test_hostile_points(any_influx: RunningServer, server: Server, points: list, names: dict) -> None:
    """Names and values of every kind, to the bit; what a shard cannot hold is written by line protocol."""
    database = new_database(any_influx)
    expected, body = expected_and_body(points, names, unsigned=any_influx.generation == 2)
    assume(expected)
    any_influx.write(body, database)
    repository = memory_repository()
    first = back_up(repository, server, plan(database, reader="query"))
    target = new_name("target")
    report = restore_into(repository, server, target, plan="telemetry", window=DAY)
    assert report.writer == "shard"
    second = back_up(repository, server, plan(target, name="again", reader="query"))
    assert fingerprints(manifest_of(repository, second.ref)) == fingerprints(manifest_of(repository, first.ref))


@pytest.mark.parametrize("line", [b"m\xffq v=1", b"m v\xffq=1", b"m,t\xffq=a v=1", b"m,t=\xffq v=1"])
@pytest.mark.parametrize("writer", ["auto", "lines"])
def test_names_that_are_not_utf8(
    any_influx: RunningServer, server: Server, repository: Repository, line: bytes, writer: str
) -> None:
    """They are restored, but not to a 1.6 that would open none of the shard's points again after a restart."""
    database, target = new_database(any_influx), new_name("target")
    for each in (b"ok v=2", line, line):
        with suppress(HTTPError):  # 1.6.7 answers 500 first, and 204 when it is sent the same again
            any_influx.write(b"%s %d" % (each, DAY.start), database)
    first = back_up(repository, server, plan(database))
    assert first.rows == 2
    if server.info.version.startswith("1.6") and b"," not in line:
        with pytest.raises(UnrepresentableError, match="is not UTF-8"):
            restore_into(repository, server, target, refs=(first.ref,), writer=writer)
        assert target not in server.databases()
        return
    assert restore_into(repository, server, target, refs=(first.ref,), writer=writer).rows == 2
    second = back_up(memory := memory_repository(), server, plan(target, name="again", reader="query"))
    assert fingerprints(manifest_of(memory, second.ref)) == fingerprints(manifest_of(repository, first.ref))


def test_the_database_lives_on(any_influx: RunningServer, server: Server, repository: Repository) -> None:
    """Restored shards take new points, also in groups of their own, and refuse another type."""
    database = filled(any_influx)
    first = back_up(repository, server, plan(database), MONTH)
    target = new_name("target")
    restore_into(repository, server, target, refs=(first.ref,), writer="shard")
    any_influx.write(f"m,host=new f=1.5 {DAY.start + 7}\nm,host=new f=2.5 {MONTH.end + 70 * DAY_NS}", target)
    (row,) = server.select(target, "autogen", "SELECT count(f) FROM m WHERE host = 'new'")
    assert row["count"] == 2
    assert {policy.name for policy in server.retention_policies(target)} == {"autogen"}


def test_policies_and_other_shard_durations(
    influx1: RunningServer, influx2: RunningServer, repository: Repository
) -> None:
    """From 1.x with two policies and short shards to 2.x and back, into the policies' own shard durations."""
    database = filled(influx1)
    create_policy(influx1, database, "long", "DURATION INF REPLICATION 1 SHARD DURATION 2h")
    influx1.write("\n".join(f"m,x=y v={n}i {DAY.start + n * HOUR}" for n in range(24)), database, "long")
    with opened(influx1, snapshot_address=influx1.backup_address) as one, opened(influx2) as two:
        first = back_up(repository, one, plan(database), MONTH)
        before = fingerprints(manifest_of(repository, first.ref))
        target = new_name("target")
        assert restore_into(repository, two, target, refs=(first.ref,), writer="shard").writer == "shard"
        assert {policy.name: policy.shard_duration for policy in two.retention_policies(target)}["long"] == 2 * HOUR
        second = back_up(repository, two, plan(target, name="second"), MONTH)
        assert fingerprints(manifest_of(repository, second.ref)) == before
        again = new_name("again")
        assert restore_into(repository, one, again, refs=(second.ref,), writer="shard").writer == "shard"
        third = back_up(repository, one, plan(again, name="third"), MONTH)
        assert fingerprints(manifest_of(repository, third.ref)) == before


def test_ranges_tags_and_a_renamed_policy(any_influx: RunningServer, server: Server, repository: Repository) -> None:
    """A part of the backup under other names is the same by shards and by line protocol."""
    database = filled(any_influx)
    first = back_up(repository, server, plan(database), MONTH)
    found = []
    part = window(DAY.start + 1, DAY.end + 5 * DAY_NS + 17)
    for writer in ("shard", "lines"):
        target = new_name("target")
        report = restore_into(
            repository, server, target, refs=(first.ref,), window=part, tags={"host": "h1"}, measurements=("m",),
            target_retention_policy="renamed", writer=writer,
        )  # fmt: skip
        assert report.writer == writer
        result = back_up(memory := memory_repository(), server, plan(target, name="again", reader="query"), MONTH)
        found.append(fingerprints(manifest_of(memory, result.ref)))
    assert found[0] == found[1] != {}


def test_the_backup_port_of_another_server_gets_no_database(
    influx1: RunningServer, newer_influx1: RunningServer, repository: Repository
) -> None:
    """A tunnel that leads to another host: refused before anything is created there, and nothing is claimed."""
    database, target = filled(influx1), new_name("target")
    with opened(influx1) as server:
        first = back_up(repository, server, plan(database), MONTH)
    with opened(influx1, snapshot_address=newer_influx1.backup_address) as server, opened(newer_influx1) as stranger:
        before = stranger.databases()
        with pytest.raises(ConfigError, match="another server"):
            restore_into(repository, server, target, refs=(first.ref,), restore_id="stray")
        drilled = drill(plan(database), repository=repository, server=server)
        assert [problem.kind for problem in drilled.problems] == ["config"]
        assert "another server" in drilled.problems[0].message
        assert stranger.databases() == before
        report = restore_into(repository, server, target, refs=(first.ref,), restore_id="stray", writer="lines")
    assert report.rows == first.rows


@pytest.mark.parametrize("held", [True, False])
def test_the_backup_port_of_another_server_beside_a_new_one(tmp_path: Path, held: bool) -> None:
    """A server without databases: whose port it is shows by the other's databases, or as it has not what was created."""
    binary = daemon(DEBIANS)
    repository = memory_repository()
    with start_influxdb1(tmp_path / "one", binary) as empty, start_influxdb1(tmp_path / "other", binary) as stranger:
        with opened(stranger) as server:
            database = filled(stranger)
            first = back_up(repository, server, plan(database), MONTH)
        if not held:
            stranger.query(f'DROP DATABASE "{database}"')
        address = stranger.backup_address
        with opened(empty, snapshot_address=address) as server, pytest.raises(ConfigError, match="another server"):
            restore_into(repository, server, "target", refs=(first.ref,))
        with opened(stranger) as server:
            assert "target" not in server.databases()


def test_an_existing_database_is_written_by_lines(
    any_influx: RunningServer, server: Server, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """`auto` says why; `shard` refuses and leaves the database alone."""
    database = filled(any_influx)
    first = back_up(repository, server, plan(database), MONTH)
    target = new_database(any_influx, "target")
    with pytest.raises(TargetError, match="exists already") as caught:
        restore_into(repository, server, target, refs=(first.ref,), writer="shard")
    assert caught.value.kind == "shard-writer"
    asked = RestoreRequest(refs=(first.ref,), target_database=target, writer="shard")
    (refusal,) = plan_restore(asked, repository=repository, target=server).refusals
    assert "exists already" in refusal.message
    with caplog.at_level(logging.INFO):
        assert restore_into(repository, server, target, refs=(first.ref,)).writer == "lines"
    assert "exists already" in caplog.text


@pytest.mark.parametrize("policy", ["autogen", "another"])
def test_a_name_that_is_taken_is_never_made_by_shards(any_influx: RunningServer, server: Server, policy: str) -> None:
    """Neither beside nor over what has the database's name; its points stay, and nothing is added."""
    database = filled(any_influx)
    before = server.retention_policies(database)
    new = RetentionPolicy(name=policy, duration=0, shard_duration=7 * DAY_NS, default=True)
    with pytest.raises(TargetError, match="exists already"):
        server.create_with_shards(database, [new])
    assert server.retention_policies(database) == before
    assert server.select(database, "autogen", "SELECT count(f) FROM m")[0]["count"] == 4 * 7 * 24


class Losing(Wrapped):
    """Loses the files of one shard group on their way, as 2.9.1 does with files that it cannot open: without a word."""

    def create_with_shards(self, *arguments: object, **named: object) -> NewShards:
        """The real shards, sent to by way of others."""
        return LosingShards(self.server.create_with_shards(*arguments, **named))  # type: ignore[arg-type, return-value]


class LosingShards(Wrapped):
    """See Losing."""

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """All but the group in the middle."""
        for file in files:
            if group.start == WEEK.start:
                file.write_bytes(file.read_bytes()[:-30])
        self.server.send(retention_policy, group, files)  # type: ignore[attr-defined]


@pytest.fixture(params=["counts", "files"])
def proof(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether counting seems cheap, as in small restores, or dear, as in large ones, which is then proved by files."""
    if request.param == "files":
        monkeypatch.setattr(shard_proof, "COUNTED_PER_SECOND", 1e-6)
    return str(request.param)


class Asked(Wrapped):
    """Notes what is counted."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.counted: list[tuple[str, str]] = []

    def counts(
        self, database: str, policy: str, measurement: str, window: Window, fields: Sequence[str]
    ) -> Mapping[str, int]:
        """All fields."""
        self.counted.append((measurement, "*"))
        return self.server.counts(database, policy, measurement, window, fields)

    def count(self, database: str, table: Table, window: Window, field: str) -> int:
        """One field."""
        self.counted.append((table.measurement, field))
        return self.server.count(database, table, window, field)


def test_what_arrived_is_proved(
    any_influx: RunningServer, server: Server, repository: Repository, proof: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By counts of every field, or by the files and one field that all rows have; sparse tables in every field."""
    database = new_database(any_influx)
    rows = [f"dense a={n},b={n}i {DAY.start + n}" for n in range(50)]
    rows += [f"sparse {'ab'[n % 2]}={n} {DAY.start + n}" for n in range(50)]
    any_influx.write("\n".join(rows), database)
    first = back_up(repository, server, plan(database))
    asked = Asked(server)
    report = restore_into(repository, asked, new_name("target"), refs=(first.ref,), writer="shard")  # type: ignore[arg-type]
    assert (report.writer, report.rows) == ("shard", 100)
    dense = {field for measurement, field in asked.counted if measurement == "dense"}
    assert dense == ({"*"} if proof == "counts" else {"b"})
    assert {field for measurement, field in asked.counted if measurement == "sparse"} == {"*"}
    monkeypatch.setattr(Asked, "count", lambda *_: 49)
    asked.counted.clear()
    restore_into(repository, asked, new_name("target"), refs=(first.ref,), writer="shard")  # type: ignore[arg-type]
    assert ("dense", "*") in asked.counted  # a doubt is settled by a full count


def test_files_that_do_not_arrive_are_written_by_lines(
    any_influx: RunningServer,
    server: Server,
    repository: Repository,
    proof: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Counts of each group are read back: the database is dropped, loudly, and line protocol writes all of it."""
    database = filled(any_influx)
    first = back_up(repository, server, plan(database), MONTH)
    target = new_name("target")
    losing = Losing(server)
    with pytest.raises(TargetError, match="did not arrive"):
        restore_into(repository, losing, target, refs=(first.ref,), writer="shard")  # type: ignore[arg-type]
    with pytest.raises(NotVisibleError):
        server.retention_policies(target)
    report = restore_into(repository, losing, target, refs=(first.ref,))  # type: ignore[arg-type]
    assert (report.writer, report.rows) == ("lines", first.rows)
    assert "is dropped" in caplog.text
    second = back_up(repository, server, plan(target, name="again"), MONTH)
    assert fingerprints(manifest_of(repository, second.ref)) == fingerprints(manifest_of(repository, first.ref))


@contextmanager
def in_pieces(address: str) -> Iterator[str]:
    """The address of a relay to a backup port that what is sent to it leaves in pieces, as from another machine."""
    host, _, port = address.rpartition(":")

    def forward(source: socket.socket, target: socket.socket, pause: float) -> None:
        with suppress(OSError):
            while block := source.recv(1400):
                target.sendall(block)
                time.sleep(pause)
            target.shutdown(socket.SHUT_WR)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
                for pair in ((client, server, 0.02), (server, client, 0)):
                    threading.Thread(target=forward, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_many_groups_from_another_machine(one: RunningServer, repository: Repository) -> None:
    """A network between takes nothing away: 100 groups are made and filled on every 1.x server."""
    database = new_database(one)
    one.query(f'ALTER RETENTION POLICY "autogen" ON "{database}" SHARD DURATION 1d')
    whole = window(DAY.start, DAY.start + 100 * DAY_NS)
    one.write("\n".join(f"m v={n} {time}" for n, time in enumerate(range(whole.start, whole.end, DAY_NS))), database)
    with in_pieces(str(one.backup_address)) as address, opened(one, snapshot_address=address) as server:
        first = back_up(repository, server, plan(database), whole)
        report = restore_into(repository, server, new_name("target"), refs=(first.ref,), writer="shard")
    assert (report.writer, report.rows) == ("shard", 100)


@contextmanager
def describing(address: str, times: int) -> Iterator[str]:
    """A relay to a backup port that says so many times which shards it has, and then hangs up when asked."""
    host, _, port = address.rpartition(":")
    left = iter(range(times))

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, socket.create_connection((host, int(port))) as server:
                    data = client.recv(1 << 20)
                    if data[1:2] == b"\1" and next(left, None) is None:
                        continue
                    server.sendall(data)
                    while answer := server.recv(1 << 20):
                        client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_port_that_is_gone_once_the_database_was_made(one: RunningServer, repository: Repository) -> None:
    """Nothing goes into shards of which the port does not say that they are the new database's, which is dropped."""
    target = new_name("target")
    with opened(one, snapshot_address=one.backup_address) as server:
        first = back_up(repository, server, plan(filled(one)), MONTH)
        asked = {"database": target, "refs": (first.ref,), "restore_id": "run 5"}
        with (
            describing(str(one.backup_address), 1) as address,
            opened(one, snapshot_address=address) as cut,
            pytest.raises(IncompleteReadError, match="backup port"),
        ):
            restore_into(repository, cut, **asked)
        assert target not in server.databases()
        assert restore_into(repository, server, writer="shard", **asked).rows == first.rows


@pytest.mark.parametrize("way", ["auto", "lines", "shard"])
def test_drills(any_influx: RunningServer, server: Server, repository: Repository, way: str) -> None:
    """A drill fills its scratch as the plan says, compares fingerprints and leaves nothing behind."""
    database = filled(any_influx)
    chosen = plan(database, drill={"writer": way})
    back_up(repository, server, chosen, MONTH)
    report = drill(chosen, repository=repository, server=server)
    assert (report.ok, report.problems, report.scratch_dropped) == (True, (), True)
    assert report.writer == ("lines" if way == "lines" else "shard")
    assert not [name for name in server.databases() if name.startswith(report.scratch)]


@pytest.mark.parametrize("way", ["auto", "shard"])
def test_a_drill_of_no_points(any_influx: RunningServer, server: Server, repository: Repository, way: str) -> None:
    """A window in which nothing was written is a sound backup, whatever its drill is written by."""
    database = new_database(any_influx)
    any_influx.write(f"m v=1 {DAY.start - DAY_NS}", database)
    chosen = plan(database, drill={"writer": way})
    ref = repository.ref(back_up(repository, server, chosen, DAY).ref)
    report = drill(chosen, repository=repository, server=server, ref=ref)
    assert (report.ok, report.rows, report.scratch_dropped) == (True, 0, True)


def test_a_drill_goes_on_by_lines(any_influx: RunningServer, server: Server, repository: Repository) -> None:
    """Shards that do not arrive are no fault of the backup: a second scratch is filled by line protocol."""
    database = filled(any_influx)
    back_up(repository, server, plan(database), MONTH)
    before = server.databases()
    report = drill(plan(database), repository=repository, server=Losing(server))  # type: ignore[arg-type]
    assert (report.ok, report.writer) == (True, "lines")
    assert server.databases() == before


class Busy(Wrapped):
    """Takes no shard in."""

    def create_with_shards(self, *arguments: object, **named: object) -> NewShards:
        """The real shards, which are refused."""
        return BusyShards(self.server.create_with_shards(*arguments, **named))  # type: ignore[arg-type, return-value]


class BusyShards(Wrapped):
    """See Busy."""

    def send(self, *_: object) -> None:
        """Refused."""
        raise ServerUnavailableError("The server is busy.")


def test_shards_alone_are_tried_again(any_influx: RunningServer, server: Server, repository: Repository) -> None:
    """With `writer: shard` a failure that may pass is told as such, leaves nothing, and is no finding of a drill."""
    chosen = plan(filled(any_influx), drill={"writer": "shard"})
    first = back_up(repository, server, chosen, MONTH)
    asked = {"database": new_name("target"), "refs": (first.ref,), "writer": "shard", "restore_id": "run 6"}
    before = server.databases()
    with pytest.raises(ServerUnavailableError, match="busy"):
        restore_into(repository, Busy(server), **asked)  # type: ignore[arg-type]
    with pytest.raises(ServerUnavailableError, match="busy"):
        drill(chosen, repository=repository, server=Busy(server))  # type: ignore[arg-type]
    assert server.databases() == before
    assert not reports(repository, chosen.name)
    assert restore_into(repository, server, **asked).writer == "shard"
    assert drill(chosen, repository=repository, server=server).ok


def test_a_drill_that_may_only_write_shards_says_why_it_did_not(influx1: RunningServer, repository: Repository) -> None:
    """The report itself names the reason and what to change, since not everybody has a log."""
    chosen = plan(filled(influx1), drill={"writer": "shard"})
    with opened(influx1) as server:
        back_up(repository, server, chosen, MONTH)
        report = drill(chosen, repository=repository, server=server)
    (problem,) = report.problems
    assert (report.ok, problem.kind, report.scratch_dropped) == (False, "shard-writer", False)
    assert "has no snapshot_address" in problem.message
    assert "writer: auto" in problem.message


class Forgetting(Wrapped):
    """A server whose queries leave one point out of each answer."""

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """All rows but the first."""
        for number, batch in enumerate(self.server.read(database, schema, piece, options)):
            yield batch.slice(0 if number else 1)


class Changing(Wrapped):
    """A server whose shards hold other values than were sent."""

    @contextmanager
    def copy_shard(
        self, database: str, retention_policy: str, piece: Window, least_share: float, allow_hot: bool = False
    ) -> Iterator[ShardCopy | None]:
        """The copy, with one flag turned round."""
        with self.server.copy_shard(database, retention_policy, piece, least_share, allow_hot) as copy:
            assert copy is not None
            yield ChangedCopy(copy)


class ChangedCopy(Wrapped):
    """See Changing."""

    def read(self, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """The points, the first flag of each batch turned round."""
        for batch in self.server.read(schema, piece, options):
            if "b" in batch.schema.names:
                flags = batch.column("b").to_pylist()
                column = batch.schema.get_field_index("b")
                yield batch.set_column(column, batch.schema.field(column), pa.array([not flags[0], *flags[1:]]))
            else:
                yield batch


@pytest.mark.parametrize(("faulty", "kinds"), [(Forgetting, {"query"}), (Changing, {"fingerprint", "query"})])
def test_a_drill_by_shards_sees_what_differs(
    any_influx: RunningServer,
    server: Server,
    repository: Repository,
    faulty: type[Wrapped],
    kinds: set[str],
) -> None:
    """Every value of the shards is compared with the manifest, and queries with the shards."""
    database = filled(any_influx)
    chosen = plan(database, drill={"writer": "shard"})
    back_up(repository, server, chosen, MONTH)
    report = drill(chosen, repository=repository, server=faulty(server))  # type: ignore[arg-type]
    assert (report.ok, report.writer, report.scratch_dropped) == (False, "shard", True)
    assert {problem.kind for problem in report.problems} <= kinds
    assert report.problems


def test_fingerprints_are_compared_when_asked(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """What was written as whole shards is read back so, and by query; a value that differs ends the restore."""
    first = back_up(repository, server, plan(filled(any_influx)), MONTH)
    asked = {"refs": (first.ref,), "writer": "shard", "fingerprints": True}
    report = restore_into(repository, server, new_name("target"), **asked)
    assert (report.writer, report.fingerprints, report.rows) == ("shard", True, first.rows)
    for faulty in (Forgetting(server), Changing(server)):
        with pytest.raises(TargetError, match="other content than the archive"):
            restore_into(repository, faulty, new_name("target"), **asked)  # type: ignore[arg-type]


@settings(max_examples=200)
@given(rows=st.integers(1, 10**9), start=st.integers(-(2**63) + 2, 2**63 - 2), length=st.integers(0, 2**62))
def test_the_sample_of_a_table_is_a_stretch_of_its_time(rows: int, start: int, length: int) -> None:
    """It begins and ends between the first and the last point, whatever those are."""
    found = TableFingerprint("m")
    found.rows, found.min_time, found.max_time = rows, start, min(start + length, 2**63 - 2)
    sample = sample_of(found, random.Random(rows))
    assert sample is not None
    assert found.min_time <= sample.start < sample.end <= found.max_time + 1
    assert sample_of(TableFingerprint("m"), random.Random(0)) is None


def killed(running: RunningServer, repository: Repository, folder: Path, point: str, target: str, ref: str) -> None:
    """A restore with the id "run 1" that ends at this point."""
    settings = asdict(settings_of(running, snapshot_address=running.backup_address))
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, str(script), point, target, repository.url, ref, "run 1", json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'provider'}:{ROOT}", "TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("point", ["created", "600", "999999999", "sent", "proved", "renamed", "published"])
def test_a_killed_restore_goes_on(
    any_influx: RunningServer, server: Server, repository: Repository, tmp_path: Path, point: str
) -> None:
    """Killed with a database but no points, within a file, between two groups or names: its id ends what it began."""
    if any_influx.generation == 1 and point in ("proved", "renamed"):
        pytest.skip("lacks the point: 1.x cannot rename a database")
    database = filled(any_influx)
    server.create_database(database, [RetentionPolicy(name="long", duration=0, shard_duration=2 * DAY_NS)])
    any_influx.write("\n".join(f"m,x=y v={n}i {DAY.start + n * HOUR}" for n in range(24)), database, "long")
    first = back_up(repository, server, plan(database), MONTH)
    target = new_name("target")
    before = server.databases()
    killed(any_influx, repository, tmp_path, point, target, first.ref)
    if any_influx.generation == 2:
        assert (target in server.databases()) == (point in ("renamed", "published"))
    report = restore_into(repository, server, target, refs=(first.ref,), restore_id="run 1")
    assert report.rows == first.rows
    assert set(server.databases()) == {*before, target}
    second = back_up(repository, server, plan(target, name="again"), MONTH)
    assert fingerprints(manifest_of(repository, second.ref)) == fingerprints(manifest_of(repository, first.ref))


def test_a_restore_that_ended_is_not_written_again(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """Repeated with its id it writes nothing; where somebody wrote over a point since then, that is a conflict, and stays."""
    first = back_up(repository, server, plan(filled(any_influx)), MONTH)
    asked = {"database": new_name("target"), "refs": (first.ref,), "restore_id": "run 4"}
    assert restore_into(repository, server, **asked).writer == "shard"
    report = restore_into(repository, server, **asked)
    assert (report.rows, report.continued_units > 0) == (first.rows, True)
    any_influx.write(f"m,host=h0 i=-1i {MONTH.start}", asked["database"])
    with pytest.raises(TargetError, match="already has points"):
        restore_into(repository, server, **asked)
    (row,) = server.select(asked["database"], "autogen", f"SELECT i FROM m WHERE time = {MONTH.start}")
    assert row["i"] == -1


class Interrupted(Wrapped):
    """Somebody presses Ctrl-C while the counts are taken; ``seen`` are the databases at that moment."""

    seen: tuple[str, ...] = ()

    def counts(self, *_: object) -> Mapping[str, int]:
        """Nothing any more."""
        self.seen = self.server.databases()
        raise KeyboardInterrupt


def test_nobody_sees_half_a_database_on_2x(influx2: RunningServer, repository: Repository) -> None:
    """It is built under a name of its own, which goes with whatever ends the restore early."""
    with opened(influx2) as server:
        first = back_up(repository, server, plan(filled(influx2)), MONTH)
        target, before = new_name("target"), server.databases()
        interrupted = Interrupted(server)
        with pytest.raises(KeyboardInterrupt):
            restore_into(repository, interrupted, target, refs=(first.ref,))  # type: ignore[arg-type]
        (built,) = set(interrupted.seen) - set(before)
        assert built.startswith("influxdb_backup_restore_")
        assert server.databases() == before


class Overtaken(Wrapped):
    """A server on which somebody else makes the target before it is published."""

    def __init__(self, server: Server, running: RunningServer) -> None:
        super().__init__(server)
        self.running = running

    def create_with_shards(self, database: str, *arguments: object, **named: object) -> NewShards:
        """The real ones, and the same name at once."""
        made = self.server.create_with_shards(database, *arguments, **named)  # type: ignore[arg-type]
        self.running.create_database(database)
        self.running.write("mine v=1 1", database)
        return made


def test_a_name_that_is_taken_meanwhile(influx2: RunningServer, repository: Repository) -> None:
    """What somebody else made stays as it is, and the error says where the points are."""
    with opened(influx2) as server:
        first = back_up(repository, server, plan(filled(influx2)), MONTH)
        target, before = new_name("target"), server.databases()
        with pytest.raises(TargetError, match="could not be renamed") as caught:
            restore_into(repository, Overtaken(server, influx2), target, refs=(first.ref,))  # type: ignore[arg-type]
        (built,) = set(server.databases()) - {*before, target}
        assert built in caught.value.message
        assert target in caught.value.hint
        assert server.select(target, None, "SELECT * FROM mine")[0]["v"] == 1
        second = back_up(repository, server, plan(built, name="again"), MONTH)
        assert fingerprints(manifest_of(repository, second.ref)) == fingerprints(manifest_of(repository, first.ref))


@pytest.mark.parametrize("number", [1, 2])
def test_ctrl_c_between_two_names_leaves_nothing(
    influx2: RunningServer, repository: Repository, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The buckets that were renamed go as well as those that were not."""
    rename, names = ControlPlane.rename, []

    def interrupted(control: ControlPlane, bucket: Bucket, name: str, description: str) -> Bucket:
        names.append(name)
        renamed = rename(control, bucket, name, description)
        if len(names) == number:
            raise KeyboardInterrupt
        return renamed

    with opened(influx2) as server:
        database, target = filled(influx2), new_name("target")
        server.create_database(database, [RetentionPolicy(name="long", duration=0, shard_duration=2 * DAY_NS)])
        first = back_up(repository, server, plan(database), MONTH)
        before = server.databases()
        monkeypatch.setattr(ControlPlane, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            restore_into(repository, server, target, refs=(first.ref,))
        assert server.databases() == before


class Crowded(Wrapped):
    """A server on which another call with the same id is quicker."""

    def create_with_shards(self, *arguments: object, **named: object) -> NewShards:
        """For the other one, then for this one."""
        self.server.create_with_shards(*arguments, **named)  # type: ignore[arg-type]
        return self.server.create_with_shards(*arguments, **named)  # type: ignore[arg-type]


def test_two_calls_with_one_id_do_not_share_a_database(influx2: RunningServer, repository: Repository) -> None:
    """The second says that the first is at work, and leaves what that has built."""
    with opened(influx2) as server:
        first = back_up(repository, server, plan(filled(influx2)), MONTH)
        before, target = server.databases(), new_name("target")
        with pytest.raises(TargetError, match="another call with this restore id") as caught:
            restore_into(repository, Crowded(server), target, refs=(first.ref,), restore_id="run 3")  # type: ignore[arg-type]
        assert caught.value.kind == "restore-in-progress"
        assert len(set(server.databases()) - set(before)) == 1
        assert restore_into(repository, server, target, refs=(first.ref,), restore_id="run 3").rows == first.rows
        assert set(server.databases()) == {*before, target}


def test_all_buckets_are_renamed_or_none(
    influx2: RunningServer, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the second of two names is taken at that moment, the first bucket gets its old name back."""
    rename, names = ControlPlane.rename, []

    def overtaken(control: ControlPlane, bucket: Bucket, name: str, description: str) -> Bucket:
        names.append(name)
        if len(names) == 2:
            influx2.create_database(name)
        return rename(control, bucket, name, description)

    with opened(influx2) as server:
        database, target = filled(influx2), new_name("target")
        server.create_database(database, [RetentionPolicy(name="long", duration=0, shard_duration=2 * DAY_NS)])
        influx2.write(f"m v=1 {DAY.start}", database, "long")
        first = back_up(repository, server, plan(database), MONTH)
        before = server.databases()
        monkeypatch.setattr(ControlPlane, "rename", overtaken)
        with pytest.raises(TargetError, match="could not be renamed"):
            restore_into(repository, server, target, refs=(first.ref,))
        assert [policy.name for policy in server.retention_policies(target)] == [split_bucket(names[1])[1]]
        (built,) = set(server.databases()) - {*before, target}
        second = back_up(repository, server, plan(built, name="again"), MONTH)
        assert fingerprints(manifest_of(repository, second.ref)) == fingerprints(manifest_of(repository, first.ref))


def test_a_repeated_restore_leaves_alone_what_somebody_made_meanwhile(
    influx2: RunningServer, repository: Repository, tmp_path: Path
) -> None:
    """A killed restore has written nothing under the target's name, so that a point there is not its own."""
    database, target = filled(influx2), new_name("target")
    with opened(influx2) as server:
        first = back_up(repository, server, plan(database), MONTH)
        killed(influx2, repository, tmp_path, "proved", target, first.ref)
        influx2.create_database(target)
        influx2.write(f"m,host=h0 f=-1 {MONTH.start}", target)
        with pytest.raises(TargetError, match="already has points") as caught:
            restore_into(repository, server, target, refs=(first.ref,), restore_id="run 1")
        assert caught.value.kind == "target-not-empty"
        assert server.select(target, None, "SELECT count(f), last(f) FROM m")[0]["last"] == -1


class Helpless(Losing):
    """Loses a group, and its token may not delete by then."""

    def drop_scratch(self, *_: object) -> None:
        """Refused."""
        raise AccessError("refused", hint="Check the token.")


def test_what_cannot_be_dropped_is_named(influx2: RunningServer, repository: Repository) -> None:
    """The error says what stays on the server and what becomes of it; the same id takes it away."""
    with opened(influx2) as server:
        first = back_up(repository, server, plan(filled(influx2)), MONTH)
        before, target = server.databases(), new_name("target")
        with pytest.raises(AccessError) as caught:
            restore_into(repository, Helpless(server), target, refs=(first.ref,), restore_id="run 2")  # type: ignore[arg-type]
        (left,) = set(server.databases()) - set(before)
        assert left in caught.value.hint
        assert restore_into(repository, server, target, refs=(first.ref,), restore_id="run 2").rows == first.rows
        assert set(server.databases()) == {*before, target}
