"""What a restore keeps of itself in the repository, so that the same call goes on where an earlier one ended."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from influxdb_backup.archive import layout
from influxdb_backup.errors import AccessError, InfluxdbBackupError, StoreError, TargetError
from influxdb_backup.jobs.restore_documents import RestoreIdentity, RestoreProgress
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.jobs.restore_run import RestoreRun, Totals, after_cutoff, batches
from influxdb_backup.jobs.standing_points import Standing
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Table, printable

logger = logger_of(__name__)


def _standing(run: RestoreRun) -> RestoreIdentity | None:
    return run.repository.document(layout.restore_key(run.restore_id), RestoreIdentity)


def is_continued(run: RestoreRun) -> bool:
    """Whether an earlier call with this id has begun to write."""
    return _standing(run) is not None


def progress_so_far(run: RestoreRun) -> list[RestoreProgress]:
    """What earlier calls with this id say that they wrote. Raises TargetError when the id is another request's."""
    standing = _standing(run)
    if standing is None:
        return []
    asked = run.asked, run.target.server.name, run.target.database
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
        request=run.asked,
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


def mark_target(run: RestoreRun) -> None:
    """
    Has the server show that this restore writes into the target from now on, so that the same call may go on with it.

    Credentials that may write points only cannot do that: then the points of a call that ended early are met as any
    others are.
    """
    target = run.target
    try:
        target.server.mark_restore(target.database, set(target.policies.values()), run.owner)
    except (AccessError, TargetError) as error:
        logger.info("%s cannot show that this restore writes there: %s", target.server.name, error)


def unmark_target(run: RestoreRun) -> None:
    """Takes that away again, when all is written and proved."""
    target = run.target
    try:
        target.server.unmark_restore(target.database, run.owner)
    except InfluxdbBackupError as error:
        logger.warning(
            "%s still shows that this restore writes there, which does no harm: %s", target.server.name, error
        )


def absorb_progress(run: RestoreRun, standing: Standing) -> Totals:
    """What earlier calls wrote, in sum, by what the archive holds of it: expected of the target at the end."""
    totals = Totals()
    known = {unit.key: unit for unit in run.reads.units}
    for step in standing.steps:
        totals.rejects += step.rejects
        for key in step.units:
            _add(run, known[key], totals)
    for table, count in standing.refused.items():
        totals.refused[table] = totals.refused.get(table, 0) + count
    return totals


def _add(run: RestoreRun, unit: Unit, totals: Totals) -> None:
    policy = run.target.policies[unit.table]
    table = Table(retention_policy=policy, measurement=unit.table.measurement)
    counts_hold = not run.request.tags and not run.request.salvage
    if unit.whole and counts_hold and policy not in run.target.cutoffs:
        totals.rows += unit.part.rows
        for count in unit.part.counts:
            totals.values += count.count
            totals.expected.add(table, count.name, count.count)
        return
    for batch in batches(run, unit):
        kept = after_cutoff(batch, run.cutoff(policy))
        totals.dropped += batch.num_rows - kept.num_rows
        totals.count(table, kept)


def keep_progress(run: RestoreRun, group: Sequence[Unit], before: Totals, totals: Totals, step: int) -> None:
    """Records which units were written, and how many points were refused since ``before``."""
    document = RestoreProgress(
        units=tuple(unit.key for unit in group),
        rows=totals.rows - before.rows,
        values=totals.values - before.values,
        rejects=totals.rejects - before.rejects,
        dropped=totals.dropped - before.dropped,
    )
    key = layout.restore_progress_key(run.restore_id, f"{step:06d}-{secrets.token_hex(4)}")
    run.repository.put_document(key, document)
