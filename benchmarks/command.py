"""The program called as a person calls it: a process, a configuration file, connections in its environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from influxdb_backup.windows import format_instant

if TYPE_CHECKING:
    from benchmarks.shards import ShardBed
    from influxdb_backup.model import Window

PROGRAM = str(Path(sys.executable).with_name("influxdb-backup"))


COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""as pip leaves what it installs, whatever this shell says: with the bytecode of its modules"""


@dataclass(frozen=True)
class Called:
    """One command that ended with status 0."""

    seconds: float
    """of the whole process"""
    document: Any
    """with ``--json``: what it printed"""
    processor: float
    """seconds that it used, all threads together"""

    @property
    def inner(self) -> float:
        """Seconds of the job alone, as it says itself."""
        said = self.document.get("reports", [self.document])
        return float(sum(one.get("seconds_total", one.get("seconds")) for one in said))


@dataclass(frozen=True)
class Site:
    """One user's place: a configuration with the plan ``plan`` of one database, and a new repository."""

    folder: Path
    environment: Mapping[str, str]
    connection: str
    """of the server, as JSON"""

    def call(self, *arguments: str, **environment: str) -> Called:
        """Runs one command. Raises RuntimeError with what it said when its status is not 0."""
        out, err = self.folder / "out", self.folder / "err"
        with out.open("wb") as output, err.open("wb") as errors:
            started = time.perf_counter()
            process = subprocess.Popen(
                [PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, **COMPILED, **self.environment, **environment},
            )
            _, status, used = os.wait4(process.pid, 0)
            spent = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {err.read_text()[-2000:]}{out.read_text()[-2000:]}")
        document = json.loads(out.read_text()) if "--json" in arguments else None
        return Called(spent, document, used.ru_utime + used.ru_stime)

    def export(self, window: Window, *options: str, again: bool = False) -> Called:
        """A backup of a window into an empty repository, or with ``again`` into the one that is there."""
        if not again:
            self.renew()
        return self.call("export", "plan", *between(window), "--json", *options)

    def renew(self) -> None:
        """Makes the repository again, empty."""
        shutil.rmtree(self.folder / "repository")
        self.call("repo", "init", "primary")


def between(window: Window) -> tuple[str, ...]:
    """The options that name a window."""
    return "--start", format_instant(window.start), "--end", format_instant(window.end)


def connection(bed: ShardBed) -> str:
    """The connection of a server, as the environment has it."""
    host, _, port = bed.running.url.removeprefix("http://").partition(":")
    extra = {"timeout": 900}
    named = {
        "token": bed.running.token,
        "organization": bed.running.organization,
        "snapshot_address": bed.running.backup_address,
    }
    told = {**extra, **{name: value for name, value in named.items() if value}}
    return json.dumps({"conn_type": "influxdb_backup", "host": host, "port": int(port), "extra": told})


def site(
    bed: ShardBed, database: str, reader: str = "auto", *, url: str = "", store: str = "", start: int | None = None
) -> Site:
    """
    A new place beside the server's; ``url`` and ``store`` (a connection) name a repository elsewhere, which is made.

    The plan's schedule is a window a day.
    """
    folder = bed.folder / "site"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    repository = {"url": url or f"file://{folder / 'repository'}", **({"connection": "store"} if store else {})}
    plan = {"database": database, "connection": "source", "reader": reader, "schedule": "@daily", "drill": {}}
    plan |= {"start": format_instant(start)} if start is not None else {}
    configuration = {"repositories": {"primary": repository}, "plans": {"plan": plan}}
    (folder / "backup.yaml").write_text(yaml.safe_dump(configuration))
    environment = {
        "INFLUXDB_BACKUP_CONFIG": str(folder / "backup.yaml"),
        "INFLUXDB_BACKUP_CONN_SOURCE": connection(bed),
        **({"INFLUXDB_BACKUP_CONN_STORE": store} if store else {}),
    }
    made = Site(folder, environment, connection(bed))
    made.call("repo", "init", "primary")
    return made
