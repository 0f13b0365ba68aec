"""The points of a restore as the files of the target's shard groups, built on this machine lot by lot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from influxdb_backup.archive.parquet import ROW_GROUP_BYTES
from influxdb_backup.jobs.ahead import ahead
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.jobs.restore_run import Totals
from influxdb_backup.model import Table, Window
from influxdb_backup.shard_groups import YEAR_ONE, group_at

if TYPE_CHECKING:
    from influxdb_backup.influx.shard_cells import SpareCells
    from influxdb_backup.influx.shard_files import ShardFileBuilder

MOST_GROUPS = 10_000
"""shard groups of one restore; more are slower to create than to fill by line protocol"""
MOST_BUILT = 3
"""shard groups whose files are on this machine at a time: one being built, two being sent"""
_BUFFER_BYTES = 48 << 20
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
class Lot:
    """
    One shard group, or up to ``MOST_BUILT`` that follow each other and share units, read once for all of them.

    ``units`` are those that can reach into it, in the order in which they are read.
    """

    policy: str
    windows: list[Window]
    units: list[Unit] = field(default_factory=list)

    @property
    def times(self) -> Window:
        """From its first group's beginning to its last group's end."""
        return Window(start=self.windows[0].start, end=self.windows[-1].end)

    @property
    def bytes(self) -> int:
        """Of the parts as stored that can reach into it."""
        return sum(unit.part.size for unit in self.units)


def lots_of(units: Sequence[Unit], policies: Mapping[Table, str], durations: Mapping[str, int]) -> list[Lot]:
    """
    The lots in which the groups of these units are built, in that order. Arguments and errors as ``needed_groups``.

    A part mostly reaches into one group, as it was read from one. One that reaches into more groups than a lot has is
    read once for each of its lots.
    """
    spans = {unit.key: list(_spanned(unit, durations[policies[unit.table]])) for unit in units}
    reaching = {(policies[unit.table], before) for unit in units for before in spans[unit.key][:-1]}
    lots: list[Lot] = []
    of_group: dict[Group, Lot] = {}
    before: Group | None = None
    for policy, window in needed_groups(units, policies, durations):
        goes_on = before is not None and before in reaching and before[0] == policy and before[1].end == window.start
        if not goes_on or len(lots[-1].windows) == MOST_BUILT:
            lots.append(Lot(policy, []))
        lots[-1].windows.append(window)
        of_group[policy, window] = lots[-1]
        before = policy, window
    for unit in sorted(units, key=lambda unit: unit.table.measurement):
        policy = policies[unit.table]
        for lot in {id(lot): lot for window in spans[unit.key] if (lot := of_group[policy, window])}.values():
            lot.units.append(unit)
    return lots


@dataclass
class _Open:
    """A group that more units may add to."""

    builder: ShardFileBuilder
    totals: Totals = field(default_factory=Totals)


class GroupBuilder:
    """
    Builds the groups of a restore lot by lot, below ``folder``.

    ``durations`` are the shard durations (ns) of the target's policies, ``batches`` gives the points of a unit,
    ``generation`` is the target's.
    """

    def __init__(
        self,
        durations: Mapping[str, int],
        *,
        batches: Callable[[Unit], Iterator[pa.RecordBatch]],
        generation: int,
        folder: Path,
    ) -> None:
        self._durations = durations
        self._batches = batches
        self._generation = generation
        self._folder = folder
        self._made = 0
        self._spare: SpareCells | None = None

    def build(self, lot: Lot) -> Iterator[BuiltGroup]:
        """
        Each group of the lot that has points, once its files are whole.

        Raises UnrepresentableError for what a shard cannot hold, IntegrityError for damaged parts, OSError.
        """
        from influxdb_backup.influx.shard_files import load_loops

        groups: dict[Window, _Open] = {}
        if lot.units:
            load_loops()
        for unit in lot.units:
            table = Table(retention_policy=lot.policy, measurement=unit.table.measurement)
            for batch in ahead(self._batches(_within(unit, lot.times)), ROW_GROUP_BYTES):
                for window, rows in _split(batch, self._durations[lot.policy]):
                    if window not in groups:
                        groups[window] = self._opened(window, len(lot.windows))
                    groups[window].builder.add(table.measurement, rows)
                    groups[window].totals.count(table, rows)
        for window in lot.windows:
            group = groups.pop(window, None)
            files = group.builder.finish() if group else ()
            if group and files:
                leading = group.builder.leading
                parts = [file for file in files if file in leading], [file for file in files if file not in leading]
                yield BuiltGroup(
                    policy=lot.policy,
                    window=window,
                    sendings=tuple(tuple(part) for part in parts if part),
                    totals=group.totals,
                    keys=group.builder.keys,
                    series=group.builder.series,
                )

    def _opened(self, window: Window, beside: int) -> _Open:
        from influxdb_backup.influx.shard_cells import SpareCells
        from influxdb_backup.influx.shard_files import ShardFileBuilder

        self._spare = self._spare or SpareCells(_BUFFER_BYTES // 8)
        folder = self._folder / str(self._made)
        folder.mkdir()
        self._made += 1
        room = max(_LEAST_BUFFER, _BUFFER_BYTES // beside)
        return _Open(
            ShardFileBuilder(folder, window, generation=self._generation, buffer_bytes=room, spare=self._spare)
        )


def _within(unit: Unit, times: Window) -> Unit:
    """What of the unit is in these times."""
    if times.start <= unit.part.min_time and unit.part.max_time < times.end:
        return unit
    common = Window(start=max(unit.window.start, times.start), end=min(unit.window.end, times.end))
    return replace(unit, window=common, whole=False)


def _split(batch: pa.RecordBatch, duration: int) -> Iterator[tuple[Window, pa.RecordBatch]]:
    """The rows of each shard group, in their order."""
    if not batch.num_rows:
        return
    times = batch.column(0).view(pa.int64()).to_numpy(zero_copy_only=False)
    windows = list(_held(int(times.min()), int(times.max()), duration))
    if len(windows) == 1:
        yield windows[0], batch
        return
    for window in windows:
        inside = (times >= window.start) & (times < window.end)
        if inside.any():
            yield window, batch.filter(pa.array(inside))


def _held(first: int, last: int, duration: int) -> Iterator[Window]:
    at = (first + YEAR_ONE) // duration * duration - YEAR_ONE
    while at <= last:
        yield Window(start=at, end=at + duration)
        at += duration
