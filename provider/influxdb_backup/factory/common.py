"""What the three kinds of DAGs take from a plan in the same way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from influxdb_backup.config.cron import longest_window
from influxdb_backup.config.model import Plan
from influxdb_backup.factory.names import TAG

START = datetime(2000, 1, 1, tzinfo=UTC)
"""the first date of DAGs whose plan names none; without catchup it only has to be in the past"""
DAY = 86_400.0
WEEK = 7 * DAY
RETRY_DELAY = timedelta(minutes=1)

INSTANT_PATTERN = (
    r"(?#a date, or a time with its zone: 2026-01-31 or 2026-01-31T06:00:00Z)"
    r"^\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|z|[+-]\d{2}:\d{2}))?$"
)
"""
A date, or RFC 3339 with a zone. Airflow's API does not check its own format date-time (unless ``rfc3339-validator`` is
installed: then it refuses dates alone), and answers a wrong text with the pattern, whose comment people read.
"""


def schedule(cron: str | None) -> CronDataIntervalTimetable | None:
    """Real data intervals in UTC. A bare cron string would give intervals of no length."""
    return CronDataIntervalTimetable(cron, timezone="UTC") if cron else None


def start_date(plan: Plan) -> datetime:
    """The plan's start, to the second."""
    return START if plan.start is None else datetime.fromtimestamp(plan.start // 10**9, UTC)


def task_arguments(plan: Plan) -> dict[str, Any]:
    """Arguments of every task of a plan's DAGs."""
    settings = plan.airflow
    arguments: dict[str, Any] = {"owner": settings.owner, "retries": settings.retries, "retry_delay": RETRY_DELAY}
    if settings.queue is not None:
        arguments["queue"] = settings.queue
    return arguments


def work_arguments(plan: Plan) -> dict[str, Any]:
    """Arguments of the tasks that read or write a server or the store: these count in the pool and may take long."""
    settings = plan.airflow
    arguments: dict[str, Any] = {}
    if settings.pool is not None:
        arguments["pool"] = settings.pool
    if settings.execution_timeout is not None:
        arguments["execution_timeout"] = timedelta(microseconds=settings.execution_timeout // 1000)
    return arguments


def waiting_timeout(plan: Plan) -> float:
    """Seconds after which a window that is not settled is a failure: a week, or more than any right one waits."""
    return max(WEEK, (longest_window(plan.schedule) + plan.settle) / 1e9 + DAY)


def dag_tags(plan: Plan, kind: str) -> list[str]:
    """Tags by which the page finds the DAGs."""
    return sorted({TAG, kind, *plan.airflow.tags})


def instant_param(title: str, description: str, **more: Any) -> Param:
    """An optional time in a form with a picker, in a section of it when ``section`` is given."""
    return Param(
        None,
        type=["null", "string"],
        format="date-time",
        pattern=INSTANT_PATTERN,
        title=title,
        description=description,
        **more,
    )


def from_run(dag: DAG, name: str) -> Any:
    """What the run was given for a param, as an operator's argument: it keeps its type, as a template would not."""
    return dag.param(name)


def set_params(dag: DAG, params: dict[str, Param]) -> None:
    """
    Gives a DAG its form, once its tasks are there.

    Given to the DAG at once, Airflow copies every param into every task and checks each with a JSON Schema,
    which is most of the time that hundreds of plans take to build; a run takes the DAG's params either way.
    """
    for name, param in params.items():
        dag.params[name] = param


def described(plan: Plan) -> str:
    """What a plan backs up, for the page."""
    scope = plan.scope
    policies = ", ".join(scope.retention_policies or ()) or "all retention policies"
    measurements = ", ".join(scope.measurements or ()) or "all measurements"
    without = f" without {', '.join(scope.exclude_measurements)}" if scope.exclude_measurements else ""
    return f"Database `{plan.database}` ({policies}; {measurements}{without}), repository `{plan.repository}`."
