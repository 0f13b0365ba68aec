"""What stands in a repository or a server neither reaches the terminal as a command nor ends one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import influxdb_backup
from tests.cli.conftest import DAY, Cli, Site

HOSTILE = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\r\x9b31m\u202egpj\u2066\x7fend"
"""OSC 52, CSI in both of its ways, CR, C1, direction marks, DEL; no line end, which JSON documents of ours never have"""


def safe(text: str) -> None:
    """Only line ends and what can be printed."""
    assert [one for one in text if not (one.isprintable() or one == "\n")] == []


def test_names_of_a_server(site: Site, cli: Cli) -> None:
    """Measurements, tags and fields with escapes in their names: in text, progress, JSON and the log."""
    name = "m\x1b]52;c;x\x07\u202e"
    site.server.write(f"{name},k\x1b[m=v\x9b31m f\x1b[2J=1i 1767225600000000000", site.database)
    cli.ok("repo", "init", "primary")
    for command in (
        ["--verbose", "export", "telemetry", *DAY],
        ["show", "telemetry@latest"],
        ["show", "telemetry@latest", "--json"],
        ["coverage", "telemetry", *DAY, "--recheck"],
        ["restore", "telemetry@latest", "--target-database", f"{site.database}_x", "--dry-run"],
        ["restore", "telemetry@latest", "--target-database", f"{site.database}_x", "--measurement", f"x{HOSTILE}"],
        ["drill", "telemetry"],
    ):
        result = cli(*command)
        safe(result.out)
        safe(result.err)
    assert r"m\x1b]52;c;x\x07\u202e" in cli.ok("show", "telemetry@latest").out


@pytest.mark.parametrize("place", ["plans", "refs", "manifests", "checks", "repository", "drills"])
def test_documents_of_a_repository(backed_up: Site, cli: Cli, place: str) -> None:
    """A repository that somebody else wrote: every text in its documents is hostile, one kind after the other."""
    cli("verify", "telemetry")
    cli("drill", "telemetry")
    folder = Path(backed_up.repository.removeprefix("file://"))
    found = [path for path in folder.rglob("*.json") if path.relative_to(folder).parts[0].startswith(place)]
    assert found
    for path in found:
        path.chmod(0o644)
        path.write_text(json.dumps(_hostile(json.loads(path.read_text()))))
    (folder / "refs" / "telemetry" / HOSTILE.replace("/", "")).mkdir(parents=True)
    for command in (
        ["list"],
        ["list", "--json"],
        ["show", "telemetry@latest"],
        ["show", "telemetry@latest", "--json"],
        ["verify", "telemetry"],
        ["coverage", "telemetry", *DAY],
        ["export", "telemetry", *DAY],
        ["restore", "telemetry@latest", "--target-database", f"{backed_up.database}_x", "--dry-run"],
        ["drill", "telemetry"],
        ["--debug", "drill", "telemetry", "--clean"],
        ["repo", "check", "primary"],
    ):
        result = cli(*command)
        safe(result.out)
        safe(result.err)


def _hostile(value: object) -> object:
    """The document with every text changed that is no digest, number, time or word of the format."""
    if isinstance(value, dict):
        return {key: _hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hostile(item) for item in value]
    if isinstance(value, str) and not value.lstrip("-").isdigit() and ":" not in value:
        return value + HOSTILE
    return value


def test_arguments(site: Site, cli: Cli) -> None:
    """Neither does an argument, as of a script that passes on what it was given."""
    for command in (["export", HOSTILE, *DAY], ["show", f"{HOSTILE}@latest"], ["list", f"--{HOSTILE}"], [HOSTILE]):
        result = cli(*command)
        assert result.status == 2
        safe(result.out)
        safe(result.err)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a command as somebody whose home is not readable")
@pytest.mark.parametrize("command", [["--version"], ["config", "check"], ["list"], ["export", "telemetry", *DAY]])
def test_a_home_that_cannot_be_read(site: Site, cli: Cli, tmp_path: Path, command: list[str]) -> None:
    """A service whose user has no home works; only `warm` needs a place, and says which variable names one."""
    cli.ok("repo", "init", "primary")
    home = tmp_path / "home"
    home.mkdir(mode=0)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534)
    for path in (tmp_path, *tmp_path.parents):
        if "pytest" in str(path):
            path.chmod(path.stat().st_mode | 0o055)
    home.chmod(0)
    os.chown(home, 0, 0)
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(influxdb_backup.__file__).parents[1])}
    environment.pop("XDG_CACHE_HOME", None)
    environment.pop("NUMBA_CACHE_DIR", None)
    python = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable]
    if subprocess.run([*python, "-c", ""], env=environment, capture_output=True, check=False).returncode == 127:
        pytest.skip("lacks a Python whose shared libraries others than root may read")
    done = subprocess.run(
        [*python, "-m", "influxdb_backup", *command], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, "Permission" in done.stderr) == (0, False), done.stderr
