"""Which stretch of time of a plan has a backup. A pure function of the refs; Airflow's run states play no part."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from influxdb_backup.config.cron import previous_tick, ticks
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import UsageError
from influxdb_backup.jobs.schedule import last_due
from influxdb_backup.jobs.scope import contains
from influxdb_backup.model import Int64, Name, Ref, SourcePiece, Table, Value, Window
from influxdb_backup.windows import format_instant, intersect, merge, subtract


class Change(Value):
    """One field of which the source counts other values than the newest backup holds."""

    window: Window
    """the backup's: what to back up again"""
    table: Table
    field: Name
    piece: Window
    """where it was counted"""
    counted: Int64
    """by the server now"""
    backed_up: Int64
    listed: bool
    """False when the server no longer lists the table"""


class Unjudged(Value):
    """A stretch of time of which the source cannot tell whether it has changed."""

    window: Window
    reason: str


class Archived(Value):
    """A stretch of time that the source no longer has, and rightly: the backup is what is left of it."""

    window: Window
    reason: str


class CoverageReport(Value):
    """Covered, partial, gaps and stale are disjoint (stale apart) and in order of time."""

    plan: str
    range: Window | None
    """what was looked at; None when the plan has no start and no backups"""
    covered: tuple[Window, ...]
    """has a backup whose scope contains the plan's"""
    partial: tuple[Window, ...]
    """has backups, but only of a narrower scope"""
    gaps: tuple[Window, ...]
    stale: tuple[Window, ...] = ()
    """windows of backups that are known to have changed at the source since; nothing but a recheck finds any"""
    rechecked: bool = False
    """whether the source was asked, so that no stale window means that none was found"""
    changes: tuple[Change, ...] = ()
    """why windows are stale"""
    unjudged: tuple[Unjudged, ...] = ()
    """what the recheck could not compare; it counts neither as stale nor as unchanged"""
    archived: tuple[Archived, ...] = ()
    """what the source no longer has by its own retention, or because the plan marks it as archived; it is not stale"""
    outside: tuple[SourcePiece, ...] = ()
    """stretches for which the source had shards at the last backup, and that no window of the plan reaches"""
    damaged: tuple[str, ...] = ()
    """newest revisions in the range that a kept verification found damaged; their time counts as covered"""
    newest: Int64 | None
    """the latest instant up to which the plan is covered"""
    refs: int
    unreadable: int
    """tables that the newest backup could not read"""

    @property
    def ok(self) -> bool:
        """Whether the whole range is covered, by nothing that is known to be damaged or stale."""
        return not (self.partial or self.gaps or self.stale or self.damaged)


def effective_window(ref: Ref) -> Window | None:
    """What a ref covers: of a window that was open when it was read, only what had settled."""
    if not ref.open:
        return ref.window
    settled = ref.read_start - ref.settle
    return Window(start=ref.window.start, end=min(settled, ref.window.end)) if settled > ref.window.start else None


def coverage(plan: Plan, refs: Iterable[Ref], *, range: Window | None = None, now: int) -> CoverageReport:  # noqa: A002
    """
    What of a range of a plan is covered by these refs.

    Without a range it goes from the plan's ``start`` (or its first backup) to the last window that its
    schedule and settle time make due at ``now`` (ns), or to the newest backup when that is later.
    """
    refs = tuple(refs)
    full: list[Window] = []
    narrow: list[Window] = []
    for ref in refs:
        window = effective_window(ref)
        if window is not None:
            (full if contains(ref.scope, plan.scope) else narrow).append(window)
    looked_at = range or _default_range(plan, [*full, *narrow], now)
    newest_ref = max(refs, key=lambda ref: (not ref.open, ref.window.end, ref.revision), default=None)
    report = CoverageReport(
        plan=plan.name,
        range=looked_at,
        covered=(),
        partial=(),
        gaps=(),
        newest=max((window.end for window in full), default=None),
        refs=len(refs),
        unreadable=newest_ref.unreadable if newest_ref else 0,
    )
    if looked_at is None:
        return report
    covered = _within(looked_at, full)
    partial = tuple(rest for window in _within(looked_at, narrow) for rest in subtract(window, covered))
    gaps = subtract(looked_at, [*covered, *partial])
    return report.model_copy(update={"covered": covered, "partial": partial, "gaps": gaps})


