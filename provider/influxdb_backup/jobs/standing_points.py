"""
What of a restore a target holds already, by its points: the proof that an earlier call wrote what its progress says.

Progress in the repository says which parts to look for, and is believed of none of them: every value that the archive
holds of such a part must be in the target, with its series, time, type and bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.errors import NotVisibleError
from influxdb_backup.fingerprint import value_hashes
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.jobs.piece import read_whole
from influxdb_backup.jobs.restore_documents import RestoreProgress
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.jobs.restore_run import RestoreRun, batches
from influxdb_backup.jobs.restore_types import as_written
from influxdb_backup.model import Table, TableSchema, Window
from influxdb_backup.windows import intersect

_AT_ONCE = 4_000_000
"""values of a table and piece that are compared at a time; of more, one share of them after the other"""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Standing:
    """What is proved of a target."""

    steps: tuple[RestoreProgress, ...] = ()
    """those of which every point is there, but for as many as were refused"""
    refused: Mapping[Table, int] = field(default_factory=dict)
    """points of these steps that are not there, by table of the target"""
    others: bool = False
    """whether the target has a value in the range that the archive does not have"""


def standing(run: RestoreRun, steps: Sequence[RestoreProgress]) -> Standing:
    """Reads the target's points in the range, and those of the archive, and compares. Raises the errors of reading."""
    known = {unit.key: unit for unit in run.reads.units}
    claimed = [step for step in steps if step.units and all(key in known for key in step.units)]
    missing: dict[str, int] = {}
    others = False
    for source in run.reads.columns:
        units = [unit for unit in run.reads.units if unit.table == source]
        table = Table(retention_policy=run.target.policies[source], measurement=source.measurement)
        others = _Compared(run, table, units, missing).others or others
    proved, refused, left = [], dict[Table, int](), run.request.max_rejects
    for step in claimed:
        gone = sum(missing.get(key, 0) for key in step.units)
        if gone > min(step.rejects, left):
            continue
        left -= gone
        proved.append(step)
        for key in step.units:
            unit = known[key]
            table = Table(retention_policy=run.target.policies[unit.table], measurement=unit.table.measurement)
            if missing.get(key):
                refused[table] = refused.get(table, 0) + missing[key]
    return Standing(tuple(proved), refused, others)


class _Compared:
    """One table of the target beside the units that go into it; counts the points that each of these misses there."""

    def __init__(self, run: RestoreRun, table: Table, units: Sequence[Unit], missing: dict[str, int]) -> None:
        self._run = run
        self._table = table
        self._units = units
        self._missing = missing
        self.others = False
        schema = self._schema()
        if schema is None:
            for unit in units:
                missing[unit.key] = unit.part.rows
            return
        policy = table.retention_policy
        for piece in run.target.server.pieces(run.target.database, policy, run.reads.window):
            self._compare(schema, piece)

    def _schema(self) -> TableSchema | None:
        target = self._run.target
        try:
            listed = target.server.schema(target.database, self._table.retention_policy).tables
        except NotVisibleError:
            return None
        return next((schema for schema in listed if schema.table == self._table), None)

    def _compare(self, schema: TableSchema, piece: Window) -> None:
        inside = [unit for unit in self._units if _reaches(unit, piece)]
        values = sum(count.count for unit in inside for count in unit.part.counts)
        shares = max(1, -(-values // _AT_ONCE))
        gone: dict[str, set[int]] = {}
        for share in range(shares):
            held = np.unique(_joined(self._held(schema, piece, shares, share)))
            archived = [np.empty(0, np.uint64)]
            for unit in inside:
                hashes, rows, due = self._of(unit, piece, shares, share)
                archived.append(hashes)
                absent = due & ~np.isin(hashes, held)
                few = gone.setdefault(unit.key, set())
                if len(few) <= self._run.request.max_rejects:  # one more than may be is as good as all
                    few.update(np.unique(rows[absent])[: self._run.request.max_rejects + 1].tolist())
            self.others = self.others or not np.isin(held, np.concatenate(archived)).all()
        for key, rows_gone in gone.items():
            self._missing[key] = self._missing.get(key, 0) + len(rows_gone)

    def _held(self, schema: TableSchema, piece: Window, shares: int, share: int) -> Iterable[Hashes]:
        run = self._run

        def read(known: TableSchema, part: Window) -> Hashes:
            found = run.target.server.read(run.target.database, known, part, ReadOptions())
            return _joined(hashes for hashes, _ in self._hashed(found, shares, share))

        return read_whole(read, schema, lambda: self._schema() or schema, piece)[0]

    def _of(
        self, unit: Unit, piece: Window, shares: int, share: int
    ) -> tuple[Hashes, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Hash and row of each value of a unit in a piece, and whether the target is to keep it."""
        window = intersect(unit.window, piece)
        if window is None:
            return np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, bool)
        cutoff = self._run.cutoff(self._table.retention_policy)
        hashes, rows, due = [], [], []
        first = 0
        cut = unit if unit.whole and window == piece else _cut(unit, window)
        for batch in batches(self._run, cut):
            times = batch.column(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
            for found, positions in self._hashed([batch], shares, share):
                hashes.append(found)
                rows.append(positions + first)
                due.append(np.ones(len(found), bool) if cutoff is None else times[positions] >= cutoff)
            first += batch.num_rows
        return (
            _joined(hashes),
            np.concatenate([np.empty(0, np.int64), *rows]),
            np.concatenate([np.empty(0, bool), *due]),
        )

    def _hashed(
        self, found: Iterable[pa.RecordBatch], shares: int, share: int
    ) -> Iterator[tuple[Hashes, npt.NDArray[np.int64]]]:
        for batch in found:
            for hashes, positions in value_hashes(self._table.measurement, batch, as_written(self._run.request)):
                mine = hashes % np.uint64(shares) == share
                yield hashes[mine], positions[mine]


def _reaches(unit: Unit, piece: Window) -> bool:
    return unit.part.min_time < piece.end and unit.part.max_time >= piece.start


def _cut(unit: Unit, window: Window) -> Unit:
    return Unit(table=unit.table, part=unit.part, window=window, whole=False)


def _joined(parts: Iterable[Hashes]) -> Hashes:
    return np.concatenate([np.empty(0, np.uint64), *parts])
