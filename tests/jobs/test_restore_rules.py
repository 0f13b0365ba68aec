"""The rules against silent loss, on the side of the restore: each on a real server."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store_local import LocalStore
from influxdb_backup.errors import (
    BackupNotFoundError,
    IntegrityError,
    RejectedPointsError,
    StoreError,
    TargetError,
    UnrepresentableError,
    UsageError,
)
from influxdb_backup.influx.protocol import PointWriter, Server, WriteOptions
from influxdb_backup.jobs.restore import plan_restore
from influxdb_backup.jobs.restore_documents import RestoreProgress, RestoreReport
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.model import Window
from influxdb_backup.windows import parse_instant
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    MINUTE,
    SECOND,
    Wrapped,
    back_up,
    create_policy,
    lines,
    local_repository,
    manifest_of,
    new_database,
    new_name,
    plan,
    restore_into,
    rows_of,
    window,
)
from tests.servers import RunningServer


def fill(
    running: RunningServer, database: str, measurement: str = "cpu", start: int = DAY.start, count: int = 10
) -> None:
    """One point a minute of one series."""
    running.write(lines((f"{measurement},host=a", f"v={n}", start + n * MINUTE) for n in range(count)), database)


def backed_up(running: RunningServer, server: Server, repository: Repository, **settings: object) -> str:
    """A database with ten points and one backup of its day."""
    database = new_database(running)
    fill(running, database)
    back_up(repository, server, plan(database, **settings))
    return database


def values(running: RunningServer, database: str, source: str = "cpu") -> list[list[object]]:
    """Time and value of every point of one measurement."""
    return rows_of(running, f"SELECT v FROM {source}", database)


class BadWriter:
    """A writer that loses the last row of every batch after it said that it took it."""

    def __init__(self, writer: PointWriter) -> None:
        self.writer = writer

    def __enter__(self) -> BadWriter:
        self.writer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.writer.__exit__(*error)  # type: ignore[arg-type]

    def write(self, measurement: str, batch: pa.RecordBatch) -> None:
        """All but the last row."""
        self.writer.write(measurement, batch.slice(0, batch.num_rows - 1))

    def __getattr__(self, name: str) -> object:
        return getattr(self.writer, name)


class Losing(Wrapped):
    """A server on which points that were confirmed are not there."""

    def writer(self, database: str, retention_policy: str, options: WriteOptions) -> BadWriter:
        """A writer that loses."""
        return BadWriter(self.server.writer(database, retention_policy, options))


# --- the plain way


def test_a_restore_brings_everything_back(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Into a new database, with the same points; the report's numbers are what was written."""
    database = backed_up(any_influx, any_server, repository)
    target = new_name("target")
    report = restore_into(repository, any_server, target, plan="telemetry", window=DAY)
    assert values(any_influx, target) == values(any_influx, database)
    assert (report.rows, report.values, report.rejects, report.dropped_points) == (10, 10, 0, 0)
    assert report.created
    assert report.gaps == ()


