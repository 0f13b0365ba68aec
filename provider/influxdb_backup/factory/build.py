"""Which DAGs a configuration has, and which of them are built now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from airflow.sdk import DAG, get_parsing_context

from influxdb_backup.config.load import load
from influxdb_backup.config.model import Config, Plan
from influxdb_backup.factory.backup import backup_dag
from influxdb_backup.factory.drill import drill_dag
from influxdb_backup.factory.names import backup_dag_id, drill_dag_id, restore_dag_id
from influxdb_backup.factory.restore import restore_dag

Builder = Callable[[Plan, str], DAG]


def build(path: str | Path) -> dict[str, DAG]:
    """All DAGs of the file in order of their ids, or the one that a worker is asking for."""
    wanted = get_parsing_context().dag_id
    return {
        dag_id: builder(plan, str(path))
        for dag_id, (builder, plan) in sorted(_builders(load(path)).items())
        if wanted is None or dag_id == wanted
    }


def _builders(config: Config) -> dict[str, tuple[Builder, Plan]]:
    builders: dict[str, tuple[Builder, Plan]] = {}
    for name, plan in config.plans.items():
        builders[backup_dag_id(name)] = (backup_dag, plan)
        builders[restore_dag_id(name)] = (restore_dag, plan)
        if plan.drill is not None:
            builders[drill_dag_id(name)] = (drill_dag, plan)
    return builders
