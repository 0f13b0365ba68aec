"""A run of the suite says what it proved on which server, and a later one takes what the first had no server for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.servers import NEWER, daemon

CASES = "tests/tsm_write/test_live.py::test_of_two_files_the_later_one_wins"


def run_suite(*arguments: str, **environment: str) -> str:
    """What a run of one test prints, which is two cases."""
    command = [sys.executable, "-m", "pytest", "-n", "2", *arguments, CASES]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INFLUXDB", "PYTEST"))}
    done = subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """What a run said on a machine that has nothing more than Debian's server, and what it kept."""
    folder = tmp_path_factory.mktemp("first")
    return run_suite(f"--proved={folder / 'kept'}", XDG_CACHE_HOME=str(folder)).splitlines(), folder / "kept"


def test_the_end_names_the_servers_and_what_lacked_one(first: tuple[list[str], Path]) -> None:
    """A case of Debian's server holds, and the other says what it lacks."""
    said, _ = first
    assert re.fullmatch(r"proved on InfluxDB 1\.\S+ +1 cases", said[-3])
    assert said[-2] == "not proved, for want of influxd-1.*, a newer 1.x server: 1 cases"
    assert re.fullmatch(r"=+ 1 passed, 1 skipped in .+ =+", said[-1])
    assert any("lacks influxd-1.*, a newer 1.x server in the cache folder" in line for line in said)


def test_what_lacked_a_server_is_run_where_there_is_one(first: tuple[list[str], Path]) -> None:
    """Those cases and no others, counted with those of the first run."""
    daemon(NEWER)
    said = run_suite(f"--lacking={first[1]}").splitlines()
    assert [re.sub(r"\d\S+ +", "", line) for line in said[-3:-1]] == ["proved on InfluxDB 1 cases"] * 2
    assert re.fullmatch(r"=+ 1 passed in .+ =+", said[-1])
