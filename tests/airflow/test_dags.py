"""Every generated DAG run to its end by Airflow's task runner, against a real server and a repository on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.factory import build_dags
from influxdb_backup.model import VerifyLevel
from influxdb_backup.operators.export import ExportWindowOperator
from tests.airflow.conftest import RunDag
from tests.servers import RunningServer

FIRST_WINDOW = "weather/20260101T000000.000000000Z_20260102T000000.000000000Z"
SECOND = datetime(2026, 1, 2, tzinfo=UTC)
"""a manual run at this instant is about the day before it"""
ROWS = 288
DAYS = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}


@pytest.fixture
def dags(config_path: str) -> dict[str, Any]:
    """The DAGs of the plan ``weather``."""
    return dict(build_dags(config_path))


@pytest.fixture
def repository(config_path: str) -> Repository:
    """The plan's repository."""
    return Repository.open(open_store(f"file://{Path(config_path).parent}/repository"))


@pytest.fixture
def backed_up(dags: dict[str, Any], run_dag: RunDag, repository: Repository) -> Repository:
    """The repository with a backup of the first day."""
    assert run_dag(dags["influxdb_backup__weather"], SECOND).state == "success"
    return repository


def _rows(server: RunningServer, database: str) -> int:
    answer: Any = server.query('SELECT count(temperature) FROM "autogen"."weather"', db=database)
    series = answer["results"][0].get("series")
    return int(series[0]["values"][0][1]) if series else 0


def test_backup(dags: dict[str, Any], run_dag: RunDag, repository: Repository) -> None:
    """A run backs its data interval up, verifies it, is labelled by the result, passes ids and counts on, and is in the manifest."""
    run = run_dag(dags["influxdb_backup__weather"], SECOND)

    assert run.states() == {"settle": "success", "export": "success", "verify": "success"}
    ref = repository.ref("weather@latest")
    exported, verified = run.result("export"), run.result("verify")
    assert ref.id == f"{FIRST_WINDOW}/000000"
    assert (exported["ref"], exported["manifest"], exported["rows"]) == (ref.id, ref.manifest, ROWS)
    assert (exported["created"], exported["gaps"] > 0, exported["unreadable"]) == (True, True, 0)
    assert (verified["ref"], verified["level"], verified["rows"]) == (ref.id, "valid", ROWS)
    tool = repository.manifest(ref).tool
    assert (tool.dag_id, tool.run_id) == ("influxdb_backup__weather", run.run_id)
    assert all(isinstance(value, str | int | float | bool) for value in [*exported.values(), *verified.values()])
    assert run.labels("export")[0].startswith(f"2026-01-01 · {ROWS} rows · ")
    assert run.labels("verify")[0].startswith(f"valid · {ROWS} rows · ")


