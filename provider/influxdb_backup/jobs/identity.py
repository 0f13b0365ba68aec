"""What a plan's backups are backups of: claimed by its first backup, compared by every job that has the plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Standing:
    """What the repository says a plan's backups are of."""

    identity: PlanIdentity | None
    """None for a plan without backups: anything is fine"""
    claimed: bool
    """whether the plan's document says it; where that is lost its last backup does"""


def standing_identity(plan: str, repository: Repository, last: Manifest | None) -> Standing:
    """What the plan's document says, and where that is lost its ``last`` backup."""
    claimed = repository.plan_identity(plan)
    return Standing(claimed or (_said_by(last) if last else None), claimed is not None)


def refuse_other_source(wanted: PlanIdentity, found: Standing, where: str) -> None:
    """Raises SourceError (``identity-mismatch``) when the plan's backups in the repository come from somewhere else."""
    standing = found.identity
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
    refuse_other_source(wanted, Standing(repository.claim_plan(wanted), claimed=True), where)


def _compare(plan: str, where: str, pairs: Iterable[tuple[str, object, object]]) -> None:
    for what, stands, is_now in pairs:
        if stands != is_now:
            raise SourceError(
                f"The backups of plan {plan!r} in this repository are of {what} {printable(str(stands))!r}, "
                f"but the plan now names {printable(str(is_now))!r} on {where}.",
                kind="identity-mismatch",
                hint="Give the new source a plan of its own, or correct the plan's database, connection or source.",
            )
