"""The ids of the generated DAGs and tasks. Other programs rely on them: they do not change."""

from __future__ import annotations

BACKUP = "influxdb_backup__"
RESTORE = "influxdb_restore__"
DRILL = "influxdb_drill__"
TAG = "influxdb_backup"


def backup_dag_id(plan: str) -> str:
    """The DAG that backs each window of a plan up."""
    return BACKUP + plan


def restore_dag_id(plan: str) -> str:
    """The DAG that restores from a plan's backups, started by hand."""
    return RESTORE + plan


def drill_dag_id(plan: str) -> str:
    """The DAG that drills restores of a plan."""
    return DRILL + plan


def asset_uri(repository: str, plan: str) -> str:
    """The asset that stands for the verified backups of a plan."""
    return f"influxdb-backup://{repository}/{plan}"
