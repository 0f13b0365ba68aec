"""What a plan's backups are backups of: claimed by its first backup, compared by every job that has the plan."""

from __future__ import annotations

from collections.abc import Iterable

from influxdb_backup.archive.repository import Repository
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import SourceError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.model import Manifest, PlanIdentity, printable


def identity_of(plan: Plan, server: Server) -> PlanIdentity:
    """What a backup of this plan from this server would be a backup of."""
    return PlanIdentity(
        plan=plan.name,
        database=plan.database,
        generation=server.info.generation,
        instance_id=server.info.instance_id,
        source=plan.source,
    )


def refuse_other_source(wanted: PlanIdentity, repository: Repository, where: str, last: Manifest | None = None) -> None:
    """
    Raises SourceError (``identity-mismatch``) when the plan's backups in the repository come from somewhere else.

    Where its document is lost the plan's ``last`` backup says it. A plan without backups has no identity yet, and
    anything is fine.
    """
    standing = repository.plan_identity(wanted.plan) or (_said_by(last) if last else None)
    if standing is not None:
        _compare(
            wanted.plan,
            where,
            (
                ("database", standing.database, wanted.database),
                ("InfluxDB generation", standing.generation, wanted.generation),
                ("server instance", standing.instance_id, wanted.instance_id),
                ("source", standing.source, wanted.source),
            ),
        )


def _said_by(last: Manifest) -> PlanIdentity:
    source = last.source
    return PlanIdentity(
        plan=last.plan,
        database=source.database,
        generation=source.generation,
        instance_id=source.instance_id,
        source=source.name,
    )


def refuse_other_plan(plan: Plan, repository: Repository) -> None:
    """The same for a job that does not meet the source: only what the plan itself says is compared."""
    standing = repository.plan_identity(plan.name)
    if standing is not None:
        _compare(
            plan.name,
            "its server",
            (("database", standing.database, plan.database), ("source", standing.source, plan.source)),
        )


def claim(wanted: PlanIdentity, repository: Repository, where: str) -> None:
    """Takes the plan's name for this source, before its first commit. Raises SourceError when another has it."""
    repository.claim_plan(wanted)
    refuse_other_source(wanted, repository, where)


def _compare(plan: str, where: str, pairs: Iterable[tuple[str, object, object]]) -> None:
    for what, stands, is_now in pairs:
        if stands != is_now:
            raise SourceError(
                f"The backups of plan {plan!r} in this repository are of {what} {printable(str(stands))!r}, "
                f"but the plan now names {printable(str(is_now))!r} on {where}.",
                kind="identity-mismatch",
                hint="Give the new source a plan of its own, or correct the plan's database, connection or source.",
            )
