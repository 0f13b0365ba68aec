"""A restore into a new database by the files of its shards; line protocol takes over where that does not work."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import pyarrow as pa

from influxdb_backup.archive.fetching import FetchedParts
from influxdb_backup.errors import (
    InfluxdbBackupError,
    NotVisibleError,
    ServerError,
    TargetError,
    UnrepresentableError,
)
from influxdb_backup.fast import why_not_fast
from influxdb_backup.influx.protocol import Mark, NewShards
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.jobs.restore_progress import mark_target
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.jobs.restore_run import Outcome, RestoreRun, Scratch, Totals, batches
from influxdb_backup.jobs.shard_building import BuiltGroup, GroupBuilder, needed_groups
from influxdb_backup.jobs.shard_proof import others_points, prove
from influxdb_backup.messages import logger_of
from influxdb_backup.model import RetentionPolicy, Window, printable
from influxdb_backup.shard_groups import shard_duration
from influxdb_backup.temporary import temporary_folder
from influxdb_backup.windows import format_window

logger = logger_of(__name__)

_ROOM = 2
"""free bytes for each byte of parts: shard files are a little larger than Parquet"""
_SENDERS = 2
_TELL_SECONDS = 1.0
_STOP_SECONDS = 1.0
"""for what is being sent, when the job is stopped: Airflow kills a task five seconds after it told it"""
_LAST_SECONDS = 60.0
"""the same, when another group failed: a database is not dropped well while the server takes files in"""

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
        needed_groups(run.reads.units, target.policies, _durations(run))
    except OverflowError as error:
        return str(error)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < _ROOM * run.reads.bytes:
        folder, has = tempfile.gettempdir(), f"{free // 10**6} MB free"
        return f"{folder} has {has}, less than the shard files need (TMPDIR names another folder)"
    return None


def restore_by_shards(run: RestoreRun, claim: Callable[[], None], scratch: Scratch | None) -> Outcome | None:
    """
    Builds all files, then creates the database and sends them, and proves by counts that every group arrived.

    None when that did not work and the database is gone again, so that line protocol can take over; with
    ``writer: shard`` that is a TargetError of the kind ``shard-writer``, or the server's own error when it may pass.
    Raises IntegrityError for damaged parts, AccessError and the store's errors.
    """
    reason = why_not_shards(run)
    if reason is None:
        try:
            return _restored(run, claim, scratch)
        except (UnrepresentableError, _FailedError) as error:
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
    """Nothing was written, or it did not arrive and the database was dropped."""


def _restored(run: RestoreRun, claim: Callable[[], None], scratch: Scratch | None) -> Outcome:
    with temporary_folder("restore") as folder:
        built = _built(run, Path(folder))
        checked = time.monotonic()
        if not built:
            raise _FailedError("there are no points")
        claim()
        if scratch is not None:
            scratch.announce()
        made = _created(
            run, built, None if scratch else run.unpublished, scratch.mark() if scratch else Mark(run.owner)
        )
        try:
            if scratch is not None:
                scratch.created(made.scratch_id)
            elif made.database == run.target.database:
                mark_target(run)
            sending = time.monotonic()
            _send(run, made, built)
            written = time.monotonic()
            prove(run, made, built, written - sending)
        except (ServerError, TargetError) as error:
            if made.database == run.target.database and scratch is None:
                _refuse_others(run, made, built, error)
            logger.warning("Shards sent to %s did not arrive, so it is dropped: %s", run.target.server.name, error)
            _drop(run, made)
            raise _FailedError(f"the shards that were sent did not arrive: {error.message}") from error
        except BaseException:
            if made.database != run.target.database:
                _drop(run, made)
            raise
        _publish(run, made)
    totals = Totals()
    for group in built:
        totals.rows += group.totals.rows
        totals.values += group.totals.values
        totals.expected.absorb(group.totals.expected)
    return Outcome(totals, made.created, checked, written)


def _drop(run: RestoreRun, made: NewShards) -> None:
    """Drops the database, which has not been published, or names it in the error that says why not."""
    try:
        run.target.server.drop_scratch(made.database, made.scratch_id)
    except InfluxdbBackupError as failure:
        _say_what_is_left(failure, run, made.database)
        raise


def _refuse_others(run: RestoreRun, made: NewShards, built: tuple[BuiltGroup, ...], failure: Exception) -> None:
    """Raises TargetError when somebody has written into the database, which has its public name from the beginning."""
    try:
        found = others_points(run, made, built)
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


def _built(run: RestoreRun, folder: Path) -> tuple[BuiltGroup, ...]:
    done = 0

    def on_unit(unit: object) -> None:
        nonlocal done
        done += 1
        run.progress(Progress("check", done, len(run.reads.units), 0, 0, str(getattr(unit, "table", ""))))

    fetched: FetchedParts | None = None

    def read(unit: Unit) -> Iterator[pa.RecordBatch]:
        return batches(run, unit, fetched=fetched)

    builder = GroupBuilder(
        run.reads.units,
        run.target.policies,
        _durations(run),
        batches=read,
        generation=run.target.server.info.generation,
        folder=folder,
    )
    try:
        with run.repository.fetch([unit.part for unit in builder.units]) as fetched:
            return tuple(builder.groups(on_unit))
    except OSError as error:
        raise _FailedError(f"its shard files cannot be kept in {folder.parent} ({error.strerror})") from error


def _created(run: RestoreRun, built: Sequence[BuiltGroup], until_published: str | None, mark: Mark) -> NewShards:
    groups: dict[str, dict[Window, bytes | None]] = {}
    for group in built:
        groups.setdefault(group.policy, {})[group.window] = group.series
    try:
        return run.target.server.create_with_shards(
            run.target.database, _policies(run), groups, until_published=until_published, mark=mark
        )
    except TargetError as error:
        if error.kind != "shards-refused":
            raise
        raise _FailedError(error.message) from error
    except InfluxdbBackupError as error:
        if until_published and error.retryable:  # the server may have created it before it stopped answering
            _say_what_is_left(error, run, run.target.server.name_until_published(run.target.database, until_published))
        raise


def _send(run: RestoreRun, made: NewShards, built: Sequence[BuiltGroup]) -> None:
    """Sends all groups; progress is told every second, so that whoever stops the job does not wait for the server."""
    waiting: SimpleQueue[tuple[BuiltGroup, Future[None]]] = SimpleQueue()
    futures: list[tuple[BuiltGroup, Future[None]]] = [(group, Future()) for group in built]
    for item in futures:
        waiting.put(item)
    threads = [Thread(target=_send_waiting, args=(made, waiting), name="shards", daemon=True) for _ in range(_SENDERS)]
    for thread in threads:
        thread.start()
    rows = 0
    try:
        for position, (group, future) in enumerate(futures):
            while not wait([future], _TELL_SECONDS).done:
                run.progress(Progress("write", position, len(built), rows, 0, printable(group.policy)))
            future.result()
            rows += group.totals.rows
            run.progress(Progress("write", position + 1, len(built), rows, 0, printable(group.policy)))
            for file in group.files:
                with suppress(OSError):  # the folder is removed at the end in any case
                    file.unlink()
    except BaseException as error:
        for _, future in futures:
            future.cancel()
        for thread in threads:  # whoever stops the job is not to wait for a server that stands still
            thread.join(_LAST_SECONDS if isinstance(error, InfluxdbBackupError) else _STOP_SECONDS)
        raise


def _send_waiting(made: NewShards, waiting: SimpleQueue[tuple[BuiltGroup, Future[None]]]) -> None:
    with suppress(Empty):
        while True:
            group, future = waiting.get_nowait()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                _send_group(made, group)
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                future.set_exception(error)
            else:
                future.set_result(None)


def _send_group(made: NewShards, group: BuiltGroup) -> None:
    logger.debug("The shard of %s is sent in %d parts.", format_window(group.window), len(group.sendings))
    for files in group.sendings:
        made.send(group.policy, group.window, files)


__all__ = ["WRITER", "Scratch", "restore_by_shards", "why_not_shards"]