def test_created_databases_get_the_sources_policies(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Names, durations, shard durations and the default are the source's, also of policies without points."""
    database = new_database(influx1)
    create_policy(influx1, database, "long", "DURATION 1040w REPLICATION 1 SHARD DURATION 3d DEFAULT")
    create_policy(influx1, database, "empty", "DURATION 10d REPLICATION 1 SHARD DURATION 2h")
    fill(influx1, database)
    influx1.write(f"cpu v=1 {DAY.start}", database, "long")
    now = server1.now()
    day = window(now - 5 * DAY_NS, now - HOUR)
    influx1.write(f"cpu v=1 {now - DAY_NS}", database, "empty")
    influx1.query('DROP MEASUREMENT "nothing"', db=database)
    back_up(repository, server1, plan(database), day)
    target = new_name("target")
    restore_into(repository, server1, target, plan="telemetry", window=day)

    def policies(of: str) -> list[list[object]]:
        return sorted(rows_of(influx1, f'SHOW RETENTION POLICIES ON "{of}"', of), key=str)

    assert policies(target) == policies(database)


def test_a_tag_filter_a_measurement_filter_and_a_part_of_the_time(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Only points with the tag, of the measurement, in the half-open range are written."""
    database = new_database(influx1)
    fill(influx1, database, "mem")
    for host in "ab":
        influx1.write(lines((f"cpu,host={host}", f"v={n}", DAY.start + n) for n in range(10)), database)
    back_up(repository, server1, plan(database))
    target = new_name("target")
    report = restore_into(
        repository,
        server1,
        target,
        plan="telemetry",
        window=window(DAY.start + 3, DAY.start + 7),
        measurements=("cpu",),
        tags={"host": "b"},
    )
    assert report.rows == 4
    found = rows_of(influx1, "SELECT v, host FROM cpu", target)
    assert [(row[0], row[2]) for row in found] == [(DAY.start + n, "b") for n in range(3, 7)]
    assert rows_of(influx1, "SHOW MEASUREMENTS", target) == [["cpu"]]


def test_two_policies_cannot_become_one(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """Equal measurements of two policies are never merged into one target policy."""
    database = new_database(influx1)
    create_policy(influx1, database, "other", "DURATION INF REPLICATION 1")
    fill(influx1, database)
    influx1.write(f"cpu,host=a v=99 {DAY.start}", database, "other")
    back_up(repository, server1, plan(database))
    with pytest.raises(UsageError, match="would both become"):
        restore_into(repository, server1, new_name(), plan="telemetry", window=DAY, target_retention_policy="one")
    target = new_name("target")
    restore_into(
        repository,
        server1,
        target,
        plan="telemetry",
        window=DAY,
        retention_policies=("other",),
        target_retention_policy="moved",
    )
    assert rows_of(influx1, 'SELECT v FROM "moved"."cpu"', target) == [[DAY.start, 99]]


# --- 4: newest read wins


def test_newest_read_wins_across_windows_of_different_sizes(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """An hour that was read later than its day wins there, deletions included, and the rest of the day stays."""
    database = new_database(influx1)
    influx1.write(lines(("cpu,host=a", f"v={hour}", DAY.start + hour * HOUR) for hour in range(24)), database)
    now = server1.now()
    back_up(repository, At(server1, now - 10 * SECOND), plan(database))
    influx1.write(f"cpu,host=a v=100 {DAY.start + 5 * HOUR}", database)
    influx1.query(f"DELETE FROM cpu WHERE time = {DAY.start + 6 * HOUR}", db=database)
    influx1.write(f"cpu,host=a v=-1 {DAY.start + 9 * HOUR}", database)
    hours = window(DAY.start + 5 * HOUR, DAY.start + 7 * HOUR)
    back_up(repository, At(server1, now - 5 * SECOND), plan(database), hours)
    target = new_name("target")
    restore_into(repository, server1, target, plan="telemetry", window=DAY)
    expected = [[DAY.start + h * HOUR, 100 if h == 5 else h] for h in range(24) if h != 6]
    assert values(influx1, target) == expected


class At(Wrapped):
    """A server whose clock stands still."""

    def __init__(self, server: Server, instant: int) -> None:
        super().__init__(server)
        self.instant = instant

    def now(self) -> int:
        """The instant."""
        return self.instant


# --- 5: gaps


def test_restore_over_gap_is_refused_and_changes_nothing(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A range with a stretch that was never backed up fails before anything is created, unless allowed."""
    backed_up(influx1, server1, repository)
    target = new_name("target")
    wide = window(DAY.start, DAY.end + DAY_NS)
    with pytest.raises(BackupNotFoundError, match="2024-03-07T00:00:00Z to 2024-03-08T00:00:00Z") as caught:
        restore_into(repository, server1, target, plan="telemetry", window=wide)
    assert caught.value.kind == "gap"
    assert target not in server1.databases()
    report = restore_into(repository, server1, target, plan="telemetry", window=wide, allow_gaps=True)
    assert (report.rows, len(report.gaps)) == (10, 1)


def test_restore_over_gap_of_an_open_window_is_refused(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What had not settled when a window was backed up by force is a gap, since points may be missing there."""
    database = new_database(influx1)
    now = server1.now()
    span = window(now - 2 * HOUR, now + HOUR)
    influx1.write(f"cpu v=1 {now - HOUR}\ncpu v=2 {now - MINUTE}", database)
    forced = back_up(repository, server1, plan(database), span, force=True)
    with pytest.raises(BackupNotFoundError) as caught:
        restore_into(repository, server1, new_name(), plan="telemetry", window=span)
    assert caught.value.kind == "gap"
    settled = window(span.start, repository.ref(forced.ref).read_start - 30 * MINUTE)
    assert restore_into(repository, server1, new_name(), plan="telemetry", window=settled).rows == 1
    assert restore_into(repository, server1, new_name(), refs=(forced.ref,)).rows == 2


# --- 9: read back


def test_restore_reads_back_and_fails_when_points_are_not_there(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A server that confirms points and does not hold them is found out."""
    backed_up(influx1, server1, repository)
    with pytest.raises(TargetError, match="field 'v': 10 written, 9 there") as caught:
        restore_into(repository, Losing(server1), new_name(), plan="telemetry", window=DAY)
    assert caught.value.kind == "read-back-differs"


def test_restore_reads_back_more_than_was_written(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Into an empty range the counts must be equal: somebody else's points are not taken for restored ones."""
    backed_up(influx1, server1, repository)
    target = new_database(influx1)

    class Crowded(Wrapped):
        writers = 0

        def writer(self, database: str, retention_policy: str, options: WriteOptions) -> PointWriter:
            self.writers += 1
            influx1.write(f"cpu,host=other v=1 {DAY.start + self.writers}", target)
            return self.server.writer(database, retention_policy, options)

    crowded = Crowded(server1)
    with pytest.raises(TargetError, match="10 written, 11 there"):
        restore_into(repository, crowded, target, plan="telemetry", window=DAY)
    assert crowded.writers == 1, "to write once more cannot help"


def test_restore_reads_back_after_a_merge_that_not_fewer_are_there(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A merge keeps other points, writes over equal ones, and still proves that all of the backup's are there."""
    backed_up(influx1, server1, repository)
    target = new_database(influx1)
    influx1.write(f"cpu,host=a v=-5 {DAY.start}\ncpu,host=b v=7 {DAY.start}", target)
    report = restore_into(repository, server1, target, plan="telemetry", window=DAY, on_conflict="merge")
    assert report.rows == 10
    assert len(values(influx1, target)) == 11
    with pytest.raises(TargetError, match="there"):
        restore_into(
            repository, Losing(server1), new_database(influx1), plan="telemetry", window=DAY, on_conflict="merge"
        )


# --- 38: conflicts


def test_a_target_with_points_in_the_range_is_refused(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Any point in a table to be written refuses the restore, of another series too; outside of the range none does."""
    database = backed_up(any_influx, any_server, repository)
    with pytest.raises(TargetError) as caught:
        restore_into(repository, any_server, None, plan="telemetry", window=DAY)
    assert caught.value.kind == "target-not-empty"
    target = new_database(any_influx)
    any_influx.write(f"cpu,host=zzz other=1i {DAY.end - 1}", target)
    with pytest.raises(TargetError, match="already has points"):
        restore_into(repository, any_server, target, plan="telemetry", window=DAY, tags={"host": "a"})
    assert len(rows_of(any_influx, "SELECT * FROM cpu", target)) == 1
    free = new_database(any_influx)
    any_influx.write(f"cpu,host=a v=1 {DAY.end}\nmem v=1 {DAY.start}", free)
    assert restore_into(repository, any_server, free, plan="telemetry", window=DAY).rows == 10
    assert len(values(any_influx, database)) == 10


class MadeMeanwhile(Wrapped):
    """A server on which somebody makes the target, with a point of their own, while the parts are looked at."""

    def __init__(self, server: Server, running: RunningServer, target: str) -> None:
        super().__init__(server)
        self.running, self.target = running, target

    def unrepresentable(self, *arguments: object) -> object:
        """The real answer, and the database beside it, once."""
        if self.target:
            self.running.create_database(self.target)
            fill(self.running, self.target, count=1)
            self.target = ""
        return self.server.unrepresentable(*arguments)  # type: ignore[arg-type]


def test_a_target_that_somebody_makes_meanwhile_is_left_alone(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """It was not there when the restore looked, so that nothing of it was known to be free of points."""
    database, target = new_database(any_influx), new_name("target")
    fill(any_influx, database, count=10, start=DAY.start + SECOND)
    first = back_up(repository, any_server, plan(database))
    meanwhile = MadeMeanwhile(any_server, any_influx, target)
    with pytest.raises(TargetError, match="Somebody else has made") as caught:
        restore_into(repository, meanwhile, target, refs=(first.ref,), writer="lines")  # type: ignore[arg-type]
    assert caught.value.kind == "target-not-empty"
    assert values(any_influx, target) == [[DAY.start, 0]]


@pytest.mark.parametrize("name", ["a/b", "_internal", 'a"b', "a\nb", "a\\b"])
def test_a_name_that_the_server_refuses_is_found_at_once(
    any_influx: RunningServer, any_server: Server, repository: Repository, name: str
) -> None:
    """Also by a dry run, and before anything is recorded; other names are created as they are."""
    fill(any_influx, database := new_database(any_influx))
    first = back_up(repository, any_server, plan(database))
    refused = {1: {"a/b", "a\nb", "a\\b"}, 2: {"a/b", "_internal", 'a"b'}}[any_influx.generation]
    request = RestoreRequest(refs=(first.ref,), target_database=name)
    if name not in refused:
        assert plan_restore(request, repository=repository, target=any_server).target_database == name
        return
    for writer in ("auto", "lines"):
        with pytest.raises(TargetError, match="cannot be"):
            restore_into(repository, any_server, name, refs=(first.ref,), writer=writer)
    (refusal,) = plan_restore(request, repository=repository, target=any_server).refusals
    assert "cannot be" in refusal.message
    assert not list(repository.store.list("restores/"))


def test_a_conflict_of_a_table_with_mixed_types_is_seen(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Strings that a count over several shard groups would not see are points as well."""
    backed_up(influx1, server1, repository)
    target = new_database(influx1)
    week = 7 * DAY_NS
    influx1.write(f'cpu v="text" {DAY.start}', target)
    influx1.write(f"cpu v=1.5 {DAY.start - 3 * week}", target)
    with pytest.raises(TargetError, match="already has points"):
        restore_into(repository, server1, target, plan="telemetry", window=DAY)


# --- 12: retention


def recent(running: RunningServer, server: Server, repository: Repository) -> tuple[str, Window, int]:
    """A policy of two days with a backup of the last hours; returns the database, the window and the clock."""
    database = new_database(running)
    create_policy(running, database, "days", "DURATION 2d REPLICATION 1 SHARD DURATION 1h DEFAULT")
    now = server.now()
    span = window(now - 10 * HOUR, now - HOUR)
    running.write(lines(("cpu", f"v={n}", now - (n + 2) * HOUR) for n in range(8)), database, "days")
    back_up(repository, server, plan(database, retention_policies=["days"]), span)
    return database, span, now


def test_retention_of_created_policies_is_the_sources_while_it_keeps_the_points(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Points that the source's duration still keeps are restored under the same duration."""
    _, span, _ = recent(influx1, server1, repository)
    target = new_name("target")
    report = restore_into(repository, server1, target, plan="telemetry", window=span)
    policies = {policy.name: policy for policy in server1.retention_policies(target)}
    assert report.infinite == ()
    assert (policies["days"].duration, policies["days"].shard_duration) == (2 * DAY_NS, HOUR)


def test_retention_of_created_policies_is_infinite_when_the_source_would_drop_the_points(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Old points are not restored into a policy that drops them at once, and the report says so."""
    _, span, now = recent(influx1, server1, repository)
    target = new_name("target")
    later = At(server1, now + 5 * DAY_NS)
    report = restore_into(repository, later, target, plan="telemetry", window=span)
    policies = {policy.name: policy for policy in server1.retention_policies(target)}
    assert report.infinite == ("days",)
    assert policies["days"].duration == 0
    assert len(values(influx1, target, '"days"."cpu"')) == 8


def test_retention_that_would_drop_points_within_the_minute_counts_as_dropping(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """The edge of a retention moves while points are written: what is nearly too old is not left to a race."""
    _, span, now = recent(influx1, server1, repository)
    soon = At(server1, now - 9 * HOUR + 2 * DAY_NS - 30 * SECOND)
    assert restore_into(repository, soon, new_name(), plan="telemetry", window=span).infinite == ("days",)
    short = new_database(influx1)
    create_policy(influx1, short, "days", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    with pytest.raises(TargetError) as caught:
        restore_into(repository, soon, short, plan="telemetry", window=span)
    assert caught.value.kind == "retention-would-drop"


def old_target(running: RunningServer, server: Server, repository: Repository) -> str:
    """A backup of an old day, and a database whose policy ``autogen`` keeps one day; returns its name."""
    database = new_database(running)
    fill(running, database)
    now = server.now()
    span = window(DAY.start, now - HOUR)
    running.write(lines(("cpu,host=a", f"v={n}", now - (n + 2) * HOUR) for n in range(5)), database)
    back_up(repository, server, plan(database), span)
    target = new_database(running)
    running.query(f'ALTER RETENTION POLICY "autogen" ON "{target}" DURATION 1d SHARD DURATION 1h')
    return target


def test_retention_of_existing_targets_refuses_by_default(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A policy that would drop restored points is refused before anything is written."""
    target = old_target(influx1, server1, repository)
    ref = repository.refs("telemetry")[0].id
    with pytest.raises(TargetError, match="keeps 1d and would drop") as caught:
        restore_into(repository, server1, target, refs=(ref,))
    assert caught.value.kind == "retention-would-drop"
    assert values(influx1, target) == []


def test_retention_of_existing_targets_is_widened_when_asked(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """With widen the policy keeps points for ever, and all of them are there."""
    target = old_target(influx1, server1, repository)
    ref = repository.refs("telemetry")[0].id
    asked = RestoreRequest(refs=(ref,), target_database=target, retention="widen")
    assert plan_restore(asked, repository=repository, target=server1).widens == ("autogen",)
    report = restore_into(repository, server1, target, refs=(ref,), retention="widen")
    assert (report.rows, report.widened) == (15, ("autogen",))
    assert {policy.duration for policy in server1.retention_policies(target)} == {0}


def test_retention_of_existing_targets_drops_and_counts_when_asked(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """With drop-points what the policy keeps is restored, and what it does not is counted in the report."""
    target = old_target(influx1, server1, repository)
    ref = repository.refs("telemetry")[0].id
    asked = RestoreRequest(refs=(ref,), target_database=target, retention="drop-points")
    (dropped,) = plan_restore(asked, repository=repository, target=server1).drops
    edge = parse_instant(dropped.removeprefix("points of autogen before "))
    assert abs(edge - (time.time_ns() - 24 * HOUR)) < HOUR, dropped
    report = restore_into(repository, server1, target, refs=(ref,), retention="drop-points")
    assert (report.rows, report.dropped_points, report.rejects) == (5, 10, 0)
    assert len(values(influx1, target)) == 5


def test_past_write_limit_of_a_newer_server_is_a_retention_too(
    newer_influx1: RunningServer, repository: Repository
) -> None:
    """A policy of 1.12 with PAST LIMIT drops old points as well: refused, and widening the duration does not help."""
    from tests.jobs.support import opened

    with opened(newer_influx1) as server:
        backed_up(newer_influx1, server, repository)
        target = new_database(newer_influx1)
        newer_influx1.query(f'ALTER RETENTION POLICY "autogen" ON "{target}" PAST LIMIT 2h')
        for retention in ("fail", "widen"):
            with pytest.raises(TargetError) as caught:
                restore_into(repository, server, target, plan="telemetry", window=DAY, retention=retention)
            assert caught.value.kind == "retention-would-drop"
        report = restore_into(repository, server, target, plan="telemetry", window=DAY, retention="drop-points")
        assert (report.rows, report.dropped_points) == (0, 10)


# --- dry run


def test_a_dry_run_tells_everything_and_changes_nothing(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What would be read, created and written, while no database, no record and no point appears."""
    backed_up(influx1, server1, repository)
    target = new_name("target")
    asked = RestoreRequest(plan="telemetry", window=DAY, target_database=target)
    planned = plan_restore(asked, repository=repository, target=server1)
    assert (planned.rows, planned.target_database, planned.creates[0]) == (10, target, f"database {target}")
    assert [(str(table.source), str(table.target), table.rows) for table in planned.tables] == [
        ("autogen.cpu", "autogen.cpu", 10)
    ]
    assert target not in server1.databases()
    assert not repository.store.list("restores/")
    assert planned.refusals == ()


def test_a_dry_run_of_what_would_be_refused_tells_all_of_it(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What would be read and written stands beside every reason against it and the way out; nothing is raised."""
    database = backed_up(influx1, server1, repository)
    influx1.query(f'ALTER RETENTION POLICY "autogen" ON "{database}" DURATION 1h SHARD DURATION 1h')
    late = window(DAY.start, DAY.end + 1)
    planned = plan_restore(RestoreRequest(plan="telemetry", window=late), repository=repository, target=server1)
    assert [refusal.kind for refusal in planned.refusals] == ["gap", "retention-would-drop", "target-not-empty"]
    assert ("--allow-gaps" in planned.refusals[0].hint, "widen" in planned.refusals[1].hint) == (True, True)
    assert (planned.rows, planned.target_database) == (10, database)
    influx1.query(f'ALTER RETENTION POLICY "autogen" ON "{database}" DURATION INF')
    influx1.write(f"cpu,host=a v=1 {DAY.start}", database)
    refused = plan_restore(RestoreRequest(plan="telemetry", window=DAY), repository=repository, target=server1)
    assert [refusal.kind for refusal in refused.refusals] == ["target-not-empty"]
    with pytest.raises(TargetError) as caught:
        restore_into(repository, server1, None, plan="telemetry", window=DAY)
    assert (caught.value.message, caught.value.hint) == (refused.refusals[0].message, refused.refusals[0].hint)


# --- 10: a retried restore continues


def test_retried_restore_continues_and_another_id_meets_on_conflict(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """After an interruption the same id goes on and ends with all points; another id finds a target with points."""
    database = new_database(influx1)
    for name in ("other", "third"):
        create_policy(influx1, database, name, "DURATION INF REPLICATION 1")
        influx1.write(f"cpu v=1 {DAY.start}", database, name)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    target = new_name("target")

    class Dying(Wrapped):
        def writer(self, name: str, retention_policy: str, options: WriteOptions) -> PointWriter:
            if retention_policy == "third":
                raise KeyboardInterrupt
            return self.server.writer(name, retention_policy, options)

    with pytest.raises(KeyboardInterrupt):
        restore_into(repository, Dying(server1), target, plan="telemetry", window=DAY, restore_id="run 1")
    with pytest.raises(TargetError) as caught:
        restore_into(repository, server1, target, plan="telemetry", window=DAY, restore_id="run 2")
    assert caught.value.kind == "target-not-empty"
    report = restore_into(repository, server1, target, plan="telemetry", window=DAY, restore_id="run 1")
    assert (report.continued_units, report.rows) == (2, 12)
    assert len(values(influx1, target)) == 10
    again = restore_into(repository, server1, target, plan="telemetry", window=DAY, restore_id="run 1")
    assert (again.continued_units, again.rows) == (3, 12)


def test_retried_restore_with_another_request_is_refused(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """An id cannot be taken over by a restore of something else, or into another database."""
    backed_up(influx1, server1, repository)
    target = new_name("target")
    restore_into(repository, server1, target, plan="telemetry", window=DAY, restore_id="run 1")
    for change in (
        {"window": window(DAY.start, DAY.end - 1)},
        {"measurements": ("cpu",)},
        {"on_conflict": "merge"},
    ):
        with pytest.raises(TargetError) as caught:
            restore_into(
                repository, server1, target, **{"plan": "telemetry", "window": DAY, "restore_id": "run 1", **change}
            )
        assert caught.value.kind == "restore-in-progress"
    with pytest.raises(TargetError):
        restore_into(repository, server1, new_name(), plan="telemetry", window=DAY, restore_id="run 1")


def test_retried_restore_on_another_server_is_refused(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What was written into one server is not taken for written into another of the same database name."""
    backed_up(influx1, server1, repository)
    target = new_name("target")
    restore_into(repository, server1, target, plan="telemetry", window=DAY, restore_id="run 1")

    class Elsewhere(Wrapped):
        name = "elsewhere"

    with pytest.raises(TargetError, match="another request or target"):
        restore_into(repository, Elsewhere(server1), target, plan="telemetry", window=DAY, restore_id="run 1")


def test_retried_restore_counts_what_two_calls_wrote_once(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Two calls with one id at the same time both record their units; a third one still finds the target right."""
    backed_up(influx1, server1, repository)
    target = new_name("target")
    restore_into(repository, server1, target, plan="telemetry", window=DAY, restore_id="run 1", writer="lines")
    [(key, step)] = repository.read_documents("restores/run=201/", RestoreProgress)
    repository.put_document(key.replace("000000-", "000000-other-"), step)
    again = restore_into(repository, server1, target, plan="telemetry", window=DAY, restore_id="run 1", writer="lines")
    assert (again.continued_units, again.rows) == (1, 10)


def test_two_restores_with_one_id_at_the_same_moment_are_one(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Of two calls that both find the id unused only one goes on; the other ends before its first point."""
    backed_up(influx1, server1, repository)
    target = new_database(influx1)
    influx1.write(f"cpu,host=a v=1 {DAY.end}", target)
    asked = {"plan": "telemetry", "window": DAY, "restore_id": "run 1"}

    class Racing(Wrapped):
        counted = 0

        def counts(
            self, database: str, policy: str, measurement: str, span: Window, fields: Sequence[str]
        ) -> Mapping[str, int]:
            found = self.server.counts(database, policy, measurement, span, fields)
            self.counted += 1
            if self.counted == 2:  # the last look at the target before the id is taken
                assert restore_into(repository, self.server, target, **asked).rows == 10
            return found

        def writer(self, *_: object) -> PointWriter:
            raise AssertionError("a point would be written")

    with pytest.raises(TargetError, match="began at the same moment") as caught:
        restore_into(repository, Racing(server1), target, **asked)
    assert caught.value.kind == "restore-in-progress"
    assert len(values(influx1, target)) == 11


class ReadOnly(LocalStore):
    """A folder that is mounted read-only."""

    def _publish(self, path: Path, write: Callable[[int], None], *, flush: bool = True) -> None:
        raise OSError(errno.EROFS, "Read-only file system")


def test_a_restore_from_a_repository_that_cannot_be_written_says_why(
    influx1: RunningServer, server1: Server, tmp_path: Path
) -> None:
    """Nothing is written into the target, and the message tells what the restore needs."""
    backed_up(influx1, server1, local_repository(tmp_path))
    target = new_name("target")
    repository = Repository.open(ReadOnly(tmp_path / "repository"))
    with pytest.raises(StoreError, match=r"Nothing was restored.*restore from a copy of the repository"):
        restore_into(repository, server1, target, plan="telemetry", window=DAY)
    assert target not in server1.databases()


def test_a_tag_that_nothing_has_is_refused(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A mistyped tag restores nothing and says what there is; a value that no point has, and none, are answers."""
    backed_up(influx1, server1, repository)
    target = new_name("target")
    for tags in ({"hots": "a"}, {"host": "a", "v": "1"}):
        with pytest.raises(BackupNotFoundError, match=r"has the tag '(hots|v)'.*They have host"):
            restore_into(repository, server1, target, plan="telemetry", window=DAY, tags=tags)
    assert target not in server1.databases()
    assert restore_into(repository, server1, target, plan="telemetry", window=DAY, tags={"host": "z"}).rows == 0
    assert restore_into(repository, server1, target, plan="telemetry", window=DAY, tags={"hots": ""}).rows == 10


# --- damage and what cannot be written: nothing is touched


def damage(repository: Repository, folder: Path, measurement: str) -> str:
    """Flips a byte in the middle of a table's first part; returns its key."""
    for ref in repository.refs("telemetry"):
        for entry in repository.manifest(ref).tables:
            if entry.table.measurement == measurement:
                path = folder / "repository" / entry.parts[0].path
                path.chmod(0o644)
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 1
                path.write_bytes(data)
                return entry.parts[0].path
    raise AssertionError(measurement)


def test_a_damaged_part_fails_the_restore_before_anything_is_written(
    influx1: RunningServer, server1: Server, repository: Repository, tmp_path: Path
) -> None:
    """The damaged object is named, and the target was not even created, although other tables are whole."""
    database = new_database(influx1)
    fill(influx1, database, "aaa")
    fill(influx1, database, "zzz")
    back_up(repository, server1, plan(database))
    key = damage(repository, tmp_path, "zzz")
    target = new_name("target")
    with pytest.raises(IntegrityError, match=key.replace(".", r"\.")) as caught:
        restore_into(repository, server1, target, plan="telemetry", window=DAY)
    assert not caught.value.retryable
    assert target not in server1.databases()
    report = restore_into(repository, server1, target, plan="telemetry", window=DAY, measurements=("aaa",))
    assert report.rows == 10


def test_what_line_protocol_cannot_carry_is_named_before_the_first_write(
    influx2: RunningServer, server2: Server, server1: Server, repository: Repository
) -> None:
    """An unsigned value cannot go to 1.x: the field is named and nothing created; as integer it can, when asked."""
    database = new_database(influx2)
    influx2.write(f"cpu v=1,big=5u {DAY.start}", database)
    back_up(repository, server2, plan(database))
    target = new_name("target")
    with pytest.raises(UnrepresentableError, match="'big'"):
        restore_into(repository, server1, target, plan="telemetry", window=DAY)
    assert target not in server1.databases()
    report = restore_into(repository, server1, target, plan="telemetry", window=DAY, unsigned_as_integer=True)
    assert (report.rows, report.values) == (1, 2)


# --- rejected points


def conflicting(running: RunningServer, server: Server, repository: Repository) -> str:
    """A target whose shard has the field ``v`` as text, outside of the restored range; returns its name."""
    backed_up(running, server, repository)
    target = new_database(running)
    running.write(f'cpu v="text" {DAY.start - HOUR}', target)
    return target


def rejected_lines(path: Path) -> list[str]:
    """The points of a reject file."""
    with zstandard.open(path, "rt") as file:
        return [line for line in file.read().splitlines() if line and not line.startswith("#")]


def test_rejected_points_fail_the_restore_and_stand_in_the_reject_file(
    influx1: RunningServer, server1: Server, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points that the server refuses are neither lost nor passed over: the error names the file that holds them."""
    target = conflicting(influx1, server1, repository)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RejectedPointsError, match="field type conflict") as caught:
        restore_into(repository, server1, target, plan="telemetry", window=DAY, max_rejects=9)
    files = [path for path in tmp_path.rglob("*.zst") if str(path) in str(caught.value)]
    assert [len(rejected_lines(path)) for path in files] == [10]


def test_rejected_points_that_are_allowed_are_counted(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """With enough rejects allowed the report counts them and names the file with their lines."""
    target = conflicting(influx1, server1, repository)
    report: RestoreReport = restore_into(repository, server1, target, plan="telemetry", window=DAY, max_rejects=10)
    assert report.rejects == 10
    assert "field type conflict" in report.reject_reasons[0]
    assert report.reject_file is not None
    assert len(rejected_lines(Path(report.reject_file))) == 10
    Path(report.reject_file).unlink()


# --- the counts are asked of the server, not remembered


def test_an_unknown_count_is_not_taken_for_zero(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A target whose counts cannot be asked fails the restore; it is never assumed to be empty."""
    database = backed_up(influx1, server1, repository)

    class Mute(Wrapped):
        def counts(
            self, database: str, policy: str, measurement: str, span: Window, fields: Sequence[str]
        ) -> Mapping[str, int]:
            raise TargetError("no counts")

    with pytest.raises(TargetError, match="no counts"):
        restore_into(repository, Mute(server1), database, plan="telemetry", window=DAY)
    assert manifest_of(repository, "telemetry@latest").rows == 10
