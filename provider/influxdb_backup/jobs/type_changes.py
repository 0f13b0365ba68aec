"""Whether a field's changes of type stay apart when a backup is written into another shard layout."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from influxdb_backup.model import InfluxType, Part, Role, TableEntry, printable
from influxdb_backup.shard_groups import DAY, DEFAULT_DURATION, HOUR, group_number
from influxdb_backup.windows import format_duration, format_window

_CANDIDATES = (DAY, HOUR)


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
                shared = group_number(part.max_time, duration) >= group_number(next_part.min_time, duration)
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
    tried = preferred or DEFAULT_DURATION
    left = conflicts(entries, tried)
    for candidate in _CANDIDATES:
        if not left:
            break
        if candidate < tried:
            tried = candidate
            left = conflicts(entries, tried)
    return tried, left
