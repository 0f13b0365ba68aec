"""The points of a restore as the files of the target's shard groups, built on this machine before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from influxdb_backup.influx.shard_digests import digests_of
from influxdb_backup.jobs.ahead import ahead
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.jobs.restore_run import Totals
from influxdb_backup.model import Table, Window
from influxdb_backup.shard_groups import YEAR_ONE, group_at

if TYPE_CHECKING:
    from influxdb_backup.influx.shard_files import ShardFileBuilder

MOST_GROUPS = 10_000
"""shard groups of one restore; more are slower to create than to fill by line protocol"""
_BUFFER_BYTES = 112 << 20
_LEAST_BUFFER = 4 << 20

Group = tuple[str, Window]
"""policy of the target, and the shard group's times"""


@dataclass(frozen=True)
class BuiltGroup:
    """The files of one shard group, and what they hold."""

    policy: str
    window: Window
    sendings: tuple[tuple[Path, ...], ...]
    """all files: those to send first, and those to send when the server has these"""
    digests: frozenset[str]
    totals: Totals
    keys: int
    """fields of series, counted in each file"""
    series: bytes | None
    """one of its series as line protocol spells it; None when that cannot"""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(file for sending in self.sendings for file in sending)


def needed_groups(units: Sequence[Unit], policies: Mapping[Table, str], durations: Mapping[str, int]) -> list[Group]:
    """
    The shard groups that these units can have points in, sorted by policy and time.

    ``policies`` are the target's by source table, ``durations`` their shard durations (ns). Raises OverflowError for
    times at which servers cut groups in ways of their own, and for more than ``MOST_GROUPS`` of them.
    """
    found: dict[Group, None] = {}
    for unit in units:
        policy = policies[unit.table]
        for window in _spanned(unit, durations[policy]):
            found[policy, window] = None
            if len(found) > MOST_GROUPS:
                raise OverflowError(f"more than {MOST_GROUPS:,} shard groups")
    return sorted(found, key=lambda group: (group[0], group[1].start))


def _spanned(unit: Unit, duration: int) -> Iterator[Window]:
    at = max(unit.part.min_time, unit.window.start)
    last = min(unit.part.max_time, unit.window.end - 1)
    while at <= last:
        window = group_at(at, duration)
        if window is None:
            raise OverflowError("times near the limits of what InfluxDB can hold")
        yield window
        at = window.end


@dataclass
class _Open:
    """A group that more units may add to."""

    builder: ShardFileBuilder
    totals: Totals = field(default_factory=Totals)


class GroupBuilder:
    """
    Builds the groups of a restore one after the other; a group is finished with the last unit that can reach it.

    ``batches`` gives the points of a unit. ``generation`` is the target's.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        policies: Mapping[Table, str],
        durations: Mapping[str, int],
        *,
        batches: Callable[[Unit], Iterator[pa.RecordBatch]],
        generation: int,
        folder: Path,
    ) -> None:
        self._policies = policies
        self._durations = durations
        self._batches = batches
        self._generation = generation
        self._folder = folder
        spans = [(unit, tuple(_spanned(unit, durations[policies[unit.table]]))) for unit in units]
        self._spans = sorted(
            ((unit, spanned) for unit, spanned in spans if spanned),
            key=lambda item: (policies[item[0].table], item[1][0].start, item[0].table.measurement),
        )
        self._waiting = Counter((policies[unit.table], window) for unit, spanned in self._spans for window in spanned)
        self._most_open = max((len(spanned) for _, spanned in self._spans), default=1)
        self._open: dict[Group, _Open] = {}
        self._made = 0

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units in the order in which they are read."""
        return tuple(unit for unit, _ in self._spans)

    def groups(self, on_unit: Callable[[Unit], None]) -> Iterator[BuiltGroup]:
        """
        Each group that has points, once its files are whole.

        Raises UnrepresentableError for what a shard cannot hold, IntegrityError for damaged parts, OSError.
        """
        for unit, spanned in self._spans:
            policy = self._policies[unit.table]
            table = Table(retention_policy=policy, measurement=unit.table.measurement)
            for batch in ahead(self._batches(unit)):
                for window, rows in _split(batch, self._durations[policy]):
                    group = self._group((policy, window))
                    group.builder.add(table.measurement, rows)
                    group.totals.count(table, rows)
            on_unit(unit)
            for window in spanned:
                self._waiting[policy, window] -= 1
                if not self._waiting[policy, window]:
                    yield from self._finished((policy, window))

    def _group(self, key: Group) -> _Open:
        from influxdb_backup.influx.shard_files import ShardFileBuilder

        if key not in self._open:
            folder = self._folder / str(self._made)
            folder.mkdir()
            self._made += 1
            room = max(_LEAST_BUFFER, _BUFFER_BYTES // self._most_open)
            builder = ShardFileBuilder(folder, key[1], generation=self._generation, buffer_bytes=room)
            self._open[key] = _Open(builder)
        return self._open[key]

    def _finished(self, key: Group) -> Iterator[BuiltGroup]:
        group = self._open.pop(key, None)
        if group is not None:
            files = group.builder.finish()
            if files:
                leading = group.builder.leading
                parts = [file for file in files if file in leading], [file for file in files if file not in leading]
                sendings = tuple(tuple(part) for part in parts if part)
                yield BuiltGroup(
                    policy=key[0],
                    window=key[1],
                    sendings=sendings,
                    digests=digests_of(files),
                    totals=group.totals,
                    keys=group.builder.keys,
                    series=group.builder.series,
                )


def _split(batch: pa.RecordBatch, duration: int) -> Iterator[tuple[Window, pa.RecordBatch]]:
    """The rows of each shard group, in their order."""
    if not batch.num_rows:
        return
    times = batch.column(0).view(pa.int64()).to_numpy(zero_copy_only=False)
    for window in _held(int(times.min()), int(times.max()), duration):
        inside = (times >= window.start) & (times < window.end)
        if inside.all():
            yield window, batch
        elif inside.any():
            yield window, batch.filter(pa.array(inside))


def _held(first: int, last: int, duration: int) -> Iterator[Window]:
    at = (first + YEAR_ONE) // duration * duration - YEAR_ONE
    while at <= last:
        yield Window(start=at, end=at + duration)
        at += duration
