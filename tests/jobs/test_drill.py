"""Restore drills on real servers: they prove what is whole, they fail for what is not, and they leave nothing behind."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa
import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import (
    AccessError,
    BackupNotFoundError,
    DrillError,
    IntegrityError,
    ServerUnavailableError,
    SourceError,
    TargetError,
)
from influxdb_backup.influx.protocol import LEASE, Mark, ReadOptions, Server, WriteOptions, new_marked_name
from influxdb_backup.jobs import drill_scratch
from influxdb_backup.jobs.drill import Cleaned, clean, drill, drop_scratches_of, raise_unless_ok
from influxdb_backup.jobs.drills import DrillReport, ScratchCreated, ScratchDropped, ScratchStarted, passing_drill
from influxdb_backup.jobs.verify import raise_unless_ok as raise_unless_verified
from influxdb_backup.jobs.verify import verify
from influxdb_backup.model import RetentionPolicy, TableSchema, VerifyLevel, VerifyReport, Window
from tests.influx_write.support import batch_of, field
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    MINUTE,
    SECOND,
    WEEK,
    Later,
    Wrapped,
    back_up,
    create_policy,
    lines,
    new_database,
    opened,
    plan,
    rows_of,
    window,
)
from tests.jobs.test_recheck import as_owner
from tests.jobs.test_restore_rules import Losing, damage
from tests.servers import RunningServer, find_influxd1, start_influxdb1

SCRATCH = "influxdb_backup_drill_"


def fill(running: RunningServer, database: str, measurement: str = "cpu", count: int = 10) -> None:
    """One point a minute of one series."""
    running.write(lines((f"{measurement},host=a", f"v={n}", DAY.start + n * MINUTE) for n in range(count)), database)


def scratches(server: Server) -> list[str]:
    """Scratch databases that are on the server."""
    return [name for name in server.databases() if name.startswith(SCRATCH)]


def restorable(repository: Repository) -> bool:
    """Whether the latest backup counts as restorable."""
    return verify(repository, repository.ref("telemetry@latest"), VerifyLevel.RESTORABLE, record=False).ok


def test_a_drill_proves_every_table_and_leaves_no_scratch(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Rows and fingerprints come back equal, the report is kept, and the backup becomes restorable."""
    database = new_database(any_influx)
    fill(any_influx, database)
    any_influx.write(f'mem,host=b s="x",i=5i,b=true {DAY.start}', database)
    back_up(repository, any_server, plan(database))
    assert not restorable(repository)
    before = scratches(any_server)
    report = drill(plan(database), repository=repository, server=any_server)
    assert report.problems == ()
    assert report.ok
    assert {(table.table, table.ok, table.rows) for table in report.tables} == {
        ("autogen.cpu", True, 10),
        ("autogen.mem", True, 1),
    }
    assert (report.rows, report.values, report.scratch_dropped) == (11, 13, True)
    assert 0 < report.seconds_restore <= report.seconds_total
    assert scratches(any_server) == before
    kept = passing_drill(repository, repository.ref("telemetry@latest"))
    assert kept == report
    assert restorable(repository)
    assert database in any_server.databases()


