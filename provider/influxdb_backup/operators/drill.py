"""The operators that prove that a backup can be restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from influxdb_backup.operators.base import BackupOperator, given, identity, log_group, only_passing_errors_retry
from influxdb_backup.operators.guard import refuse_unknown_conf

if TYPE_CHECKING:
    from influxdb_backup.config.model import Plan
    from influxdb_backup.influx.protocol import Server
    from influxdb_backup.jobs.drill import DrillReport


class _DrillBase(BackupOperator):
    def drill_server(self, plan: Plan) -> Server:
        """The server that takes the scratch database: the drill's own connection, else the plan's."""
        from influxdb_backup.hooks.influxdb import InfluxdbBackupHook

        return InfluxdbBackupHook((plan.drill and plan.drill.connection) or plan.connection).server()


class RestoreDrillOperator(_DrillBase):
    """
    Restores one backup of a plan into a new scratch database, reads it back, compares, checks and drops it.

    The report is kept in the repository. A drill that does not hold fails the task.

    :param ref: the backup to drill; picked as the plan's ``drill.pick`` says when None (templated)
    :param only_params: refuse a run whose conf has keys that the DAG has no parameter for
    :returns: ref, manifest, tables, rows, checks, seconds_restore, seconds_read_back, seconds_total
    """

    template_fields: Sequence[str] = (*BackupOperator.template_fields, "ref")

    def __init__(self, *, ref: str | None = None, only_params: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ref = ref
        self.only_params = only_params

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Drills one backup. Raises AirflowFailException when the drill does not hold."""
        from influxdb_backup.jobs.drill import drill, raise_unless_ok

        with only_passing_errors_retry(self.log):
            if self.only_params:
                refuse_unknown_conf(context)
            config, plan = self.load()
            repository = self.repository(config, plan)
            ref = repository.ref(str(self.ref)) if given(self.ref) else None
            with (
                log_group(self.log, f"Restore drill of {plan.name}"),
                closing(self.drill_server(plan)) as server,
            ):
                report = drill(
                    plan,
                    repository=repository,
                    server=server,
                    ref=ref,
                    progress=self.progress(),
                    drill_id=f"{drill_prefix(context)}{context['ti'].try_number}",
                )
            self.link_to(repository, report.ref)
            for problem in report.problems:
                self.log.error("%s %s: %s", problem.kind, problem.object, problem.message)
            raise_unless_ok(report)
        self.log.info("%s was restored and compared in %.1f s.", report.ref, report.seconds_total)
        return summary(report)


class DropScratchOperator(_DrillBase):
    """
    Drops the scratch databases that this run's drill made and did not drop, because it was killed.

    The server itself must show that this run's drill made them; no record in the repository is believed.
    Scratches of other runs and of the command line are left alone: ``influxdb-backup drill PLAN --clean`` drops them.

    :returns: dropped, the names of what it dropped
    """

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Drops the leftovers. Raises when one cannot be dropped."""
        from influxdb_backup.jobs.drill import drop_scratches_of

        with only_passing_errors_retry(self.log):
            config, plan = self.load()
            repository = self.repository(config, plan)
            prefix = drill_prefix(context)
            with closing(self.drill_server(plan)) as server:
                dropped = drop_scratches_of(
                    plan.name, owners=lambda drill_id: drill_id.startswith(prefix), repository=repository, server=server
                )
        self.log.info("Dropped: %s", ", ".join(dropped) or "the server shows nothing that this run's drill left")
        return {"dropped": list(dropped)}


def drill_prefix(context: Mapping[str, Any]) -> str:
    """How the ids of a run's drills begin, one for each try; the teardown of the run knows them by it."""
    task = context["ti"]
    return f"{identity(task.run_id, task.dag_id, str(task.map_index))}."


def summary(report: DrillReport) -> dict[str, Any]:
    """Ids and counts of a drill, small enough for XCom."""
    return {
        "ref": report.ref,
        "manifest": report.manifest,
        "tables": len(report.tables),
        "rows": report.rows,
        "checks": len(report.checks),
        "seconds_restore": round(report.seconds_restore, 3),
        "seconds_read_back": round(report.seconds_read_back, 3),
        "seconds_total": round(report.seconds_total, 3),
    }
