"""The drill DAG: restore one backup into a scratch database, compare, check, and drop it whatever happens."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from influxdb_backup.config.model import DrillConfig, Plan
from influxdb_backup.factory.common import (
    dag_tags,
    described,
    from_run,
    schedule,
    set_params,
    start_date,
    task_arguments,
    work_arguments,
)
from influxdb_backup.factory.names import drill_dag_id
from influxdb_backup.operators.drill import DropScratchOperator, RestoreDrillOperator

DRILL = """\
Restores one backup into a new scratch database, reads it back, compares it with the archive, runs the plan's checks,
drops the scratch, and keeps the report. When it fails, its log names each problem: a check of yours, or the backup.
"""
DROP = """\
Drops what this run's drill left when its process was killed. The server itself must show that the drill made it. A
failure here does not turn the run red: look, and drop the scratch with `influxdb-backup drill PLAN --clean`.
"""


def drill_dag(plan: Plan, config_path: str) -> DAG:
    """
    The DAG that drills restores of a plan; never two at a time, so that one does not drop the other's scratch.

    The drill drops its scratch database itself, and fails when it cannot; the teardown drops it when the drill's
    process was killed. The run's state is the drill's: a teardown that could fail the run would also hide, by
    succeeding, that the drill failed.
    """
    settings = plan.drill or DrillConfig()
    common = {"config_path": config_path, "plan": plan.name}
    with DAG(
        drill_dag_id(plan.name),
        description=f"Prove that backups of {plan.name} can be restored.",
        doc_md=_document(plan, settings),
        schedule=schedule(settings.schedule),
        start_date=start_date(plan),
        catchup=False,
        max_active_runs=1,
        default_args=task_arguments(plan),
        tags=dag_tags(plan, "drill"),
    ) as dag:
        drill = RestoreDrillOperator(
            task_id="drill",
            ref=from_run(dag, "ref"),
            only_params=True,
            doc_md=DRILL,
            **common,
            **work_arguments(plan),
        )
        drop = DropScratchOperator(task_id="drop_scratch", doc_md=DROP, **common).as_teardown()
        drill >> drop
    set_params(
        dag,
        {
            "ref": Param(
                None,
                type=["null", "string"],
                title="Backup",
                description=(
                    "A date: 2026-01-31 (its newest revision), 2026-01-31#0 (one revision); latest; or an id; "
                    f"when empty the {settings.pick.replace('_', ' ')} one."
                ),
            )
        },
    )
    return dag


def _document(plan: Plan, settings: DrillConfig) -> str:
    when = f"on `{settings.schedule}` (UTC)" if settings.schedule else "when it is triggered"
    return f"""\
### Restore drill of `{plan.name}`

{described(plan)}

Picks the `{settings.pick}` backup {when}, restores it into a new scratch database, reads it back, compares counts
and fingerprints table by table, runs {len(settings.checks)} checks of your own, and drops the scratch database.
The report is kept in the repository. A run that fails means that this backup could not be proved restorable.
"""
