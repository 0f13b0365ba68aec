"""One YAML file -> the DAGs of its plans: ``build_dags(path)``. Airflow is imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import DAG


def build_dags(path: str | Path) -> dict[str, DAG]:
    """
    The DAGs of a configuration file by id: a backup and a restore DAG for each plan, a drill DAG where it has a drill.

    A DAG file holds ``globals().update(build_dags(Path(__file__).with_name("influxdb_backup.yaml")))``. When a
    worker parses that file for one DAG, only that DAG is built. Raises ConfigError, which Airflow shows as an
    import error with the file, the key and what is allowed.
    """
    from influxdb_backup.factory.build import build

    return build(path)


__all__ = ["build_dags"]
