"""What a person sees in a terminal of 80 columns, and what a program reads of the same."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import influxdb_backup
from influxdb_backup.errors import UsageError
from influxdb_backup.model import MAX_END, MIN_TIME, Window
from influxdb_backup.windows import parse_window, say_window
from tests.cli.conftest import DAY, NEXT_DAY, Cli, Site

RED = "\x1b[1;31m"


def on_a_terminal(*arguments: str, columns: int = 80, **variables: str) -> str:
    """What the program writes to a terminal, its escapes included."""
    ours, theirs = pty.openpty()
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
        "PYTHONPATH": str(Path(influxdb_backup.__file__).parents[1]),
        "COLUMNS": str(columns), "TERM": "xterm-256color", **variables,
    }  # fmt: skip
    with subprocess.Popen([sys.executable, "-m", "influxdb_backup", *arguments], stdout=theirs, env=environment):
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_fits_and_colours(backed_up: Site, cli: Cli) -> None:
    """On 80 columns every line fits but commands to copy; GAP, FAILED and DAMAGED are red, and obey NO_COLOR."""
    cli.ok("verify", "telemetry")
    [part] = Path(backed_up.repository.removeprefix("file://")).glob("data/**/*.parquet")
    part.chmod(0o644)
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    cli("verify", "telemetry")
    ten = ("--start", "2026-01-01T00:00:00Z", "--end", "2026-01-10T00:00:00Z")
    for command in (
        ["list"],
        ["show", "telemetry@latest"],
        ["coverage", "telemetry", *ten],
        ["restore", "telemetry@latest", "--target-database", f"{backed_up.database}_copy", "--dry-run"],
        ["restore", "--help"],
        ["--help"],
    ):
        text = on_a_terminal(*command)
        for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
            assert len(line) <= 80 or "influxdb-backup" in line or "airflow " in line, line
    assert f"{RED}DAMAGED\x1b[0m" in on_a_terminal("list")
    covered = on_a_terminal("coverage", "telemetry", *ten)
    assert f"{RED}GAP\x1b[0m" in covered
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_a_terminal("coverage", "telemetry", *ten, **variables)
    assert "\x1b" not in cli("coverage", "telemetry", *ten).out
    assert "2026-01-02  2026-01-10  8 days  GAP" in cli("coverage", "telemetry", *ten).out


def test_help_names_options_whole(cli: Cli) -> None:
    """Flags take no value, no name is cut, and -h is --help."""
    shown = cli.ok("restore", "-h").out
    assert shown == cli.ok("restore", "--help").out
    assert "--dry-run  " in shown
    assert "<bool>" not in shown
    assert "--target-retention-policy NAME" in shown
    assert "…" not in shown


def test_completion(cli: Cli) -> None:
    """A shell's script is printed, and knows the commands."""
    done = subprocess.run(
        [sys.executable, "-m", "influxdb_backup"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(influxdb_backup.__file__).parents[1]),
             "_INFLUXDB_BACKUP_COMPLETE": "complete_bash", "COMP_WORDS": "influxdb-backup cov", "COMP_CWORD": "1"},
    )  # fmt: skip
    assert done.stdout.split() == ["coverage"]
    assert "--install-completion" in cli.ok("--help").out


@pytest.mark.parametrize(
    ("arguments", "status", "kind", "words"),
    [
        (["list", "telemtry", "--json", "--start", "x", "--end", "y"], 2, "usage", "'x' is not a time"),
        (["export", "telemtry", *DAY, "--json"], 2, "config", "Did you mean 'telemetry'?"),
        (["show", "telemetry@2031-01-01", "--json"], 1, "backup-not-found", "telemetry@2031-01-01"),
        (["show", "--bogus", "--json"], 2, "usage", "--bogus"),
        (["list", "--json", "--repository"], 2, "usage", "--repository"),
    ],
)
def test_errors_are_documents_too(
    backed_up: Site, cli: Cli, arguments: list[str], status: int, kind: str, words: str
) -> None:
    """Under --json an error is the one document on standard output: kind, message, hint; the status stays."""
    result = cli(*arguments)
    assert (result.status, result.document["error"]["kind"]) == (status, kind)
    assert words in result.document["error"]["message"]
    assert set(result.document["error"]) == {"kind", "message", "hint", "problems"}


def test_times_in_json(backed_up: Site, cli: Cli) -> None:
    """Every instant is there in nanoseconds and as RFC 3339."""
    cli.ok("verify", "telemetry")
    for command in (["list"], ["show", "telemetry@latest"], ["coverage", "telemetry", *DAY]):
        text = cli.ok(*command, "--json").out
        assert '"start": "1767225600000000000"' in text
        assert '"start_rfc3339": "2026-01-01T00:00:00Z"' in text
    [entry] = cli.ok("list", "--json").document["backups"]
    assert entry["verified"]["ended_at_rfc3339"].endswith("Z")
    json.dumps(entry)


