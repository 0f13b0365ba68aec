"""Operators and sensors on their own: what they refuse, what is retried, and what a stop leaves behind."""

from __future__ import annotations

import json
import logging
import re
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowFailException

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.config.load import load, loads
from influxdb_backup.errors import ConfigError, InfluxdbBackupError, IntegrityError, UsageError
from influxdb_backup.hooks.influxdb import InfluxdbBackupHook
from influxdb_backup.hooks.repository import RepositoryHook
from influxdb_backup.influx.protocol import LEASE, Mark, new_marked_name
from influxdb_backup.jobs.drills import ScratchStarted
from influxdb_backup.jobs.export import export
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.jobs.verify import verify
from influxdb_backup.messages import MASKER
from influxdb_backup.model import VerifyLevel
from influxdb_backup.operators.base import (
    BackupOperator,
    ShownLog,
    TaskStoppedError,
    backup_of,
    flag,
    folded,
    given,
    identity,
    one_of,
    only_passing_errors_retry,
)
from influxdb_backup.operators.drill import DropScratchOperator, RestoreDrillOperator, drill_prefix
from influxdb_backup.operators.export import ExportWindowOperator
from influxdb_backup.operators.restore import RestoreOperator
from influxdb_backup.operators.verify import VerifyBackupOperator
from influxdb_backup.sensors.fresh import BackupFreshSensor
from influxdb_backup.sensors.settled import WindowSettledSensor, seconds_until
from influxdb_backup.windows import parse_window
from tests.servers import RunningServer, find_influxd1, free_port, start_influxdb1

DAY_ONE = parse_window("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
DAY_ONE_ID = "weather/20260101T000000.000000000Z_20260102T000000.000000000Z/000000"


@pytest.fixture(autouse=True)
def _outside_of_the_task_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)


def _task(run_id: str) -> SimpleNamespace:
    return SimpleNamespace(dag_id="d", run_id=run_id, task_id="t", map_index=-1, try_number=1)


