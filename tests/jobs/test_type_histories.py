"""Fields that change their type: drill, dry run and restore give one answer, before the first point is written."""

from __future__ import annotations

import contextlib
import urllib.error
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influxdb_backup.archive.repository import Repository
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import InfluxdbBackupError, TargetError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.drill import drill
from influxdb_backup.jobs.restore import plan_restore
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.model import Window
from tests.jobs.support import (
    DAY_NS,
    HOUR,
    MINUTE,
    SECOND,
    WEEK,
    back_up,
    create_policy,
    memory_repository,
    new_database,
    new_name,
    opened,
    plan,
    restore_into,
    rows_of,
    window,
)
from tests.servers import RunningServer

VALUES = {"float": "2.5", "integer": "1i", "string": '"text"', "boolean": "true"}
WEEK_NS = 7 * DAY_NS


def altered(running: RunningServer, database: str, policy: str, duration: str) -> None:
    """Gives a policy of 1.x another shard duration."""
    answer = running.query(f'ALTER RETENTION POLICY "{policy}" ON "{database}" SHARD DURATION {duration}')
    assert "error" not in str(answer), answer


def three_days(running: RunningServer) -> str:
    """Three types on three days, in groups of a day, and a policy that has groups of a week by now."""
    database = new_database(running)
    create_policy(running, database, "p", "DURATION INF REPLICATION 1 SHARD DURATION 1d DEFAULT")
    for day, value in enumerate(("1i", '"str"', "2.5")):
        running.write(f"m v={value} {WEEK.start + day * DAY_NS}", database, "p")
    altered(running, database, "p", "7d")
    return database


@pytest.fixture(params=["influx1", "newer_influx1"])
def one(request: pytest.FixtureRequest) -> RunningServer:
    """Each 1.x server that is there."""
    running: RunningServer = request.getfixturevalue(request.param)
    return running


@pytest.mark.parametrize("writer", ["lines", "auto"])
def test_a_restore_separates_types_as_the_drill_did_and_says_so(
    one: RunningServer, repository: Repository, writer: str
) -> None:
    """A new database gets shard groups that keep types apart, in dry run, restore and drill alike."""
    database, target = three_days(one), new_name()
    with opened(one, snapshot_address=one.backup_address) as server:
        ref = back_up(repository, server, plan(database), WEEK).ref
        assert drill(plan(database), repository=repository, server=server).ok
        request = RestoreRequest(refs=(ref,), target_database=target)
        planned = plan_restore(request, repository=repository, target=server)
        report = restore_into(repository, server, target, refs=(ref,), writer=writer, fingerprints=True)
        assert (planned.refusals, planned.separated) == ((), ("p: 1d, not 1w",))
        assert report.separated == planned.separated
        assert {p.shard_duration for p in server.retention_policies(target) if p.name == "p"} == {DAY_NS}
    assert [row[1] for row in rows_of(one, "SELECT v::string FROM p.m", target)] == ["str"]


def test_types_of_several_backups_are_separated(one: RunningServer, repository: Repository) -> None:
    """A float on Monday, the measurement dropped, an integer on Wednesday: daily windows restore into one database."""
    database, target = new_database(one), new_name()
    days = [window(WEEK.start + day * DAY_NS, WEEK.start + (day + 1) * DAY_NS) for day in (0, 2)]
    with opened(one) as server:
        refs = []
        for day, value in zip(days, ("1.5", "7i"), strict=True):
            one.write(f"m v={value} {day.start + HOUR}", database)
            refs.append(back_up(repository, server, plan(database), day).ref)
            one.query('DROP MEASUREMENT "m"', db=database)
        report = restore_into(repository, server, target, refs=tuple(refs), fingerprints=True, allow_gaps=True)
        assert (report.rows, report.separated) == (2, ("autogen: 1d, not 1w",))


