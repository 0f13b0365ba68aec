"""The program where Airflow cannot be imported: the day it is down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import DAY, ROWS, Cli, Site

REFUSE = """
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "airflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, Refuse())
"""
PROVIDER = Path(__file__).parents[2] / "provider"


@pytest.fixture
def refusing(tmp_path: Path) -> dict[str, str]:
    """An environment whose Python cannot import airflow."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(REFUSE)
    return {**os.environ, "PYTHONPATH": f"{hook}{os.pathsep}{PROVIDER}"}


def call(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """One call of the program in a process of its own."""
    code = "import sys; from influxdb_backup.cli.main import run; sys.exit(run())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_airflow_is_refused(refusing: dict[str, str]) -> None:
    """The environment of these tests really cannot import airflow."""
    tried = subprocess.run(
        [sys.executable, "-c", "import airflow"], env=refusing, capture_output=True, text=True, check=False
    )
    assert tried.returncode == 1
    assert "No module named 'airflow'" in tried.stderr


def test_everything_works(site: Site, refusing: dict[str, str]) -> None:
    """Make a repository, export, verify, drill and restore without Airflow; progress never mixes with results."""
    target = f"{site.database}_copy"
    for arguments in (
        ["repo", "init", "primary"],
        ["export", "telemetry", *DAY],
        ["verify", "telemetry@latest"],
        ["drill", "telemetry"],
        ["restore", "telemetry", *DAY, "--target-database", target],
    ):
        done = call(refusing, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert site.count(target) == ROWS
    failed = call(refusing, "export", "telemtry", *DAY)
    assert (failed.returncode, "Traceback" in failed.stderr) == (2, False)


def test_closed_pipe(backed_up: Site, cli: Cli, refusing: dict[str, str]) -> None:
    """A reader that closes the pipe (``| head``) ends the program without a traceback."""
    code = "import sys; from influxdb_backup.cli.main import run; sys.exit(run(['config', 'schema']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=refusing, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    message = process.stderr.read()
    process.wait(60)
    process.stderr.close()
    assert "Traceback" not in message


def test_starts_quickly(refusing: dict[str, str]) -> None:
    """Help and config check load neither Arrow nor a store's library."""
    code = (
        "import sys; from influxdb_backup.cli.main import run; run(['--help']); "
        "bad = {'pyarrow', 'numpy', 'fsspec', 'urllib3', 'influxdb_client'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], env=refusing, check=True, capture_output=True)
