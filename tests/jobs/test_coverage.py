"""Coverage: which stretch of time of a plan has a backup, judged by the refs alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.config.cron import check_cron
from influxdb_backup.jobs.coverage import backfill_command, coverage, effective_window
from influxdb_backup.jobs.schedule import last_due
from influxdb_backup.model import Ref, Scope, Window
from tests.jobs.support import DAY, DAY_NS, HOUR, MINUTE, at, plan, window

DIGEST = "sha256:" + "0" * 64
START = at("2024-03-01T00:00:00Z")


def ref(span: Window, *, scope: Scope | None = None, read: int | None = None, **changes: object) -> Ref:
    """A ref as a commit writes it."""
    read_start = span.end + HOUR if read is None else read
    return Ref.model_validate(
        {
            "plan": "telemetry",
            "window": span,
            "revision": 0,
            "write_id": "w",
            "manifest": DIGEST,
            "manifest_size": 1,
            "content_id": DIGEST,
            "scope": scope or Scope(),
            "scope_hash": DIGEST,
            "read_start": read_start,
            "read_end": read_start + 1,
            "settle": 30 * MINUTE,
            "rows": 1,
            "bytes": 1,
            "open": False,
            "unreadable": 0,
            "retention_policies": ("autogen",),
            **changes,
        }
    )


def day(number: int) -> Window:
    """A day of March 2024, from 0."""
    return window(START + number * DAY_NS, START + (number + 1) * DAY_NS)


def test_gaps_are_listed_from_the_plans_start() -> None:
    """A day without a backup between others, and before the first one, is a gap."""
    chosen = plan(start="2024-03-01T00:00:00Z")
    report = coverage(chosen, [ref(day(1)), ref(day(3))], now=at("2024-03-06T01:00:00Z"))
    assert report.range == window(START, at("2024-03-06T00:00:00Z"))
    assert report.covered == (day(1), day(3))
    assert report.gaps == (day(0), day(2), day(4))
    assert not report.ok
    assert report.newest == day(3).end


def test_scope_partial_when_the_plan_asks_for_more_than_the_backup_held() -> None:
    """A backup of fewer measurements than the plan has now does not count as covering its window."""
    chosen = plan(start="2024-03-01T00:00:00Z", measurements=["cpu", "mem"])
    narrow = ref(day(0), scope=Scope(measurements=("cpu",)))
    full = ref(day(1), scope=Scope(measurements=("cpu", "disk", "mem")))
    report = coverage(chosen, [narrow, full], now=day(1).end + HOUR)
    assert (report.covered, report.partial, report.gaps) == ((day(1),), (day(0),), ())
    assert not report.ok


def test_scope_partial_when_an_exclude_was_taken_away() -> None:
    """A backup that left measurements out does not cover a plan that no longer does."""
    narrow = ref(day(0), scope=Scope(exclude_measurements=("tmp_*",)))
    assert coverage(plan(), [narrow], range=day(0), now=day(9).end).partial == (day(0),)


def test_open_window_counts_only_what_had_settled() -> None:
    """Of a forced backup of an open window, only the time up to its read minus settle is covered."""
    read = day(0).start + 10 * HOUR
    opened = ref(day(0), open=True, read=read)
    assert effective_window(opened) == window(day(0).start, read - 30 * MINUTE)
    report = coverage(plan(), [opened], range=day(0), now=day(3).end)
    assert report.covered == (window(day(0).start, read - 30 * MINUTE),)
    assert report.gaps == (window(read - 30 * MINUTE, day(0).end),)


def test_open_window_that_had_not_settled_at_all_covers_nothing() -> None:
    """A read in the first minutes of a window covers none of it."""
    opened = ref(day(0), open=True, read=day(0).start + MINUTE)
    assert effective_window(opened) is None
    assert coverage(plan(), [opened], range=day(0), now=day(3).end).gaps == (day(0),)


def test_an_unknown_plan_has_no_range() -> None:
    """Without a start and without backups there is nothing to look at, and nothing is claimed to be covered."""
    report = coverage(plan(), [], now=at("2024-03-06T01:00:00Z"))
    assert report.range is None
    assert report.refs == 0


def test_a_window_that_is_not_due_yet_is_no_gap() -> None:
    """Until the settle time after its end has passed, the latest window is not missing."""
    chosen = plan(start="2024-03-01T00:00:00Z")
    assert coverage(chosen, [ref(day(0))], now=day(1).end + 29 * MINUTE).gaps == ()
    assert coverage(chosen, [ref(day(0))], now=day(1).end + 30 * MINUTE).gaps == (day(1),)


def test_newest_unreadable_shows() -> None:
    """Tables that the newest backup could not read show in the coverage."""
    report = coverage(plan(), [ref(day(0)), ref(day(1), unreadable=2)], now=day(1).end + HOUR)
    assert report.unreadable == 2


SPANS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6), st.booleans(), st.integers(0, 30)), max_size=8)


@given(SPANS, st.integers(0, 10), st.integers(1, 12))
def test_every_instant_is_covered_partial_or_a_gap(
    spans: list[tuple[int, int, bool, int]], start: int, length: int
) -> None:
    """The three lists tile the range, and each instant is in the one that the refs that contain it say."""
    chosen = plan(measurements=["cpu"], settle="0s")
    whole = window(START + start * HOUR, START + (start + length) * HOUR)
    refs = [
        ref(
            window(START + first * HOUR, START + (first + hours) * HOUR),
            scope=Scope(measurements=("cpu",) if full else ("mem",)),
            open=read < first + hours,
            read=START + read * HOUR,
            settle=0,
        )
        for first, hours, full, read in spans
    ]
    report = coverage(chosen, refs, range=whole, now=whole.end)
    for hour in range(start, start + length):
        cell = window(START + hour * HOUR, START + (hour + 1) * HOUR)
        holders = [full for first, hours, full, read in spans if first <= hour < min(first + hours, max(read, 0))]
        expected = "covered" if any(holders) else "partial" if holders else "gaps"
        lists = {"covered": report.covered, "partial": report.partial, "gaps": report.gaps}
        found = [name for name, listed in lists.items() if any(one.contains(cell) for one in listed)]
        assert found == [expected]


@given(st.integers(0, 400), st.sampled_from(["0 0 * * *", "15 * * * *", "0 6 * * 0", "*/7 3-9 1,15 * *"]))
def test_the_last_due_window_is_the_schedulers(hours: int, expression: str) -> None:
    """The end of the last due window is the tick that the library of Airflow's scheduler names."""
    from datetime import UTC, datetime

    from croniter import croniter

    now = START + hours * HOUR + 17 * MINUTE
    moment = datetime.fromtimestamp((now - 30 * MINUTE) // 10**9, tz=UTC)
    clock = croniter(check_cron(expression), moment)
    tick = moment if croniter.match(expression, moment) else clock.get_prev(datetime)
    expected = int(tick.replace(second=0, microsecond=0).timestamp()) * 10**9
    assert last_due(check_cron(expression), 30 * MINUTE, now) == expected


def test_the_backfill_command_names_the_gap() -> None:
    """The command that a gap is shown with fills exactly the windows of the gap: its last date is inclusive."""
    command = backfill_command(plan(), DAY)
    assert "--dag-id influxdb_backup__telemetry" in command
    assert "--from-date 2024-03-06T00:00:00Z" in command
    assert "--to-date 2024-03-06T23:59:59Z" in command


def test_the_backfill_command_runs_failed_windows_again() -> None:
    """A gap that a failed run left is filled by its command: without being told, Airflow skips such runs."""
    assert backfill_command(plan(), DAY).endswith(" --reprocess-behavior failed")


def test_the_backfill_command_reaches_the_window_around_a_gap() -> None:
    """A gap that begins within a window is filled too: Airflow chooses windows by their start."""
    command = backfill_command(plan(), window(DAY.start + 6 * HOUR, DAY.end))
    assert "--from-date 2024-03-06T00:00:00Z --to-date 2024-03-06T23:59:59Z" in command
