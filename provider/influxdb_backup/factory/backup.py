"""The backup DAG: settle -> export -> verify, one run for each window."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, Param

from influxdb_backup.config.model import Plan
from influxdb_backup.factory.common import (
    dag_tags,
    described,
    from_run,
    instant_param,
    schedule,
    set_params,
    start_date,
    task_arguments,
    waiting_timeout,
    work_arguments,
)
from influxdb_backup.factory.names import asset_uri, backup_dag_id
from influxdb_backup.operators.export import ExportWindowOperator
from influxdb_backup.operators.verify import VerifyBackupOperator
from influxdb_backup.sensors.settled import WindowSettledSensor
from influxdb_backup.windows import format_duration

SETTLE = """\
Waits until the window has ended and the plan's `settle` time has passed, without holding a worker. A window that is due
later than any right one fails at once: that is a mistyped date.
"""
EXPORT = """\
Reads every point of the window, proves by counts that it has all, and commits it as one revision. Its label says
window, rows, size and the plan's gaps; its log says what fills each gap. The same window again makes nothing new, so
that a failed run can always be cleared.
"""
VERIFY = """\
Reads back from the repository what was committed, up to the plan's level, and keeps the result. Then the plan's asset
gets an event, unless nothing new was made. When it fails, the stored bytes are not what was written: run the window
again.
"""


def backup_dag(plan: Plan, config_path: str) -> DAG:
    """The DAG that backs the plan's windows up. History is filled with backfills."""
    common = {"config_path": config_path, "plan": plan.name}
    with DAG(
        backup_dag_id(plan.name),
        description=f"Back up {plan.name} window by window, and verify each backup.",
        doc_md=_document(plan),
        schedule=schedule(plan.schedule),
        start_date=start_date(plan),
        catchup=plan.catchup,
        max_active_runs=plan.max_active_runs,
        default_args=task_arguments(plan),
        tags=dag_tags(plan, "backup"),
    ) as dag:
        settle = WindowSettledSensor(
            task_id="settle",
            force=from_run(dag, "force"),
            accept_clock=from_run(dag, "accept_clock"),
            only_params=True,
            timeout=waiting_timeout(plan),
            doc_md=SETTLE,
            **common,
        )
        export = ExportWindowOperator(
            task_id="export",
            force=from_run(dag, "force"),
            accept_expired=from_run(dag, "accept_expired"),
            accept_shrink=from_run(dag, "accept_shrink"),
            accept_missing=from_run(dag, "accept_missing"),
            accept_clock=from_run(dag, "accept_clock"),
            doc_md=EXPORT,
            **common,
            **work_arguments(plan),
        )
        verify = VerifyBackupOperator(
            task_id="verify",
            ref="{{ ti.xcom_pull(task_ids='export')['ref'] }}",
            created="{{ ti.xcom_pull(task_ids='export')['created'] }}",
            outlets=[Asset(name=backup_dag_id(plan.name), uri=asset_uri(plan.repository, plan.name))],
            doc_md=VERIFY,
            **common,
            **work_arguments(plan),
        )
        settle >> export >> verify
    set_params(dag, _params())
    return dag


def _params() -> dict[str, Param]:
    def allowance(title: str, description: str) -> Param:
        return Param(False, type="boolean", title=title, description=description, section="Allow")

    return {
        "window_start": instant_param(
            "Window start",
            "Back this window up instead of the run's data interval.",
            section="Window",
        ),
        "window_end": instant_param("Window end", "The first instant that no longer belongs to it.", section="Window"),
        "force": allowance("Open window", "Do not wait until the window has settled; it is marked as open."),
        "accept_expired": allowance("Expired window", "Back up a window that is older than the source keeps points."),
        "accept_shrink": allowance("Fewer rows", "Commit a revision with fewer rows than the previous one."),
        "accept_missing": allowance("Missing tables", "Go on when a policy or measurement of the last backup is gone."),
        "accept_clock": allowance("Wrong clock", "Go on although the server's clock differs from all others."),
    }


def _document(plan: Plan) -> str:
    return f"""\
### Backup of `{plan.name}`

{described(plan)}

Each run backs up one window: the time between two ticks of `{plan.schedule}` (UTC), read
{format_duration(plan.settle)} after its end at the earliest, and verified up to `{plan.verify}`.

Fill history with **Backfill**, not with **Trigger** at a date: a manual run at midnight covers the day before, and
occupies the date. One window is filled by **Trigger** with *Window start* and *Window end* (no logical date needed), or
by *Data Interval: Specify Manually*. What has a backup is what the repository says, never the colour of a run:
`influxdb-backup coverage {plan.name}`. The log of `export` lists the gaps with what fills each.
"""