@pytest.mark.parametrize(
    ("when", "revision"),
    [("2026-01-02", 0), ("2026-01-02#0", 0), ("2026-01-02T00:00Z", 0), ("2026-01-02T00:00:00Z", 0), ("latest", 0)],
)
def test_a_backup_by_its_date(backed_up: Site, cli: Cli, when: str, revision: int) -> None:
    """`plan@2026-01-02` is understood wherever a backup is named."""
    cli.ok("export", "telemetry", *NEXT_DAY)
    ref = f"telemetry@{when}"
    assert cli.ok("show", ref, "--json").document["ref"]["revision"] == revision
    assert "2026-01-02, 1 day, revision 0" in cli.ok("verify", ref).out
    copy = ("--target-database", f"{backed_up.database}_copy", "--dry-run")
    assert cli.ok("restore", ref, *copy, "--json").document["window"]["start"] == "1767312000000000000"


def test_dates_that_mean_no_single_backup(backed_up: Site, cli: Cli) -> None:
    """A day of several windows lists them; a day of none, and what is no date, are errors with the way out."""
    hours = [("2026-01-03T00:00:00Z", "2026-01-03T01:00:00Z"), ("2026-01-03T01:00:00Z", "2026-01-03T02:00:00Z")]
    for start, end in hours:
        cli.ok("export", "telemetry", "--start", start, "--end", end)
    several = cli("show", "telemetry@2026-01-03")
    assert (several.status, "telemetry@2026-01-03T01:00:00Z" in several.err) == (2, True)
    cli.ok("show", "telemetry@2026-01-03T01:00Z")
    assert cli("show", "telemetry@2026-02-03").status == 1
    assert cli("show", "telemetry@2026-01-01#7").status == 1
    for wrong in ("telemetry@yesterday", "telemetry@2026-01-01#x", "telemetry@2026-13-01"):
        result = cli("show", wrong)
        assert result.status == 2, wrong
        assert "telemetry" in result.err


def test_what_is_unknown_is_listed(backed_up: Site, cli: Cli) -> None:
    """A mistyped measurement, tag or database is answered with those there are and the nearest."""
    copy = ("--target-database", f"{backed_up.database}_copy", "--dry-run")
    measurement = cli("restore", "telemetry@latest", *copy, "--measurement", "cpi")
    assert (measurement.status, "Did you mean 'cpu'?" in measurement.err) == (1, True)
    assert "Did you mean 'host'?" in cli("restore", "telemetry@latest", *copy, "--tag", "hots=h1").err
    backed_up.config.write_text(backed_up.config.read_text().replace(backed_up.database, f"{backed_up.database}x"))
    cli("repo", "init", "second")
    database = cli("export", "telemetry", *DAY, "--repository", "second")
    assert f"Did you mean '{backed_up.database}'?" in database.err


def test_coverage_without_a_file(backed_up: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository alone says what it covers; only a recheck needs the plan's server."""
    monkeypatch.delenv("INFLUXDB_BACKUP_CONFIG")
    place = ("--repository-url", backed_up.repository)
    assert "covered" in cli.ok("coverage", "telemetry", *place, *DAY).out
    assert "--config FILE" in cli("coverage", "telemetry", *place, "--recheck").err


def test_a_failed_check_is_told_once(backed_up: Site, cli: Cli) -> None:
    """And not again among the problems."""
    backed_up.config.write_text(backed_up.config.read_text().replace("equals: 288", "equals: 7"))
    assert cli("drill", "telemetry").out.count("SELECT count(usage) FROM cpu") == 1


def test_mistakes_inside_a_plan_with_a_wrong_name(site: Site, cli: Cli) -> None:
    """Both are named at once."""
    site.config.write_text(site.config.read_text().replace("  telemetry:", "  Tele metry:").replace("start:", "strat:"))
    message = cli("config", "check").err
    assert "the name must be" in message
    assert "Did you mean 'start'?" in message


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2013-01-12T00:00:00Z", "2013-01-13T00:00:00Z", "2013-01-12, 1 day"),
        ("2013-01-12T06:00:00Z", "2013-01-12T12:00:00Z", "2013-01-12 06:00, 6 hours"),
        ("2013-01-12T06:00:00Z", "2013-01-12T06:10:00Z", "2013-01-12 06:00, 10 min"),
        ("2013-01-12T06:00:30Z", "2013-01-12T06:01:00Z", "2013-01-12 06:00:30, 30 s"),
        ("2013-01-12T00:00:00Z", "2013-01-12T11:11:11Z", "2013-01-12 to 2013-01-12 11:11:11"),
    ],
)
def test_windows_in_words(start: str, end: str, expected: str) -> None:
    """Start and length, or both ends where the length is not round."""
    assert say_window(parse_window(start, end)) == expected


@given(st.integers(MIN_TIME, MAX_END - 1), st.integers(1, 2**62))
def test_words_never_fail(start: int, length: int) -> None:
    """Every window that InfluxDB can hold has words."""
    try:
        window = Window(start=start, end=min(start + length, MAX_END))
    except (UsageError, ValueError):
        return
    assert say_window(window).isprintable()