def gaps_between(plan: Plan, windows: Iterable[Window], now: int) -> tuple[Window, ...]:
    """What these windows leave uncovered of a plan since its start, up to the last window that is due at ``now``."""
    windows = list(windows)
    looked_at = _default_range(plan, windows, now)
    return subtract(looked_at, windows) if looked_at is not None else ()


def _within(whole: Window, windows: Iterable[Window]) -> tuple[Window, ...]:
    return merge(common for window in windows if (common := intersect(whole, window)))


def _default_range(plan: Plan, windows: list[Window], now: int) -> Window | None:
    starts = [plan.start] if plan.start is not None else [window.start for window in windows]
    if not starts:
        return None
    ends = [window.end for window in windows]
    due = last_due(plan.schedule, plan.settle, now)
    if due is not None:
        ends.append(due)
    start = min(starts)
    if not ends or max(ends) <= start:
        return None
    return Window(start=start, end=max(ends))


def backfill_command(plan: Plan, gap: Window) -> str:
    """
    The Airflow command that fills a gap with windows of the plan's schedule.

    Its range is inclusive and chooses windows by their start, so it begins where the window begins in which the gap
    does, and ends just before the gap does. Runs that failed are what most gaps come from, so they are run again.
    """
    if gap.end <= gap.start:
        raise UsageError("A gap needs its start before its end.")
    first = previous_tick(plan.schedule, gap.start)
    return (
        f"airflow backfill create --dag-id influxdb_backup__{plan.name} "
        f"--from-date {format_instant(gap.start if first is None else first)} "
        f"--to-date {format_instant(gap.end - 1_000_000_000)} --reprocess-behavior failed"
    )


def export_command(plan: str, window: Window) -> str:
    """The command that backs a stretch up without Airflow, cut at the plan's schedule."""
    return f"influxdb-backup export {plan} --start {format_instant(window.start)} --end {format_instant(window.end)}"


MANY_WINDOWS = 100
"""of a gap; a run of Airflow for each of more than these takes longer than the reads"""


def fill(plan: Plan, gap: Window) -> tuple[str, ...]:
    """
    What fills a gap, in words, the best way first.

    A backfill leaves out a date that a manual run took, whatever that run backed up; a run with a window of its own
    never is. Hundreds of windows are filled by one command, which cuts the range at the schedule.
    """
    start, end = format_instant(gap.start), format_instant(gap.end)
    count = sum(1 for _ in itertools.islice(ticks(plan.schedule, gap.start, gap.end), MANY_WINDOWS + 1)) + 1
    one = f'{{"window_start": "{start}", "window_end": "{end}"}}'
    command = export_command(plan.name, gap)
    if count > MANY_WINDOWS:
        return (
            f"More than {MANY_WINDOWS} windows; in one process, a backup for each: {command}",
            f"Or a run for each: {backfill_command(plan, gap)}",
        )
    by_hand = (
        f"Trigger influxdb_backup__{plan.name} with Window start {start} and Window end {end}; "
        f"airflow dags trigger influxdb_backup__{plan.name} --conf '{one}'; or POST "
        f"/api/v2/dags/influxdb_backup__{plan.name}/dagRuns with "
        f'{{"logical_date": null, "conf": {one}}}'
    )
    if count == 1:
        return by_hand, f"Or without Airflow: {command}"
    return (
        f"{count} windows, a run for each: {backfill_command(plan, gap)} (airflowctl takes the same)",
        f"A backfill leaves out dates that manual runs took. What is left then, or without Airflow: {command}",
    )
