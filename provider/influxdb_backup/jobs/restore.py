"""Write backups into a server, read back what arrived, and go on after an interruption."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository
from influxdb_backup.columns import batch_columns
from influxdb_backup.errors import StoreError, TargetError, UnrepresentableError
from influxdb_backup.influx.protocol import Server, Unrepresentable, WriteOptions
from influxdb_backup.jobs.compare import compare_fingerprints
from influxdb_backup.jobs.progress import Progress, ProgressCallback, silent
from influxdb_backup.jobs.read_back import Expected, has_mixed_types, read_back
from influxdb_backup.jobs.restore_documents import (
    RefusedCount,
    RestoreIdentity,
    RestorePlan,
    RestoreProgress,
    RestoreReport,
    TableWrite,
    WrittenCount,
)
from influxdb_backup.jobs.restore_request import Reads, RestoreRequest, Unit, decide_reads
from influxdb_backup.jobs.restore_run import Outcome, RestoreRun, Totals, batches
from influxdb_backup.jobs.restore_target import Target, choose_target, prepare, refuse_conflict
from influxdb_backup.jobs.shard_restore import Scratch, restore_by_shards
from influxdb_backup.model import Scope, Table, printable
from influxdb_backup.windows import format_instant

_GROUP_ROWS = 4_000_000
"""rows after which the progress of a restore is kept, so that a retry does not begin again"""


_PASSING = {"restore_id", "connections", "max_rejects", "writer", "fingerprints"}
"""of a request: what may be another when a restore is gone on with"""


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
    goes on where it was. With ``scratch`` the target database is made anew as that says.
    """
    started = time.monotonic()
    restore_id = request.restore_id or secrets.token_hex(8)
    reads = decide_reads(request, repository, scope)
    chosen = choose_target(request, reads, target)
    if scratch is not None:
        chosen = replace(chosen, create=scratch.policies, infinite=())
    run = RestoreRun(request, repository, reads, chosen, _options(request), progress, restore_id, started)
    done = _progress_so_far(run)
    if _is_continued(run):
        target.drop_unpublished(run.unpublished)
    by_shards = None if done else restore_by_shards(run, partial(_claim_once, run), scratch)
    outcome = by_shards or _restore_by_lines(run, done, scratch)
    if request.fingerprints:
        compare_fingerprints(run, by_shards=by_shards is not None)
    ended = time.monotonic()
    totals = outcome.totals
    return RestoreReport(
        restore_id=restore_id,
        refs=tuple(ref.id for ref in reads.refs),
        target_server=target.name,
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
        fingerprints=request.fingerprints,
        check_seconds=outcome.checked - started,
        write_seconds=outcome.written - outcome.checked,
        read_back_seconds=ended - outcome.written,
        seconds=ended - started,
    )


def _restore_by_lines(run: RestoreRun, done: Sequence[RestoreProgress], scratch: Scratch | None) -> Outcome:
    request, reads, chosen = run.request, run.reads, run.target
    finished = {key for step in done for key in step.units}
    todo = [unit for unit in reads.units if unit.key not in finished]
    if not _is_continued(run):
        refuse_conflict(request, reads, chosen)
    _check_everything(run, todo)
    checked = time.monotonic()
    _claim_once(run)
    created = _prepared(run, scratch)
    totals = _absorb_progress(done)
    _write_everything(run, todo, totals, len(done))
    written = time.monotonic()
    read_back(
        chosen.server,
        chosen.database,
        reads.window,
        totals.expected,
        mixed=_mixed(chosen, reads),
        exact=request.on_conflict == "fail",
        missing_allowed=totals.refused,
        patient=totals.late,
        progress=run.progress,
    )
    return Outcome(totals, created, checked, written)


def _prepared(run: RestoreRun, scratch: Scratch | None) -> tuple[str, ...]:
    if scratch is None:
        return prepare(run.target)
    scratch.announce()
    scratch.created(run.target.server.create_scratch(run.target.database, scratch.policies))
    return (run.target.database,)


def _claim_once(run: RestoreRun) -> None:
    if not _is_continued(run):
        refuse_conflict(run.request, run.reads, run.target)
        _claim(run)


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


def _request_digest(run: RestoreRun) -> str:
    asked = run.request.model_dump(mode="json", exclude=_PASSING)
    asked["refs"] = sorted(ref.id for ref in run.reads.refs)
    return "sha256:" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _standing(run: RestoreRun) -> RestoreIdentity | None:
    return run.repository.document(layout.restore_key(run.restore_id), RestoreIdentity)


def _is_continued(run: RestoreRun) -> bool:
    return _standing(run) is not None


