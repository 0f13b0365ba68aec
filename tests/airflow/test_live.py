"""A live Airflow: API server, scheduler, DAG processor and task processes, driven over its REST API only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.airflow_stack import AirflowStack
from demo.processes import Processes
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from tests.airflow.conftest import DAY, FIRST, YAML
from tests.servers import RunningServer

ROOT = Path(__file__).parents[2]
BACKUP, DRILL, RESTORE = (f"influxdb_{kind}__weather" for kind in ("backup", "drill", "restore"))


@pytest.fixture
def live(folder: Path, influx1: RunningServer, database: str) -> Iterator[AirflowStack]:
    """A stack with the plan ``weather`` over three days of points and its connection."""
    influx1.create_database(database)
    influx1.write(
        "\n".join(f"weather,city=a temperature={time / 1e18} {time}" for time in range(FIRST, FIRST + 3 * DAY, 10**12)),
        database,
    )
    (folder / "repository").mkdir()
    Repository.init(open_store(f"file://{folder}/repository"))
    processes = Processes(folder / "processes")
    stack = AirflowStack(folder / "airflow", processes)
    stack.dags.mkdir(parents=True)
    (stack.dags / "influxdb_backup_dags.py").write_text((ROOT / "dags" / "influxdb_backup_dags.py").read_text())
    (stack.dags / "influxdb_backup.yaml").write_text(YAML.format(folder=folder, database=database))
    try:
        stack.start()
        stack.wait()
        host, _, port = influx1.url.removeprefix("http://").partition(":")
        server: dict[str, Any] = {"host": host, "port": int(port)}
        assert stack.test_connection("influx_test", "influxdb_backup", **server)[0]
        stack.create_connection("influx_test", "influxdb_backup", **server)
        stack.wait_for_dags(BACKUP, DRILL, RESTORE)
        yield stack
    finally:
        processes.stop()


def test_backfill_drill_restore(live: AirflowStack, folder: Path, influx1: RunningServer, database: str) -> None:
    """Three days are filled by a backfill, a drill proves one of them, and a restore brings one into a new database."""
    live.backfill(BACKUP, "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z")
    live.unpause(BACKUP)
    runs = live.runs(BACKUP, "backfill")
    assert len(runs) == 3
    for run in runs:
        assert live.finish(BACKUP, run["dag_run_id"])["state"] == "success", live.log(
            BACKUP, run["dag_run_id"], "export"
        )
    exported = [live.result(BACKUP, run["dag_run_id"], "export") for run in runs]
    assert [result["window_start"] for result in exported] == [f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3)]
    assert sum(result["rows"] for result in exported) == 260
    repository = Repository.open(open_store(f"file://{folder}/repository"))
    committed = {ref.id for ref in repository.refs("weather")}
    assert {result["ref"] for result in exported} <= committed

    live.unpause(DRILL)
    drill = live.trigger(DRILL, ref=exported[1]["ref"])
    live.unpause(RESTORE)
    copy = f"{database}_copy"
    day = {"start": "2026-01-02T00:00:00Z", "end": "2026-01-03T00:00:00Z"}
    restore = live.trigger(RESTORE, target_database=copy, confirm=copy, dry_run=False, **day)
    assert live.finish(RESTORE, restore)["state"] == "success", live.log(RESTORE, restore, "restore")
    assert live.result(RESTORE, restore, "restore")["rows"] == exported[1]["rows"]
    answer: Any = influx1.query("SELECT count(temperature) FROM weather", db=copy)
    assert answer["results"][0]["series"][0]["values"][0][1] == exported[1]["rows"]
    assert live.finish(DRILL, drill)["state"] == "success", live.log(DRILL, drill, "drill")
    assert live.result(DRILL, drill, "drill")["rows"] == exported[1]["rows"]
    with pytest.raises(RuntimeError, match=r"400|422"):
        live.trigger(RESTORE, start="yesterday", end=day["end"])
