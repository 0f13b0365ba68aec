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
    "start", "end", "refs", "retention_policies", "measurements", "tags", "target_connection", "target_database",
    "target_retention_policy", "on_conflict", "retention", "allow_gaps", "max_rejects", "unsigned_as_integer",
    "fingerprints", "writer", "salvage", "dry_run",
)  # fmt: skip

GUARD = """\
Refuses a run with a field that the form does not have, without a range or backup, or that would write without the name
of the written database in *Confirm*.
"""
RESTORE = """\
Tells in its label and log what a dry run would do, or restores and reads back what arrived. When it failed for a reason
that may pass, clear it: the same restore goes on.
"""


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
        guard = RestoreGuardOperator(task_id="guard", database=plan.database, retries=0, doc_md=GUARD)
        restore = RestoreOperator(
            task_id="restore",
            config_path=config_path,
            plan=plan.name,
            doc_md=RESTORE,
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


def _choice(values: dict[str, str], title: str, description: str) -> Param:
    return Param(
        next(iter(values)),
        type="string",
        enum=list(values),
        values_display=values,
        title=title,
        description=description,
        section="Rules",
    )


def _yes(title: str, description: str) -> Param:
    return Param(False, type="boolean", title=title, description=description, section="Rules")


def _params(plan: Plan) -> dict[str, Param]:
    return {
        "start": instant_param("Start", "Of the range to restore."),
        "end": instant_param("End", "The first instant that is not restored."),
        "refs": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Backups",
            description="Only these, one a line: 2026-01-31 (newest revision), 2026-01-31#0 (one revision), latest, or "
            "an id. The newest read of each instant in the range when empty.",
        ),
        "target_database": Param(
            None,
            type=["null", "string"],
            minLength=1,
            title="Target database",
            description=f"Database to write to; {plan.database} when empty.",
        ),
        "dry_run": Param(
            True, type="boolean", title="Dry run", description="Only tell what would be read, created and written."
        ),
        "confirm": Param(
            None,
            type=["null", "string"],
            title="Confirm",
            description_md="Needed when *Dry run* is off: type the name of the database that is written to.",
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
        "target_retention_policy": _text("Retention policy", "Policy to write to; the source's when empty.", "Target"),
        "on_conflict": _choice(
            {"fail": "Refuse the restore (fail)", "merge": "Write over them, point by point (merge)"},
            "Points in the target",
            "What to do when the target has points in the range.",
        ),
        "retention": _choice(
            {
                "fail": "Refuse the restore (fail)",
                "widen": "Let the target keep points for ever (widen)",
                "drop-points": "Leave the old points out (drop-points)",
            },
            "Points older than the target keeps",
            "What to do when an existing retention policy of the target would drop restored points.",
        ),
        "allow_gaps": _yes("Allow gaps", "Restore although backups are missing."),
        "max_rejects": Param(
            0, type="integer", minimum=0, title="Rejects", description="Points the target may refuse.", section="Rules"
        ),
        "unsigned_as_integer": _yes("Unsigned as integer", "Write unsigned fields as integers, for a 1.x target."),
        "fingerprints": _yes("Fingerprints", "Read everything back, too, and compare it with the archive to the bit."),
        "salvage": _yes("Salvage", "Of damaged parts restore what is whole, and name every lost row."),
        "writer": _choice(
            {
                "auto": "Whole shards where possible (auto)",
                "lines": "Line protocol (lines)",
                "shard": "Whole shards into a new database (shard)",
            },
            "Writer",
            "How points are written.",
        ),
    }


def _document(plan: Plan) -> str:
    return f"""\
### Restore of `{plan.name}`

{described(plan)}

1. Trigger it with start and end, or with *Backups*, *Dry run* on: the label of `restore` says what it would do, and its
   log says it in full.
2. Trigger it again with *Dry run* off and the name of the written database in *Confirm*.

A range is put together from all backups that reach into it; per instant the newest read wins. A target that has
points in the range is refused unless *Points in the target* says to write over them. When the task failed for a reason
that may pass, or was marked failed, clear it: that continues the same restore, where a new run would find its points
and refuse them.
"""
