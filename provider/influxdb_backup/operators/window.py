"""The one place that decides which window a task run is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from influxdb_backup.config.cron import previous_tick
from influxdb_backup.errors import UsageError
from influxdb_backup.model import Window
from influxdb_backup.windows import format_instant, parse_instant, parse_window, say_instant, say_window, with_zone


def resolve_window(context: Mapping[str, Any], *, schedule: str) -> Window:
    """
    The window of a run: its params, else its partition, else its data interval; never its run id.

    1. ``params.window_start`` and ``params.window_end``: RFC 3339 with a zone, both or none. Refused in a backfill,
       all of whose runs would be about the same window.
    2. The partition's date, else its key (RFC 3339 with a zone): one period of ``schedule``, a cron in UTC.
    3. The data interval. An interval of no length is refused: bare cron strings make such ones.

    Raises UsageError, with what to do, when there is none of them or the window is empty.
    """
    params = context.get("params") or {}
    start, end = params.get("window_start"), params.get("window_end")
    if start or end:
        if getattr(context.get("dag_run"), "run_type", None) == "backfill":
            raise UsageError(
                "This run is one of a backfill, so it has its own window, and was given window_start or window_end.",
                hint="Backfill without them, or trigger a single run with both.",
            )
        return _from_params(start, end)
    moment = context.get("partition_date") or context.get("partition_key")
    if moment:
        return _from_partition(moment, schedule)
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None:
        raise UsageError(
            "This run has no window: no params, no partition and no data interval.",
            hint="Trigger it with window_start and window_end, or run a backfill instead of a trigger.",
        )
    if start == end:
        raise UsageError(
            f"The data interval of this run has no length: it starts and ends at {format_instant(parse_instant(end))}.",
            hint='Give the DAG schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"); a bare cron string '
            "makes empty intervals.",
        )
    return parse_window(start, end)


def notes(context: Mapping[str, Any], schedule: str, window: Window) -> Iterator[str]:
    """What a person may take wrongly in a run: an interval that is not its window, and a date that it takes."""
    run = context.get("dag_run")
    start = context.get("data_interval_start")
    if start is not None and parse_instant(start) != window.start:
        yield f"The window of this run is {say_window(window)}, as it was given; Airflow shows another interval."
    moment = getattr(run, "logical_date", None)
    if getattr(run, "run_type", None) != "manual" or moment is None:
        return
    at = parse_instant(moment)
    if previous_tick(schedule, at) == at and window.start != at:
        yield (
            f"This manual run has the logical date {say_instant(at)} and backs up {say_window(window)}: Airflow now "
            "takes the window that starts at that date for done, and schedule and backfills leave it out. Back that "
            "window up by a run with Window start and Window end, and trigger runs without a date of a window."
        )


def _from_params(start: object, end: object) -> Window:
    if not start or not end:
        given, missing = ("window_start", "window_end") if start else ("window_end", "window_start")
        raise UsageError(f"The run has {given} and no {missing}.", hint="Give both or none.")
    return parse_window(with_zone(_text(start)), with_zone(_text(end)))


def _from_partition(moment: object, schedule: str) -> Window:
    from croniter import croniter  # type: ignore[import-untyped]

    try:
        start = parse_instant(_text(moment))
    except UsageError as error:
        raise UsageError(
            f"The partition {moment!s} does not say when it starts: {error.message}",
            hint='Use keys such as 2026-01-31T00:00:00Z (key_format="%Y-%m-%dT%H:%M:%SZ"), or params.',
        ) from None
    first = datetime.fromtimestamp(start // 10**9, UTC)
    return Window(start=start, end=parse_instant(croniter(schedule, first).get_next(datetime)))


def _text(value: object) -> str | datetime:
    return value if isinstance(value, datetime) else str(value)