def context(**more: Any) -> dict[str, Any]:
    """What a run of the first day gives its tasks."""
    day = {
        "data_interval_start": datetime(2026, 1, 1, tzinfo=UTC),
        "data_interval_end": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return {"ti": _task("manual__1"), "params": {}, **day, **more}


def _backup(config_path: str) -> tuple[Repository, Any]:
    """A backup of the first day, made without Airflow's operators."""
    config = load(config_path)
    plan = config.plan("weather")
    repository = Repository.open(open_store(config.repositories["primary"].url))
    server = InfluxdbBackupHook("influx_test").server()
    try:
        result = export(plan, DAY_ONE, server=server, repository=repository)
    finally:
        server.close()
    return repository, repository.ref(result.ref)


class TestErrors:
    """Each mistake fails at once, names what is wrong and says what to do."""

    def test_unknown_plan(self, config_path: str) -> None:
        """A plan that the file does not have is answered with the near name."""
        with pytest.raises(AirflowFailException, match=r"no plan 'wether'.*Did you mean 'weather'"):
            ExportWindowOperator(task_id="t", config_path=config_path, plan="wether").execute(context())

    def test_missing_file(self, folder: Path) -> None:
        """A path that is no file is named."""
        with pytest.raises(
            AirflowFailException, match=r"no configuration file .*nowhere\.yaml.*the path in the DAG file"
        ):
            ExportWindowOperator(task_id="t", config_path=str(folder / "nowhere.yaml"), plan="x").execute(context())

    def test_missing_connection(self, config_path: str, metadata_database: None, monkeypatch: Any) -> None:
        """A connection that Airflow does not have is named, with where to create it."""
        monkeypatch.delenv("AIRFLOW_CONN_INFLUX_TEST")

        with pytest.raises(AirflowFailException, match=r"no Airflow connection 'influx_test'.*Admin, Connections"):
            ExportWindowOperator(task_id="t", config_path=config_path, plan="weather").execute(context())

    def test_connection_of_another_kind(self, config_path: str, monkeypatch: Any) -> None:
        """A connection to something else is refused by its type."""
        monkeypatch.setenv("AIRFLOW_CONN_INFLUX_TEST", "postgres://h:1/x")

        with pytest.raises(AirflowFailException, match="'influx_test' has the type 'postgres'"):
            ExportWindowOperator(task_id="t", config_path=config_path, plan="weather").execute(context())

    def test_less_than_before(self, config_path: str, influx1: RunningServer, weather: str) -> None:
        """Points that expired, measurements that are gone and rows that are fewer are allowed one by one."""
        influx1.write(f"wind v=1 {DAY_ONE.start}", weather)
        _backup(config_path)
        influx1.query("DROP MEASUREMENT wind", db=weather)
        allowances = {
            "missing-at-source": "accept_missing",
            "shrunk-window": "accept_shrink",
            "expired-window": "accept_expired",
        }
        for kind, left_out in allowances.items():
            if kind == "expired-window":
                influx1.query(f'ALTER RETENTION POLICY "autogen" ON "{weather}" DURATION 1d SHARD DURATION 1h')
            others = {name: "True" for name in allowances.values() if name != left_out}
            with pytest.raises(AirflowFailException, match=rf"\({kind}\)"):
                ExportWindowOperator(task_id="t", config_path=config_path, plan="weather", **others).execute(context())

    def test_another_database(self, config_path: str) -> None:
        """No operator goes on with the backups of what the plan named before."""
        _backup(config_path)
        path = Path(config_path)
        path.write_text(re.sub(r"database: .*", "database: elsewhere", path.read_text()))
        for operator in (ExportWindowOperator, VerifyBackupOperator, RestoreOperator, RestoreDrillOperator):
            with pytest.raises(AirflowFailException, match="now names 'elsewhere'"):
                operator(task_id="t", config_path=config_path, plan="weather").execute(context())

    def test_missing_repository(self, config_path: str) -> None:
        """A repository that was never made is not made by the way: a wrong URL must not look like a new start."""
        marker = Path(config_path).parent / "repository" / "repository.json"
        marker.chmod(0o644)
        marker.unlink()

        with pytest.raises(AirflowFailException, match="repo init"):
            ExportWindowOperator(task_id="t", config_path=config_path, plan="weather").execute(context())

    def test_wrong_password(self, config_path: str, folder: Path, monkeypatch: Any) -> None:
        """Credentials that the server refuses are not tried again; the connection to correct is named."""
        binary = find_influxd1()
        assert binary is not None
        with start_influxdb1(folder / "locked", binary, auth=True) as server:
            server.query("CREATE USER admin WITH PASSWORD 'right' WITH ALL PRIVILEGES")
            host, _, port = server.url.removeprefix("http://").partition(":")
            monkeypatch.setenv("AIRFLOW_CONN_INFLUX_TEST", f"influxdb-backup://admin:wrong@{host}:{port}")

            with pytest.raises(AirflowFailException, match=r"influx_test.*\(access\)"):
                ExportWindowOperator(task_id="t", config_path=config_path, plan="weather").execute(context())

    def test_half_a_window(self, config_path: str) -> None:
        """A wrong window fails with the field that is missing."""
        with pytest.raises(AirflowFailException, match="no window_end"):
            ExportWindowOperator(task_id="t", config_path=config_path, plan="weather").execute(
                context(params={"window_start": "2026-01-01T00:00:00Z"})
            )

    def test_unknown_level(self, config_path: str) -> None:
        """A verify level that does not exist is answered with those that do."""
        with pytest.raises(AirflowFailException, match=r"'correct' is no verify level.*present, complete, valid"):
            VerifyBackupOperator(task_id="t", config_path=config_path, plan="weather", level="correct").execute(
                context()
            )

    def test_verify_of_nothing(self, config_path: str) -> None:
        """A window without a backup is not a backup that holds."""
        with pytest.raises(AirflowFailException, match="backup-not-found"):
            VerifyBackupOperator(task_id="t", config_path=config_path, plan="weather").execute(context())

    def test_verify_of_a_damaged_backup(self, config_path: str) -> None:
        """A changed byte fails the task for good, and the message names what is wrong."""
        repository, _ = _backup(config_path)
        part = next(Path(repository.url.removeprefix("file://"), "data").rglob("*.parquet"))
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.chmod(0o644)
        part.write_bytes(content)

        with pytest.raises(AirflowFailException, match=r"digest.*\(integrity\)"):
            VerifyBackupOperator(task_id="t", config_path=config_path, plan="weather").execute(context())

    def test_restore_over_a_gap(self, config_path: str) -> None:
        """A range that reaches beyond the backups is refused with the gap, unless gaps are allowed."""
        _backup(config_path)
        range_ = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-03T00:00:00Z", "target_database": "x"}

        def restore(**more: str) -> Any:
            operator = RestoreOperator(
                task_id="t", config_path=config_path, plan="weather", dry_run=True, **range_, **more
            )
            return operator.execute(context())

        assert restore()["refused"] == ["gap"]
        assert (restore(allow_gaps="True")["refused"], restore(allow_gaps="True")["rows"]) == ([], 288)

    def test_restore_of_less_than_the_plan_asks_for(self, config_path: str) -> None:
        """A backup from when the plan asked for fewer measurements is a gap of the plan."""
        path = Path(config_path)
        wide = path.read_text()
        path.write_text(wide.replace("    start: 2026", "    measurements: [weather]\n    start: 2026"))
        _backup(config_path)
        path.write_text(wide)
        operator = RestoreOperator(task_id="t", config_path=config_path, plan="weather", dry_run=True)
        assert operator.execute(context())["refused"] == ["gap", "target-not-empty"]

    @pytest.mark.parametrize(
        ("argument", "words"),
        [
            ({"measurements": "weather"}, r"measurements is 'weather', not a list\. Write \['weather'\]"),
            ({"refs": "weather@latest"}, "refs is 'weather@latest', not a list"),
            ({"tags": "city=a"}, "tags is 'city=a', not a mapping"),
            ({"max_rejects": "some"}, "max_rejects is 'some'"),
        ],
    )
    def test_restore_of_a_text_where_a_list_belongs(
        self, config_path: str, argument: dict[str, Any], words: str
    ) -> None:
        """A single text is not taken for the list of its letters."""
        operator = RestoreOperator(task_id="t", config_path=config_path, plan="weather", dry_run=True, **argument)

        with pytest.raises(AirflowFailException, match=words):
            operator.execute(context())

    def test_drill_of_nothing(self, config_path: str) -> None:
        """A plan without backups cannot pass a drill."""
        with pytest.raises(AirflowFailException, match="no backup"):
            RestoreDrillOperator(task_id="t", config_path=config_path, plan="weather").execute(context())


def test_a_retried_restore_goes_on(config_path: str, influx1: RunningServer, database: str) -> None:
    """The second try of a task is the same restore: it does not meet its own points as a conflict."""
    _backup(config_path)
    operator = RestoreOperator(
        task_id="t", config_path=config_path, plan="weather", target_database=f"{database}_copy",
        start="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00Z",
    )  # fmt: skip
    first, second = operator.execute(context()), operator.execute(context())

    assert (second["restore_id"], second["rows"]) == (first["restore_id"], first["rows"]) == (first["restore_id"], 288)
    with pytest.raises(AirflowFailException, match="target-not-empty"):
        operator.execute(context(ti=_task("manual__2")))


class _Lines(logging.Handler):
    """Keeps what a logger is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if record.levelno >= logging.WARNING:
            self.warnings.append(record.getMessage())


@pytest.fixture
def log_of_tasks(monkeypatch: pytest.MonkeyPatch) -> _Lines:
    """What tasks write into their log."""
    handler, logger = _Lines(), logging.Logger("task", logging.INFO)
    logger.addHandler(handler)
    monkeypatch.setattr(BackupOperator, "log", logger)
    return handler


@pytest.fixture
def told(log_of_tasks: _Lines) -> list[str]:
    """Its lines."""
    return log_of_tasks.lines


def test_an_export_ends_with_the_gaps_of_its_plan(config_path: str, told: list[str]) -> None:
    """Windows that no run made since the plan's start are in the log of every run, each with the command to fill it."""
    second = {
        "data_interval_start": datetime(2026, 1, 2, tzinfo=UTC),
        "data_interval_end": datetime(2026, 1, 3, tzinfo=UTC),
    }
    result = ExportWindowOperator(task_id="t", config_path=config_path, plan="weather").execute(context(**second))
    gaps = [line for line in told if line.startswith("No backup of ")]

    assert result["gaps"] == len(gaps) == 2
    assert gaps[1] == "No backup of 2026-01-01, 1 day."
    one = told[told.index(gaps[1]) + 1]
    assert "Window start 2026-01-01T00:00:00Z and Window end 2026-01-02T00:00:00Z" in one
    assert '--conf \'{"window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-02T00:00:00Z"}\'' in one
    assert '{"logical_date": null, "conf": {"window_start"' in one
    many = told[told.index(gaps[0]) + 1 :]
    assert "in one process, a backup for each: influxdb-backup export weather --start 2026-01-03T" in many[0]
    assert "airflow backfill create --dag-id influxdb_backup__weather --from-date 2026-01-03T00:00:00Z" in many[1]


def test_a_restore_says_what_it_made_of_retentions(
    config_path: str, influx1: RunningServer, weather: str, told: list[str], log_of_tasks: _Lines
) -> None:
    """By default a short policy of the target is refused; what is created for ever, widened or left out is logged."""
    influx1.query(f'ALTER RETENTION POLICY "autogen" ON "{weather}" DURATION 1d SHARD DURATION 1h')
    export_once = ExportWindowOperator(task_id="t", config_path=config_path, plan="weather", accept_expired=True)
    export_once.execute(context())
    short = f"{weather}_short"
    influx1.create_database(short)
    influx1.query(f'ALTER RETENTION POLICY "autogen" ON "{short}" DURATION 1d SHARD DURATION 1h')

    def restored(target: str, run_id: str, **more: Any) -> dict[str, Any]:
        told.clear()
        operator = RestoreOperator(task_id="t", config_path=config_path, plan="weather", target_database=target, **more)
        return operator.execute(context(ti=_task(run_id)))

    restored(f"{weather}_new", "a", dry_run=True)
    assert "keep for ever autogen" in told
    assert restored(f"{weather}_new", "b", fingerprints=True)["rows"] == 288
    assert "Created autogen to keep points for ever: the source's duration would drop them." in told
    assert any(line.endswith("counts and fingerprints were read back.") for line in told)
    with pytest.raises(AirflowFailException, match="retention-would-drop"):
        restored(short, "c")
    restored(short, "d", retention="drop-points")
    assert "Not written: 288 points older than the target keeps." in told
    restored(short, "e", retention="widen", end="2026-01-03T00:00:00Z", start="2026-01-01T00:00:00Z", allow_gaps=True)
    assert "Widened autogen: it existed, and now keeps points for ever." in told
    assert "Not restored: no backup of 2026-01-02T00:00:00Z to 2026-01-03T00:00:00Z." in log_of_tasks.warnings


def test_a_2x_backup_goes_to_1x_with_unsigned_fields_as_integers(
    config_path: str, weather: str, influx1: RunningServer, influx2: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks read 2.x by its own connection, and a field that 1.x cannot have is named, or written as an integer."""
    influx2.create_database(weather)
    influx2.write(f"gauge level=1,big=5u {DAY_ONE.start}", weather)
    host, _, port = influx2.url.removeprefix("http://").partition(":")
    connection = {
        "conn_type": "influxdb_backup", "host": host, "port": int(port), "password": influx2.token,
        "extra": {"organization": influx2.organization},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_NEWER", json.dumps(connection))
    path = Path(config_path)
    path.write_text(path.read_text().replace("connection: influx_test", "connection: newer"))
    exported = ExportWindowOperator(task_id="t", config_path=config_path, plan="weather").execute(context())
    target = f"{weather}_copy"

    def restored(run_id: str, **more: Any) -> dict[str, Any]:
        operator = RestoreOperator(
            task_id="t", config_path=config_path, plan="weather", target_connection="influx_test",
            target_database=target, **more,
        )  # fmt: skip
        return operator.execute(context(ti=_task(run_id)))

    assert exported["rows"] == 1
    with pytest.raises(AirflowFailException, match=r"field-type 'big': .*no unsigned fields"):
        restored("a")
    assert target not in str(influx1.query("SHOW DATABASES"))
    assert restored("b", unsigned_as_integer="True")["values"] == 2
    assert "[[1767225600000000000, 5]]" in str(influx1.query("SELECT big FROM gauge", db=target))


def test_a_killed_drill_is_cleaned_up_by_its_own_run(config_path: str, influx1: RunningServer) -> None:
    """The teardown drops what the server shows to be this run's, leaves another run's, and believes no record."""
    repository, ref = _backup(config_path)
    names = {}
    server = InfluxdbBackupHook("influx_test").server()
    production = f"production_{uuid4().hex[:8]}"
    influx1.query(f'CREATE DATABASE "{production}"')
    for run_id in ("manual__1", "manual__2"):
        drill_id = f"{drill_prefix(context(ti=_task(run_id)))}1"
        names[run_id] = new_marked_name("drill")
        for database in (names[run_id], production):
            record = ScratchStarted(
                drill_id=drill_id, ref=ref.id, server=server.name, database=database, started_at=time.time_ns()
            )
            stage = layout.drill_stage_key(ref.plan, ref.window, ref.revision, f"{drill_id}.{database}", "started")
            repository.put_document(stage, record)
        server.create_scratch(names[run_id], [], Mark(drill_id, server.now() + LEASE))
    server.close()
    operator = DropScratchOperator(task_id="t", config_path=config_path, plan="weather")

    assert operator.execute(context()) == {"dropped": [names["manual__1"]]}
    assert operator.execute(context()) == {"dropped": []}
    left = str(influx1.query("SHOW DATABASES"))
    assert names["manual__1"] not in left
    assert names["manual__2"] in left
    assert production in left


class _Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, message: str, *values: object) -> None:
        self.lines.append(message % values)


def test_integrity_errors_do_not_retry_and_tell_everything() -> None:
    """Every damaged object is in the log, and another try is not made."""
    log = _Log()
    with pytest.raises(AirflowFailException, match=r"two parts differ \(integrity\)"), only_passing_errors_retry(log):
        raise IntegrityError("two parts differ", problems=["part 1", "part 2"])

    assert log.lines == ["two parts differ", "part 1", "part 2"]


def test_an_error_stands_on_lines_of_its_own() -> None:
    """Message and what to do are lines, options are called as in the form, and no second traceback follows."""
    log, task = _Log(), SimpleNamespace(outcome="")
    with pytest.raises(AirflowFailException) as caught, only_passing_errors_retry(log, task):
        raise UsageError("There is a gap.", hint="Restore what there is with --allow-gaps, or --unknown.")

    assert all(len(line) <= 100 for line in folded("word " * 100))
    assert log.lines == ["There is a gap.", "What to do: Restore what there is with *Allow gaps*, or --unknown."]
    assert task.outcome == "FAILED: usage"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def _errors(base: type[InfluxdbBackupError]) -> list[type[InfluxdbBackupError]]:
    return [base, *(found for child in base.__subclasses__() for found in _errors(child))]


@pytest.mark.parametrize("error", _errors(InfluxdbBackupError))
def test_only_retryable_errors_retry(error: type[InfluxdbBackupError]) -> None:
    """For every error of the package, its own word on retrying is what Airflow does."""
    expected = error if error.retryable else AirflowFailException
    with pytest.raises(expected), only_passing_errors_retry(_Log()):
        raise error("x")


def test_other_errors_go_through() -> None:
    """An error that nobody foresaw is not dressed up."""
    with pytest.raises(ZeroDivisionError), only_passing_errors_retry(_Log()):
        _ = 1 / 0


def test_a_stop_leaves_nothing_visible(config_path: str) -> None:
    """A task that is killed while it exports ends at its next progress report; the repository shows no backup."""
    operator = ExportWindowOperator(task_id="t", config_path=config_path, plan="weather")
    operator.on_kill()

    with pytest.raises(TaskStoppedError):
        operator.execute(context())
    folder = Path(config_path).parent / "repository"
    assert not list(folder.rglob("refs/**/*.json"))
    assert not list(folder.rglob("*.parquet"))


def _logged() -> Any:
    """What the tasks of the block write to their logs, in order."""
    import structlog

    return structlog.testing.capture_logs()


def _lines(entries: Any) -> list[str]:
    return [entry["event"] % entry.get("positional_args", ()) for entry in entries]


def test_progress_lines_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of reports in a moment are no line in the log; one after some seconds is."""
    clock = [100.0]
    monkeypatch.setattr("influxdb_backup.operators.base.time.monotonic", lambda: clock[0])
    operator = ExportWindowOperator(task_id="t", config_path="x", plan="weather")
    with _logged() as entries:
        report = operator.progress()
        for done in range(10_000):
            clock[0] += 0.001
            report(Progress("read", done, 20_000, 1234 * done, 4_000_000, "autogen.weather"))

    assert _lines(entries) == [
        "read 4,999 of 20,000 pieces, 6,168,766 rows, 4.0 MB, 1,234,000 rows/s, about 15 s left; at autogen.weather",
        "read 9,999 of 20,000 pieces, 12,338,766 rows, 4.0 MB, 1,234,000 rows/s, about 10 s left; at autogen.weather",
    ]


def test_results_and_progress_stand_outside_of_folds(config_path: str, influx1: RunningServer) -> None:
    """No line of a task is folded away, each result is in people's words, and the task is called by what came of it."""
    common = {"config_path": config_path, "plan": "weather"}
    copy = {"target_database": f"copy_{uuid4().hex[:8]}", "refs": ["2026-01-01"]}
    export_, verify_ = ExportWindowOperator(task_id="t", **common), VerifyBackupOperator(task_id="t", **common)
    drill, dry = (
        RestoreDrillOperator(task_id="t", **common),
        RestoreOperator(task_id="t", dry_run=True, **copy, **common),
    )
    whole, again = (RestoreOperator(task_id="t", restore_id=name, **copy, **common) for name in (None, "another"))
    with _logged() as entries:
        export_.execute(context())
        verify_.execute(context())
        drill.execute(context())
        planned = dry.execute(context())
        restored = whole.execute(context())
        with pytest.raises(AirflowFailException):
            again.execute(context())
    influx1.query(f'DROP DATABASE "{copy["target_database"]}"')
    lines = _lines(entries)

    assert not [line for line in lines if line.startswith("::")]
    assert f"Its id: {DAY_ONE_ID}" in lines
    drilled = "\n".join(lines)
    for words in (
        r"The drill held: weather, 2026-01-01, 1 day, revision 0",
        r"Restored 288 rows in .+ into influx_test, read 1 table back in .+ in all\.",
        r"The scratch influxdb_backup_drill_\w+ was dropped\.",
        r"Check ok: SELECT count\(temperature\) FROM weather: 288 \(",
    ):
        assert re.search(words, drilled), words
    target = copy["target_database"]
    for operator, words in (
        (export_, r"2026-01-01 · 288 rows · [\d.]+ kB · 1 gap"),
        (verify_, r"valid · 288 rows · [\d.]+ s"),
        (drill, r"drill ok · 288 rows · [\d.]+ s"),
        (dry, rf"DRY RUN -> {target}: 288 rows, nothing written"),
        (whole, rf"-> {target}: 288 rows · [\d.]+ s"),
        (again, r"FAILED: target-not-empty"),
    ):
        assert re.fullmatch(words, operator.outcome), operator.outcome
    for result in (planned, restored):
        assert (result["start"], result["end"]) == ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
        assert (result["backups"], result["target_server"]) == ([DAY_ONE_ID], "influx_test")


def test_a_forced_open_window_says_so(config_path: str, told: list[str]) -> None:
    """What is backed up of a window that has not ended is a warning of its own, and part of the label."""
    now = datetime.now(UTC)
    open_day = {"data_interval_start": now - timedelta(hours=1), "data_interval_end": now + timedelta(hours=1)}
    operator = ExportWindowOperator(task_id="t", config_path=config_path, plan="weather", force=True)

    assert operator.execute(context(**open_day))["open"] is True
    assert any(line.startswith("The window was OPEN") for line in told)
    assert " · OPEN" in operator.outcome


def test_a_manual_run_at_a_tick_says_which_date_it_takes(config_path: str, told: list[str]) -> None:
    """Airflow takes the window that starts at the run's date for done, and backfills leave it out: it is a warning."""
    run = SimpleNamespace(run_type="manual", logical_date=datetime(2026, 1, 2, tzinfo=UTC))
    operator = ExportWindowOperator(task_id="t", config_path=config_path, plan="weather")
    operator.execute(context(dag_run=run))
    assert "logical date 2026-01-02 and backs up 2026-01-01, 1 day" in " ".join(told)
    told.clear()
    run.logical_date = datetime(2026, 1, 2, 13, tzinfo=UTC)
    operator.execute(context(dag_run=run))
    assert "logical date" not in " ".join(told)


def test_backups_of_a_form_are_of_its_plan() -> None:
    """A date, a revision or latest need no plan; a backup of another plan is refused."""
    for text in ("2026-01-01", "2026-01-01#0", "latest", "@latest", "weather@latest", DAY_ONE_ID):
        assert backup_of("weather", text).startswith("weather")
    assert backup_of("weather", " 2026-01-01#0 ") == "weather@2026-01-01#0"
    with pytest.raises(UsageError, match="no backup of the plan 'weather'"):
        backup_of("weather", "orders@latest")


@pytest.mark.parametrize("text", ["true", "True", True])
def test_flag_is_true(text: object) -> None:
    """What a template renders a yes to is a yes."""
    assert flag("force", text) is True


@pytest.mark.parametrize("text", ["", "yes", None, 1])
def test_flag_is_refused(text: object) -> None:
    """What is neither yes nor no is never taken for one of them."""
    with pytest.raises(UsageError, match="force"):
        flag("force", text)


def test_choices_are_checked() -> None:
    """A choice that does not exist names those that do."""
    assert one_of("on_conflict", "merge", ("fail", "merge")) == "merge"
    with pytest.raises(UsageError, match="fail, merge"):
        one_of("on_conflict", "overwrite", ("fail", "merge"))
    assert given("") is None


def test_identity_is_one_run_only() -> None:
    """The id of a restore is stable over tries, differs between runs and DAGs, and is fit for an object key."""
    first = identity("manual__2026-01-01T00:00:00+00:00", "a")

    assert first == identity("manual__2026-01-01T00:00:00+00:00", "a")
    assert first != identity("manual__2026-01-01T00:00:00+00:00", "b")
    assert first != identity("manual__2026-01-01T00:00:00-00:00", "a")
    assert first.startswith("manual-2026-01-01T00-00-00-00-00-")


@pytest.mark.parametrize("kind", [ExportWindowOperator, WindowSettledSensor, BackupFreshSensor])
def test_mapped_tasks_are_labelled_by_plan(kind: type[Any]) -> None:
    """Without being told, mapped tasks show the plan's name instead of an index, sensors too."""
    needed = {"max_age": "1d"} if kind is BackupFreshSensor else {}
    mapped = kind.partial(task_id="t", config_path="x", **needed).expand(plan=["a", "b"])

    assert "task.plan" in mapped.map_index_template


@pytest.mark.parametrize(
    "operator",
    [
        ExportWindowOperator, VerifyBackupOperator, RestoreOperator, RestoreDrillOperator, DropScratchOperator,
        WindowSettledSensor, BackupFreshSensor,
    ],
)  # fmt: skip
def test_template_fields_are_arguments(operator: type[Any]) -> None:
    """Every templated field is an argument and an attribute of the same name, and arguments are keyword-only."""
    needed = {"max_age": "1d"} if operator is BackupFreshSensor else {}
    built = operator(task_id="t", config_path="{{ x }}", plan="{{ y }}", **needed)

    assert {"config_path", "plan"} <= set(operator.template_fields)
    assert all(hasattr(built, name) for name in operator.template_fields)
    with pytest.raises(TypeError):
        operator("x", "y")


class TestSettled:
    """When a window may be read."""

    def sensor(self, config_path: str, **more: Any) -> WindowSettledSensor:
        """A sensor of the plan."""
        return WindowSettledSensor(task_id="t", config_path=config_path, plan="weather", **more)

    def test_an_old_window_is_settled(self, config_path: str) -> None:
        """A window that ended long ago needs no wait."""
        assert self.sensor(config_path).poke(context()) is True

    def test_the_server_has_its_say(self, config_path: str, monkeypatch: Any) -> None:
        """A worker's clock that runs ahead does not read a window early: the server's clock is behind it, and wins."""
        ended = datetime.now(UTC) - timedelta(minutes=10)
        ahead = time.time_ns() + 3600 * 10**9
        monkeypatch.setattr("influxdb_backup.sensors.settled.time.time_ns", lambda: ahead)
        sensor = self.sensor(config_path)

        assert sensor.poke(context(data_interval_start=ended - timedelta(hours=1), data_interval_end=ended)) is False
        assert 1190 < sensor.poke_interval <= 1205

    def test_a_new_window_is_waited_for_until_it_is_due(self, config_path: str) -> None:
        """The next look is when the window is due: its end, plus the settle time of half an hour."""
        sensor, now = self.sensor(config_path), datetime.now(UTC)
        ended = now - timedelta(minutes=10)

        assert sensor.poke(context(data_interval_start=ended - timedelta(hours=1), data_interval_end=ended)) is False
        assert 1190 < sensor.poke_interval <= 1205

    def test_force_does_not_wait(self, config_path: str) -> None:
        """An open window that a person asks for is not waited for."""
        now = datetime.now(UTC)

        assert self.sensor(config_path, force=True).poke(
            context(data_interval_start=now - timedelta(hours=1), data_interval_end=now)
        )

    def test_a_mistyped_year_fails_at_once(self, config_path: str) -> None:
        """A window that is due in 73 years holds no run until then, but fails with the command line's sentence."""
        with pytest.raises(
            AirflowFailException, match=r"still open: with settle 30m .* in \d\d years; .*\(open-window\)"
        ):
            self.sensor(config_path).poke(
                context(params={"window_start": "2100-01-01T00:00:00Z", "window_end": "2100-01-02T00:00:00Z"})
            )

    def test_it_looks_again_within_an_hour(self, config_path: str, told: list[str], monkeypatch: Any) -> None:
        """A wait of a day is cut into looks of an hour, since Airflow compares with the timeout only when it looks."""
        monkeypatch.setattr(WindowSettledSensor, "log", BackupOperator.log)
        sensor, now = self.sensor(config_path), datetime.now(UTC)
        ended = now + timedelta(hours=20)

        assert sensor.poke(context(data_interval_start=ended - timedelta(days=1), data_interval_end=ended)) is False
        assert sensor.poke_interval == 3600
        assert told[-1].endswith(" UTC, in 20 hours.") or told[-1].endswith(" UTC, in 21 hours.")

    def test_clock(self) -> None:
        """Due is due; before, the wait reaches just beyond the instant."""
        assert seconds_until(10**9, 10**9) == 0
        assert seconds_until(3 * 10**9, 10**9) == 3.0


class TestFresh:
    """Whether the newest backup is recent enough, at a level."""

    def fresh(self, config_path: str, max_age: str, level: str) -> bool:
        """The sensor's answer."""
        return BackupFreshSensor(
            task_id="t", config_path=config_path, plan="weather", max_age=max_age, level=level
        ).poke(context())

    def test_nothing(self, config_path: str) -> None:
        """No backup is never fresh."""
        assert self.fresh(config_path, "20000d", "present") is False

    def test_age_and_level(self, config_path: str) -> None:
        """A backup is as fresh as its window's end, at the levels that were proved and at no higher one."""
        repository, ref = _backup(config_path)

        assert self.fresh(config_path, "20000d", "present") is True
        assert self.fresh(config_path, "1h", "present") is False
        assert self.fresh(config_path, "20000d", "valid") is False
        verify(repository, ref, VerifyLevel.COMPLETE)
        assert self.fresh(config_path, "20000d", "complete") is True
        assert self.fresh(config_path, "20000d", "valid") is False
        verify(repository, ref, VerifyLevel.VALID)
        assert self.fresh(config_path, "20000d", "valid") is True
        assert self.fresh(config_path, "20000d", "restorable") is False
        RestoreDrillOperator(task_id="t", config_path=config_path, plan="weather").execute(context())
        assert self.fresh(config_path, "20000d", "restorable") is True

    def test_another_database(self, config_path: str) -> None:
        """Backups of what the plan named before do not make it fresh."""
        _backup(config_path)
        path = Path(config_path)
        text = path.read_text()
        path.write_text(re.sub(r"database: .*", "database: elsewhere", text))
        with pytest.raises(AirflowFailException, match="now names 'elsewhere'"):
            self.fresh(config_path, "20000d", "present")

    def test_damaged(self, config_path: str) -> None:
        """A backup that was valid, drilled, and then found damaged is fresh at no level."""
        repository, ref = _backup(config_path)
        verify(repository, ref, VerifyLevel.VALID)
        RestoreDrillOperator(task_id="t", config_path=config_path, plan="weather").execute(context())
        repository.store.delete(repository.manifest(ref).tables[0].parts[0].path)
        verify(repository, ref, VerifyLevel.PRESENT)
        for level in VerifyLevel:
            assert self.fresh(config_path, "20000d", level.value) is False


class TestHooks:
    """From a connection to an open server or store."""

    def test_connection_test_says_what_answers(self, weather: str) -> None:
        """The button of the connection form tells the version, or what is wrong."""
        held, message = InfluxdbBackupHook("influx_test").test_connection()

        assert held
        assert "InfluxDB 1.6.7" in message
        assert message.endswith("No credentials were used.")

    def test_connection_test_says_which_credentials_win(self, influx2: Any, monkeypatch: Any) -> None:
        """In a connection of the official type a token wins over login and password, which Test tells."""
        place, port = influx2.url.removeprefix("http://").split(":")
        extra = {"token": influx2.token, "org": influx2.organization}
        official = {"conn_type": "influxdb", "schema": "http", "host": place, "port": int(port), "extra": extra}
        own = {"conn_type": "influxdb_backup", "host": influx2.url}
        for connection, words in (
            ({**official, "login": "me", "password": "x"}, "extra was used; its login and password are not used."),
            (official, "The token of the connection's extra was used."),
            ({**own, "password": influx2.token}, "Its password was used as a token."),
        ):
            monkeypatch.setenv("AIRFLOW_CONN_INFLUX_TEST", json.dumps(connection))
            held, message = InfluxdbBackupHook("influx_test").test_connection()
            assert held and message.endswith(words)

    def test_connection_test_fails_with_a_reason(self, monkeypatch: Any) -> None:
        """A connection that lacks its host fails the test with the field."""
        monkeypatch.setenv("AIRFLOW_CONN_INFLUX_TEST", '{"conn_type": "influxdb_backup"}')

        assert InfluxdbBackupHook("influx_test").test_connection() == (
            False,
            "This connection has no host. Set its host and port.",
        )

    def test_connection_test_tries_the_backup_port(self, influx1: Any, monkeypatch: Any) -> None:
        """A `snapshot_address` where nothing answers fails the test; the right one is told."""
        for address, works in ((influx1.backup_address, True), (f"127.0.0.1:{free_port()}", False)):
            place = {"conn_type": "influxdb_backup", "host": influx1.url, "extra": {"snapshot_address": address}}
            monkeypatch.setenv("AIRFLOW_CONN_INFLUX_TEST", json.dumps(place))
            held, message = InfluxdbBackupHook("influx_test").test_connection()
            assert held is works
            assert ("Its backup port answers" if works else "snapshot_address cannot be used") in message

    def test_connection_test_names_the_address(self, monkeypatch: Any) -> None:
        """A server that does not answer is named by its address, not by the id that Airflow makes up for the test."""
        monkeypatch.setenv("AIRFLOW_CONN_INFLUX_TEST", "influxdb-backup://127.0.0.1:1")
        held, message = InfluxdbBackupHook("influx_test").test_connection()

        assert not held
        assert message.startswith("The server (http://127.0.0.1:1) cannot be reached")

    def test_connection_of_another_kind_of_store(self, folder: Path, monkeypatch: Any) -> None:
        """A repository whose connection does not fit names that connection."""
        monkeypatch.setenv("AIRFLOW_CONN_BUCKETS", "influxdb-backup://127.0.0.1:1")

        with pytest.raises(ConfigError, match="The connection 'buckets' has the type 'influxdb_backup'"):
            RepositoryHook("s3://bucket/x", "buckets").store()

    def test_a_folder_has_the_mode_of_the_file(self, tmp_path: Path) -> None:
        """What a task writes is as private as the YAML file says."""
        root = tmp_path / "private"
        text = f'repositories: {{primary: {{url: "file://{root}", mode: "0600"}}}}\nplans: {{t: {{database: d}}}}\n'
        store = RepositoryHook.of(loads(text, tmp_path / "backup.yaml"), "primary").store()
        store.make_root()
        store.create("README.txt", b"text")
        assert [path.stat().st_mode & 0o777 for path in (root, root / "README.txt")] == [0o700, 0o600]

    def test_official_connections_work(self, weather: str, influx1: Any, monkeypatch: Any) -> None:
        """A connection of the official provider's type reaches the same server."""
        monkeypatch.setenv("AIRFLOW_CONN_OFFICIAL", influx1.url.replace("http://", "influxdb://") + "/http")

        assert InfluxdbBackupHook("official").settings().url == influx1.url
        assert InfluxdbBackupHook("official").test_connection()[0]

    def test_repository_of_the_configuration(self, config_path: str) -> None:
        """The repository's name in the file leads to the open repository."""
        hook = RepositoryHook.of(load(config_path), "primary")

        assert hook.repository().url == hook.url


def test_secrets_of_connections_are_masked_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server or a traceback repeats of a request's credentials, Airflow's log hides."""
    from airflow.sdk.log import redact

    monkeypatch.setenv("AIRFLOW_CONN_SECRETIVE", "influxdb-backup://root:top%2Fse%22cret@127.0.0.1:1")
    with MASKER.forgetting():
        InfluxdbBackupHook("secretive").settings()
        basic = b64encode(b'root:top/se"cret').decode()
        for form in ('top/se"cret', "top%2Fse%22cret", 'top/se\\"cret', basic):
            padding = "=" * (len(form) - len(form.rstrip("=")))
            assert redact(f"said {form}.") == f"said ***{padding}."
        assert "cret" not in str(ConfigError('said top/se"cret'))
    with pytest.raises(ConfigError, match="where its id belongs") as caught:
        InfluxdbBackupHook("influxdb-backup://root:topsecret@h:1").settings()
    assert "topsecret" not in str(caught.value)


def test_what_a_task_logs_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a terminal nor the page obeys what stands in a repository or a server."""
    told: list[str] = []
    log = ShownLog(SimpleNamespace(info=told.append, warning=told.append, error=told.append))
    log.info("%s of %d", "a\x1b]52;c;x\x07", 3)
    log.warning("50% \u202e")
    log.error("%s", "\x9b2J")
    assert told == [r"a\x1b]52;c;x\x07 of 3", r"50% \u202e", r"\x9b2J"]
    with pytest.raises(AirflowFailException, match=r"^a\\x1b\[m \(usage\)$"), only_passing_errors_retry(log):
        raise UsageError("a\x1b[m")
