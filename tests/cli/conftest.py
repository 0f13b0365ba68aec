"""A real server with data, a configuration file, and the program called as a person calls it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from influxdb_backup.cli.main import run
from tests.servers import RunningServer

DAY = ("--start", "2026-01-01T00:00:00Z", "--end", "2026-01-02T00:00:00Z")
NEXT_DAY = ("--start", "2026-01-02T00:00:00Z", "--end", "2026-01-03T00:00:00Z")
MIDNIGHT = 1_767_225_600
ROWS = 288
"""rows a day: one in ten minutes of each of two hosts"""


@dataclass(frozen=True)
class Result:
    """What one call did."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


@dataclass
class Cli:
    """Calls the program in this process."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Result:
        """The status and both outputs of one call."""
        self.capsys.readouterr()
        status = run(arguments)
        captured = self.capsys.readouterr()
        return Result(status, captured.out, captured.err)

    def ok(self, *arguments: str) -> Result:
        """As a call, and it must end with status 0."""
        result = self(*arguments)
        assert result.status == 0, result.err + result.out
        return result


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The program, with none of the machine's own settings."""
    for name in ("INFLUXDB_BACKUP_CONFIG", "INFLUXDB_BACKUP_CONN_SOURCE", "AIRFLOW_CONN_SOURCE"):
        monkeypatch.delenv(name, raising=False)
    return Cli(capsys)


@dataclass(frozen=True)
class Site:
    """One user's place: server, database, configuration file and repository."""

    server: RunningServer
    database: str
    config: Path
    repository: str

    @property
    def connection(self) -> str:
        """The server's connection as a URI."""
        return "influxdb-backup://" + self.server.url.removeprefix("http://")

    def count(self, database: str) -> int:
        """Points of the measurement cpu in a database, asked from the server itself."""
        answer: Any = self.server.query("SELECT count(usage) FROM cpu", db=database)
        series = answer["results"][0].get("series")
        return int(series[0]["values"][0][1]) if series else 0


def fill(server: RunningServer, database: str, days: int = 2) -> None:
    """Creates the database with rows of two hosts."""
    server.create_database(database)
    lines = [
        f'cpu,host=h{n % 2} usage={n}.5,n={n}i,msg="m {n}" {(MIDNIGHT + n * 300) * 10**9}' for n in range(days * ROWS)
    ]
    server.write("\n".join(lines), database)


@pytest.fixture
def site(influx1: RunningServer, database: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A filled database and a configuration, named by the environment; no repository is made yet."""
    fill(influx1, database)
    config = tmp_path / "backup.yaml"
    repository = f"file://{tmp_path}/repository"
    config.write_text(
        f"""
repositories:
  primary: {{url: "{repository}"}}
  second: {{url: "file://{tmp_path}/second"}}
defaults: {{connection: source, repositories: [primary, second]}}
plans:
  telemetry:
    database: {database}
    start: 2026-01-01T00:00:00Z
    drill: {{checks: [{{query: "SELECT count(usage) FROM cpu", equals: {ROWS}}}]}}
"""
    )
    made = Site(influx1, database, config, repository)
    monkeypatch.setenv("INFLUXDB_BACKUP_CONFIG", str(config))
    monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", made.connection)
    return made


@pytest.fixture
def backed_up(site: Site, cli: Cli) -> Site:
    """A site whose first day is backed up."""
    cli.ok("repo", "init", "primary")
    cli.ok("export", "telemetry", *DAY)
    return site
