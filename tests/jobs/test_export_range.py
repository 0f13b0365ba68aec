"""Many windows in one call: cut at the schedule, a backup each, and a failure of one stops no other; on real servers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.archive.repository import Repository
from influxdb_backup.config.cron import check_cron, ticks
from influxdb_backup.errors import ServerUnavailableError, SourceError
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import Server, ServerSettings
from influxdb_backup.jobs.export import ExportOptions
from influxdb_backup.jobs.export_range import RangeResult, export_range, last_due_window, windows_between
from influxdb_backup.model import Window
from tests.jobs.sources import fill
from tests.jobs.support import DAY, DAY_NS, HOUR, MINUTE, WEEK, at, back_up, new_database, plan, window
from tests.servers import RunningServer, free_port


def days(first: int, last: int) -> list[Window]:
    """Days of the week, from 0."""
    return [window(WEEK.start + n * DAY_NS, WEEK.start + (n + 1) * DAY_NS) for n in range(first, last)]


def run(repository: Repository, server: Server, database: str, whole: Window = WEEK, **settings: object) -> RangeResult:
    """One export of a range."""
    chosen = plan(database, **settings)
    return export_range(chosen, whole, server=server, repository=repository, options=ExportOptions())


def test_range_is_one_backup_for_each_window_of_the_schedule(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Each day of a week has a backup of its own, of its own points; a second run makes none."""
    database = new_database(any_influx)
    for day in days(0, 7):
        fill(any_influx, database, start=day.start)
    result = run(repository, any_server, database)
    assert (result.ok, [one.window for one in result.windows]) == (True, days(0, 7))
    assert all(one.rows == 10 and one.created for one in result.windows)
    assert [ref.window for ref in repository.refs("telemetry")] == days(0, 7)
    assert not any(one.created for one in run(repository, any_server, database).windows)


def test_range_goes_on_after_the_failure_of_one_window(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A day that has shrunk is named with its reason, and all the others are backed up."""
    database = new_database(influx1)
    for day in days(0, 7):
        fill(influx1, database, start=day.start)
    back_up(repository, server1, plan(database), days(2, 3)[0])
    influx1.query(f"DELETE FROM cpu WHERE time >= {days(2, 3)[0].start} AND time < {days(3, 4)[0].start}", db=database)
    result = run(repository, server1, database)
    [failed] = result.failed
    assert (failed.window, failed.kind, result.ok) == (days(2, 3)[0], "shrunk-window", False)
    assert "cpu now holds 0 rows and held 10" in failed.message
    assert [one.window for one in result.windows] == days(0, 2) + days(3, 7)
    assert result.not_tried is None


def test_range_ends_where_windows_are_still_open(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What is due is backed up; the first open window is said, and the rest is not tried one by one."""
    database = new_database(influx1)
    now = server1.now()
    hour = now - now % HOUR
    fill(influx1, database, start=hour - 5 * HOUR)
    whole = window(hour - 5 * HOUR, hour + 1000 * DAY_NS)
    result = run(repository, server1, database, whole, schedule="0 * * * *", settle="0s")
    assert [one.window.end for one in result.windows] == [hour - n * HOUR for n in range(4, -1, -1)]
    assert [one.kind for one in result.failed] == ["open-window"]
    assert result.not_tried == window(hour + HOUR, whole.end)


def test_range_at_a_server_that_is_gone_is_that_error(repository: Repository) -> None:
    """Nothing of it is a list of windows that failed for the same reason."""
    server = connect(ServerSettings(url=f"http://127.0.0.1:{free_port()}", version="1.8.10", name="gone", timeout=1))
    with pytest.raises(ServerUnavailableError):
        run(repository, server, "nothing")


def test_range_is_cut_at_ticks_and_keeps_its_edges() -> None:
    """What is asked for is covered, no more and no less, also when it begins or ends between two ticks."""
    whole = window(DAY.start + HOUR, DAY.end + HOUR)
    assert list(windows_between(plan(), whole)) == [window(whole.start, DAY.end), window(DAY.end, whole.end)]
    assert list(windows_between(plan(), DAY)) == [DAY]


@given(
    st.integers(0, 3000),
    st.integers(1, 500),
    st.sampled_from(["0 0 * * *", "15 * * * *", "0 6 * * 0", "*/7 3-9 1,15 * *", "0 0 29 2 *"]),
)
def test_ticks_are_the_schedulers(start: int, length: int, expression: str) -> None:
    """Those that the library of Airflow's scheduler names, and all of them."""
    from croniter import croniter

    first = at("2024-01-01T00:00:00Z") + start * HOUR
    last = first + length * HOUR
    moments = croniter(expression, datetime.fromtimestamp(first // 10**9, UTC))
    expected = []
    while (tick := int(moments.get_next(float)) * 10**9) < last:
        expected.append(tick)
    assert list(ticks(check_cron(expression), first, last)) == expected


def test_last_due_window_is_the_one_that_settled_last() -> None:
    """Until settle has passed, the window before counts; before the plan's first window there is none."""
    assert last_due_window(plan(), DAY.end + 30 * MINUTE) == DAY
    assert last_due_window(plan(), DAY.end + 29 * MINUTE) == window(DAY.start - DAY_NS, DAY.start)
    with pytest.raises(SourceError, match="No window of the plan 'telemetry' is due"):
        last_due_window(plan(start="2024-03-06T00:00:00Z"), DAY.end)