def test_groups_of_the_source_are_tried_as_well(one: RunningServer, repository: Repository) -> None:
    """Groups of 90 minutes kept types apart that groups of an hour do not."""
    database = new_database(one)
    create_policy(one, database, "p", "DURATION INF REPLICATION 1 SHARD DURATION 90m DEFAULT")
    one.write(f"m v=1.5 {WEEK.start + 89 * MINUTE}", database, "p")
    one.write(f'm v="text" {WEEK.start + 91 * MINUTE}', database, "p")
    altered(one, database, "p", "1w")
    with opened(one) as server:
        ref = back_up(repository, server, plan(database), WEEK).ref
        assert drill(plan(database), repository=repository, server=server).ok
        assert restore_into(repository, server, new_name(), refs=(ref,)).separated == ("p: 90m, not 1w",)


def test_what_nothing_separates_is_refused_by_all_three(one: RunningServer, repository: Repository) -> None:
    """The field, both types and their times are named; no database is made, and no record."""
    database, target = inseparable(one), new_name()
    with opened(one) as server:
        ref = back_up(repository, server, plan(database), WEEK).ref
        report = drill(plan(database), repository=repository, server=server)
        planned = plan_restore(
            RestoreRequest(refs=(ref,), target_database=target), repository=repository, target=server
        )
        with pytest.raises(TargetError) as caught:
            restore_into(repository, server, target, refs=(ref,))
        assert target not in server.databases()
    words = "p.m, field 'v': float at 2024-03-04T01:29:00Z and string at 2024-03-04T01:31:00Z"
    for kind, message in (
        (report.problems[0].kind, report.problems[0].message),
        (planned.refusals[0].kind, planned.refusals[0].message),
        (caught.value.kind, str(caught.value)),
    ):
        assert kind == "field-types"
        assert words in message
    assert not repository.store.list("restores/")


def inseparable(running: RunningServer) -> str:
    """Groups of 90 minutes kept types apart at one time, groups of an hour at another: none does both."""
    database = new_database(running)
    create_policy(running, database, "p", "DURATION INF REPLICATION 1 SHARD DURATION 90m DEFAULT")
    running.write(f"m v=1.5 {WEEK.start + 89 * MINUTE}", database, "p")
    running.write(f'm v="text" {WEEK.start + 91 * MINUTE}', database, "p")
    altered(running, database, "p", "1h")
    for minute, value in ((59, "1.5"), (61, '"text"')):
        running.write(f"m v={value} {WEEK.start + 2 * DAY_NS + minute * MINUTE}", database, "p")
    altered(running, database, "p", "1w")
    return database


@pytest.mark.parametrize("held", ["nothing", "outside the range", "in the range"])
def test_types_that_an_existing_target_would_refuse_are_found_before_the_first_write(
    one: RunningServer, repository: Repository, held: str
) -> None:
    """Those of the backup among themselves, and those of the target's own shard groups; rejects may be allowed."""
    database, target = three_days(one), new_database(one)
    if held != "nothing":
        database = new_database(one)
        one.write(f"m v=1i {WEEK.start + DAY_NS}\nm v=2i {WEEK.start + DAY_NS + HOUR}", database)
        shift = DAY_NS + (0 if held == "in the range" else 3 * DAY_NS)
        one.write(f'm v="theirs" {WEEK.start + shift}', target)
    policy = {} if held != "nothing" else {"target_retention_policy": "autogen"}
    with opened(one) as server:
        day = window(WEEK.start, WEEK.start + 3 * DAY_NS)
        ref = back_up(repository, server, plan(database), day).ref
        asked = {"refs": (ref,), "on_conflict": "merge", **policy}
        request = RestoreRequest.model_validate({"target_database": target, **asked})
        planned = plan_restore(request, repository=repository, target=server)
        with pytest.raises(TargetError, match="would refuse values of another type") as caught:
            restore_into(repository, server, target, **asked)
        assert [refusal.kind for refusal in planned.refusals] == [caught.value.kind] == ["field-types"]
        assert planned.refusals[0].message == caught.value.message
        assert len(rows_of(one, "SELECT v::string FROM m", target)) == (0 if held == "nothing" else 1)
        assert not rows_of(one, "SELECT v::integer FROM m", target)
        assert not repository.store.list("restores/")
        assert restore_into(repository, server, target, max_rejects=2, **asked).rejects == 2


