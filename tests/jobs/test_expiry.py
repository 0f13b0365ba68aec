"""What the source's own retention takes away: tables that end, and policies that no longer keep a whole window."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import SourceError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.export import ExportResult
from influxdb_backup.model import Table, Window
from tests.influx2.support import Preparation
from tests.jobs.sources import fill
from tests.jobs.support import (
    DAY_NS,
    HOUR,
    MINUTE,
    archived,
    back_up,
    create_policy,
    manifest_of,
    new_database,
    opened,
    plan,
    restore_into,
    window,
)
from tests.servers import (
    RunningServer,
    find_influxd1,
    find_influxd2,
    find_newer_influxd1,
    start_influxdb1,
    start_influxdb2,
)

OLD = Table(retention_policy="short", measurement="old")


@contextmanager
def started(generation: str, folder: Path) -> Iterator[RunningServer]:
    """A server that looks every second for what has expired."""
    find = {"1.6": find_influxd1, "1.12": find_newer_influxd1, "2": find_influxd2}[generation]
    binary = find()
    if binary is None:
        pytest.skip(f"no influxd of {generation}")
    if generation == "2":
        with start_influxdb2(folder, binary, "--storage-retention-check-interval=1s") as running:
            yield running
        return
    with start_influxdb1(folder, binary, '[retention]\n  check-interval = "1s"') as running:
        yield running


def create_short(running: RunningServer, database: str) -> None:
    """A policy ``short`` of shards of an hour that keeps points for ever, for the time being."""
    if running.generation == 1:
        create_policy(running, database, "short", "DURATION INF REPLICATION 1 SHARD DURATION 1h")
    else:
        Preparation(running).bucket(f"{database}/short", shard_seconds=3600)


def keep_four_hours(running: RunningServer, database: str) -> None:
    """From now on ``short`` drops what is older than four hours."""
    if running.generation == 1:
        answer = running.query(f'ALTER RETENTION POLICY "short" ON "{database}" DURATION 4h')
        assert "error" not in str(answer), answer
        return
    preparation = Preparation(running)
    found = preparation.call("GET", f"/api/v2/buckets?name={database}/short")["buckets"][0]
    rule = {"type": "expire", "everySeconds": 4 * 3600, "shardGroupDurationSeconds": 3600}
    preparation.call("PATCH", f"/api/v2/buckets/{found['id']}", {"retentionRules": [rule]})


def wait_until_gone(server: Server, database: str, measurement: str) -> None:
    """Until the server no longer shows a measurement of ``short``."""
    deadline = time.monotonic() + 60
    while any(schema.table.measurement == measurement for schema in server.schema(database, "short").tables):
        assert time.monotonic() < deadline, f"{measurement} does not expire"
        time.sleep(0.2)


@pytest.mark.parametrize("generation", ["1.6", "1.12", "2"])
def test_measurement_that_ends_by_its_policy_is_noted_and_stops_no_backup(
    generation: str, repository: Repository, tmp_path: Path
) -> None:
    """A table whose last points expire at a real server is named once, and the next exports go on without it."""
    with started(generation, tmp_path / "influxdb") as running, opened(running) as server:
        database = new_database(running)
        create_short(running, database)
        now = server.now()
        fill(running, database, "other", start=now - 30 * MINUTE)
        running.write(f"old v=1 {now - 10 * HOUR}\nyoung v=1 {now - HOUR}", database, "short")
        spans = [window(now - hours * HOUR, now - hours * HOUR + 3 * HOUR) for hours in (11, 8, 4)]
        first = back_up(repository, server, plan(database), spans[0])
        back_up(repository, server, plan(database), spans[1])
        assert (first.rows, first.ended) == (1, ())
        keep_four_hours(running, database)
        wait_until_gone(server, database, "old")
        then = back_up(repository, server, plan(database), window(now - 3 * HOUR, now - 2 * HOUR))
        assert then.ended == (OLD,)
        assert manifest_of(repository, then.ref).evidence.ended == (OLD,)
        assert back_up(repository, server, plan(database), window(now - 2 * HOUR, now - 30 * MINUTE)).ended == ()


def test_measurement_with_points_that_its_policy_still_keeps_is_missed(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A table of a finite policy that goes while the policy keeps points that a backup knows was dropped, or hidden."""
    database = new_database(influx1)
    create_policy(influx1, database, "short", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    now = server1.now()
    fill(influx1, database, start=now - 3 * HOUR)
    influx1.write(f"old v=1 {now - 20 * HOUR}", database, "short")
    back_up(repository, server1, plan(database), window(now - 21 * HOUR, now - 19 * HOUR))
    back_up(repository, server1, plan(database), window(now - 19 * HOUR, now - 18 * HOUR))
    influx1.query("DROP MEASUREMENT old", db=database)
    with pytest.raises(SourceError, match="measurement 'old' of 'short'") as caught:
        back_up(repository, server1, plan(database), window(now - 18 * HOUR, now - 17 * HOUR))
    assert caught.value.kind == "missing-at-source"


def test_measurement_of_which_no_backup_knows_a_point_is_missed(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A table that came after the last window and went before the next one had points that no backup has."""
    database = new_database(influx1)
    create_policy(influx1, database, "short", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    now = server1.now()
    fill(influx1, database, start=now - 3 * HOUR)
    influx1.write(f"old v=1 {now - HOUR}", database, "short")
    back_up(repository, server1, plan(database), window(now - 5 * HOUR, now - 4 * HOUR))
    influx1.query("DROP MEASUREMENT old", db=database)
    with pytest.raises(SourceError, match="measurement 'old' of 'short'"):
        back_up(repository, server1, plan(database), window(now - 4 * HOUR, now - 3 * HOUR))


def test_everything_gone_at_once_is_lost_rights_even_where_it_may_have_expired(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Nothing that is shown proves that rights are there: a person says that the database is empty."""
    database = new_database(influx1)
    create_policy(influx1, database, "short", "DURATION INF REPLICATION 1 SHARD DURATION 1h")
    now = server1.now()
    influx1.write(f"old v=1 {now - 30 * HOUR}", database, "short")
    back_up(repository, server1, plan(database), window(now - 31 * HOUR, now - 29 * HOUR))
    influx1.query(f'ALTER RETENTION POLICY "short" ON "{database}" DURATION 4h; DROP MEASUREMENT old', db=database)
    after = window(now - 3 * HOUR, now - 2 * HOUR)
    with pytest.raises(SourceError) as caught:
        back_up(repository, server1, plan(database), after)
    assert caught.value.kind == "empty-selection"
    assert back_up(repository, server1, plan(database, allow_empty=True), after).ended == (OLD,)


# --- windows that one policy of several no longer keeps


def two_policies(running: RunningServer, server: Server) -> tuple[str, int]:
    """A database with ten points of three days ago in autogen, and a policy of two days with two points."""
    database = new_database(running)
    create_policy(running, database, "days", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    now = server.now()
    fill(running, database, start=now - 3 * DAY_NS)
    running.write(f"hot v=1 {now - 10 * HOUR}\nhot v=2 {now - 46 * HOUR}", database, "days")
    return database, now


def test_expired_policy_does_not_refuse_the_window_of_the_others(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """With ``expired: skip`` all else is backed up, what is left of the policy too, and it is written down."""
    database, now = two_policies(influx1, server1)
    old = window(now - 4 * DAY_NS, now - HOUR)
    with pytest.raises(SourceError, match="expired: skip") as caught:
        back_up(repository, server1, plan(database), old)
    assert caught.value.kind == "expired-window"
    result = back_up(repository, server1, plan(database, expired="skip"), old)
    [entry] = result.expired
    assert (result.rows, entry.retention_policy) == (12, "days")
    assert now - 2 * DAY_NS <= entry.kept_from < now - 2 * DAY_NS + HOUR
    ref = repository.ref(result.ref)
    assert ref.expired == result.expired == manifest_of(repository, result.ref).evidence.expired
    assert (ref.kept_from("autogen"), ref.kept_from("days")) == (old.start, entry.kept_from)


def test_expired_policy_says_nothing_against_a_backup_that_was_made_in_time(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A later read of a window that has begun to expire does not take back what an earlier read of it holds."""
    database, now = two_policies(influx1, server1)
    whole, late = window(now - 47 * HOUR, now - 40 * HOUR), window(now - 4 * DAY_NS, now - HOUR)

    def backups(*, skip: bool) -> list[ExportResult]:
        chosen = plan(database, expired="skip" if skip else "fail")
        return [back_up(repository, server1, chosen, span) for span in ((late,) if skip else (whole,))]

    backups(skip=False)
    influx1.query(f"DELETE FROM hot WHERE time < {now - 40 * HOUR}", db=database)  # as the server will do
    influx1.query(f'ALTER RETENTION POLICY "days" ON "{database}" DURATION 24h')
    [second] = backups(skip=True)
    assert second.rows == 11
    target = new_database(influx1, "target")
    create_policy(influx1, target, "days", "DURATION INF REPLICATION 1 SHARD DURATION 1h")
    report = restore_into(repository, server1, target, plan="telemetry", window=late)
    assert report.rows == 12
    [told] = {line.split(",")[0] for line in report.expired}
    assert told == "retention policy 'days'"


def test_expired_window_again_is_no_shrunk_window_and_a_deletion_still_is(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Fewer rows before the instant that the policy keeps are explained, fewer after it are not."""
    database, now = two_policies(influx1, server1)
    span = window(now - 47 * HOUR, now - HOUR)
    first = back_up(repository, server1, plan(database), span)
    assert first.rows == 2
    influx1.query(f"DELETE FROM hot WHERE time < {now - 40 * HOUR}", db=database)
    influx1.query(f'ALTER RETENTION POLICY "days" ON "{database}" DURATION 24h')
    second = back_up(repository, server1, plan(database, expired="skip"), span)
    assert (second.rows, second.revision) == (1, 1)
    influx1.query("DELETE FROM hot", db=database)
    fill(influx1, database, "keeps_days_visible", start=now - 2 * HOUR)
    with pytest.raises(SourceError) as caught:
        back_up(repository, server1, plan(database, expired="skip"), span, accept_missing=True)
    assert caught.value.kind == "shrunk-window"


def test_accepted_expiry_is_written_down_as_well(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What a person allows for one run is recorded as what the plan allows for all."""
    database, now = two_policies(influx1, server1)
    span: Window = window(now - 3 * DAY_NS, now - HOUR)
    result = back_up(repository, server1, plan(database), span, accept_expired=True)
    assert [entry.retention_policy for entry in result.expired] == ["days"]
    assert len(archived(repository, repository.ref(result.ref))) == 12
