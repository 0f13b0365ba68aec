"""Whether a field's changes of type stay apart when a backup is written into another shard layout."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from influxdb_backup.model import InfluxType, Part, Role, TableEntry, printable
from influxdb_backup.windows import format_duration, format_window

_YEAR_ONE = 62_135_596_800 * 10**9
"""ns between 0001-01-01, from which shard groups are counted, and 1970-01-01 (1.6.7, 1.12.4, 2.9.1)"""
_HOUR = 3600 * 10**9
_DEFAULT = 7 * 24 * _HOUR
_CANDIDATES = (24 * _HOUR, _HOUR)


def _group(instant: int, duration: int) -> int:
    return (instant + _YEAR_ONE) // duration


def _types(part: Part) -> dict[str, InfluxType]:
    return {column.name: column.type for column in part.columns if column.role is Role.FIELD}


def conflicts(entries: Iterable[TableEntry], duration: int) -> tuple[str, ...]:
    """Fields of which two types would meet in one shard group of this duration (ns), in words."""
    found = []
    for entry in entries:
        spans: dict[str, list[tuple[InfluxType, Part]]] = {}
        for part in entry.parts:
            for name, kind in _types(part).items():
                spans.setdefault(name, []).append((kind, part))
        for name, typed in spans.items():
            if len({kind for kind, _ in typed}) < 2:
                continue
            ordered = sorted(typed, key=lambda item: item[1].min_time)
            for (kind, part), (next_kind, next_part) in itertools.pairwise(ordered):
                shared = _group(part.max_time, duration) >= _group(next_part.min_time, duration)
                if kind is not next_kind and shared:
                    found.append(
                        f"{entry.table}, field {printable(name)!r}: {kind.value} in {format_window(part.piece)} and "
                        f"{next_kind.value} in {format_window(next_part.piece)} share a group of "
                        f"{format_duration(duration)}"
                    )
    return tuple(found)


def separating_duration(entries: Iterable[TableEntry], preferred: int) -> tuple[int, tuple[str, ...]]:
    """
    A shard duration (ns) in which no two types of a field meet: the preferred one, a day, or an hour.

    Returns it with the conflicts that even an hour, the shortest that servers allow, leaves.
    """
    entries = tuple(entries)
    tried = preferred or _DEFAULT
    left = conflicts(entries, tried)
    for candidate in _CANDIDATES:
        if not left:
            break
        if candidate < tried:
            tried = candidate
            left = conflicts(entries, tried)
    return tried, left