def _progress_so_far(run: RestoreRun) -> list[RestoreProgress]:
    """What earlier calls with this id wrote. Raises TargetError when the id belongs to another request."""
    standing = _standing(run)
    if standing is None:
        return []
    asked = _request_digest(run), run.target.server.name, run.target.database
    if (standing.request, standing.target_server, standing.target_database) != asked:
        raise TargetError(
            f"The restore {run.restore_id!r} was started with another request or target "
            f"({printable(standing.target_database)!r} on {standing.target_server}), or a newer backup was made since.",
            kind="restore-in-progress",
            hint="Repeat it with the same arguments, or use another --restore-id.",
        )
    prefix = layout.restore_prefix(run.restore_id)
    return _each_unit_once([step for _, step in run.repository.read_documents(prefix, RestoreProgress)])


def _each_unit_once(steps: Sequence[RestoreProgress]) -> list[RestoreProgress]:
    """
    The steps without those that share a unit with an earlier one, as two calls with one id at a time leave them.

    Its points would be expected twice in the target. What else such a step wrote is written again, with no effect.
    """
    kept: list[RestoreProgress] = []
    seen: set[str] = set()
    for step in steps:
        if seen.isdisjoint(step.units):
            kept.append(step)
            seen.update(step.units)
    return kept


def _claim(run: RestoreRun) -> None:
    identity = RestoreIdentity(
        restore_id=run.restore_id,
        request=_request_digest(run),
        target_server=run.target.server.name,
        target_database=run.target.database,
        started_at=time.time_ns(),
    )
    try:
        run.repository.put_document(layout.restore_key(run.restore_id), identity)
    except StoreError as error:
        raise StoreError(
            f"Nothing was restored, since a restore keeps its progress in the repository: {error.message}",
            hint="Use credentials that may write below restores/ there, or restore from a copy of the repository.",
            kind=error.kind,
        ) from error
    except FileExistsError:
        raise TargetError(
            f"Another restore with the id {run.restore_id!r} began at the same moment.",
            kind="restore-in-progress",
            hint="Let it finish, or repeat it with the same --restore-id once it has ended.",
        ) from None


def _absorb_progress(done: Sequence[RestoreProgress]) -> Totals:
    totals = Totals()
    for step in done:
        totals.rows += step.rows
        totals.values += step.values
        totals.rejects += step.rejects
        for refused in step.refused:
            totals.refused[refused.table] = totals.refused.get(refused.table, 0) + refused.count
        totals.dropped += step.dropped
        for count in step.counts:
            totals.expected.add(count.table, count.field, count.count)
    return totals


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


def _check_everything(run: RestoreRun, units: Sequence[Unit]) -> None:
    """Reads every part once: its digest must hold, and everything in it must be writable."""
    server = run.target.server
    _refuse_names(run.reads, server, run.options)
    found: list[Unrepresentable] = []
    for position, unit in enumerate(units):
        for batch in batches(run, unit):
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


def _write_everything(run: RestoreRun, units: Sequence[Unit], totals: Totals, steps_before: int) -> None:
    by_policy: dict[str, list[Unit]] = {}
    for unit in units:
        by_policy.setdefault(run.target.policies[unit.table], []).append(unit)
    step, done = steps_before, 0
    for policy, chosen in by_policy.items():
        for group in _groups(chosen):
            allowed = max(0, run.request.max_rejects - totals.rejects)
            before = replace(totals, expected=Expected(), refused=dict(totals.refused))
            before.expected.absorb(totals.expected)
            done = _write_group(run, policy, group, totals, replace(run.options, max_rejects=allowed), done)
            _keep_progress(run, group, before, totals, step)
            step += 1


def _write_group(
    run: RestoreRun, policy: str, group: Sequence[Unit], totals: Totals, options: WriteOptions, done: int
) -> int:
    target = run.target
    writer = target.server.writer(target.database, policy, options)
    with writer:
        for unit in group:
            measurement = unit.table.measurement
            table = Table(retention_policy=policy, measurement=measurement)
            for batch in batches(run, unit):
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


def _keep_progress(run: RestoreRun, group: Sequence[Unit], before: Totals, totals: Totals, step: int) -> None:
    counts = totals.expected.minus(before.expected)
    document = RestoreProgress(
        units=tuple(unit.key for unit in group),
        rows=totals.rows - before.rows,
        values=totals.values - before.values,
        rejects=totals.rejects - before.rejects,
        refused=tuple(
            RefusedCount(table=table, count=count - before.refused.get(table, 0))
            for table, count in totals.refused.items()
            if count > before.refused.get(table, 0)
        ),
        dropped=totals.dropped - before.dropped,
        counts=tuple(WrittenCount(table=table, field=name, count=count) for (table, name), count in counts.items()),
    )
    key = layout.restore_progress_key(run.restore_id, f"{step:06d}-{secrets.token_hex(4)}")
    run.repository.put_document(key, document)
