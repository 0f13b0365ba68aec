"""The program where Airflow cannot be imported: the day it is down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import DAY, ROWS, Cli, Site, fill

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


def test_the_module_is_the_program(tmp_path: Path) -> None:
    """``python -m influxdb_backup`` ends with the same status as the script."""
    module = [sys.executable, "-m", "influxdb_backup"]
    environment = {**os.environ, "PYTHONPATH": str(PROVIDER)}
    for arguments, status in ((["--version"], 0), (["bogus"], 2), (["list", "--repository-url", tmp_path.as_uri()], 1)):
        done = subprocess.run([*module, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr


def test_output_that_cannot_be_written(backed_up: Site, refusing: dict[str, str]) -> None:
    """A full disk behind standard output is status 1 and named; without any standard output the status tells."""
    code = "import sys; from influxdb_backup.cli.main import run; sys.exit(run(['list']))"
    for redirection, status, expected in ((">/dev/full", 1, "The output cannot be written: No space"), (">&-", 0, "")):
        command = f'"$0" -c "$1" {redirection}'
        done = subprocess.run(
            ["sh", "-c", command, sys.executable, code], env=refusing, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
        assert expected in done.stderr
        assert "defect" not in done.stderr and "Exception ignored" not in done.stderr


def test_documents_are_json_in_every_locale(site: Site, cli: Cli, refusing: dict[str, str]) -> None:
    """Where the terminal's encoding is not UTF-8, names are escaped as JSON does it."""
    database = f"{site.database} ü🙂"
    fill(site.server, database, days=1)
    environment = {**refusing, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    code = "import sys; from influxdb_backup.cli.main import run; sys.exit(run(['databases', '--json']))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert database in [entry["database"] for entry in json.loads(done.stdout)["databases"]]
    site.server.query(f'DROP DATABASE "{database}"')


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_drill_leaves_nothing_behind(
    backed_up: Site, refusing: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """SIGTERM and SIGHUP end a drill as Ctrl-C does: no scratch database and no temporary folder stay."""
    backed_up.config.write_text(backed_up.config.read_text().replace("drill: {", "drill: {writer: lines, "))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = """
import os, signal, sys
from influxdb_backup.influx.writer import LineProtocolWriter
signal.signal(int(sys.argv[1]), signal.SIG_DFL)  # the tests may run under nohup
from influxdb_backup.cli.main import run
LineProtocolWriter.write = lambda *_: os.kill(os.getpid(), int(sys.argv[1]))
sys.exit(run(["drill", "telemetry"]))
"""
    before = _scratches(backed_up)
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(number))],
        env={**refusing, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr.count("Interrupted")) == (128 + number, 1), done.stderr
    assert list(temporary.iterdir()) == []
    assert _scratches(backed_up) == before


def _scratches(site: Site) -> set[str]:
    """The scratch databases on the server, on which other tests may have left some."""
    shown: Any = site.server.query("SHOW DATABASES")
    names = {name for [name] in shown["results"][0]["series"][0]["values"]}
    return {name for name in names if name.startswith("influxdb_backup_drill_")}


def test_starts_quickly(refusing: dict[str, str]) -> None:
    """Help and config check load neither Arrow nor a store's library."""
    code = (
        "import sys; from influxdb_backup.cli.main import run; run(['--help']); "
        "bad = {'pyarrow', 'numpy', 'fsspec', 'urllib3', 'influxdb_client'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], env=refusing, check=True, capture_output=True)


def test_a_command_loads_what_it_uses(refusing: dict[str, str]) -> None:
    """What the client of S3 would load besides, were it there, is neither loaded nor missed."""
    code = (
        "import sys; from influxdb_backup.cli.main import run; sys.argv = ['influxdb-backup', '--version']; run(); "
        "import s3fs, pyarrow; pyarrow.array([1]); "
        "bad = {'httpx', 'httpx2', 'pandas', 'rich', 'pygments'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], env=refusing, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
