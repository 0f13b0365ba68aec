"""Write backups into a server, read back what arrived, and go on after an interruption."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.archive.repository import Repository
from influxdb_backup.columns import batch_columns
from influxdb_backup.errors import TargetError, UnrepresentableError
from influxdb_backup.influx.protocol import Server, Unrepresentable, WriteOptions
from influxdb_backup.jobs.compare import compare_fingerprints
from influxdb_backup.jobs.kept_points import KeptPoints
from influxdb_backup.jobs.progress import Progress, ProgressCallback, silent
from influxdb_backup.jobs.read_back import Expected, ReadBack, has_mixed_types, some_of
from influxdb_backup.jobs.restore_documents import (
    RestorePlan,
    RestoreProgress,
    RestoreReport,
    TableWrite,
)
from influxdb_backup.jobs.restore_progress import (
    absorb_progress,
    announce_writing,
    claim,
    is_continued,
    keep_progress,
    policies_written,
    progress_so_far,
)
from influxdb_backup.jobs.restore_request import Reads, RestoreRequest, Unit, decide_reads
from influxdb_backup.jobs.restore_run import Outcome, RestoreRun, Totals, batches
from influxdb_backup.jobs.restore_target import Target, choose_target, prepare, refuse_change, refuse_conflict
from influxdb_backup.jobs.shard_restore import Scratch, restore_by_shards
from influxdb_backup.model import Scope, Table, printable
from influxdb_backup.windows import format_instant

logger = logging.getLogger(__name__)

_GROUP_ROWS = 4_000_000
"""rows after which the progress of a restore is kept, so that a retry does not begin again"""


def plan_restore(
    request: RestoreRequest, *, repository: Repository, target: Server, scope: Scope | None = None
) -> RestorePlan:
    """
    What ``restore`` would do, without doing it: the dry run.

    Raises what restore raises before its first change: gaps, a target that is not empty or that would drop
    points, names that line protocol cannot carry.
    """
    reads = decide_reads(request, repository, scope)
    chosen = choose_target(request, reads, target)
    target.check_names(chosen.database, chosen.create)
    refuse_conflict(request, reads, chosen)
    _refuse_names(reads, target, _options(request))
    creates = () if chosen.exists else (f"database {printable(chosen.database)}",)
    by_table = {table: [unit for unit in reads.units if unit.table == table] for table in reads.columns}
    return RestorePlan(
        window=reads.window,
        refs=tuple(ref.id for ref in reads.refs),
        target_server=target.name,
        target_database=chosen.database,
        tables=tuple(
            TableWrite(
                source=table,
                target=Table(retention_policy=chosen.policies[table], measurement=table.measurement),
                parts=len(units),
                rows=sum(unit.part.rows for unit in units),
                bytes=sum(unit.part.size for unit in units),
            )
            for table, units in by_table.items()
        ),
        creates=(*creates, *(f"retention policy {printable(policy.name)}" for policy in chosen.create)),
        infinite=chosen.infinite,
        widens=chosen.widen,
        drops=tuple(
            f"points of {printable(name)} before {format_instant(cut)}" for name, cut in sorted(chosen.cutoffs.items())
        ),
        gaps=reads.gaps,
        rows=reads.rows,
        bytes=reads.bytes,
    )


def restore(
    request: RestoreRequest,
    *,
    repository: Repository,
    target: Server,
    scope: Scope | None = None,
    scratch: Scratch | None = None,
    progress: ProgressCallback = silent,
) -> RestoreReport:
    """
    Restores what the request asks for, and proves by counts, and by fingerprints where asked, that it arrived.

    Before the first change every part is read once (digest, names and values that line protocol cannot
    carry), and the target is checked. Raises BackupNotFoundError (gaps), TargetError, UnrepresentableError,
    IntegrityError, RejectedPointsError and the server's errors. The same call with the same ``restore_id``
    goes on where it was, and writes all again when what it had written is not there any more. With ``scratch``
    the target database is made anew as that says.
    """
    started = time.monotonic()
    restore_id = request.restore_id or secrets.token_hex(8)
    reads = decide_reads(request, repository, scope)
    chosen = choose_target(request, reads, target)
    if scratch is None:
        target.check_names(chosen.database, chosen.create)
    else:
        chosen = replace(chosen, create=scratch.policies, infinite=())
    run = RestoreRun(request, repository, reads, chosen, _options(request), progress, restore_id, started)
    done = _still_there(run, progress_so_far(run))
    own = frozenset[str]()
    if is_continued(run):
        own = policies_written(run)
        target.drop_unpublished(run.unpublished)
    by_shards = None if done else restore_by_shards(run, partial(_claim_once, run, own), scratch)
    if by_shards is not None and scratch is None:  # or the same call would write over what came later
        keep_progress(run, reads.units, Totals(), by_shards.totals, 0)
    outcome = by_shards or _restore_by_lines(run, done, own, scratch)
    if request.fingerprints:
        compare_fingerprints(run, by_shards=by_shards is not None)
    return _report(run, outcome, done, by_shards=by_shards is not None)


def _still_there(run: RestoreRun, done: list[RestoreProgress]) -> list[RestoreProgress]:
    """What earlier calls wrote; nothing when the target has less of it by now."""
    if not done:
        return []
    try:
        if not run.target.existing.issuperset(run.target.policies.values()):
            raise TargetError(f"the database {printable(run.target.database)} or a policy of it is gone.")
        _read_back(run, absorb_progress(done), exact=False).prove()
    except TargetError as error:
        logger.warning("All is written again, for what an earlier call had written is not there: %s", error.message)
        return []
    return done


def _read_back(run: RestoreRun, totals: Totals, *, exact: bool) -> ReadBack:
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


def _report(run: RestoreRun, outcome: Outcome, done: Sequence[RestoreProgress], *, by_shards: bool) -> RestoreReport:
    reads, chosen, totals, ended = run.reads, run.target, outcome.totals, time.monotonic()
    return RestoreReport(
        restore_id=run.restore_id,
        refs=tuple(ref.id for ref in reads.refs),
        target_server=chosen.server.name,
        target_database=chosen.database,
        tables=len(reads.columns),
        rows=totals.rows,
        values=totals.values,
        rejects=totals.rejects,
        reject_reasons=totals.reasons,
        reject_file=totals.reject_file,
        dropped_points=totals.dropped,
        created=outcome.created,
        infinite=chosen.infinite,
        widened=chosen.widen,
        gaps=reads.gaps,
        continued_units=sum(len(step.units) for step in done),
        writer="shard" if by_shards else "lines",
        written_again=outcome.written_again,
        fingerprints=run.request.fingerprints,
        check_seconds=outcome.checked - run.started,
        write_seconds=outcome.written - outcome.checked,
        read_back_seconds=ended - outcome.written,
        seconds=ended - run.started,
    )


def _restore_by_lines(
    run: RestoreRun, done: Sequence[RestoreProgress], own: frozenset[str], scratch: Scratch | None
) -> Outcome:
    finished = {key for step in done for key in step.units}
    todo = [unit for unit in run.reads.units if unit.key not in finished]
    refuse_conflict(run.request, run.reads, run.target, own)
    points = KeptPoints(partial(batches, run))
    _check_everything(run, todo, points)
    checked = time.monotonic()
    _claim_once(run, own)
    if todo:
        announce_writing(run, None)
    created = _prepared(run, scratch)
    totals = absorb_progress(done)
    _write_everything(run, todo, points, totals, len(done))
    written = time.monotonic()
    read_back = _read_back(run, totals, exact=run.request.on_conflict == "fail")
    differences = read_back.differences()
    if not any(difference.is_short for difference in differences):
        read_back.refuse(differences)
        return Outcome(totals, created, checked, written)
    logger.warning(
        "%s has confirmed points that it does not hold, and all is written once more: %s.",
        run.target.server.name,
        some_of(differences),
    )
    return Outcome(_written_once_more(run), created, checked, time.monotonic(), written_again=True)


def _written_once_more(run: RestoreRun) -> Totals:
    """Writes all points again, which changes none that is there, and proves that they are."""
    totals = Totals()
    units = run.reads.units
    _write_everything(run, units, KeptPoints(partial(batches, run)), totals, len(units))
    # a retention's edge moves on: what is too old by now may be there from the first time
    _read_back(run, totals, exact=run.request.on_conflict == "fail" and not run.target.cutoffs).prove()
    return totals


def _prepared(run: RestoreRun, scratch: Scratch | None) -> tuple[str, ...]:
    if scratch is None:
        return prepare(run.target)
    scratch.announce()
    scratch.created(run.target.server.create_scratch(run.target.database, scratch.policies))
    return (run.target.database,)


def _claim_once(run: RestoreRun, own: frozenset[str]) -> None:
    begun = is_continued(run)  # asked first: another call may claim the id while the target is looked at
    refuse_change(run.target)
    refuse_conflict(run.request, run.reads, run.target, own)
    if not begun:
        claim(run)


def _mixed(target: Target, reads: Reads) -> frozenset[Table]:
    """Tables of the target in which a field has several types, so that each shard group is counted on its own."""
    return frozenset(
        Table(retention_policy=target.policies[table], measurement=table.measurement)
        for table, columns in reads.columns.items()
        if has_mixed_types(columns)
    )


def _options(request: RestoreRequest) -> WriteOptions:
    return WriteOptions(
        connections=request.connections,
        max_rejects=request.max_rejects,
        unsigned_as_integer=request.unsigned_as_integer,
    )


def _refuse_names(reads: Reads, server: Server, options: WriteOptions) -> None:
    found: list[Unrepresentable] = []
    for table, columns in reads.columns.items():
        found.extend(server.unrepresentable(table.measurement, columns, None, options))
    _raise_unrepresentable(found, server)


def _raise_unrepresentable(found: Sequence[Unrepresentable], server: Server) -> None:
    if not found:
        return
    shown = "; ".join(f"{item.conflict.value} {printable(item.name)!r}: {item.reason}" for item in found[:5])
    raise UnrepresentableError(
        f"Line protocol of {server.name} cannot carry {len(found)} names or values: {shown}"
        f"{' and more' if len(found) > 5 else ''}.",
        hint="Restore without these tables (--measurement), or read the Parquet files directly; nothing was written.",
    )


def _check_everything(run: RestoreRun, units: Sequence[Unit], points: KeptPoints) -> None:
    """Reads every part: its digest must hold, and everything in it must be writable."""
    server = run.target.server
    _refuse_names(run.reads, server, run.options)
    found: list[Unrepresentable] = []
    for position, unit in enumerate(units):
        for batch in points.checked(unit):
            found.extend(
                server.unrepresentable(unit.table.measurement, batch_columns(batch.schema), batch, run.options)
            )
        if len(found) > 100:
            break
        run.progress(Progress("check", position + 1, len(units), 0, unit.part.size, str(unit.table)))
    _raise_unrepresentable(found, server)


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


def _write_everything(
    run: RestoreRun, units: Sequence[Unit], points: KeptPoints, totals: Totals, steps_before: int
) -> None:
    by_policy: dict[str, list[Unit]] = {}
    for unit in units:
        by_policy.setdefault(run.target.policies[unit.table], []).append(unit)
    step, done = steps_before, 0
    for policy, chosen in by_policy.items():
        for group in _groups(chosen):
            allowed = max(0, run.request.max_rejects - totals.rejects)
            before = replace(totals, expected=Expected(), refused=dict(totals.refused))
            before.expected.absorb(totals.expected)
            options = replace(run.options, max_rejects=allowed)
            done = _write_group(run, policy, group, points, totals, options, done)
            keep_progress(run, group, before, totals, step)
            step += 1


def _write_group(
    run: RestoreRun,
    policy: str,
    group: Sequence[Unit],
    points: KeptPoints,
    totals: Totals,
    options: WriteOptions,
    done: int,
) -> int:
    target = run.target
    writer = target.server.writer(target.database, policy, options)
    with writer:
        for unit in group:
            measurement = unit.table.measurement
            table = Table(retention_policy=policy, measurement=measurement)
            for batch in points.taken(unit):
                kept = _after_cutoff(batch, run.cutoff(policy))
                totals.dropped += batch.num_rows - kept.num_rows
                if kept.num_rows:
                    writer.write(measurement, kept)
                    totals.count(table, kept)
            done += 1
            run.progress(Progress("write", done, len(run.reads.units), totals.rows, unit.part.size, str(table)))
    totals.absorb(policy, writer.result)
    return done


def _after_cutoff(batch: pa.RecordBatch, cutoff: int | None) -> pa.RecordBatch:
    if cutoff is None:
        return batch
    times = batch.column(0).cast("int64")
    return batch.filter(pc.greater_equal(times, cutoff))
