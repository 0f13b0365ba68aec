"""
Whether the types of a field stay apart in the shard groups of a target, and groups in which they do.

Within one shard group every field has one type: a server refuses points of another. Parts tell which types they hold,
and their first and last instant; only where these leave a doubt the values' own times are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.columns import batch_columns
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.model import InfluxType, Role, Table, Window, printable
from influxdb_backup.shard_groups import DAY, HOUR, group_number, group_numbers
from influxdb_backup.windows import format_duration, format_instant

_MINUTE = 60 * 10**9

Batches = Callable[[Unit], Iterable[pa.RecordBatch]]
TypeOf = Callable[[InfluxType], InfluxType]
"""as which type values of a type are written"""
FieldOf = tuple[Table, str]
"""a field of a table of the target"""


@dataclass(frozen=True)
class Stretch:
    """Values of one type of a field, from a first to a last instant (ns); exact ones have a value at both."""

    field: FieldOf
    type: InfluxType
    first: int
    last: int
    unit: Unit

    def __str__(self) -> str:
        if self.first == self.last:
            return f"{self.type.value} at {format_instant(self.first)}"
        return f"{self.type.value} from {format_instant(self.first)} to {format_instant(self.last)}"


@dataclass(frozen=True)
class Meeting:
    """Two types of a field that would be in one shard group."""

    one: Stretch
    other: Stretch

    @property
    def what(self) -> str:
        """The field and its values, in words."""
        table, name = self.one.field
        return f"{table}, field {printable(name)!r}: {self.one} and {self.other}"


def stretches_of(units: Iterable[Unit], target_of: Callable[[Unit], Table], type_of: TypeOf) -> list[Stretch]:
    """What the parts say: a stretch for each field of each unit that may have values there."""
    found = []
    for unit in units:
        first = max(unit.part.min_time, unit.window.start)
        last = min(unit.part.max_time, unit.window.end - 1)
        table = target_of(unit)
        counts = {(count.name, count.type) for count in unit.part.counts if count.count}
        for column in unit.part.columns:
            if column.role is Role.FIELD and (not counts or (column.name, column.type) in counts) and first <= last:
                found.append(Stretch((table, column.name), type_of(column.type), first, last, unit))
    return found


def changing(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Those of fields that have several types."""
    kinds: dict[FieldOf, set[InfluxType]] = {}
    every = list(stretches)
    for stretch in every:
        kinds.setdefault(stretch.field, set()).add(stretch.type)
    return [stretch for stretch in every if len(kinds[stretch.field]) > 1]


def meetings(stretches: Iterable[Stretch], duration: int) -> list[Meeting]:
    """Types of one field that would share a shard group of this duration (ns), at most one for each stretch."""
    found = []
    by_field: dict[FieldOf, list[Stretch]] = {}
    for stretch in stretches:
        by_field.setdefault(stretch.field, []).append(stretch)
    for ordered in by_field.values():
        latest: dict[InfluxType, Stretch] = {}
        for stretch in sorted(ordered, key=lambda item: (item.first, item.last)):
            group = group_number(stretch.first, duration)
            for kind, earlier in latest.items():
                if kind is not stretch.type and group_number(earlier.last, duration) >= group:
                    found.append(Meeting(earlier, stretch))
                    break
            known = latest.get(stretch.type)
            if known is None or known.last < stretch.last:
                latest[stretch.type] = stretch
    return found


def exact(stretches: Sequence[Stretch], batches: Batches, type_of: TypeOf, cuts: Sequence[int]) -> list[Stretch]:
    """The stretches as their values tell, none of which crosses a shard group of one of these durations (ns)."""
    by_unit: dict[str, list[Stretch]] = {}
    for stretch in stretches:
        by_unit.setdefault(stretch.unit.key, []).append(stretch)
    found: list[Stretch] = []
    for same in by_unit.values():
        wanted = {(stretch.field[1], stretch.type): stretch for stretch in same}
        for batch in batches(same[0].unit):
            for position, column in enumerate(batch_columns(batch.schema)):
                known = wanted.get((column.name, type_of(column.type)))
                if known is not None and column.role is Role.FIELD:
                    found += [
                        Stretch(known.field, known.type, first, last, known.unit)
                        for first, last in _runs(_times(batch, position + 1), cuts)
                    ]
    return list(dict.fromkeys(found))


def _times(batch: pa.RecordBatch, position: int) -> npt.NDArray[np.int64]:
    """The instants of a column's values, ascending."""
    times = batch.column(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
    there = batch.column(position).is_valid().to_numpy(zero_copy_only=False)
    return np.unique(times[there])


def _runs(times: npt.NDArray[np.int64], cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    if not len(times):
        return
    edges = np.zeros(len(times) - 1, dtype=bool)
    for duration in cuts:
        numbers = group_numbers(times, duration)
        edges |= numbers[1:] != numbers[:-1]
    starts = [0, *(np.flatnonzero(edges) + 1).tolist()]
    ends = [*(start - 1 for start in starts[1:]), len(times) - 1]
    for start, end in zip(starts, ends, strict=True):
        yield int(times[start]), int(times[end])


def durations_to_try(stretches: Iterable[Stretch], preferred: int) -> list[int]:
    """
    Shard durations (ns) that may keep types apart, the preferred one first, then ever shorter ones.

    They are those that the source had where the parts were read, a day, and an hour, the shortest that servers allow.
    """
    had = {stretch.unit.part.piece.end - stretch.unit.part.piece.start for stretch in stretches} | {DAY, HOUR}
    return [
        preferred,
        *sorted((each for each in had if HOUR <= each < preferred and each % _MINUTE == 0), reverse=True),
    ]


def separating_duration(
    stretches: Sequence[Stretch], preferred: int, batches: Batches, type_of: TypeOf
) -> tuple[int, list[Meeting]]:
    """
    A shard duration (ns) in which no two types of a field meet: the preferred one, or the longest other that does it.

    Returns it with the meetings that the shortest leaves. Reads parts only when their bounds are not enough.
    """
    known = changing(stretches)
    if not meetings(known, preferred):
        return preferred, []
    tried = durations_to_try(known, preferred)
    fields = {meeting.one.field for meeting in meetings(known, preferred)}
    known = exact([stretch for stretch in known if stretch.field in fields], batches, type_of, tried)
    for duration in tried:
        if not meetings(known, duration):
            return duration, []
    return tried[-1], meetings(known, tried[-1])


def shares(duration: int) -> str:
    """In words, what types that meet have in common."""
    return f"share a shard group of {format_duration(duration)}"


def within(stretches: Iterable[Stretch], window: Window) -> list[Stretch]:
    """Those that have, or may have, values in a window."""
    return [stretch for stretch in stretches if stretch.first < window.end and stretch.last >= window.start]