def test_a_drill_says_why_it_compares_by_queries(
    influx1: RunningServer, server1: Server, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """In its own words, and not in those of a plan that says nothing of a reader."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    with caplog.at_level(logging.INFO, "influxdb_backup"):
        assert drill(plan(database, drill={"writer": "lines"}), repository=repository, server=server1).ok
    assert "its points are compared by queries" in caplog.text
    assert "the plan says" not in caplog.text


def test_a_drill_binds_to_the_manifest_it_restored(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A new revision is not restorable because an older one was."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    drill(plan(database), repository=repository, server=server1)
    fill(influx1, database, count=20)
    back_up(repository, server1, plan(database))
    assert not restorable(repository)


def test_a_drill_of_a_damaged_part_fails_and_says_where(
    influx1: RunningServer, server1: Server, repository: Repository, tmp_path: Path
) -> None:
    """The report names the object; the drill is kept as failed, and no scratch was made."""
    database = new_database(influx1)
    fill(influx1, database, "cpu")
    fill(influx1, database, "mem")
    back_up(repository, server1, plan(database))
    key = damage(repository, tmp_path, "mem")
    report = drill(plan(database), repository=repository, server=server1)
    assert not report.ok
    assert any(key in problem.message for problem in report.problems)
    assert not report.scratch_dropped
    assert report.scratch not in server1.databases()
    assert not restorable(repository)
    with pytest.raises(DrillError, match=key.replace(".", r"\.")):
        raise_unless_ok(report)
    checked = verify(repository, repository.ref("telemetry@latest"), VerifyLevel.VALID)
    assert key in {problem.object for problem in checked.problems}
    with pytest.raises(IntegrityError, match="is not valid"):
        raise_unless_verified(checked)
    assert [report.ok for _, report in repository.read_documents("checks/telemetry/", VerifyReport)] == [False]


def test_a_drill_of_a_damaged_manifest_fails_and_creates_no_scratch(
    influx1: RunningServer, server1: Server, repository: Repository, tmp_path: Path
) -> None:
    """A backup that cannot even be opened is the worst result, and is kept in a report."""
    database = new_database(influx1)
    fill(influx1, database)
    done = back_up(repository, server1, plan(database))
    path = tmp_path / "repository" / "manifests" / (done.manifest.removeprefix("sha256:") + ".json")
    path.unlink()
    report = drill(plan(database), repository=repository, server=server1)
    assert not report.ok
    assert any("manifest" in problem.message for problem in report.problems)
    assert report.scratch not in server1.databases()
    assert not repository.read_documents("drills/telemetry/", ScratchStarted)


def test_a_drill_finds_points_that_did_not_arrive(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A server that loses confirmed points fails the drill."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    report = drill(plan(database), repository=repository, server=Losing(server1))
    assert not report.ok
    assert any("'v'" in problem.message for problem in report.problems)
    assert report.scratch_dropped


def test_a_drill_finds_a_value_that_changed(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """Equal counts with another content are found by the fingerprint, and the table is named."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))

    class Changing(Wrapped):
        """Changes one value in the scratch after its counts were read back."""

        def read(self, name: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
            influx1.write(f"cpu,host=a v=0.5 {DAY.start}", name)
            return self.server.read(name, schema, piece, options)

    report = drill(plan(database), repository=repository, server=Changing(server1))
    assert [(problem.kind, problem.object) for problem in report.problems] == [("fingerprint", "autogen.cpu")]


def test_a_drill_finds_points_that_vanished(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """Points that were counted after the restore and are gone when they are read: rows and fields are named."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))

    class Vanishing(Wrapped):
        """Deletes one point of the scratch after its counts were read back."""

        def read(self, name: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
            influx1.query(f"DELETE FROM cpu WHERE time = {DAY.start}", db=name)
            return self.server.read(name, schema, piece, options)

    report = drill(plan(database), repository=repository, server=Vanishing(server1))
    assert [(problem.kind, problem.object) for problem in report.problems] == [
        ("rows", "autogen.cpu"),
        ("counts", "autogen.cpu"),
    ]
    assert "Field 'v' (float): 10 values were backed up and 9 came back." in report.problems[1].message


def test_a_drill_runs_the_users_checks(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """Checks are asked of the restored data only; one that does not hold, or that cannot be asked, fails the drill."""
    database = new_database(influx1)
    create_policy(influx1, database, "other", "DURATION INF REPLICATION 1")
    fill(influx1, database)
    influx1.write(f"cpu v=77 {DAY.start}", database, "other")
    influx1.write(lines(("cpu,host=a", "v=1", DAY.end + n) for n in range(5)), database)
    checks = [
        {"query": "SELECT count(v) FROM cpu", "equals": 10},
        {"query": "SELECT max(v) FROM cpu", "min": 8, "max": 9},
        {"query": "SELECT last(v) FROM cpu", "retention_policy": "other", "equals": 77},
        {"query": "SELECT * FROM cpu WHERE host='a'", "non_empty": True},
    ]
    chosen = plan(database, drill={"checks": checks})
    back_up(repository, server1, chosen)
    report = drill(chosen, repository=repository, server=server1)
    assert report.problems == ()
    assert [(check.ok, check.value) for check in report.checks][:3] == [(True, "10"), (True, "9.0"), (True, "77.0")]
    failing = plan(
        database,
        drill={"checks": [{"query": "SELECT count(v) FROM cpu", "min": 11}, {"query": "SELECT FROM", "min": 0}]},
    )
    report = drill(failing, repository=repository, server=server1)
    assert not report.ok
    assert [problem.kind for problem in report.problems] == ["check", "check"]
    assert "must be at least 11" in report.problems[0].message
    with pytest.raises(
        DrillError, match=r"is exact: its 11 rows .* Your check did not hold, SELECT count.*\(1 more"
    ) as caught:
        raise_unless_ok(report)
    assert caught.value.kind == "drill-check"
    assert "export" not in caught.value.hint


def test_latest_and_a_drill_take_the_newest_window_with_points(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Not one behind the last point; a window that is empty by now counts as empty; without any, that is what is said."""
    database = new_database(influx1)
    influx1.write(lines(("cpu", "v=1", time) for time in (DAY.start, DAY.end)), database)
    days = [window(DAY.start + n * DAY_NS, DAY.start + (n + 1) * DAY_NS) for n in range(3)]
    exported = [back_up(repository, server1, plan(database), day).ref for day in days]
    assert repository.ref("telemetry@latest").id == exported[1]
    assert drill(plan(database), repository=repository, server=server1).ref == exported[1]
    influx1.query(f"DELETE FROM cpu WHERE time >= {DAY.end}", db=database)
    back_up(repository, server1, plan(database), days[1], accept_shrink=True)
    assert repository.ref("telemetry@latest").id == exported[0]
    influx1.query("DELETE FROM cpu WHERE time > 0", db=database)
    influx1.write(f"cpu v=1 {DAY.end + 5 * DAY_NS}", database)
    back_up(repository, server1, plan(database), days[0], accept_shrink=True)
    with pytest.raises(BackupNotFoundError, match="3 closed windows, none with points"):
        repository.ref("telemetry@latest")
    with pytest.raises(BackupNotFoundError, match="no backup with points to drill"):
        drill(plan(database), repository=repository, server=server1)


def test_mixed_types_in_drills_are_kept_apart(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A field of all types, one for each shard group, comes back with each type, although the window is one."""
    database = new_database(influx1)
    create_policy(influx1, database, "hours", "DURATION INF REPLICATION 1 SHARD DURATION 1h DEFAULT")
    for hour, value in enumerate(("1.5", "7i", '"text"', "true", "2.5")):
        influx1.write(f"cpu v={value} {DAY.start + hour * HOUR + 5}", database, "hours")
    back_up(repository, server1, plan(database))
    report = drill(plan(database), repository=repository, server=server1)
    assert report.problems == ()
    assert report.rows == 5


def test_mixed_types_in_drills_after_the_shard_duration_was_altered(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Groups smaller than the policy's present duration hold other types: the scratch gets groups that separate them."""
    database = new_database(influx1)
    create_policy(influx1, database, "p", "DURATION INF REPLICATION 1 SHARD DURATION 1d DEFAULT")
    influx1.write(f"cpu v=1.5 {WEEK.start}", database, "p")
    influx1.write(f'cpu v="text" {WEEK.start + DAY_NS}', database, "p")
    influx1.query(f'ALTER RETENTION POLICY "p" ON "{database}" SHARD DURATION 1w')
    back_up(repository, server1, plan(database), WEEK)
    report = drill(plan(database), repository=repository, server=server1)
    assert report.problems == ()
    assert report.rows == 2


# --- 11: scratch databases


def test_scratch_is_recorded_before_it_is_created(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Whoever is killed while creating a scratch leaves its name in the repository; two drills never share one."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    seen: list[str] = []

    class Watching(Wrapped):
        def create_scratch(self, name: str, policies: tuple[RetentionPolicy, ...], mark: Mark) -> str:
            records = [record for _, record in repository.read_documents("drills/", ScratchStarted)]
            assert (name, self.server.name) in [(record.database, record.server) for record in records]
            seen.append(name)
            return self.server.create_scratch(name, policies, mark)

    empty = plan(new_database(influx1), name="nothing", allow_empty=True)
    without = repository.ref(back_up(repository, server1, empty).ref)
    for chosen, ref in ((plan(database), None), (plan(database), None), (empty, without)):
        assert drill(chosen, repository=repository, server=Watching(server1), ref=ref).ok
    assert len(set(seen)) == 3
    assert all(len(name.removeprefix(SCRATCH)) == 16 for name in seen)
    assert not set(seen) & set(server1.databases())


def test_scratch_that_exists_is_refused_and_never_dropped(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A name that is taken ends the drill; the database that has it stays as it is."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    taken: list[str] = []

    class Taken(Wrapped):
        def create_scratch(self, name: str, policies: tuple[RetentionPolicy, ...], mark: Mark) -> str:
            influx1.create_database(name)
            influx1.write(f"precious v=1 {DAY.start}", name)
            taken.append(name)
            return self.server.create_scratch(name, policies, mark)

    with pytest.raises(TargetError):
        drill(plan(database), repository=repository, server=Taken(server1))
    assert taken[0] in server1.databases()
    influx1.query(f'DROP DATABASE "{taken[0]}"')


def test_scratch_is_dropped_when_the_restore_is_interrupted(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Whatever ends the drill, its scratch is gone afterwards."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))

    class Interrupted(Wrapped):
        def writer(self, *_: object) -> None:
            raise KeyboardInterrupt

    before = scratches(server1)
    with pytest.raises(KeyboardInterrupt):
        drill(plan(database), repository=repository, server=Interrupted(server1))
    assert scratches(server1) == before
    assert len(repository.read_documents("drills/telemetry/", ScratchDropped)) == 1
    assert clean("telemetry", repository=repository, server=server1) == Cleaned()


class Undroppable(Wrapped):
    """A server that refuses to drop."""

    def drop_scratch(self, database: str, scratch_id: str) -> None:
        """Refuses."""
        raise ServerUnavailableError("not now")


def test_scratch_that_cannot_be_dropped_is_reported_and_cleaned_later(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A failed drop fails the drill by name; --clean drops exactly that, once."""
    database = new_database(any_influx)
    fill(any_influx, database)
    back_up(repository, any_server, plan(database))
    bystander = new_database(any_influx, SCRATCH.rstrip("_"))  # as a scratch is called, and not recorded
    report = drill(plan(database), repository=repository, server=Undroppable(any_server))
    assert not report.ok
    assert not report.scratch_dropped
    assert [(problem.kind, "not now" in problem.message) for problem in report.problems] == [("scratch", True)]
    assert report.scratch in any_server.databases()
    assert clean("other", repository=repository, server=any_server) == Cleaned()
    assert clean("telemetry", repository=repository, server=any_server) == Cleaned(dropped=(report.scratch,))
    assert report.scratch not in any_server.databases()
    assert clean("telemetry", repository=repository, server=any_server) == Cleaned()
    assert {database, bystander} <= set(any_server.databases())


def test_a_drill_that_loses_its_server_tells_what_it_left(
    influx1: RunningServer, server1: Server, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """No report is written then: the scratch that is still there is named, with the command that drops it."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))

    class Gone(Undroppable):
        def writer(self, *_: object) -> None:
            raise ServerUnavailableError("cannot be reached")

    with pytest.raises(ServerUnavailableError, match="cannot be reached"):
        drill(plan(database), repository=repository, server=Gone(server1))
    [left] = clean("telemetry", repository=repository, server=server1).dropped
    assert f"{left}: The scratch database could not be dropped (not now)" in caplog.text
    assert "run `influxdb-backup drill telemetry --clean`" in caplog.text


def killed_drill(repository: Repository, server: Server, ref: str, *, made: bool = True) -> str:
    """What a drill leaves that is killed while it creates its scratch: a record and, if it was ``made``, a database."""
    name, found = new_marked_name("drill"), repository.ref(ref)
    record = ScratchStarted(drill_id="killed", ref=ref, server=server.name, database=name, started_at=1)
    repository.put_document(layout.drill_stage_key(found.plan, found.window, found.revision, name, "started"), record)
    if made:
        server.create_scratch(
            name, [RetentionPolicy(name="rp", duration=0, shard_duration=0)], Mark("killed", server.now() + LEASE)
        )
    return name


def test_scratch_whose_making_was_never_answered_for_is_dropped(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A drill that does not know whether its scratch was made asks the server, which shows whose it is."""
    database = new_database(any_influx)
    fill(any_influx, database)
    back_up(repository, any_server, plan(database))

    class Silent(Wrapped):
        def create_scratch(self, *arguments: object) -> str:
            self.server.create_scratch(*arguments)
            raise KeyboardInterrupt

        def create_with_shards(self, *arguments: object, **named: object) -> None:
            self.server.create_with_shards(*arguments, **named)
            raise KeyboardInterrupt

    before = scratches(any_server)
    for writer in ("lines", "auto"):
        with pytest.raises(KeyboardInterrupt):
            drill(plan(database, drill={"writer": writer}), repository=repository, server=Silent(any_server))
    assert scratches(any_server) == before
    assert clean("telemetry", repository=repository, server=any_server) == Cleaned()


def test_scratch_of_a_killed_drill_is_dropped_once_it_is_no_longer_believed_at_work(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """What is there and shows itself is dropped, later; what is not seen is said to be so, and stays on the list."""
    database = new_database(any_influx)
    fill(any_influx, database)
    ref = back_up(repository, any_server, plan(database)).ref
    left, never = killed_drill(repository, any_server, ref), killed_drill(repository, any_server, ref, made=False)

    assert clean("telemetry", repository=repository, server=any_server) == Cleaned(running=(left,), unseen=(never,))
    assert left in any_server.databases()
    for dropped in ((left,), ()):
        found = clean("telemetry", repository=repository, server=Later(any_server))
        assert found == Cleaned(dropped=dropped, unseen=(never,))
    assert left not in any_server.databases()


def test_running_drill_is_no_leftover(
    any_influx: RunningServer, any_server: Server, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a drill runs, however long, its scratch is left alone; the drill says so to the server again and again."""
    monkeypatch.setattr(drill_scratch, "LEASE", 2 * SECOND)
    monkeypatch.setattr(drill_scratch, "_RENEW_SECONDS", 0.2)
    database = new_database(any_influx)
    fill(any_influx, database)
    back_up(repository, any_server, plan(database))
    seen: list[Cleaned] = []

    class Slow(Wrapped):
        def select(self, *arguments: object) -> object:
            time.sleep(4)
            seen.append(clean("telemetry", repository=repository, server=any_server))
            return self.server.select(*arguments)

    chosen = plan(database, drill={"checks": [{"query": "SELECT count(v) FROM cpu", "equals": 10}]})
    report = drill(chosen, repository=repository, server=Slow(any_server))
    assert report.ok, report.problems
    assert seen == [Cleaned(running=(report.scratch,))]


@pytest.mark.parametrize("shape", ["production", "form of a scratch", "points of others in a scratch's name"])
def test_forged_record_drops_nothing(
    any_influx: RunningServer, any_server: Server, repository: Repository, shape: str
) -> None:
    """Whatever documents in the repository say, a database is dropped only if the server shows that a drill made it."""
    database = new_database(any_influx)
    fill(any_influx, database)
    ref = repository.ref(back_up(repository, any_server, plan(database)).ref)
    victim = database if shape == "production" else new_marked_name("drill")
    if shape != "production":
        any_influx.create_database(victim)
        any_influx.write(f"precious v=1 {DAY.start}", victim)
    ids = victim
    if any_influx.generation == 2:
        ids = json.loads(any_influx.get(f"/api/v2/buckets?name={victim}"))["buckets"][0]["id"]
    for drill_id in ("forged", "manual-1-0123456789ab.1"):

        def key(stage: str, drill_id: str = drill_id) -> str:
            return layout.drill_stage_key(ref.plan, ref.window, ref.revision, drill_id, stage)

        started = ScratchStarted(drill_id=drill_id, ref=ref.id, server=any_server.name, database=victim, started_at=1)
        repository.put_document(key("started"), started)
        repository.put_document(key("created"), ScratchCreated(drill_id=drill_id, scratch_id=ids))

    cleaned = clean("telemetry", repository=repository, server=Later(any_server))
    assert cleaned.dropped == ()
    assert cleaned.forged + cleaned.foreign == (victim,)
    dropped = drop_scratches_of("telemetry", owners=lambda _: True, repository=repository, server=Later(any_server))
    assert not {victim, database} & set(dropped)
    assert {victim, database} <= set(any_server.databases())
    assert rows_of(any_influx, "SELECT count(v) FROM /.*/", victim)


def test_another_plans_running_drill_is_not_dropped_by_a_forged_record(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A record that names a drill at work elsewhere does not end it, and Airflow's teardown knows its own drills."""
    database = new_database(any_influx)
    fill(any_influx, database)
    ref = repository.ref(back_up(repository, any_server, plan(database)).ref)
    theirs = new_marked_name("drill")
    identity = any_server.create_scratch(theirs, [], Mark("theirs", any_server.now() + LEASE))
    started = ScratchStarted(drill_id="mine", ref=ref.id, server=any_server.name, database=theirs, started_at=1)
    repository.put_document(layout.drill_stage_key(ref.plan, ref.window, ref.revision, "mine", "started"), started)
    assert clean("telemetry", repository=repository, server=any_server) == Cleaned(running=(theirs,))
    owners = "mine".__eq__
    assert drop_scratches_of("telemetry", owners=owners, repository=repository, server=any_server) == ()
    assert theirs in any_server.databases()
    any_server.drop_scratch(theirs, identity)


def test_scratch_of_another_server_is_left_alone(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Cleaning on one server does not tick off what lies on another."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))

    class Elsewhere(Wrapped):
        name = "elsewhere"

    report = drill(plan(database), repository=repository, server=Undroppable(server1))
    assert clean("telemetry", repository=repository, server=Elsewhere(server1)) == Cleaned()
    assert clean("telemetry", repository=repository, server=server1) == Cleaned(dropped=(report.scratch,))


# --- others


def test_drills_come_round_to_all_windows(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """With least_recently_drilled, as many drills as windows drill each of them."""
    database = new_database(influx1)
    chosen = plan(database, drill={"pick": "least_recently_drilled"})
    days = [window(DAY.start + n * DAY_NS, DAY.end + n * DAY_NS) for n in range(3)]
    for day in days:
        influx1.write(f"cpu,host=a v=1 {day.start}", database)
        back_up(repository, server1, chosen, day)
    reports = [drill(chosen, repository=repository, server=server1) for _ in range(3)]
    assert [report.window for report in reports] == list(reversed(days))
    assert all(report.ok for report in reports)


def test_plan_identity_is_compared_by_drills(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A drill of a plan that now names another database does not prove the old one's backups and pass."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    with pytest.raises(SourceError) as caught:
        drill(plan("another"), repository=repository, server=server1)
    assert caught.value.kind == "identity-mismatch"


def test_a_drill_of_an_empty_backup_holds(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A backup of zero rows, and one without tables, restore to nothing and say so."""
    database = new_database(influx1)
    without_tables = repository.ref(back_up(repository, server1, plan(database, allow_empty=True)).ref)
    first = drill(plan(database), repository=repository, server=server1, ref=without_tables)
    fill(influx1, database)
    of_no_rows = repository.ref(back_up(repository, server1, plan(database), window(DAY.end, DAY.end + DAY_NS)).ref)
    second = drill(plan(database), repository=repository, server=server1, ref=of_no_rows)
    for report in (first, second):
        assert (report.ok, report.rows, report.problems) == (True, 0, ())


def test_a_named_ref_is_the_one_that_is_drilled(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """An old revision can be drilled by name."""
    database = new_database(influx1)
    fill(influx1, database)
    first = back_up(repository, server1, plan(database))
    fill(influx1, database, count=20)
    back_up(repository, server1, plan(database))
    report: DrillReport = drill(
        plan(database), repository=repository, server=server1, ref=repository.ref(first.ref), drill_id="run 1"
    )
    assert (report.ref, report.rows, report.drill_id) == (first.ref, 10, "run 1")
    again = drill(
        plan(database), repository=repository, server=server1, ref=repository.ref(first.ref), drill_id="run 1"
    )
    assert again.ok


def test_a_drill_of_text_that_is_not_utf8_holds(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Bytes that are not UTF-8 in many columns are restored and read back from the scratch as the same bytes."""
    database = new_database(any_influx)
    tags = "".join(f",t{n}=\udcff{n}" for n in range(6))
    fields = ",".join(f's{n}="\udc80{n}"' for n in range(6))
    any_influx.write(f"log{tags} {fields} {DAY.start}\nlog v=1 {DAY.start}", database)
    back_up(repository, any_server, plan(database))
    report = drill(plan(database), repository=repository, server=any_server)
    assert report.problems == ()
    assert report.rows == 2


def test_a_drill_that_lacks_a_right_says_nothing_of_the_backup(repository: Repository, tmp_path: Path) -> None:
    """A user of 1.x who may only read, or only write one database: an error of those rights, and no report is kept."""
    binary = find_influxd1()
    assert binary is not None
    with start_influxdb1(tmp_path / "influxdb", binary, auth=True) as running:
        running.query("CREATE USER owner WITH PASSWORD 'secret' WITH ALL PRIVILEGES")
        with opened(running, username="owner", password="secret") as owner:
            owner.create_database("telemetry", [RetentionPolicy(name="autogen", duration=0, shard_duration=DAY_NS)])
            with owner.writer("telemetry", "autogen", WriteOptions()) as points:
                points.write("m", batch_of([field("v")], [(DAY.start, {}, {"v": 1.0})]))
            back_up(repository, owner, plan())
            for statement in ("CREATE USER other WITH PASSWORD 'secret'", "GRANT ALL ON telemetry TO other"):
                assert "error" not in as_owner(running, "/query?" + urlencode({"q": statement}), "")
            with opened(running, username="other", password="secret") as other, pytest.raises(AccessError) as caught:
                drill(plan(), repository=repository, server=other)
            assert caught.value.kind == "access"
            assert not repository.read_documents("drills/", DrillReport)
            assert drill(plan(), repository=repository, server=owner).ok