def test_mapped_tasks_show_their_plan(config_path: str, run_dag: RunDag) -> None:
    """A task that is mapped over plans is labelled with the plan in Airflow's page, not with an index."""
    from airflow.sdk import DAG, CronDataIntervalTimetable

    with DAG("mapped", schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"), start_date=SECOND) as dag:
        ExportWindowOperator.partial(task_id="export", config_path=config_path).expand(plan=["weather"])
    run = run_dag(dag, SECOND)

    assert run.state == "success"
    assert run.labels("export")[0].startswith(f"weather · 2026-01-01 · {ROWS} rows · ")


def test_backup_event_carries_the_digest(dags: dict[str, Any], run_dag: RunDag, backed_up: Repository) -> None:
    """A verified backup is an asset event with window, rows and the manifest's digest; no new backup is no event."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        assert session.scalars(select(AssetModel.uri)).all() == ["influxdb-backup://primary/weather"]
        events = session.scalars(select(AssetEvent).order_by(AssetEvent.id)).all()
        extra = dict(events[-1].extra)
    ref = backed_up.ref("weather@latest")

    assert (extra["manifest"], extra["rows"], extra["bytes"]) == (ref.manifest, ref.rows, ref.bytes)
    assert (extra["window_start"], extra["window_end"]) == (DAYS["start"], DAYS["end"])
    assert (extra["revision"], extra["open"], extra["created"]) == (0, False, True)
    before = len(events)
    assert run_dag(dags["influxdb_backup__weather"], datetime(2026, 1, 2, 13, tzinfo=UTC)).state == "success"
    with create_session() as session:
        assert len(session.scalars(select(AssetEvent)).all()) == before


def test_backup_again_commits_nothing(dags: dict[str, Any], run_dag: RunDag, backed_up: Repository) -> None:
    """Clearing a run, or a second manual run of the same day, finds that everything is there already."""
    run = run_dag(dags["influxdb_backup__weather"], datetime(2026, 1, 2, 13, tzinfo=UTC))

    assert run.result("export")["created"] is False
    assert len(backed_up.refs("weather")) == 1


def test_backup_of_a_window_from_the_form(dags: dict[str, Any], run_dag: RunDag, repository: Repository) -> None:
    """The window of the form wins, also where Airflow gives no data interval at all."""
    run = run_dag(
        dags["influxdb_backup__weather"], window_start="2026-01-02T06:00:00Z", window_end="2026-01-02T12:00:00Z"
    )

    assert run.state == "success"
    assert repository.ref("weather@latest").id == "weather/20260102T060000.000000000Z_20260102T120000.000000000Z/000000"


def test_backup_of_less_than_before_from_the_form(
    dags: dict[str, Any], run_dag: RunDag, repository: Repository, influx1: RunningServer, weather: str
) -> None:
    """The form's three allowances reach the export, which refuses without them."""
    influx1.write(f"wind v=1 {1_767_225_600 * 10**9}", weather)
    assert run_dag(dags["influxdb_backup__weather"], SECOND).state == "success"
    influx1.query("DROP MEASUREMENT wind", db=weather)
    influx1.query(f'ALTER RETENTION POLICY "autogen" ON "{weather}" DURATION 1d SHARD DURATION 1h')
    window = {"window_start": DAYS["start"], "window_end": DAYS["end"]}
    assert run_dag(dags["influxdb_backup__weather"], **window).state == "failed"
    allowed = run_dag(
        dags["influxdb_backup__weather"], **window, accept_expired=True, accept_missing=True, accept_shrink=True
    )
    assert allowed.state == "success"
    assert repository.ref(FIRST_WINDOW).revision == 1


def test_drill(dags: dict[str, Any], run_dag: RunDag, backed_up: Repository, influx1: RunningServer) -> None:
    """A drill restores, compares, runs the checks, keeps its report, and leaves no database behind."""
    before = influx1.query("SHOW DATABASES")
    run = run_dag(dags["influxdb_drill__weather"], SECOND)

    assert run.states() == {"drill": "success", "drop_scratch": "success"}
    result = run.result("drill")
    assert (result["ref"], result["rows"], result["checks"]) == (f"{FIRST_WINDOW}/000000", ROWS, 1)
    assert run.result("drop_scratch") == {"dropped": []}
    assert influx1.query("SHOW DATABASES") == before


def test_drill_of_a_damaged_backup_fails(dags: dict[str, Any], run_dag: RunDag, backed_up: Repository) -> None:
    """One changed byte fails the run, although the teardown succeeds."""
    _damage(backed_up)
    run = run_dag(dags["influxdb_drill__weather"], SECOND)

    assert run.state == "failed"
    assert run.states() == {"drill": "failed", "drop_scratch": "success"}


def test_a_damaged_backup_is_made_again(dags: dict[str, Any], run_dag: RunDag, backed_up: Repository) -> None:
    """A window that was damaged since its export is exported again, as a revision of its own that holds."""
    _damage(backed_up)
    run = run_dag(dags["influxdb_backup__weather"], SECOND)

    assert run.states() == {"settle": "success", "export": "success", "verify": "success"}
    revisions = [
        ref for ref in backed_up.refs("weather") if ref.id.split("/")[1] == run.result("export")["ref"].split("/")[1]
    ]
    assert [verify_ref(backed_up, ref, VerifyLevel.VALID).ok for ref in revisions] == [False, True]


def _damage(repository: Repository) -> None:
    part = next(Path(repository.url.removeprefix("file://"), "data").rglob("*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.chmod(0o644)
    part.write_bytes(content)


def test_restore_is_a_dry_run_unless_told(
    dags: dict[str, Any], run_dag: RunDag, backed_up: Repository, influx1: RunningServer, database: str
) -> None:
    """The form as it stands changes nothing and tells what it would do."""
    run = run_dag(dags["influxdb_restore__weather"], target_database=f"{database}_copy", **DAYS)

    assert run.states() == {"guard": "success", "restore": "success"}
    result = run.result("restore")
    assert (result["dry_run"], result["rows"], result["tables"]) == (True, ROWS, 1)
    assert run.labels("restore") == [f"DRY RUN -> {database}_copy: {ROWS} rows, nothing written"]
    assert f"{database}_copy" not in str(influx1.query("SHOW DATABASES"))


def test_restore_of_one_backup_from_the_form(
    dags: dict[str, Any], run_dag: RunDag, backed_up: Repository, influx1: RunningServer, database: str
) -> None:
    """A backup that the form names needs no range, and is the only one that is read."""
    copy = f"{database}_copy"
    run = run_dag(
        dags["influxdb_restore__weather"], target_database=copy, confirm=copy, dry_run=False, refs=["2026-01-01#0"]
    )

    assert run.result("restore")["backups"] == [f"{FIRST_WINDOW}/000000"]
    assert _rows(influx1, copy) == ROWS


def test_salvage_from_the_form(dags: dict[str, Any], run_dag: RunDag, backed_up: Repository, database: str) -> None:
    """A damaged backup is restored only when salvage is asked for, and the label says that rows are lost."""
    _damage(backed_up)
    copy = f"{database}_copy"
    conf = {"target_database": copy, "confirm": copy, "dry_run": False, **DAYS}
    assert run_dag(dags["influxdb_restore__weather"], **conf).states()["restore"] == "failed"
    run = run_dag(dags["influxdb_restore__weather"], salvage=True, **conf)

    assert run.states()["restore"] == "success"
    assert run.result("restore")["lost"] > 0
    assert " LOST" in run.labels("restore")[0]


def test_a_dry_run_into_production_is_green_and_says_that_it_would_be_refused(
    dags: dict[str, Any], run_dag: RunDag, backed_up: Repository, influx1: RunningServer, database: str
) -> None:
    """The form as it stands aims at the source, which has points: the answer is an answer, not a failed task."""
    run = run_dag(dags["influxdb_restore__weather"], **DAYS)

    assert run.states() == {"guard": "success", "restore": "success"}
    result = run.result("restore")
    assert (result["dry_run"], result["refused"], result["target_database"]) == (True, ["target-not-empty"], database)


def test_restore(
    dags: dict[str, Any], run_dag: RunDag, backed_up: Repository, influx1: RunningServer, database: str
) -> None:
    """A confirmed restore writes the points into the other database."""
    copy = f"{database}_copy"
    run = run_dag(dags["influxdb_restore__weather"], target_database=copy, confirm=copy, dry_run=False, **DAYS)

    assert run.state == "success"
    assert run.result("restore")["rows"] == ROWS
    assert _rows(influx1, copy) == ROWS


def test_restore_with_filters(
    dags: dict[str, Any], run_dag: RunDag, backed_up: Repository, influx1: RunningServer, database: str
) -> None:
    """Lists, mappings and numbers of the form reach the restore as what they are."""
    copy = f"{database}_copy"
    run = run_dag(
        dags["influxdb_restore__weather"],
        target_database=copy, confirm=copy, dry_run=False,
        start="2026-01-01T06:00:00Z", end="2026-01-01T12:00:00Z",
        measurements=["weather"], tags={"city": "a"}, max_rejects=0, on_conflict="merge",
    )  # fmt: skip

    assert run.state == "success"
    assert _rows(influx1, copy) == 36


def test_restore_over_a_gap_from_the_form(dags: dict[str, Any], run_dag: RunDag, backed_up: Repository) -> None:
    """A range with a gap would be refused, unless the form allows it; the label of the dry run says so."""
    conf = {"start": DAYS["start"], "end": "2026-01-03T00:00:00Z", "target_database": "x"}
    refused = run_dag(dags["influxdb_restore__weather"], **conf)
    assert refused.labels("restore") == ["DRY RUN -> x: would be REFUSED (gap), nothing written"]
    assert run_dag(dags["influxdb_restore__weather"], **conf, allow_gaps=True).result("restore")["rows"] == ROWS


@pytest.mark.parametrize(
    "conf",
    [
        pytest.param({**DAYS, "dry_run": False, "target_database": "x", "confirm": "y"}, id="wrong confirm"),
        pytest.param({**DAYS, "dry_run": False, "target_databse": "x", "confirm": "x"}, id="unknown key"),
        pytest.param({"dry_run": True}, id="no range"),
    ],
)
def test_restore_is_guarded(
    dags: dict[str, Any], run_dag: RunDag, backed_up: Repository, influx1: RunningServer, conf: dict[str, Any]
) -> None:
    """A run that is not meant as it stands ends in the guard, before anything is read."""
    before = influx1.query("SHOW DATABASES")
    run = run_dag(dags["influxdb_restore__weather"], **conf)

    assert run.states() == {"guard": "failed", "restore": "upstream_failed"}
    assert influx1.query("SHOW DATABASES") == before


@pytest.mark.parametrize(
    ("dag", "conf", "first"),
    [
        ("influxdb_backup__weather", {"window_strat": "2026-01-01T00:00:00Z"}, "settle"),
        ("influxdb_drill__weather", {"reff": FIRST_WINDOW}, "drill"),
    ],
)
def test_unknown_keys_of_a_run_are_refused(
    dags: dict[str, Any], run_dag: RunDag, repository: Repository, dag: str, conf: dict[str, Any], first: str
) -> None:
    """A mistyped key of a backup or drill fails the run: ignored, another window or backup would be taken."""
    assert run_dag(dags[dag], SECOND, **conf).states()[first] == "failed"
    assert not repository.refs("weather")


def test_restore_over_points_is_refused(
    dags: dict[str, Any], run_dag: RunDag, backed_up: Repository, influx1: RunningServer, database: str
) -> None:
    """A restore into the source itself meets its points and writes nothing, without a retry."""
    run = run_dag(dags["influxdb_restore__weather"], confirm=database, dry_run=False, **DAYS)

    assert run.states()["restore"] == "failed"
    assert _rows(influx1, database) == 3 * ROWS
