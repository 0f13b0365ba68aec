"""
Back up, verify, drill and restore real data in a real Airflow: ``make demo``.

Everything is below ``.demo/`` and listens on free loopback ports. ``KEEP=1`` leaves it running until Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from demo import influxdb, nycflights
from demo.airflow_stack import COMPONENTS, TRIGGERER, AirflowStack
from demo.processes import Processes

ROOT = Path(__file__).parents[1]
HOME = Path(os.environ.get("DEMO_HOME", ROOT / ".demo")).absolute()
DAYS = 14
DAY_SECONDS = 86_400
FIRST_SECOND = 1_357_516_800
"""2013-01-07, the first day of those that are taken of the year"""
LEFT_OUT, DAMAGED, RESTORED = 12, 3, 5
"""days of the two weeks: one gets no backup, one gets a damaged one at the end, one is restored"""
PLAN = "nycflights"
BACKUP, DRILL, RESTORE = (f"influxdb_{kind}__{PLAN}" for kind in ("backup", "drill", "restore"))
YAML = """\
repositories:
  primary:
    url: file://{repository}
defaults:
  connection: influxdb_demo
  schedule: "0 0 * * *"
  settle: 1m
plans:
  nycflights:
    database: {database}
    start: {start}
    drill:
      pick: least_recently_drilled
      checks:
        - {{query: "SELECT count(distance) FROM flights", min: 500}}
        - {{query: "SELECT max(temp) FROM weather", max: 120}}
    airflow: {{max_active_runs: 4, tags: [demo]}}
