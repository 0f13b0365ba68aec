"""A restore into a new database by the files of its shards; line protocol takes over where that does not work."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from heapq import nlargest
from pathlib import Path
from typing import NoReturn

from influxdb_backup.errors import (
    InfluxdbBackupError,
    NotVisibleError,
    ServerError,
    TargetError,
    UnrepresentableError,
)
from influxdb_backup.fast import why_not_fast
from influxdb_backup.influx.protocol import Mark, NewShards
from influxdb_backup.jobs.restore_progress import mark_target
from influxdb_backup.jobs.restore_run import Outcome, RestoreRun, Scratch, Totals
from influxdb_backup.jobs.shard_building import MOST_BUILT, Lot, lots_of
from influxdb_backup.jobs.shard_pipeline import STOP_SECONDS, ShardPipeline, StageError
from influxdb_backup.jobs.shard_proof import others_points, prove
from influxdb_backup.messages import logger_of
from influxdb_backup.model import RetentionPolicy, printable
from influxdb_backup.shard_groups import shard_duration
from influxdb_backup.temporary import temporary_folder

logger = logger_of(__name__)

_ROOM = 2
"""free bytes for each byte of parts: shard files are a little larger than Parquet"""
_LAST_SECONDS = 60.0
"""for what is being sent, when another group failed: a database is not dropped well while the server takes files in"""

WRITER = "shard-writer"
"""kind of errors that line protocol does not have"""


def why_not_shards(run: RestoreRun) -> str | None:
    """Why this restore is written by line protocol, in a few words; None when shards are possible."""
    request, target = run.request, run.target
    if request.writer == "lines":
        return "the request says so"
    if target.exists:
        return f"the database {printable(target.database)} exists already"
    if request.salvage:
        return "what is left of damaged parts fills no whole shard"
    if request.unsigned_as_integer:
        return "unsigned fields are to become integers"
    reason = why_not_fast() or target.server.shard_door_closed()
    if reason:
        return reason
    try:
        lots = _lots(run)
    except OverflowError as error:
        return str(error)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    needed = _ROOM * sum(nlargest(MOST_BUILT, (lot.bytes for lot in lots)))
    if free < needed:
        has = f"{free // 10**6} MB free of the {needed // 10**6} that the files of {MOST_BUILT} shards may need"
        return f"{tempfile.gettempdir()} has {has} (TMPDIR names another folder)"
    return None


def restore_by_shards(run: RestoreRun, claim: Callable[[], None], scratch: Scratch | None) -> Outcome | None:
    """
    Builds and sends the files of a few shard groups at a time, and proves by counts that every group arrived.

    The database is created once the first group is built, and dropped when anything fails after that. None when the
    shards did not work and it is gone again, so that line protocol can take over; with ``writer: shard`` that is a
    TargetError of the kind ``shard-writer``, or the server's own error when it may pass. Raises IntegrityError for
    damaged parts, AccessError and the store's errors.
    """
    reason = why_not_shards(run)
    if reason is None:
        try:
            return _restored(run, claim, scratch)
        except _FailedError as error:
            cause = error.__cause__
            if run.request.writer == "shard" and isinstance(cause, InfluxdbBackupError) and cause.retryable:
                raise cause from None  # nothing is left, and the same call again may do it
            reason = str(error)
    refuse_other_writer(run, reason)
    if run.request.writer == "auto":
        logger.info("%s is restored by line protocol: %s", printable(run.target.database), reason)
    return None


def refuse_other_writer(run: RestoreRun, reason: str) -> None:
    """Raises TargetError (``shard-writer``) when the request allows whole shards only, which ``reason`` forbids."""
    if run.request.writer != "shard":
        return
    hint = "Restore it with writer auto or lines."
    if run.target.exists:
        hint = (
            "Restore into a new database (--target-database), or with writer auto or lines into this one, under the "
            "--restore-id that made it if a restore did."
        )
    raise TargetError(
        f"{printable(run.target.database)} cannot be restored by shards: {reason.rstrip('.')}.", kind=WRITER, hint=hint
    )


class _FailedError(Exception):
    """Nothing is left of the shards, and line protocol may do what they could not."""


def _restored(run: RestoreRun, claim: Callable[[], None], scratch: Scratch | None) -> Outcome:
    run.repository.refuse_missing([unit.part for unit in run.reads.units])
    with (
        temporary_folder("restore") as folder,
        ShardPipeline(run, _lots(run), _durations(run), Path(folder)) as pipeline,
    ):
        try:
            if not pipeline.wait_for_first():
                raise _FailedError("there are no points")
        except StageError as failure:
            raise _reason_for_lines(failure) or _cause(failure) from failure.__cause__
        checked = time.monotonic()
        claim()
        if scratch is not None:
            scratch.announce()
        made = _created(run, None if scratch else run.unpublished, scratch.mark() if scratch else Mark(run.owner))
        try:
            if scratch is not None:
                scratch.created(made.scratch_id)
            elif made.database == run.target.database:
                mark_target(run)
            pipeline.send(made)
            written = time.monotonic()
            prove(run, made, pipeline.sent)
        except BaseException as error:  # noqa: BLE001 - raised when nothing is left
            pipeline.stop(_LAST_SECONDS if isinstance(error, StageError) else STOP_SECONDS)
            _undo(run, made, pipeline, scratch, error)
        _publish(run, made)
    totals = Totals()
    for group in pipeline.begun:
        totals.rows += group.totals.rows
        totals.values += group.totals.values
        totals.expected.absorb(group.totals.expected)
    return Outcome(totals, made.created, checked, written)


def _undo(
    run: RestoreRun, made: NewShards, pipeline: ShardPipeline, scratch: Scratch | None, error: BaseException
) -> NoReturn:
    """
    Drops the database and raises what ended the restore, as _FailedError where line protocol may do better.

    A scratch is dropped by its drill. On 1.x, where the database has its name from the beginning, an interrupted
    restore leaves it: the same id goes on there. And it is left when somebody else has written into it.
    """
    is_public = made.database == run.target.database and scratch is None
    reason = _reason_for_lines(error)
    if reason is not None:
        if is_public:
            _refuse_others(run, made, pipeline, _cause(error))
        logger.warning("The new database on %s is dropped: %s", run.target.server.name, reason)
        _drop(run, made)
        raise reason from _cause(error)
    cause = _cause(error)
    if isinstance(cause, InfluxdbBackupError) and scratch is None:
        _drop_after(run, made, pipeline, cause)
    elif made.database != run.target.database:
        _drop(run, made)
    raise cause


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ or error if isinstance(error, StageError) else error


def _reason_for_lines(error: BaseException) -> _FailedError | None:
    """Why line protocol is to take over; None when it could do no better."""
    cause = _cause(error)
    stage = error.stage if isinstance(error, StageError) else "send"
    if stage == "build":
        if isinstance(cause, UnrepresentableError):
            return _FailedError(cause.message)
        if isinstance(cause, OSError):
            return _FailedError(f"its shard files cannot be kept in {tempfile.gettempdir()} ({cause.strerror})")
    elif stage == "open":
        if isinstance(cause, TargetError) and cause.kind == "shards-refused":
            return _FailedError(cause.message)
    elif isinstance(cause, (ServerError, TargetError)):
        return _FailedError(f"the shards that were sent did not arrive: {cause.message}")
    return None


def _drop(run: RestoreRun, made: NewShards) -> None:
    """Drops the database, which has not been published, or names it in the error that says why not."""
    try:
        run.target.server.drop_scratch(made.database, made.scratch_id)
    except InfluxdbBackupError as failure:
        _say_what_is_left(failure, run, made.database)
        raise


def _drop_after(run: RestoreRun, made: NewShards, pipeline: ShardPipeline, error: InfluxdbBackupError) -> None:
    """Drops the database, or names it in the ``error`` that ended the restore when it has to stay."""
    try:
        found = made.database == run.target.database and others_points(run, made, pipeline.begun)
        if not found:
            run.target.server.drop_scratch(made.database, made.scratch_id)
            return
        logger.warning("%s is not dropped, since somebody else has written there: %s", printable(made.database), found)
    except InfluxdbBackupError as failure:
        logger.warning("%s could not be dropped: %s", printable(made.database), failure)
    _say_what_is_left(error, run, made.database)


def _refuse_others(run: RestoreRun, made: NewShards, pipeline: ShardPipeline, failure: BaseException) -> None:
    """Raises TargetError when somebody has written into the database, which has its public name from the beginning."""
    try:
        found = others_points(run, made, pipeline.begun)
    except InfluxdbBackupError as error:
        _say_what_is_left(error, run, made.database)
        raise
    if found:
        raise TargetError(
            f"Somebody else writes into {printable(made.database)} on {run.target.server.name}, which this restore "
            f"made: it holds {found}. So it was not dropped, although the shards that were sent did not arrive whole.",
            kind="target-not-empty",
            hint="The same restore id writes all points into it by line protocol; or restore into another database "
            "(--target-database).",
        ) from failure


def _say_what_is_left(error: InfluxdbBackupError, run: RestoreRun, database: str) -> None:
    left = f"The unfinished database {printable(database)} may be left on {run.target.server.name}"
    way = "the same restore id drops it and begins anew; or delete it by hand."
    if database == run.target.database:
        way = "the same restore id writes into it by line protocol; or delete it by hand."
    error.hint = f"{error.hint} {left}: {way}".strip()


def _publish(run: RestoreRun, made: NewShards) -> None:
    database, built = printable(run.target.database), made.database
    try:
        made.publish()
    except (TargetError, NotVisibleError) as error:
        raise TargetError(
            f"All points are in the database {built} of {run.target.server.name}, which could not be renamed to "
            f"{database}: {error.message}",
            kind="not-renamed",
            hint=f"{database} is somebody else's by now, or another call with this restore id is at work. "
            f"Look at what is there; then rename the buckets of {built} by hand, or drop them and restore into another "
            "database (--target-database).",
        ) from error
    except InfluxdbBackupError as error:
        _say_what_is_left(error, run, made.database)
        raise
    except BaseException:
        if made.database != run.target.database:
            _drop(run, made)
        raise


def _policies(run: RestoreRun) -> list[RetentionPolicy]:
    durations = _durations(run)
    return [policy.model_copy(update={"shard_duration": durations[policy.name]}) for policy in run.target.create]


def _durations(run: RestoreRun) -> dict[str, int]:
    return {policy.name: shard_duration(policy.shard_duration, policy.duration) for policy in run.target.create}


def _lots(run: RestoreRun) -> Sequence[Lot]:
    """Raises OverflowError."""
    return lots_of(run.reads.units, run.target.policies, _durations(run))


def _created(run: RestoreRun, until_published: str | None, mark: Mark) -> NewShards:
    try:
        return run.target.server.create_with_shards(
            run.target.database, _policies(run), until_published=until_published, mark=mark
        )
    except InfluxdbBackupError as error:
        if until_published and error.retryable:  # the server may have created it before it stopped answering
            _say_what_is_left(error, run, run.target.server.name_until_published(run.target.database, until_published))
        raise


__all__ = ["WRITER", "Scratch", "restore_by_shards", "why_not_shards"]