def test_other_types_in_other_groups_of_a_target_are_no_conflict(one: RunningServer, repository: Repository) -> None:
    """A target whose field has another type in another week takes the backup."""
    database, target = new_database(one), new_database(one)
    one.write(f"m v=1i {WEEK.start}", database)
    one.write(f'm v="theirs" {WEEK.end}', target)
    with opened(one) as server:
        ref = back_up(repository, server, plan(database), WEEK).ref
        assert restore_into(repository, server, target, refs=(ref,)).rows == 1


# --- the property


@dataclass(frozen=True)
class Epoch:
    """One week of a policy: groups of one duration, values, what comes before the export, and whether it goes then."""

    duration: str
    values: tuple[tuple[int, int, str], ...]
    """hour of the week, second, type"""
    altered: str
    dropped: bool


DURATIONS = st.sampled_from(["1h", "6h", "1d", "7d"])
EPOCHS = st.builds(
    Epoch,
    DURATIONS,
    st.lists(
        st.tuples(st.integers(0, 167), st.integers(0, 3599), st.sampled_from(sorted(VALUES))), min_size=1, max_size=6
    ).map(tuple),
    st.sampled_from(["1h", "6h", "1d", "7d", "10d", "36h"]),
    st.booleans(),
)


def lived(
    running: RunningServer, server: Server, repository: Repository, epochs: Sequence[Epoch]
) -> tuple[Plan, list[str]]:
    """The plan, and the refs of its backup of each week."""
    database = new_database(running)
    create_policy(running, database, "p", "DURATION INF REPLICATION 1 SHARD DURATION 1h DEFAULT")
    refs = []
    for number, epoch in enumerate(epochs):
        week = Window(start=WEEK.start + number * WEEK_NS, end=WEEK.end + number * WEEK_NS)
        altered(running, database, "p", epoch.duration)
        for hour, second, kind in epoch.values:
            with contextlib.suppress(urllib.error.HTTPError):  # another type was there before: refused, as it should
                running.write(f"m v={VALUES[kind]} {week.start + hour * HOUR + second * SECOND}", database, "p")
        altered(running, database, "p", epoch.altered)
        refs.append(back_up(repository, server, plan(database), week).ref)
        if epoch.dropped:
            running.query('DROP MEASUREMENT "m"', db=database)
    return plan(database), refs


def restored(repository: Repository, server: Server, refs: tuple[str, ...]) -> bool:
    """Whether a restore into a new database goes to its end, with the archive's content, as its dry run has told."""
    target = new_name()
    request = RestoreRequest(refs=refs, target_database=target, allow_gaps=True)
    planned = plan_restore(request, repository=repository, target=server)
    try:
        restore_into(repository, server, target, refs=refs, allow_gaps=True, fingerprints=True)
    except InfluxdbBackupError as error:
        assert [refusal.message for refusal in planned.refusals] == [error.message]
        assert target not in server.databases()
        return False
    assert not planned.refusals
    server.drop_scratch(target, target)
    return True


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EPOCHS, min_size=1, max_size=3))
def test_drill_dry_run_and_restore_agree(one: RunningServer, epochs: list[Epoch]) -> None:
    """What a drill calls restorable, a restore of the same refs into a new database restores; and the other way."""
    repository = memory_repository()
    with opened(one) as server:
        chosen, refs = lived(one, server, repository, epochs)
        for ref in refs:
            proved = drill(chosen, repository=repository, server=server, ref=repository.ref(ref)).ok
            assert restored(repository, server, (ref,)) == proved
        restored(repository, server, tuple(refs))