"""


@dataclass(frozen=True)
class Loaded:
    """What was written into the source database."""

    points: int
    bytes_backed_up: int
    """of line protocol, for the windows that are backed up"""


@dataclass(frozen=True)
class Calendar:
    """The two weeks of the demonstration, which end with yesterday (UTC)."""

    end: datetime

    @classmethod
    def until(cls, now: datetime) -> Calendar:
        """The weeks before the day of ``now``."""
        return cls(now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0))

    def day(self, number: int) -> str:
        """The beginning of a day, 0 to 14 (the end)."""
        return (self.end - timedelta(days=DAYS - number)).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def later(self) -> int:
        """Seconds by which the data are moved."""
        return int(self.end.timestamp()) - DAYS * DAY_SECONDS - FIRST_SECOND


class Demo:
    """The steps, in order, with the seconds since the start in front of each line."""

    def __init__(self, processes: Processes) -> None:
        self._started = time.monotonic()
        self._processes = processes
        suffix = f"_{os.urandom(4).hex()}" if os.environ.get("INFLUXDB_URL") else ""
        self.database = f"nycflights13{suffix}"
        self.copy = f"nycflights13_restored{suffix}"
        self.stack = AirflowStack(HOME / "airflow", processes, components=(*COMPONENTS, TRIGGERER))
        self.calendar = Calendar.until(datetime.now(UTC))
        self.connection = ""

    def say(self, text: str) -> None:
        """One line of progress."""
        print(f"[{time.monotonic() - self._started:5.1f} s] {text}", flush=True)

    def run(self) -> None:
        """All steps, and the table at the end."""
        self._configure()
        background = ThreadPoolExecutor(max_workers=1)
        try:
            airflow = background.submit(self.stack.start)
            server = influxdb.start(self._processes, HOME / "influxdb")
            self.say(f"InfluxDB answers at {server.url}; Airflow's database is being made meanwhile")
            loaded = self._load(server)
            airflow.result()
        finally:
            background.shutdown(wait=False)  # after Ctrl-C its process is ended by whoever catches that
        self.stack.wait()
        self.say(f"Airflow is healthy: {self.stack.url}")
        self.stack.create_connection("influxdb_demo", "influxdb_backup", host=server.host, port=server.port)
        self.connection = f"influxdb-backup://{server.host}:{server.port}"
        self.stack.wait_for_dags(BACKUP, DRILL, RESTORE)
        exports, verified = self._backfill()
        drilled = self._drill(exports)
        restored = self._restore(server)
        self._damage(exports[DAMAGED]["ref"])
        seconds = time.monotonic() - self._started
        facts = summary(self.calendar, loaded, exports, verified, drilled, restored)
        facts += [
            ("whole demo", f"{seconds:.0f} s"),
            ("repository", os.path.relpath(HOME / "repository")),
            ("Airflow", self.stack.url),
        ]
        print("\n" + "\n".join(f"{name:12} {value}" for name, value in facts))
        print(f"\n{SOUGHT}\n\n" + "\n".join(f"  {line}" for line in self.commands()), flush=True)

    def commands(self) -> list[str]:
        """Five lines that find what is to be found, in a shell beside this one."""
        program = os.path.relpath(Path(sys.executable).with_name("influxdb-backup"))
        return [
            f"export INFLUXDB_BACKUP_CONFIG={os.path.relpath(self.stack.dags / 'influxdb_backup.yaml')}",
            f"export AIRFLOW_CONN_INFLUXDB_DEMO='{self.connection}'",
            f"{program} list {PLAN}",
            f"{program} coverage {PLAN}",
            f"{program} verify {PLAN}",
        ]

    def _damage(self, ref: str) -> None:
        """Turns a byte of one part around, as a disk might."""
        from influxdb_backup.archive.repository import Repository
        from influxdb_backup.archive.store import open_store

        repository = Repository.open(open_store(f"file://{HOME / 'repository'}"))
        part = next(part for table in repository.manifest(repository.ref(ref)).tables for part in table.parts)
        file = HOME / "repository" / part.path
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.chmod(0o644)
        file.write_bytes(data)

    def _configure(self) -> None:
        from influxdb_backup.archive.repository import Repository
        from influxdb_backup.archive.store import open_store

        repository = HOME / "repository"
        repository.mkdir(parents=True)
        Repository.init(open_store(f"file://{repository}"))
        self.stack.dags.mkdir(parents=True)
        shutil.copy(ROOT / "dags" / "influxdb_backup_dags.py", self.stack.dags)
        (self.stack.dags / "influxdb_backup.yaml").write_text(
            YAML.format(repository=repository, database=self.database, start=self.calendar.day(0))
        )

    def _load(self, server: influxdb.Influxdb) -> Loaded:
        server.query(f'CREATE DATABASE "{self.database}"')
        size = 0

        def lines() -> Iterator[str]:
            nonlocal size
            for source in (nycflights.weather, nycflights.flights):
                for second, line in source():
                    day = (second - FIRST_SECOND) // DAY_SECONDS
                    if 0 <= day < DAYS:
                        moved = nycflights.moved(line, self.calendar.later)
                        size += 0 if day == LEFT_OUT else len(moved) + 1
                        yield moved

        points = server.write(self.database, lines())
        self.say(f"Loaded {points:,} points: flights from New York and the weather there, as of the last two weeks")
        return Loaded(points, size)

    def _finish(self, dag_id: str, run_id: str, task_id: str, seconds: float = 600) -> None:
        run = self.stack.finish(dag_id, run_id, seconds)
        if run["state"] != "success":
            raise RuntimeError(f"{dag_id} {run_id} {run['state']}:\n{self.stack.log(dag_id, run_id, task_id)[-3000:]}")

    def _backfill(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        first, last = self.calendar.day(0), self.calendar.day(LEFT_OUT - 1)
        self.stack.backfill(BACKUP, first, last, max_active_runs=DAYS)
        self.stack.unpause(BACKUP)
        runs = [run["dag_run_id"] for run in self.stack.runs(BACKUP, "backfill")]
        self.say(f"Backfill of {len(runs)} daily windows, {first[:10]} to {last[:10]}: settle, export, verify")

        def scheduled() -> list[str]:
            return [run["dag_run_id"] for run in self.stack.runs(BACKUP, "scheduled")]

        runs += self.stack.until(scheduled, "the scheduler's own run of yesterday", 180)[:1]
        for run_id in runs:
            self._finish(BACKUP, run_id, "export")
        exports = [self.stack.result(BACKUP, run_id, "export") for run_id in runs]
        verified = [self.stack.result(BACKUP, run_id, "verify") for run_id in runs]
        self.say(f"{len(runs)} windows are backed up and verified: {sum(one['rows'] for one in exports):,} rows")
        return exports, verified

    def _drill(self, exports: list[dict[str, Any]]) -> dict[str, Any]:
        self.stack.unpause(DRILL)
        run_id = self.stack.trigger(DRILL, ref=exports[-1]["ref"])
        self._finish(DRILL, run_id, "drill")
        result = self.stack.result(DRILL, run_id, "drill")
        self.say(f"Drill of {result['ref'].split('/')[1][:8]} held: restored, read back, compared, checked, dropped")
        return result

    def _restore(self, server: influxdb.Influxdb) -> dict[str, Any]:
        self.stack.unpause(RESTORE)
        start, end = self.calendar.day(RESTORED), self.calendar.day(RESTORED + 1)
        run_id = self.stack.trigger(
            RESTORE, start=start, end=end, target_database=self.copy, confirm=self.copy, dry_run=False
        )
        self._finish(RESTORE, run_id, "restore")
        result = self.stack.result(RESTORE, run_id, "restore")
        for table, field in (("flights", "distance"), ("weather", "temp")):
            statement = f"SELECT count({field}) FROM {table}"
            source = server.query(f"{statement} WHERE time >= '{start}' AND time < '{end}'", self.database)
            copy = server.query(statement, self.copy)
            if source[0][1] != copy[0][1]:
                raise RuntimeError(f"{table}: {source[0][1]} at the source and {copy[0][1]} restored")
        self.say(
            f"Restored {start[:10]} into the database {self.copy}: {result['rows']:,} rows, as many as at the source"
        )
        return result


SOUGHT = "Try this: one of the days has no backup, and one backup was damaged just now. Which?"


def summary(
    calendar: Calendar,
    loaded: Loaded,
    exports: Sequence[Mapping[str, Any]],
    verified: Sequence[Mapping[str, Any]],
    drilled: Mapping[str, Any],
    restored: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """What was done, as names and values."""
    size = sum(one["bytes"] for one in exports)
    levels = ", ".join(sorted({one["level"] for one in verified}))
    return [
        ("windows", f"{len(exports)} of {DAYS} days, {calendar.day(0)[:10]} to {calendar.day(DAYS - 1)[:10]}"),
        ("rows", f"{sum(one['rows'] for one in exports):,} of {loaded.points:,} in the source"),
        ("values", f"{sum(one['values'] for one in exports):,}"),
        ("bytes", f"{size:,} (Parquet)"),
        (
            "ratio",
            f"{loaded.bytes_backed_up / size:.1f} times smaller than line protocol ({loaded.bytes_backed_up:,} bytes)",
        ),
        ("verified", f"{len(verified)} up to {levels}"),
        ("drill", f"passed: {drilled['rows']:,} rows, {drilled['checks']} checks of the user's own"),
        ("drill time", f"{drilled['seconds_restore']:.1f} s to restore, {drilled['seconds_total']:.1f} s in all"),
        ("restore", f"{restored['rows']:,} rows into {restored['target_database']}"),
    ]


@contextmanager
def _alone() -> Iterator[None]:
    """A fresh .demo/, and never two demonstrations in it."""
    owner = HOME / "pid"
    if owner.exists() and psutil.pid_exists(int(owner.read_text() or 0)):
        raise SystemExit(f"Another demo is running (process {owner.read_text()}): end it with Ctrl-C first.")
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    owner.write_text(str(os.getpid()))
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Runs the demonstration; 0 when every step held."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with _alone():
        processes = Processes(HOME / "logs")
        try:
            demo = Demo(processes)
            demo.run()
            if os.environ.get("KEEP"):
                print(f"\nAirflow stays up at {demo.stack.url} (no login is asked). Ctrl-C ends it.", flush=True)
                while True:
                    processes.check()
                    time.sleep(1)
            print("\nKEEP=1 leaves Airflow up, to look around in its pages.", flush=True)
        except KeyboardInterrupt:
            print("\nStopping.", flush=True)
            return 130
        except (RuntimeError, TimeoutError) as error:
            print(f"\nThe demo did not come to its end: {error}", file=sys.stderr)
            return 1
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            processes.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
