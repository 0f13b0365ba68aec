"""What a restore keeps of itself in the repository, so that the same call goes on where an earlier one ended."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Sequence

from influxdb_backup.archive import layout
from influxdb_backup.errors import StoreError, TargetError
from influxdb_backup.jobs.restore_documents import (
    RefusedCount,
    RestoreIdentity,
    RestoreProgress,
    RestoreWriting,
    WrittenCount,
)
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.jobs.restore_run import RestoreRun, Totals
from influxdb_backup.model import printable

_PASSING = {"restore_id", "connections", "max_rejects", "writer", "fingerprints"}
"""of a request: what may be another when a restore is gone on with"""


def _request_digest(run: RestoreRun) -> str:
    asked = run.request.model_dump(mode="json", exclude=_PASSING)
    asked["refs"] = sorted(ref.id for ref in run.reads.refs)
    return "sha256:" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _standing(run: RestoreRun) -> RestoreIdentity | None:
    return run.repository.document(layout.restore_key(run.restore_id), RestoreIdentity)


def is_continued(run: RestoreRun) -> bool:
    """Whether an earlier call with this id has begun to write."""
    return _standing(run) is not None


def progress_so_far(run: RestoreRun) -> list[RestoreProgress]:
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


def claim(run: RestoreRun) -> None:
    """Records that this restore begins. Raises StoreError, and TargetError when another call with this id has."""
    identity = RestoreIdentity(
        restore_id=run.restore_id,
        request=_request_digest(run),
        target_server=run.target.server.name,
        target_database=run.target.database,
        started_at=time.time_ns(),
        write_id=secrets.token_hex(16),
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


def announce_writing(run: RestoreRun, scratch_id: str | None) -> None:
    """Records that points may be in the target from now on: in what was created as ``scratch_id``, or anywhere."""
    key = layout.restore_progress_key(run.restore_id, f"writing-{secrets.token_hex(4)}")
    run.repository.put_document(key, RestoreWriting(scratch_id=scratch_id))


def policies_written(run: RestoreRun) -> frozenset[str]:
    """Policies of the target that earlier calls with this id may have written to, and have points in."""
    listed = run.repository.read_documents(layout.restore_prefix(run.restore_id), RestoreWriting)
    made = [document.scratch_id for _, document in listed]
    if None in made:
        return run.target.existing
    target = run.target
    found = (target.server.policies_made(target.database, scratch_id) for scratch_id in made if scratch_id)
    return frozenset[str]().union(*found)


def absorb_progress(done: Sequence[RestoreProgress]) -> Totals:
    """What earlier calls wrote, in sum."""
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


def keep_progress(run: RestoreRun, group: Sequence[Unit], before: Totals, totals: Totals, step: int) -> None:
    """Records what was written of a group of units: ``totals`` less those ``before`` it."""
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
