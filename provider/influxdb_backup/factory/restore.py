"""The restore DAG: a form, a guard, and the restore. Started by hand only."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from influxdb_backup.config.model import Plan
from influxdb_backup.factory.common import (
    dag_tags,
    described,
    from_run,
    instant_param,
    set_params,
    start_date,
    task_arguments,
    work_arguments,
)
from influxdb_backup.factory.names import restore_dag_id
from influxdb_backup.operators.guard import RestoreGuardOperator
from influxdb_backup.operators.restore import RestoreOperator

_PASSED_ON = (
    "start", "end", "retention_policies", "measurements", "tags", "target_connection", "target_database",
    "target_retention_policy", "on_conflict", "retention", "allow_gaps", "max_rejects", "unsigned_as_integer",
    "fingerprints", "writer", "dry_run",
)  # fmt: skip


def restore_dag(plan: Plan, config_path: str) -> DAG:
    """The DAG that restores from a plan's backups. A retry of its task continues the same restore."""
    with DAG(
        restore_dag_id(plan.name),
        description=f"Restore a range of {plan.name}. A dry run unless told otherwise.",
        doc_md=_document(plan),
        schedule=None,
        start_date=start_date(plan),
        max_active_runs=1,
        default_args=task_arguments(plan),
        tags=dag_tags(plan, "restore"),
    ) as dag:
        guard = RestoreGuardOperator(task_id="guard", database=plan.database, retries=0)
        restore = RestoreOperator(
            task_id="restore",
            config_path=config_path,
            plan=plan.name,
            **{name: from_run(dag, name) for name in _PASSED_ON},
            **work_arguments(plan),
        )
        guard >> restore
    set_params(dag, _params(plan))
    return dag


def _text(title: str, description: str, section: str) -> Param:
    return Param(None, type=["null", "string"], minLength=1, title=title, description=description, section=section)


def _names(title: str, description: str) -> Param:
    return Param(
        None, type=["null", "array"], items={"type": "string"}, title=title, description=description, section="What"
    )


def _choice(values: list[str], title: str, description: str) -> Param:
    return Param(values[0], type="string", enum=values, title=title, description=description, section="Rules")


def _params(plan: Plan) -> dict[str, Param]:
    return {
        "start": instant_param("Start", "RFC 3339 with a zone."),
        "end": instant_param("End", "The first instant that is not restored."),
        "dry_run": Param(
            True, type="boolean", title="Dry run", description="Only tell what would be read, created and written."
        ),
        "confirm": Param(
            None,
            type=["null", "string"],
            title="Confirm",
            description_md="Needed when *dry run* is off: type the name of the database that is written to.",
        ),
        "retention_policies": _names("Retention policies", "One a line; all when empty."),
        "measurements": _names("Measurements", "One a line; all when empty."),
        "tags": Param(
            None,
            type=["null", "object"],
            additionalProperties={"type": "string"},
            title="Tags",
            description='Only points with these tag values: {"host": "a"}.',
            section="What",
        ),
        "target_connection": _text("Connection", f"Server to write to; {plan.connection} when empty.", "Target"),
        "target_database": _text("Database", f"Database to write to; {plan.database} when empty.", "Target"),
        "target_retention_policy": _text("Retention policy", "Policy to write to; the source's when empty.", "Target"),
        "on_conflict": _choice(
            ["fail", "merge"], "Points in the target", "fail refuses a target that has points in the range."
        ),
        "retention": _choice(
            ["fail", "widen", "drop-points"], "Points older than the target keeps",
            "widen keeps the target's points for ever, drop-points leaves the old ones out.",
        ),
        "allow_gaps": Param(
            False, type="boolean", title="Allow gaps", description="Restore although backups are missing.",
            section="Rules",
        ),
        "max_rejects": Param(
            0, type="integer", minimum=0, title="Rejects", description="Points the target may refuse.", section="Rules"
        ),
        "unsigned_as_integer": Param(
            False, type="boolean", title="Unsigned as integer",
            description="Write unsigned fields as integers, for a 1.x target.", section="Rules",
        ),
        "fingerprints": Param(
            False, type="boolean", title="Fingerprints",
            description="Read everything back, too, and compare it with the archive to the bit.", section="Rules",
        ),
        "writer": _choice(
            ["auto", "lines", "shard"], "Writer",
            "shard writes whole shards into a new database, lines line protocol; auto takes shards where it can.",
        ),
    }  # fmt: skip


def _document(plan: Plan) -> str:
    return f"""\
### Restore of `{plan.name}`

{described(plan)}

1. Trigger it with start and end, *dry run* on, and read in the log of `restore` what it would do.
2. Trigger it again with *dry run* off and the name of the written database in *confirm*.

A range is put together from all backups that reach into it; per instant the newest read wins. A target that has
points in the range is refused unless *merge* is chosen. When the task failed for a reason that may pass, or was marked
failed, clear it: that continues the same restore, where a new run would find its points and refuse them.
"""
