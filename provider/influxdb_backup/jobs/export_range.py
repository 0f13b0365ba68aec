"""Many windows of one plan in one call: a range cut at the plan's schedule, and the window that was due last."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from influxdb_backup.archive.repository import Repository
from influxdb_backup.config.cron import previous_tick, ticks
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import IncompleteReadError, InfluxdbBackupError, RepositoryError, SourceError, StoreError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.earlier_backups import EarlierBackups
from influxdb_backup.jobs.export import ExportOptions, ExportResult, export, export_unless_empty
from influxdb_backup.jobs.progress import ProgressCallback, silent
from influxdb_backup.jobs.schedule import last_due
from influxdb_backup.jobs.selection import select_policies
from influxdb_backup.model import MAX_END, RetentionPolicy, Value, Window
from influxdb_backup.windows import format_duration, intersect

_OF_THE_PLAN = frozenset({"open-window", "identity-mismatch", "clock-skew", "empty-selection", "shard-reader"})
"""kinds of SourceError that every later window has as well"""
_TWO_WINDOWS = 2 * 366 * 86_400 * 10**9
"""ns in which every schedule but that of a leap day has two ticks, so that the last window has its end"""


class FailedWindow(Value):
    """A window of a range that was not backed up, and why."""

    window: Window
    kind: str
    message: str
    hint: str


class RangeResult(Value):
    """What an export of a range did, window by window, in order of time."""

    plan: str
    range: Window
    windows: tuple[ExportResult, ...]
    """one for each window that has its backup now"""
    failed: tuple[FailedWindow, ...]
    not_tried: Window | None = None
    """the rest of the range, where a failure is one that every later window has as well"""
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every window of the range has its backup."""
        return not self.failed and self.not_tried is None


def windows_between(plan: Plan, whole: Window) -> Iterator[Window]:
    """The range cut at every tick of the plan's schedule, in order; a range without a tick inside is one window."""
    edges = itertools.chain([whole.start], ticks(plan.schedule, whole.start, whole.end), [whole.end])
    for start, end in itertools.pairwise(edges):
        yield Window(start=start, end=end)


def last_due_window(plan: Plan, now: int) -> Window:
    """The latest window that the plan's schedule makes due at ``now`` (ns). Raises SourceError when none is yet."""
    end = last_due(plan.schedule, plan.settle, now)
    start = previous_tick(plan.schedule, end - 1) if end is not None else None
    if start is None or end is None or (plan.start is not None and end <= plan.start):
        raise SourceError(
            f"No window of the plan {plan.name!r} is due: with the schedule {plan.schedule!r} and settle "
            f"{format_duration(plan.settle)} none has ended since its start.",
            kind="open-window",
            hint="Name a window with --start and --end.",
        )
    return Window(start=start if plan.start is None else max(start, plan.start), end=end)


def export_range(
    plan: Plan,
    whole: Window,
    *,
    server: Server,
    repository: Repository,
    options: ExportOptions | None = None,
    progress: ProgressCallback = silent,
    told: Callable[[ExportResult | FailedWindow], None] = lambda _: None,
) -> RangeResult:
    """
    Backs every window of the range up, the oldest first since it expires first; each is a backup of its own.

    A window that fails is recorded and the next one is tried, unless the reason is no window's own (the server is gone,
    the rest is still open). ``told`` hears of each window as it ends. Raises what the very first call to a server or
    store that cannot be reached raises when nothing was backed up before.
    """
    started = time.monotonic()
    earlier = EarlierBackups(repository, plan.name)
    done: list[ExportResult] = []
    failed: list[FailedWindow] = []
    rest: Window | None = None
    for window in windows_between(plan, whole):
        try:
            result = export(
                plan,
                window,
                server=server,
                repository=repository,
                options=options,
                progress=progress,
                earlier=earlier,
            )
        except InfluxdbBackupError as error:
            ends = not _is_of_the_window(error)
            if ends and not done and not failed:
                raise
            failure = FailedWindow(window=window, kind=error.kind, message=error.message, hint=error.hint)
            failed.append(failure)
            told(failure)
            if ends:
                rest = Window(start=window.end, end=whole.end) if window.end < whole.end else None
                break
        else:
            done.append(result)
            told(result)
    return RangeResult(
        plan=plan.name,
        range=whole,
        windows=tuple(done),
        failed=tuple(failed),
        not_tried=rest,
        seconds=time.monotonic() - started,
    )


def windows_ahead(plan: Plan, window: Window, server: Server, now: int) -> tuple[Window, ...]:
    """
    The windows of the future that a backup of ``window`` takes with it: those that the plan looks ahead and that hold
    shards, when ``window`` is the last one that is due; none otherwise, so that a backfill reads them once.

    Where the server does not list its shards all of them are named.
    """
    if plan.ahead is None:
        return ()
    due = last_due(plan.schedule, plan.settle, now)
    if due is None or window.end < due:
        return ()
    horizon = now + plan.ahead
    edges = itertools.pairwise(ticks(plan.schedule, now, min(horizon + _TWO_WINDOWS, MAX_END)))
    known = [server.listed_groups(plan.database, policy.name) for policy in _policies(plan, server)]
    return tuple(
        ahead
        for ahead in itertools.takewhile(
            lambda ahead: ahead.start < horizon, (Window(start=start, end=end) for start, end in edges)
        )
        if any(groups is None or any(intersect(group, ahead) for group in groups) for groups in known)
    )


def _policies(plan: Plan, server: Server) -> tuple[RetentionPolicy, ...]:
    return select_policies(plan, server.retention_policies(plan.database))


def export_ahead(
    plan: Plan,
    window: Window,
    *,
    server: Server,
    repository: Repository,
    options: ExportOptions | None = None,
    progress: ProgressCallback = silent,
) -> RangeResult | None:
    """
    Backs the windows of the future up after ``window``, as open; None where the plan looks at none of them now.

    A window without points that no backup has held is left out. Each is backed up again when it settles, and until then
    counts for nothing: neither as covered, nor as the latest. A failure of one is recorded, and the next one is tried.
    """
    started = time.monotonic()
    now = min(server.now(), time.time_ns())
    wanted = windows_ahead(plan, window, server, now)
    if not wanted:
        return None
    earlier = EarlierBackups(repository, plan.name)
    done: list[ExportResult] = []
    failed: list[FailedWindow] = []
    for ahead in wanted:
        try:
            result = export_unless_empty(
                plan,
                ahead,
                server=server,
                repository=repository,
                options=replace(options or ExportOptions(), force=True),
                progress=progress,
                earlier=earlier,
            )
        except InfluxdbBackupError as error:
            failed.append(FailedWindow(window=ahead, kind=error.kind, message=error.message, hint=error.hint))
            if not _is_of_the_window(error):
                break
        else:
            done += [result] if result is not None else []
    return RangeResult(
        plan=plan.name,
        range=Window(start=wanted[0].start, end=wanted[-1].end),
        windows=tuple(done),
        failed=tuple(failed),
        seconds=time.monotonic() - started,
    )


def _is_of_the_window(error: InfluxdbBackupError) -> bool:
    """Whether another window may well succeed."""
    if isinstance(error, SourceError):
        return error.kind not in _OF_THE_PLAN
    return isinstance(error, IncompleteReadError) or (
        isinstance(error, RepositoryError) and not isinstance(error, StoreError)
    )
