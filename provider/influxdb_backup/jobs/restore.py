"""Write backups into a server, read back what arrived, and go on after an interruption."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import IntegrityError
from influxdb_backup.influx.protocol import Server, WriteOptions
from influxdb_backup.jobs.compare import compare_fingerprints
from influxdb_backup.jobs.line_restore import refuse_names, restore_by_lines
from influxdb_backup.jobs.objections import Objections
from influxdb_backup.jobs.progress import ProgressCallback, silent
from influxdb_backup.jobs.restore_documents import (
    RestorePlan,
    RestoreProgress,
    RestoreReport,
    TableWrite,
)
from influxdb_backup.jobs.restore_progress import (
    claim,
    is_continued,
    keep_progress,
    progress_so_far,
    unmark_target,
)
from influxdb_backup.jobs.restore_request import RestoreRequest, decide_reads
from influxdb_backup.jobs.restore_run import Outcome, RestoreRun, Scratch, Totals, batches
from influxdb_backup.jobs.restore_target import choose_target, refuse_change, refuse_conflict
from influxdb_backup.jobs.restore_types import keep_types_apart, refuse_types
from influxdb_backup.jobs.shard_restore import refuse_other_writer, restore_by_shards, why_not_shards
from influxdb_backup.jobs.standing_points import Standing, standing
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Scope, Table, printable
from influxdb_backup.windows import format_instant

logger = logger_of(__name__)


def plan_restore(
    request: RestoreRequest, *, repository: Repository, target: Server, scope: Scope | None = None
) -> RestorePlan:
    """
    What ``restore`` would do, without doing it: the dry run.

    It asks the same questions in the same order, and collects what ``restore`` would raise before its first change as
    the plan's ``refusals``: gaps, a target that is not empty, that would drop points or refuse values, names that line
    protocol cannot carry. Raises what leaves nothing to tell: an unknown backup, or a server that does not answer. No
    part is read but where changes of type leave a doubt, so that damage is found by the restore alone.
    """
    objections = Objections(collects=True)
    run = _aimed(request, repository, target, scope, None, objections)
    _refuse_before_reading(run, objections)
    if request.writer == "shard" and (reason := why_not_shards(run)) is not None:
        with objections.noted():
            refuse_other_writer(run, reason)
    reads, chosen = run.reads, run.target
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
        expired=reads.expired,
        rows=reads.rows,
        bytes=reads.bytes,
        separated=chosen.separated,
        refusals=tuple(objections.found),
    )


def _aimed(
    request: RestoreRequest,
    repository: Repository,
    server: Server,
    scope: Scope | None,
    scratch: Scratch | None,
    objections: Objections,
    progress: ProgressCallback = silent,
) -> RestoreRun:
    """What is read, where it goes, and what is created for it: one answer for restores, their dry runs and drills."""
    started = time.monotonic()
    reads = decide_reads(request, repository, scope, objections)
    chosen = choose_target(request, reads, server, objections)
    options = _options(request)
    run = RestoreRun(
        request, repository, reads, chosen, options, progress, request.restore_id or secrets.token_hex(8), started
    )
    with objections.noted():
        run = replace(run, target=keep_types_apart(chosen, reads, request, partial(batches, run)))
    if scratch is not None:
        create = tuple(policy.model_copy(update={"duration": 0}) for policy in run.target.create)
        run = replace(run, target=replace(run.target, create=create, infinite=()))
    return run


def _refuse_before_reading(run: RestoreRun, objections: Objections, own: frozenset[str] = frozenset()) -> None:
    """What can be known to go wrong before any part is read; nothing was changed. Policies of ``own`` have points."""
    request, reads, chosen = run.request, run.reads, run.target
    with objections.noted():
        chosen.server.check_names(chosen.database, chosen.create)
    with objections.noted():
        refuse_conflict(request, reads, chosen, own)
    with objections.noted():
        refuse_names(reads, chosen.server, run.options)
    if request.max_rejects == 0:
        with objections.noted():
            refuse_types(chosen, reads, request, partial(batches, run))


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

    Before the first change the target is checked, and by line protocol every part is read once (digest, names and
    values that it cannot carry). By shards parts are read while others are sent, into a database that is dropped when
    one is damaged. Raises BackupNotFoundError (gaps), TargetError, UnrepresentableError,
    IntegrityError, RejectedPointsError and the server's errors. The same call with the same ``restore_id``
    goes on where it was, and writes all again when what it had written is not there any more. With ``scratch``
    the target database is made anew as that says.
    """
    objections = Objections()
    run = _aimed(request, repository, target, scope, scratch, objections, progress)
    taken_up = _taken_up(run, objections)
    claim_once = partial(_claim_once, run, taken_up)
    with _telling_of_salvage(request):
        by_shards = None if taken_up.standing.steps else restore_by_shards(run, claim_once, scratch)
        if by_shards is not None and scratch is None:  # or the same call would write over what came later
            keep_progress(run, run.reads.units, Totals(), by_shards.totals, 0)
        outcome = by_shards or restore_by_lines(run, taken_up.standing, claim_once, scratch)
    if request.fingerprints:
        compare_fingerprints(run, by_shards=by_shards is not None)
    if scratch is None:
        unmark_target(run)
    return _report(run, outcome, taken_up.standing.steps, by_shards=by_shards is not None)


