"""DAGs from the YAML file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from influxdb_backup.errors import ConfigError
from influxdb_backup.factory import build_dags
from influxdb_backup.factory.common import INSTANT_PATTERN

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "dags" / "influxdb_backup.yaml"
FULL = """\
repositories:
  primary: {url: "file:///srv/backups"}
plans:
  orders_hot:
    database: orders
    retention_policies: [two_weeks]
    measurements: [orders, payments]
    connection: influx_orders
    schedule: "0 * * * *"
    start: 2026-01-01T00:00:00Z
    catchup: true
    drill: {schedule: "0 6 * * 0", pick: random}
    airflow:
      {pool: influx, queue: heavy, retries: 5, execution_timeout: 6h, owner: storage, tags: [hot], max_active_runs: 3}
  telemetry:
    database: telemetry
"""


@pytest.fixture
def dags(folder: Path) -> dict[str, Any]:
    """The DAGs of two plans."""
    (folder / "plans.yaml").write_text(FULL)
    return dict(build_dags(folder / "plans.yaml"))


def test_ids(dags: dict[str, Any]) -> None:
    """Each plan has a backup and a restore DAG, and a drill DAG where it has a drill, in order of their ids."""
    assert list(dags) == [
        "influxdb_backup__orders_hot",
        "influxdb_backup__telemetry",
        "influxdb_drill__orders_hot",
        "influxdb_restore__orders_hot",
        "influxdb_restore__telemetry",
    ]
    assert all(dag_id == dag.dag_id for dag_id, dag in dags.items())


def test_backup_chain(dags: dict[str, Any]) -> None:
    """A backup run is settle, export, verify, and the verified backup is an asset."""
    dag = dags["influxdb_backup__orders_hot"]

    assert [task.task_id for task in dag.topological_sort()] == ["settle", "export", "verify"]
    assert dag.get_task("verify").upstream_task_ids == {"export"}
    assert dag.get_task("export").upstream_task_ids == {"settle"}
    assert [outlet.uri for outlet in dag.get_task("verify").outlets] == ["influxdb-backup://primary/orders_hot"]
    assert dag.get_task("settle").reschedule


def test_airflow_settings_are_passed_on(dags: dict[str, Any]) -> None:
    """Everything under ``airflow:`` reaches the DAG and its tasks."""
    dag = dags["influxdb_backup__orders_hot"]
    export = dag.get_task("export")

    assert (dag.max_active_runs, dag.catchup, dag.tags) == (3, True, {"influxdb_backup", "backup", "hot"})
    assert dag.start_date.isoformat() == "2026-01-01T00:00:00+00:00"
    assert (export.pool, export.queue, export.retries, export.owner) == ("influx", "heavy", 5, "storage")
    assert export.execution_timeout.total_seconds() == 6 * 3600
    assert dag.get_task("settle").execution_timeout is None
    assert dag.get_task("settle").pool == "default_pool"
    assert dag.get_task("settle").timeout == 7 * 86_400
    assert dags["influxdb_backup__telemetry"].catchup is False


def test_as_many_runs_as_windows_wait(folder: Path) -> None:
    """A window of ten minutes that settles for half an hour has a run while the two after it wait as well."""
    (folder / "plans.yaml").write_text(
        FULL.replace("database: telemetry", "database: telemetry\n    schedule: '*/10 * * * *'")
    )

    assert build_dags(folder / "plans.yaml")["influxdb_backup__telemetry"].max_active_runs == 4


def test_schedules_have_real_intervals_in_utc(dags: dict[str, Any]) -> None:
    """The crons of the YAML become timetables of true data intervals in UTC; restores are never scheduled."""
    for kind, cron in (("backup", "0 * * * *"), ("drill", "0 6 * * 0")):
        timetable = dags[f"influxdb_{kind}__orders_hot"].timetable
        assert type(timetable).__name__ == "CronDataIntervalTimetable"
        assert timetable.expression == cron
        assert str(timetable.timezone) == "UTC" or timetable.timezone.name == "UTC"
    assert type(dags["influxdb_restore__orders_hot"].timetable).__name__ == "NullTimetable"


def test_drill_drops_in_a_teardown(dags: dict[str, Any]) -> None:
    """The scratch is dropped whatever happens to the drill, and the run's state stays the drill's."""
    dag = dags["influxdb_drill__orders_hot"]
    drop = dag.get_task("drop_scratch")

    assert drop.is_teardown
    assert not drop.on_failure_fail_dagrun
    assert drop.upstream_task_ids == {"drill"}
    assert dag.max_active_runs == 1


def test_restore_form(dags: dict[str, Any]) -> None:
    """The form is a dry run by default, one at a time, and every param has a default that its own schema accepts."""
    dag = dags["influxdb_restore__telemetry"]

    assert dag.params["dry_run"] is True
    assert dag.max_active_runs == 1
    assert dag.get_task("guard").retries == 0
    for built in dags.values():
        built.params.validate()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start", "not-a-date"),
        ("start", "2026-1-1"),
        ("end", "2026-01-01T00:00:00"),
        ("on_conflict", "overwrite"),
        ("retention", "ignore"),
        ("max_rejects", -1),
        ("tags", {"host": 1}),
        ("dry_run", "no"),
        ("target_database", ""),
    ],
)
def test_restore_form_refuses(dags: dict[str, Any], name: str, value: object) -> None:
    """What the form cannot mean is refused when the run is created, not hours later."""
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        dags["influxdb_restore__telemetry"].params[name] = value


def test_wrong_times_are_answered_in_words(dags: dict[str, Any]) -> None:
    """The form has a picker for times, takes a date alone, and answers a wrong text with examples of right ones."""
    from airflow.sdk.exceptions import ParamValidationError

    dag = dags["influxdb_restore__telemetry"]
    assert dag.params.get_param("start").schema["format"] == "date-time"
    assert all(
        "examples" not in found.params.get_param(name).schema for found in dags.values() for name in found.params
    )
    assert re.search(INSTANT_PATTERN, "2026-01-31")
    with pytest.raises(
        ParamValidationError, match=r"^Invalid input for param start: '31\.1\.2026' (is not|does not match)"
    ):
        dag.params["start"] = "31.1.2026"
    words = r"does not match '\(\?#a date, or a time with its zone: 2026-01-31 or 2026-01-31T06"
    with pytest.raises(jsonschema.ValidationError, match=words):
        jsonschema.validate("31.1.2026", {"pattern": INSTANT_PATTERN})


def test_confirm_stands_below_the_target(dags: dict[str, Any]) -> None:
    """What is typed again stands below what is typed, in the same section; choices are sentences."""
    params = dags["influxdb_restore__telemetry"].params
    order = list(params)
    assert order.index("target_database") < order.index("confirm")
    assert {params.get_param(name).schema.get("section") for name in ("confirm", "target_database", "dry_run")} == {
        None
    }
    for name in ("on_conflict", "retention", "writer"):
        schema = params.get_param(name).schema
        assert list(schema["values_display"]) == schema["enum"]


def test_every_task_says_what_it_does(dags: dict[str, Any]) -> None:
    """The page has a text for each task."""
    assert all(task.doc_md for dag in dags.values() for task in dag.tasks)


def _serialised(path: Path, seed: str) -> str:
    program = (
        "import json, sys\n"
        "from influxdb_backup.factory import build_dags\n"
        "from airflow.serialization.serialized_objects import DagSerialization\n"
        "dags = build_dags(sys.argv[1])\n"
        "print(json.dumps({dag_id: DagSerialization.to_dict(dag) for dag_id, dag in dags.items()}, sort_keys=True))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "provider")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def test_parses_are_identical(folder: Path) -> None:
    """Two parses in processes with different hash seeds serialise to the same bytes: no needless DAG versions."""
    (folder / "plans.yaml").write_text(FULL)
    first, second = (_serialised(folder / "plans.yaml", seed) for seed in ("1", "2"))

    assert json.loads(first)
    assert first == second


def test_only_the_wanted_dag_is_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that parses the file for one DAG does not pay for the others."""
    (folder / "plans.yaml").write_text(FULL)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "influxdb_drill__orders_hot")

    assert list(build_dags(folder / "plans.yaml")) == ["influxdb_drill__orders_hot"]


