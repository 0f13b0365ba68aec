"""Points that no window reaches: told from shards' bounds, and backed up ahead where the plan says so; on real servers."""

from __future__ import annotations

from influxdb_backup.archive.repository import Repository
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.coverage import coverage
from influxdb_backup.jobs.earlier_backups import EarlierBackups
from influxdb_backup.jobs.export_range import export_ahead, last_due_window
from influxdb_backup.windows import format_instant
from tests.jobs.sources import fill
from tests.jobs.support import DAY, DAY_NS, HOUR, at, back_up, new_database, plan, window
from tests.servers import RunningServer


def test_points_before_the_start_and_beyond_now_are_told(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """The result and the manifest name policy and stretch; what a backup holds is not named, and nothing is when all is."""
    database = new_database(any_influx)
    fill(any_influx, database)
    early, late = at("2010-01-15T00:00:00Z"), at("2100-01-15T00:00:00Z")
    any_influx.write(f"cpu v=1 {early}\ncpu v=1 {late}", database)
    chosen = plan(database, start="2024-03-01T00:00:00Z")
    result = back_up(repository, any_server, chosen)
    assert [(one.retention_policy, one.where) for one in result.outside] == [
        ("autogen", "before-start"),
        ("autogen", "ahead"),
    ]
    for one, instant in zip(result.outside, (early, late), strict=True):
        assert one.window.contains(window(instant, instant + 1))
    last = EarlierBackups(repository, "telemetry").last()
    assert last is not None
    assert [piece.window for piece in last.evidence.outside] == [one.window for one in result.outside]
    for one in result.outside:
        assert back_up(repository, any_server, chosen, one.window, force=True).rows == 1
    assert back_up(repository, any_server, chosen, window(DAY.end, DAY.end + DAY_NS)).outside == ()


def test_windows_of_the_future_are_backed_up_as_open_and_again_when_they_settle(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Forecasts are held before their time, count for nothing until then, and leave windows without points alone."""
    database = new_database(any_influx)
    now = any_server.now()
    midnight = now - now % DAY_NS
    fill(any_influx, database, start=midnight - DAY_NS)
    forecast = window(midnight + 3 * DAY_NS, midnight + 4 * DAY_NS)
    any_influx.write(f"forecast v=1 {forecast.start + HOUR}\nforecast v=2 {midnight + 90 * DAY_NS}", database)
    chosen = plan(database, ahead="30d", settle="0s", start=format_instant(midnight - DAY_NS))
    due = last_due_window(chosen, now)
    result = back_up(repository, any_server, chosen, due)
    assert [one.where for one in result.outside] == ["ahead"]
    ahead = export_ahead(chosen, due, server=any_server, repository=repository)
    assert ahead is not None
    assert [(one.window, one.rows, one.open) for one in ahead.windows] == [(forecast, 1, True)]
    assert repository.ref("telemetry@latest").window == due
    report = coverage(chosen, repository.refs("telemetry"), now=now)
    assert (report.covered, report.gaps, report.newest) == ((due,), (), due.end)
    again = export_ahead(chosen, due, server=any_server, repository=repository)
    assert again is not None
    assert [one.created for one in again.windows] == [False]
    any_influx.write(f"forecast v=3 {forecast.start + 2 * HOUR}", database)
    changed = export_ahead(chosen, due, server=any_server, repository=repository)
    assert changed is not None
    assert [(one.revision, one.rows) for one in changed.windows] == [(1, 2)]
    before = window(due.start - DAY_NS, due.start)
    assert export_ahead(chosen, before, server=any_server, repository=repository) is None
    assert export_ahead(plan(database), due, server=any_server, repository=repository) is None
