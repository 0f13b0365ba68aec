"""The operators that prove that a backup can be restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from influxdb_backup.operators.base import BackupOperator, backup_of, given, identity, only_passing_errors_retry
from influxdb_backup.operators.guard import refuse_unknown_conf
from influxdb_backup.words import counted, seconds

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

    :param ref: the backup to drill, such as ``plan@2026-01-31``, ``latest`` or ``plan/start_end/revision``; picked as
        the plan's ``drill.pick`` says when None (templated)
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
        from influxdb_backup.archive.layout import say_id
        from influxdb_backup.jobs.drill import drill, raise_unless_ok

        with only_passing_errors_retry(self.log, self):
            if self.only_params:
                refuse_unknown_conf(context)
            config, plan = self.load()
            repository = self.repository(config, plan)
            ref = repository.ref(backup_of(plan.name, str(self.ref))) if given(self.ref) else None
            self.log.info("Drilling %s.", say_id(ref.id) if ref else f"a backup of {plan.name}")
            with closing(self.drill_server(plan)) as server:
                report = drill(
                    plan,
                    repository=repository,
                    server=server,
                    ref=ref,
                    progress=self.progress(),
                    drill_id=f"{drill_prefix(context)}{context['ti'].try_number}",
                )
            self._tell(report)
            raise_unless_ok(report)
        self.told(context, f"drill ok · {counted(report.rows, 'row')} · {seconds(report.seconds_total)}")
        return summary(report)

    def _tell(self, report: DrillReport) -> None:
        from influxdb_backup.archive.layout import say_id

        self.log.info("%s: %s", "The drill held" if report.ok else "The drill did NOT hold", say_id(report.ref))
        self.log.info("Its id: %s", report.ref)
        self.log.info(
            "Restored %s in %s%s into %s, read %s back in %s, %s in all.",
            counted(report.rows, "row"), seconds(report.seconds_restore),
            " as whole shards" if report.writer == "shard" else "",
            report.server, counted(len(report.tables), "table"), seconds(report.seconds_read_back),
            seconds(report.seconds_total),
        )  # fmt: skip
        kept = any(problem.kind == "scratch" for problem in report.problems)
        fate = "dropped" if report.scratch_dropped else "NOT dropped" if kept else "not made"
        self.log.info("The scratch %s was %s.", report.scratch, fate)
        for check in report.checks:
            line = f"Check {'ok' if check.ok else 'FAILED'}: {check.query}: {check.value} ({check.message})"
            (self.log.info if check.ok else self.log.error)("%s", line)
        for problem in report.problems:
            if problem.kind != "check":  # told above
                self.log.error("%s %s: %s", problem.kind, problem.object, problem.message)


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

        with only_passing_errors_retry(self.log, self):
            config, plan = self.load()
            repository = self.repository(config, plan)
            prefix = drill_prefix(context)
            with closing(self.drill_server(plan)) as server:
                dropped = drop_scratches_of(
                    plan.name, owners=lambda drill_id: drill_id.startswith(prefix), repository=repository, server=server
                )
        self.log.info("Dropped: %s", ", ".join(dropped) or "the server shows nothing that this run's drill left")
        self.told(context, f"dropped {counted(len(dropped), 'scratch database')}" if dropped else "nothing was left")
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