def test_wrong_file_raises_while_parsing(folder: Path) -> None:
    """A wrong key is an import error that names file, key and what is allowed; no plan vanishes in silence."""
    (folder / "plans.yaml").write_text(FULL.replace("database: telemetry", "database: telemetry\n    shedule: x"))

    with pytest.raises(ConfigError, match=r"plans\.yaml, line \d+: plans\.telemetry\.shedule: unknown key.*'schedule'"):
        build_dags(folder / "plans.yaml")


def test_example_dag_file_is_found_by_airflow(folder: Path, metadata_database: None) -> None:
    """The loader and the example configuration, copied as they are, give their DAGs to Airflow's own DAG bag."""
    from airflow.dag_processing.dagbag import DagBag

    for source in (ROOT / "dags").iterdir():
        if source.is_file():
            (folder / source.name).write_text(source.read_text())
    bag = DagBag(dag_folder=str(folder), safe_mode=True)

    assert bag.import_errors == {}
    assert set(bag.dags) == {
        "influxdb_backup__telemetry",
        "influxdb_restore__telemetry",
        "influxdb_drill__telemetry",
    }
    assert all(dag.fileloc == str(folder / "influxdb_backup_dags.py") for dag in bag.dags.values())


def test_no_server_is_asked_while_parsing(folder: Path) -> None:
    """Parsing opens no connection: a plan whose server and store do not exist builds like any other."""
    (folder / "plans.yaml").write_text(
        "repositories: {p: {url: 's3://no-such-bucket/x', connection: missing}}\n"
        "plans: {a: {database: x, connection: also_missing}}\n"
    )

    assert len(build_dags(folder / "plans.yaml")) == 2


def test_two_hundred_plans_are_built_in_two_seconds(folder: Path) -> None:
    """200 plans with backup, drill and restore DAGs, built in a process that has imported what it needs."""
    plans = "\n".join(
        f"  plan_{number:03d}: {{database: db{number}, schedule: '0 * * * *', drill: {{schedule: '0 6 * * 0'}}}}"
        for number in range(200)
    )
    (folder / "plans.yaml").write_text(f"repositories: {{p: {{url: 'file:///srv/backups'}}}}\nplans:\n{plans}\n")
    build_dags(EXAMPLE)
    started = time.process_time()
    built = build_dags(folder / "plans.yaml")
    seconds = time.process_time() - started

    assert len(built) == 600
    assert seconds < 2, f"took {seconds:.2f} s of processor time"