@contextmanager
def _telling_of_salvage(request: RestoreRequest) -> Iterator[None]:
    """Adds to an error about a damaged part that what is whole of it can be restored."""
    try:
        yield
    except IntegrityError as error:
        if request.salvage or error.kind not in {"missing", "size", "digest"}:
            raise
        raise IntegrityError(
            error.message,
            hint=f"{error.hint} As a last way out, --salvage restores what is whole and names every lost row.",
            kind=error.kind,
            problems=error.problems,
        ) from error


@dataclass(frozen=True)
class _TakenUp:
    """What stands of earlier calls with the same id, by what the target shows."""

    standing: Standing = field(default_factory=Standing)
    own: frozenset[str] = frozenset()
    """policies of the target that show that this restore writes into them: their points are no conflict"""
    is_complete: bool = False
    """whether the target holds all points of the restore and no others, so that nothing is written any more"""


def _taken_up(run: RestoreRun, objections: Objections) -> _TakenUp:
    """
    What earlier calls with this id have left, which the repository says and the target proves.

    Raises what is refused before any part is read. A record alone neither makes a conflict nor points of others go.
    """
    target = run.target
    if not is_continued(run):
        _refuse_before_reading(run, objections)
        return _TakenUp()
    claimed = progress_so_far(run)
    own = target.server.marked_for_restore(target.database, run.owner) if target.exists else frozenset[str]()
    there = Standing()
    if claimed and target.existing.issuperset(target.policies.values()):
        there = standing(run, claimed)
    units = {unit.key for unit in run.reads.units}
    is_complete = {key for step in there.steps for key in step.units} == units and bool(units) and not there.others
    if not is_complete:
        _refuse_before_reading(run, objections, own)
    if len(there.steps) < len(claimed):
        logger.warning(
            "%s does not hold all that an earlier call is said to have written; that is written again.",
            target.server.name,
        )
    target.server.drop_unpublished(run.owner)
    return _TakenUp(there, own, is_complete)


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
        separated=chosen.separated,
        widened=chosen.widen,
        gaps=reads.gaps,
        lost=tuple(sorted(run.lost.values(), key=lambda lost: (lost.path, lost.first_row, lost.column or ""))),
        expired=reads.expired,
        continued_units=sum(len(step.units) for step in done),
        writer="shard" if by_shards else "lines",
        written_again=outcome.written_again,
        fingerprints=run.request.fingerprints,
        read_back=(
            "counts",
            *(("files",) if by_shards else ()),
            *(("values",) if run.request.fingerprints else ()),
        ),
        check_seconds=outcome.checked - run.started,
        write_seconds=outcome.written - outcome.checked,
        read_back_seconds=ended - outcome.written,
        seconds=ended - run.started,
    )


def _claim_once(run: RestoreRun, taken_up: _TakenUp) -> None:
    begun = is_continued(run)  # asked first: another call may claim the id while the target is looked at
    refuse_change(run.target)
    if not taken_up.is_complete:
        refuse_conflict(run.request, run.reads, run.target, taken_up.own)
    if not begun:
        claim(run)


def _options(request: RestoreRequest) -> WriteOptions:
    return WriteOptions(
        connections=request.connections,
        max_rejects=request.max_rejects,
        unsigned_as_integer=request.unsigned_as_integer,
    )
