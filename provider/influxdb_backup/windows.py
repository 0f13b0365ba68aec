"""
Pure time arithmetic on integer nanoseconds since 1970-01-01T00:00:00Z (UTC).

Windows are half-open, ``[start, end)``. Nothing here reads a clock. InfluxDB holds times from
-9223372036854775806 to 9223372036854775806 (run on 1.6.7, 1.12.4 and 2.9.1: facts on numbers and times), so a
window may start at ``MIN_TIME`` and end at ``MAX_END``, and then contains every instant a server can hold.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from influxdb_backup.errors import UsageError
from influxdb_backup.model import MAX_END, MIN_TIME, Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000_000
_INSTANT = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(Z|z|[+-]\d{2}:\d{2})?)?\Z"
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_KEY = re.compile(r"(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})\.(\d{9})Z\Z")
_DURATION_PART = re.compile(r"(\d+)(ns|us|µs|ms|s|m|h|d|w)")
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
    "d": 86400 * _SECOND,
    "w": 7 * 86400 * _SECOND,
}


def parse_instant(text: str | datetime) -> int:
    """
    Nanoseconds of an RFC 3339 time with a zone (``2026-01-31T00:00:00Z``), or of an aware ``datetime``.

    Raises UsageError for a naive time, since its meaning would depend on the machine that reads it.
    """
    if isinstance(text, datetime):
        if text.tzinfo is None:
            raise UsageError(f"The time {text.isoformat()} has no time zone.", hint="Give an aware datetime.")
        return _from_datetime(text)
    found = _INSTANT.match(text.strip())
    if not found:
        raise UsageError(f"{text!r} is not a time.", hint="Write RFC 3339 with a zone, such as 2026-01-31T00:00:00Z.")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if zone is None:
        alone = with_zone(text)
        hint = "Add Z for UTC, or an offset such as +01:00." if alone == text else f"For midnight in UTC write {alone}."
        raise UsageError(f"The time {text!r} has no time zone.", hint=hint)
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time: {error}.") from None
    instant = _from_datetime(moment) + int((fraction or "").ljust(9, "0"))
    if zone not in "Zz":
        sign = 1 if zone[0] == "+" else -1
        instant -= sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60) * _SECOND
    if not MIN_TIME <= instant <= MAX_END:
        raise UsageError(f"{text!r} is outside of what InfluxDB can hold (1677-09-21 to 2262-04-11).")
    return instant


def with_zone(time: str | datetime) -> str | datetime:
    """A date alone as its midnight in UTC, as forms of dates mean it; anything else as it is."""
    return f"{time.strip()}T00:00:00Z" if isinstance(time, str) and _DATE.match(time.strip()) else time


def _from_datetime(moment: datetime) -> int:
    delta = moment - _EPOCH
    return (delta.days * 86400 + delta.seconds) * _SECOND + delta.microseconds * 1000


def _to_datetime(instant: int) -> tuple[datetime, int]:
    seconds, nanoseconds = divmod(instant, _SECOND)
    return _EPOCH + timedelta(seconds=seconds), nanoseconds


def format_instant(instant: int) -> str:
    """RFC 3339 in UTC, with as many fractional digits (0, 3, 6 or 9) as the instant needs."""
    moment, nanoseconds = _to_datetime(instant)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if nanoseconds:
        digits = f"{nanoseconds:09d}"
        while digits.endswith("000"):
            digits = digits[:-3]
        text += f".{digits}"
    return text + "Z"


def format_key(instant: int) -> str:
    """The fixed-width form in object keys and refs: ``YYYYMMDDTHHMMSS.nnnnnnnnnZ``. Sorts as time does."""
    moment, nanoseconds = _to_datetime(instant)
    return f"{moment.strftime('%Y%m%dT%H%M%S')}.{nanoseconds:09d}Z"


def parse_key(text: str) -> int:
    """Inverse of format_key. Raises UsageError when the text is no such key."""
    found = _KEY.match(text)
    if not found:
        raise UsageError(f"{text!r} is not a time of the form YYYYMMDDTHHMMSS.nnnnnnnnnZ.")
    parts = [int(part) for part in found.groups()]
    try:
        return _from_datetime(datetime(*parts[:6], tzinfo=UTC)) + parts[6]  # type: ignore[misc,arg-type]
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time: {error}.") from None


def parse_window(start: str | datetime, end: str | datetime) -> Window:
    """The window ``[start, end)``. Raises UsageError when a time is bad or the window is empty."""
    first, last = parse_instant(start), parse_instant(end)
    if first >= last:
        raise UsageError(
            f"The window {format_instant(first)} to {format_instant(last)} is empty: its start must be before its end."
        )
    return Window(start=first, end=last)


def format_window(window: Window) -> str:
    """For people: ``2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z``."""
    return f"{format_instant(window.start)} to {format_instant(window.end)}"


def say_instant(instant: int) -> str:
    """For people, in UTC: ``2013-01-12`` at midnight, else ``2013-01-12 06:00``, and seconds where there are some."""
    text = format_instant(instant).removesuffix("Z").replace("T", " ")
    if text.endswith(" 00:00:00"):
        return text[:10]
    return text.removesuffix(":00") if len(text) == 19 else text


def say_length(nanoseconds: int) -> str:
    """For people: ``1 day``, ``6 hours``, ``10 min``, ``30 s``; an empty text for what is not that round."""
    for unit, size in (("day", 86400), ("hour", 3600)):
        count, rest = divmod(nanoseconds, size * _SECOND)
        if count and not rest:
            return f"{count:,} {unit}{'' if count == 1 else 's'}"
    for unit, size in (("min", 60), ("s", 1)):
        count, rest = divmod(nanoseconds, size * _SECOND)
        if 0 < count < 600 and not rest:
            return f"{count} {unit}"
    return ""


def say_wait(nanoseconds: int) -> str:
    """For people, about how long: ``26 years``, ``3 days``, ``5 hours``, ``20 min``, ``30 s``; never more exact."""
    seconds = max(nanoseconds, 0) / _SECOND
    for unit, size in (("year", 365.25 * 86400), ("day", 86400), ("hour", 3600)):
        count = round(seconds / size)
        if count >= 2 or (count == 1 and seconds >= size):
            return f"{count:,} {unit}{'' if count == 1 else 's'}"
    return f"{round(seconds / 60)} min" if seconds >= 90 else f"{round(seconds)} s"


def say_window(window: Window) -> str:
    """For people, in UTC: ``2013-01-12, 1 day``, or start and end where the length is not round."""
    start, length = say_instant(window.start), say_length(window.end - window.start)
    return f"{start}, {length}" if length else f"{start} to {say_instant(window.end)}"


def parse_duration(text: str) -> int:
    """Nanoseconds of an InfluxQL duration such as ``30m``, ``1h30m`` or ``7d``. Raises UsageError."""
    compact = text.strip()
    position = total = 0
    for found in _DURATION_PART.finditer(compact):
        if found.start() != position:
            break
        total += int(found[1]) * _UNITS[found[2]]
        position = found.end()
    if position != len(compact) or not compact:
        raise UsageError(f"{text!r} is not a duration.", hint="Write for example 30m, 12h or 7d.")
    return total


def format_duration(nanoseconds: int) -> str:
    """The shortest InfluxQL duration: ``90m``, ``7d``; ``0s`` for zero. Raises nothing."""
    if nanoseconds == 0:
        return "0s"
    for unit in ("w", "d", "h", "m", "s", "ms", "us"):
        if nanoseconds % _UNITS[unit] == 0:
            return f"{nanoseconds // _UNITS[unit]}{unit}"
    return f"{nanoseconds}ns"


def intersect(first: Window, second: Window) -> Window | None:
    """The common stretch, or None when there is none."""
    start, end = max(first.start, second.start), min(first.end, second.end)
    return Window(start=start, end=end) if start < end else None


def merge(windows: Iterable[Window]) -> tuple[Window, ...]:
    """The union as disjoint windows in order; touching ones are joined."""
    merged: list[Window] = []
    for window in sorted(windows, key=lambda w: (w.start, w.end)):
        if merged and window.start <= merged[-1].end:
            if window.end > merged[-1].end:
                merged[-1] = Window(start=merged[-1].start, end=window.end)
        else:
            merged.append(window)
    return tuple(merged)


def subtract(whole: Window, covered: Iterable[Window]) -> tuple[Window, ...]:
    """What of ``whole`` no window of ``covered`` contains: the gaps, in order."""
    gaps: list[Window] = []
    position = whole.start
    for window in merge(covered):
        if window.end <= position or window.start >= whole.end:
            continue
        if window.start > position:
            gaps.append(Window(start=position, end=window.start))
        position = max(position, window.end)
    if position < whole.end:
        gaps.append(Window(start=position, end=whole.end))
    return tuple(gaps)


def tile(whole: Window, groups: Iterable[Window]) -> tuple[Window, ...]:
    """
    Pieces that tile ``whole`` without gap or overlap, cut at every boundary of ``groups``.

    A stretch that no shard group covers is a piece as well, so that nothing is left out because a listing was.
    """
    cuts = {whole.start, whole.end}
    for group in groups:
        cuts.update(edge for edge in (group.start, group.end) if whole.start < edge < whole.end)
    edges = sorted(cuts)
    return tuple(Window(start=a, end=b) for a, b in itertools.pairwise(edges))


def halve(window: Window, at_least: int = _SECOND) -> tuple[Window, Window] | None:
    """Two halves of at least ``at_least`` nanoseconds each, or None when the window is too short for that."""
    if window.end - window.start < 2 * at_least:
        return None
    middle = window.start + (window.end - window.start) // 2
    middle -= middle % at_least if window.end - window.start >= 4 * at_least else 0
    return Window(start=window.start, end=middle), Window(start=middle, end=window.end)


def overlay(layers: Sequence[tuple[Window, int]], whole: Window) -> tuple[tuple[Window, int], ...]:
    """
    For every instant of ``whole`` the layer with the highest position in ``layers`` that contains it.

    Returns disjoint ``(window, position)`` in order of time; instants that no layer contains are left out.
    Neighbouring stretches of one layer are joined.
    """
    stretches: list[tuple[Window, int]] = []
    uncovered: list[Window] = [whole]
    for position in range(len(layers) - 1, -1, -1):
        layer = layers[position][0]
        rest: list[Window] = []
        for stretch in uncovered:
            common = intersect(stretch, layer)
            if common is None:
                rest.append(stretch)
                continue
            stretches.append((common, position))
            rest.extend(subtract(stretch, [common]))
        uncovered = rest
    return tuple(sorted(stretches, key=lambda item: item[0].start))
