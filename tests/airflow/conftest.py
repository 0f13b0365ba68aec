"""A real Airflow 3 in a home of its own; its settings must stand before anything imports it."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RunningServer

if "airflow" in sys.modules:
    raise RuntimeError("Airflow was imported before its home was chosen: no test outside of tests/airflow may do that.")
HOME = Path(tempfile.mkdtemp(prefix="influxdb-backup-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
(HOME / "dags").mkdir()
os.environ.update(
    {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
)

YAML = """\
repositories:
  primary: {{url: "file://{folder}/repository"}}
defaults:
  connection: influx_test
  schedule: "0 0 * * *"
plans:
  weather:
    database: {database}
    start: 2026-01-01T00:00:00Z
    airflow: {{retries: 0, tags: [night]}}
    drill:
      schedule: "0 6 * * 0"
      checks: [{{query: "SELECT count(temperature) FROM weather", min: 1}}]
"""
DAY = 86_400 * 10**9
FIRST = 1_767_225_600 * 10**9
"""2026-01-01T00:00:00Z"""


@pytest.fixture(scope="session")
def metadata_database() -> None:
    """Airflow's own database, made once."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def weather(influx1: RunningServer, database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with three days of ten-minute points, and the Airflow connection ``influx_test`` to its server."""
    influx1.create_database(database)
    lines = [
        f"weather,city={city} temperature={index / 10},wet={'true' if index % 2 else 'false'},count={index}i {time}"
        for city in ("a", "b")
        for index, time in enumerate(range(FIRST, FIRST + 3 * DAY, 600 * 10**9))
    ]
    influx1.write("\n".join(lines), database)
    host, _, port = influx1.url.removeprefix("http://").partition(":")
    monkeypatch.setenv("AIRFLOW_CONN_INFLUX_TEST", f"influxdb-backup://{host}:{port}")
    return database


@pytest.fixture
def config_path(folder: Path, weather: str) -> str:
    """A configuration with one plan over the weather, and its repository on disk."""
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.archive.store import open_store

    (folder / "repository").mkdir()
    Repository.init(open_store(f"file://{folder}/repository"))
    path = folder / "influxdb_backup.yaml"
    path.write_text(YAML.format(folder=folder, database=weather))
    return str(path)


def register(dag: Any) -> None:
    """Puts a DAG into Airflow's database as the DAG processor does; ``dag.test()`` needs that."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
        session.commit()
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db("dags-folder", None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, bundle_name="dags-folder", session=session)


class Run:
    """A finished run of ``dag.test()``."""

    def __init__(self, dag_run: Any) -> None:
        self.state = str(dag_run.state)
        self.run_id = dag_run.run_id
        self._dag_run = dag_run

    def states(self) -> dict[str, str]:
        """State by task."""
        return {task.task_id: str(task.state) for task in self._dag_run.get_task_instances()}

    def labels(self, task_id: str) -> list[str | None]:
        """What the page calls each mapped instance of a task."""
        return [task.rendered_map_index for task in self._dag_run.get_task_instances() if task.task_id == task_id]

    def result(self, task_id: str, key: str = "return_value") -> Any:
        """What a task pushed to XCom."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            found = session.scalars(
                XComModel.get_many(
                    run_id=self.run_id, key=key, task_ids=task_id, dag_ids=self._dag_run.dag_id
                ).with_only_columns(XComModel)
            ).first()
            return None if found is None else XComModel.deserialize_value(found)


RunDag = Callable[..., Run]


@pytest.fixture
def run_dag(metadata_database: None) -> Iterator[RunDag]:
    """Runs a DAG to its end in this process: all of Airflow's task runner, without a scheduler."""

    def run(dag: Any, logical_date: datetime | None = None, **conf: Any) -> Run:
        register(dag)
        return Run(dag.test(logical_date=logical_date, run_conf=conf or None))

    yield run
