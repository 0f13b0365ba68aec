"""A restore by line protocol: written, counted, and written once more when confirmed points are missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from influxdb_backup.columns import batch_columns
from influxdb_backup.errors import UnrepresentableError
from influxdb_backup.influx.line_protocol import renderer_here
from influxdb_backup.influx.protocol import Server, Unrepresentable, WriteOptions
from influxdb_backup.jobs.kept_points import KeptPoints
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.jobs.read_back import Expected, ReadBack, has_mixed_types, some_of
from influxdb_backup.jobs.restore_progress import absorb_progress, keep_progress, mark_target
from influxdb_backup.jobs.restore_request import Reads, Unit
from influxdb_backup.jobs.restore_run import Outcome, RestoreRun, Scratch, Totals, after_cutoff, batches
from influxdb_backup.jobs.restore_target import Target, prepare
from influxdb_backup.jobs.standing_points import Standing
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Table, printable

logger = logger_of(__name__)

_GROUP_ROWS = 4_000_000
"""rows after which the progress of a restore is kept, so that a retry does not begin again"""


def restore_by_lines(
    run: RestoreRun, standing: Standing, claim: Callable[[], None], scratch: Scratch | None
) -> Outcome:
    """
    Checks every part, claims the target, and writes what earlier calls have not: what is not ``standing`` there.

    Raises UnrepresentableError and IntegrityError before the first change, and TargetError (``read-back-differs``)
    when the target does not hold what was written, the second time either.
    """
    renderer_here()
    finished = {key for step in standing.steps for key in step.units}
    todo = [unit for unit in run.reads.units if unit.key not in finished]
    with run.repository.fetch([unit.part for unit in todo]) as fetched:
        points = KeptPoints(partial(batches, run, large=True, fetched=fetched))
        _check(run, todo, points)
    checked = time.monotonic()
    claim()
    created = _prepared(run, scratch)
    if todo and scratch is None:
        mark_target(run)
    totals = absorb_progress(run, standing)
    _Writing(run, points, totals, step=len(standing.steps)).write(todo)
    written = time.monotonic()
    # a retention's edge moves on: what is too old by now may be there from an earlier call
    exact = run.request.on_conflict == "fail" and not (standing.steps and run.target.cutoffs)
    counted = counts_of(run, totals, exact=exact)
    differences = counted.differences()
    if not any(difference.is_short for difference in differences):
        counted.refuse(differences)
        return Outcome(totals, created, checked, written)
    logger.warning(
        "%s has confirmed points that it does not hold, and all is written once more: %s.",
        run.target.server.name,
        some_of(differences),
    )
    totals = _written_once_more(run)
    return Outcome(totals, created, checked, time.monotonic(), written_again=True)


def _written_once_more(run: RestoreRun) -> Totals:
    """Writes all points again, which changes none that is there, and proves that they are."""
    totals = Totals()
    points = KeptPoints(partial(batches, run, large=True))
    _Writing(run, points, totals, step=len(run.reads.units)).write(run.reads.units)
    # a retention's edge moves on: what is too old by now may be there from the first time
    counts_of(run, totals, exact=run.request.on_conflict == "fail" and not run.target.cutoffs).prove()
    return totals


def counts_of(run: RestoreRun, totals: Totals, *, exact: bool) -> ReadBack:
    """What the target is to hold of this restore."""
    return ReadBack(
        run.target.server,
        run.target.database,
        run.reads.window,
        totals.expected,
        mixed=_mixed(run.target, run.reads),
        exact=exact,
        missing_allowed=totals.refused,
        patient=totals.late,
        progress=run.progress,
    )


def _mixed(target: Target, reads: Reads) -> frozenset[Table]:
    """Tables of the target in which a field has several types, so that each shard group is counted on its own."""
    return frozenset(
        Table(retention_policy=target.policies[table], measurement=table.measurement)
        for table, columns in reads.columns.items()
        if has_mixed_types(columns)
    )


def _prepared(run: RestoreRun, scratch: Scratch | None) -> tuple[str, ...]:
    if scratch is None:
        return prepare(run.target)
    scratch.announce()
    scratch.created(run.target.server.create_scratch(run.target.database, run.target.create, scratch.mark()))
    return (run.target.database,)


# --- before the first write


def _check(run: RestoreRun, units: Sequence[Unit], points: KeptPoints) -> None:
    """Reads every part: its digest must hold, and everything in it must be writable."""
    server = run.target.server
    refuse_names(run.reads, server, run.options)
    found: list[Unrepresentable] = []
    for position, unit in enumerate(units):
        for batch in points.checked(unit):
            found.extend(
                server.unrepresentable(unit.table.measurement, batch_columns(batch.schema), batch, run.options)
            )
        if len(found) > 100:
            break
        run.progress(Progress("check", position + 1, len(units), 0, unit.part.size, str(unit.table)))
    _refuse(found, server)


def refuse_names(reads: Reads, server: Server, options: WriteOptions) -> None:
    """Raises UnrepresentableError when line protocol of the server cannot carry a name."""
    found: list[Unrepresentable] = []
    for table, columns in reads.columns.items():
        found.extend(server.unrepresentable(table.measurement, columns, None, options))
    _refuse(found, server)


def _refuse(found: Sequence[Unrepresentable], server: Server) -> None:
    if not found:
        return
    shown = "; ".join(f"{item.conflict.value} {printable(item.name)!r}: {item.reason}" for item in found[:5])
    raise UnrepresentableError(
        f"Line protocol of {server.name} cannot carry {len(found)} names or values: {shown}"
        f"{' and more' if len(found) > 5 else ''}.",
        hint="Restore without these tables (--measurement), or read the Parquet files directly; nothing was written.",
    )


# --- writing


@dataclass
class _Writing:
    """One pass over units of a restore."""

    run: RestoreRun
    points: KeptPoints
    totals: Totals
    step: int
    """number of the next document of progress"""
    done: int = 0
    """units that are written"""

    def write(self, units: Sequence[Unit]) -> None:
        """Writes the units policy by policy, and keeps the progress of each group of them."""
        by_policy: dict[str, list[Unit]] = {}
        for unit in units:
            by_policy.setdefault(self.run.target.policies[unit.table], []).append(unit)
        for policy, chosen in by_policy.items():
            for group in _groups(chosen):
                before = replace(self.totals, expected=Expected(), refused=dict(self.totals.refused))
                before.expected.absorb(self.totals.expected)
                self._write_group(policy, group)
                keep_progress(self.run, group, before, self.totals, self.step)
                self.step += 1

    def _write_group(self, policy: str, group: Sequence[Unit]) -> None:
        run, totals = self.run, self.totals
        allowed = max(0, run.request.max_rejects - totals.rejects)
        options = replace(run.options, max_rejects=allowed)
        with run.target.server.writer(run.target.database, policy, options) as writer:
            for unit in group:
                measurement = unit.table.measurement
                table = Table(retention_policy=policy, measurement=measurement)
                for batch in self.points.taken(unit):
                    kept = after_cutoff(batch, run.cutoff(policy))
                    totals.dropped += batch.num_rows - kept.num_rows
                    if kept.num_rows:
                        writer.write(measurement, kept)
                        totals.count(table, kept)
                self.done += 1
                run.progress(
                    Progress("write", self.done, len(run.reads.units), totals.rows, unit.part.size, str(table))
                )
        totals.absorb(policy, writer.result)


def _groups(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    group: list[Unit] = []
    rows = 0
    for unit in units:
        group.append(unit)
        rows += unit.part.rows
        if rows >= _GROUP_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group
