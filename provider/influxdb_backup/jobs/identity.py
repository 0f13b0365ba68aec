"""What a plan's backups are backups of: claimed by its first export, compared by every job that meets the source."""

from __future__ import annotations

from influxdb_backup.archive.repository import Repository
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import SourceError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.model import PlanIdentity, printable


def claim(plan: Plan, server: Server, repository: Repository) -> PlanIdentity:
    """
    Claims the plan's name for this source, or proves that it is the one that claimed it before.

    Raises SourceError (``identity-mismatch``) when the plan's backups come from somewhere else.
    """
    wanted = PlanIdentity(
        plan=plan.name,
        database=plan.database,
        generation=server.info.generation,
        instance_id=server.info.instance_id,
        source=plan.source,
    )
    standing = repository.plan_identity(plan.name) or repository.claim_plan(wanted)
    for what, stands, is_now in (
        ("database", standing.database, wanted.database),
        ("InfluxDB generation", standing.generation, wanted.generation),
        ("server instance", standing.instance_id, wanted.instance_id),
        ("source", standing.source, wanted.source),
    ):
        if stands != is_now:
            raise SourceError(
                f"The backups of plan {plan.name!r} in this repository are of {what} {printable(str(stands))!r}, "
                f"but the plan now names {printable(str(is_now))!r} on {server.name}.",
                kind="identity-mismatch",
                hint="Give the new source a plan of its own, or correct the plan's database, connection or source.",
            )
    return standing
