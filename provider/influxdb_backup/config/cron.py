"""
Five-field cron expressions: checked and normalised, without a scheduler's library.

What passes here means the same to Airflow's ``CronDataIntervalTimetable``: numbers, names, ranges, steps and lists,
and the presets ``@hourly`` to ``@yearly``. Seconds fields, ``L``, ``#`` and reversed ranges are refused, because
schedulers read them differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise

from influxdb_backup.errors import UsageError

PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = 60 * 10**9
_DAY_MINUTES = 24 * 60
_FOUR_YEARS = 4 * 366
"""days"""
_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?\Z", re.ASCII)


def check_cron(text: str) -> str:
    """The expression with single spaces, presets written out. Raises UsageError naming the field that is wrong."""
    expression = PRESETS.get(text.strip().lower(), text)
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise UsageError(
            f"{text!r} is not a cron expression of five fields (minute, hour, day of month, month, day of week).",
            hint=f"Write for example '0 0 * * *' for every midnight, or one of {', '.join(PRESETS)}.",
        )
    day, weekday = fields[2], fields[4]
    if "*" not in (day, weekday) and "*" in day + weekday:
        raise UsageError(
            f"{text!r} restricts both day fields, one of them by '*/…', which schedulers read differently.",
            hint="Write the days as a list, or restrict only one of the two fields.",
        )
    sets = [_expand(field, *spec) for field, spec in zip(fields, _FIELDS, strict=True)]
    days, months = sets[2], sets[3]
    if weekday == "*" and not any(min(days) <= _LONGEST[month] for month in months):
        raise UsageError(f"The cron expression {text!r} never happens: no such month has a day {min(days)}.")
    return " ".join(fields)


def _expand(field: str, label: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    values: set[int] = set()
    for item in field.split(","):
        found = _ITEM.match(item)
        if not found:
            raise UsageError(f"{item!r} is not allowed in the field {label} of a cron expression.")
        step = int(found["step"] or 1)
        if found["all"]:
            if field != "*" and not found["step"]:
                raise UsageError(f"{field!r} in the field {label} of a cron expression: '*' stands alone.")
            first, last = low, high
        else:
            first = _number(found["first"], label, low, high, names)
            last = _number(found["last"], label, low, high, names) if found["last"] else first
            if found["step"] and not found["last"]:
                raise UsageError(f"{item!r} in the field {label}: a step needs a range, such as {first}-{high}/{step}.")
        # Schedulers read a range of one, such as 0-0, as a whole week.
        if step < 1 or (found["last"] and first >= last):
            raise UsageError(f"{item!r} in the field {label}: a range must go up, and by steps of at least 1.")
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _number(text: str, label: str, low: int, high: int, names: dict[str, int]) -> int:
    number = names.get(text.lower(), -1) if not text.isdigit() else int(text)
    if not low <= number <= high:
        allowed = f"{low} to {high}" + (f", or {', '.join(names)}" if names else "")
        raise UsageError(f"{text!r} in the field {label} of a cron expression is not one of {allowed}.")
    return number


@dataclass(frozen=True)
class _Ticks:
    """When a checked expression ticks: its minutes of a day, and which days have them."""

    times: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    """as in cron, a day matches when either of the two day fields does, if both are restricted"""

    def on(self, day: date) -> bool:
        """Whether the expression ticks on a day."""
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((in_month or in_week) if self.either else (in_month and in_week))


def _ticks(expression: str) -> _Ticks:
    fields = expression.split()
    minutes, hours, days, months, weekdays = (
        _expand(field, *spec) for field, spec in zip(fields, _FIELDS, strict=True)
    )
    return _Ticks(
        times=tuple(sorted(hour * 60 + minute for hour in hours for minute in minutes)),
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        either=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )


def previous_tick(expression: str, instant: int) -> int | None:
    """
    The latest tick (UTC, ns) of a checked five-field expression that is not after ``instant``.

    None when there is none in the four years before.
    """
    ticks = _ticks(expression)
    moment = _EPOCH + timedelta(minutes=instant // _MINUTE)
    for back in range(_FOUR_YEARS):
        day = moment.date() - timedelta(days=back)
        if not ticks.on(day):
            continue
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        for time in reversed(ticks.times):
            tick = midnight + timedelta(minutes=time)
            if tick <= moment:
                return (tick - _EPOCH) // timedelta(minutes=1) * _MINUTE
    return None


def ticks(expression: str, after: int, before: int) -> Iterator[int]:
    """Every tick (UTC, ns) of a checked five-field expression between two instants, without these, in order."""
    known = _ticks(expression)
    day = (_EPOCH + timedelta(minutes=after // _MINUTE)).date()
    while True:
        midnight = (datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH) // timedelta(minutes=1)
        if midnight * _MINUTE >= before:
            return
        for time in known.times if known.on(day) else ():
            tick = (midnight + time) * _MINUTE
            if after < tick < before:
                yield tick
        day += timedelta(days=1)


@cache
def longest_window(expression: str) -> int:
    """The most time (ns) between two ticks of a checked five-field expression."""
    ticks = _ticks(expression)
    most = max((after - before for before, after in pairwise(ticks.times)), default=0)
    first = date(2024, 1, 1)
    on = [day for day in range(2 * _FOUR_YEARS) if ticks.on(first + timedelta(days=day))]
    nights = max((after - before for before, after in pairwise(on)), default=_FOUR_YEARS)
    return max(most, nights * _DAY_MINUTES - ticks.times[-1] + ticks.times[0]) * _MINUTE


@cache
def shortest_window(expression: str) -> int:
    """The least time (ns) between two ticks of a checked five-field expression."""
    ticks = _ticks(expression)
    least = min((after - before for before, after in pairwise(ticks.times)), default=_FOUR_YEARS * _DAY_MINUTES)
    first = date(2024, 1, 1)
    on = [day for day in range(_FOUR_YEARS) if ticks.on(first + timedelta(days=day))]
    nights = min((after - before for before, after in pairwise(on)), default=_FOUR_YEARS)
    return min(least, nights * _DAY_MINUTES - ticks.times[-1] + ticks.times[0]) * _MINUTE
