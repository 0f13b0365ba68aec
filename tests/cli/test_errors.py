"""Errors as a person reads them: what is wrong, what to do, and the exit status that scripts rely on."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import cast

import pytest

from influxdb_backup.cli import output
from influxdb_backup.influx.http import Http
from tests.cli.conftest import DAY, Cli, Site, fill
from tests.servers import DEBIANS, daemon, free_port, start_influxdb1


def refused(cli: Cli, status: int, expected: list[str], *arguments: str) -> str:
    """The call ends with this status and these words on standard error, with no traceback and no output."""
    result = cli(*arguments)
    assert result.status == status, result.err
    assert result.out == ""
    assert result.err.startswith(("Error: ", "Usage: "))
    assert "Traceback" not in result.err
    for words in expected:
        assert words in result.err
    return result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["export", "telemtry", *DAY], ["no plan 'telemtry'", "Did you mean 'telemetry'?", "Plans: telemetry"]),
        (["coverage", "telemtry"], ["Did you mean 'telemetry'?"]),
        (["drill", "telemtry"], ["Did you mean 'telemetry'?"]),
        (["export", "telemetry", "--start", DAY[3], "--end", DAY[1]], ["start must be before its end"]),
        (["export", "telemetry", "--start", "2026-01-01T00:00:00", "--end", DAY[3]], ["no time zone", "Add Z for UTC"]),
        (["export", "telemetry", "--start", "2026-01-01", "--end", DAY[3]], ["in UTC write 2026-01-01T00:00:00Z"]),
        (["export", "telemetry", "--start", "yesterday", "--end", DAY[3]], ["'yesterday' is not a time", "RFC 3339"]),
        (["export", "telemetry", *DAY, "--repository", "secnd"], ["Did you mean 'second'?"]),
        (["list", "--start", DAY[1]], ["--start and --end belong together"]),
        (["show", "telemetry"], ["telemetry@latest"]),
        (["show", "telemetry/2026/0"], ["2026", "list --ids"]),
        (["restore", "telemetry"], ["needs a range", "telemetry@latest"]),
        (["restore", "telemetry", "telemetry@latest"], ["either a plan or backups"]),
        (["restore", "a@latest", "b@latest"], ["several plans: a, b"]),
        (["restore", "telemetry@latest", "--tag", "host"], ["KEY=VALUE"]),
        (["drill", "telemetry", "--ref", "other@latest"], ["no backup of the plan"]),
        (["repo", "init", "s3://key:topsecret@bucket"], ["holds credentials"]),
        (["repo", "init", "primary", "--repository-connection", "x"], ["--repository-url"]),
        (["config", "check", "missing.yaml"], ["no configuration file missing.yaml"]),
    ],
)
def test_wrong_calls(backed_up: Site, cli: Cli, arguments: list[str], expected: list[str]) -> None:
    """A wrong call ends with status 2 and says what is right."""
    assert "topsecret" not in refused(cli, 2, expected, *arguments)


def test_wrong_options(cli: Cli) -> None:
    """Unknown commands, options and choices, and missing arguments, end with status 2."""
    for arguments in (["bogus"], ["export"], ["list", "--bogus"], ["verify", "x", "--level", "perfect"]):
        assert cli(*arguments).status == 2


@pytest.mark.parametrize(
    "option",
    ["--target-database", "--target-connection", "--target-retention-policy", "--measurement", "--restore-id"],
)
def test_an_empty_option_is_not_one_that_was_left_out(backed_up: Site, cli: Cli, option: str) -> None:
    """``--target-database "$UNSET"`` does not write into the source, whatever else is said."""
    before = backed_up.count(backed_up.database)
    backed_up.server.query("DELETE FROM cpu", db=backed_up.database)
    result = cli("restore", "telemetry@latest", "--on-conflict", "merge", option, "")
    assert (result.status, option in result.err, "It is empty" in result.err) == (2, True, True)
    assert (before, backed_up.count(backed_up.database)) == (576, 0)


def test_no_configuration(cli: Cli) -> None:
    """Without a configuration file the option and the variable are named."""
    refused(cli, 2, ["--config FILE", "INFLUXDB_BACKUP_CONFIG"], "list")


def test_wrong_configuration(site: Site, cli: Cli) -> None:
    """A mistake in the file is named with file, line and key."""
    site.config.write_text(site.config.read_text().replace("    start:", "    strat:"))
    refused(cli, 2, [f"{site.config}, line 9", "plans.telemetry.strat", "Did you mean 'start'?"], "config", "check")


def test_missing_connection(site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing connection is answered with the variable to set and an example."""
    monkeypatch.delenv("INFLUXDB_BACKUP_CONN_SOURCE")
    cli.ok("repo", "init", "primary")
    expected = ["no connection 'source'", "INFLUXDB_BACKUP_CONN_SOURCE", "AIRFLOW_CONN_SOURCE", "influxdb-backup://"]
    refused(cli, 2, expected, "export", "telemetry", *DAY)


def test_no_target(backed_up: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore by URL without a target asks for one."""
    monkeypatch.delenv("INFLUXDB_BACKUP_CONFIG")
    place = ("--repository-url", backed_up.repository)
    refused(cli, 2, ["--target-url http://host:8086"], "restore", "telemetry@latest", *place)
    refused(cli, 2, ["must start with http://"], "restore", "telemetry@latest", *place, "--target-url", "localhost:1")


def test_no_repository(site: Site, cli: Cli) -> None:
    """A repository that was not made is answered with the command that makes it."""
    refused(cli, 1, ["no repository at file://", "`influxdb-backup repo init primary`"], "export", "telemetry", *DAY)


def test_unwritable_repository(site: Site, cli: Cli, tmp_path: Path) -> None:
    """A place where nothing can be written is named."""
    (tmp_path / "file").write_text("not a folder")
    site.config.write_text(site.config.read_text().replace(site.repository, f"file://{tmp_path}/file/repository"))
    refused(cli, 1, [f"{tmp_path}/file/repository"], "repo", "init", "primary")


def test_unknown_backup(backed_up: Site, cli: Cli) -> None:
    """A backup that is not there ends with status 1 and the command that lists what is."""
    ref = "telemetry/20260105T000000.000000000Z_20260106T000000.000000000Z/000000"
    refused(cli, 1, ["no backup", "influxdb-backup list telemetry"], "verify", ref)


def test_open_window(backed_up: Site, cli: Cli) -> None:
    """A window that is still open is refused with the time from which it can be backed up."""
    words = ["still open", "from 2261-01-01T00:30:00Z, in 23"]
    day = ("--start", "2260-12-31T00:00:00Z", "--end", "2261-01-01T00:00:00Z")
    refused(cli, 1, words, "export", "telemetry", *day)
    whole = ("--start", "2026-01-01T00:00:00Z", "--end", "2261-01-01T00:00:00Z", "--as-one")
    refused(cli, 1, words, "export", "telemetry", *whole)


def test_unknown_database(site: Site, cli: Cli) -> None:
    """An unknown database is an error that names it, not an empty backup."""
    site.config.write_text(site.config.read_text().replace(site.database, "nowhere"))
    cli.ok("repo", "init", "primary")
    refused(cli, 1, ["nowhere"], "export", "telemetry", *DAY)
    assert cli.ok("list").out == ""


def test_wrong_password(site: Site, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused credentials end with status 1 and name the connection, never the password."""
    binary = daemon(DEBIANS)
    cli.ok("repo", "init", "primary")
    with start_influxdb1(tmp_path / "guarded", binary, auth=True) as server:
        server.query("CREATE USER admin WITH PASSWORD 'topsecret' WITH ALL PRIVILEGES")
        address = server.url.removeprefix("http://")
        monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", f"influxdb-backup://admin:wrongsecret@{address}")
        message = refused(cli, 1, ["source"], "export", "telemetry", *DAY)
        assert "secret" not in message
        monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", f"influxdb-backup://admin:topsecret@{address}")
        assert cli("databases").status == 0


def test_unreachable_server(site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is named, once the retries have run out."""
    monkeypatch.setitem(cast(dict[str, float], Http.__init__.__kwdefaults__), "retry_seconds", 0.5)
    monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", f"influxdb-backup://127.0.0.1:{free_port()}")
    refused(cli, 1, ["source"], "databases")


def test_recheck_without_its_server(backed_up: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recheck that cannot ask fails; only without it the repository alone answers."""
    monkeypatch.setitem(cast(dict[str, float], Http.__init__.__kwdefaults__), "retry_seconds", 0.5)
    monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", f"influxdb-backup://127.0.0.1:{free_port()}")
    refused(cli, 1, ["source"], "coverage", "telemetry", *DAY, "--recheck")
    cli.ok("coverage", "telemetry", *DAY)


def test_debug_shows_the_error(cli: Cli) -> None:
    """With --debug the place where an error was raised is shown, and the message and the status stay."""
    result = cli("--debug", "list")
    assert (result.status, result.out) == (2, "")
    assert "Traceback" in result.err
    assert "session.py" in result.err
    assert "Error: No configuration file is named." in result.err


def test_names_that_no_terminal_shows(site: Site, cli: Cli) -> None:
    """A measurement with control characters and bytes that are not UTF-8 neither breaks tables nor JSON."""
    fill(site.server, f"{site.database}_odd", days=1)
    site.server.write(b"bad\\ \xff[bold] v=1 1767225600000000000", f"{site.database}_odd")
    site.config.write_text(site.config.read_text().replace(site.database, f"{site.database}_odd"))
    cli.ok("repo", "init", "primary")
    cli.ok("export", "telemetry", *DAY)
    shown = cli.ok("show", "telemetry@latest")
    assert "\\udcff[bold]" in shown.out
    names = [
        entry["table"]["measurement"]
        for entry in cli.ok("show", "telemetry@latest", "--json").document["manifest"]["tables"]
    ]
    assert {"base64": "YmFkIP9bYm9sZF0="} in names


def test_an_interruption_is_said(site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a server does not answer ends with its own status and a sentence."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", f"influxdb-backup://127.0.0.1:{silent.getsockname()[1]}")
            signal.setitimer(signal.ITIMER_REAL, 1)
            refused(cli, 130, ["Interrupted"], "databases")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_restore_that_fails_names_the_id_to_go_on_with(backed_up: Site, cli: Cli) -> None:
    """The id that was made up is told once points may be there; before that there is nothing to go on with."""
    target = f"{backed_up.database}_target"
    backed_up.server.create_database(target)
    backed_up.server.write('cpu,host=x usage="text" 1767311999000000001', target)
    arguments = ["restore", "telemetry@latest", "--target-database", target]
    message = refused(cli, 1, ["already has points"], *arguments)
    assert "--restore-id" not in message
    merge = ["--on-conflict", "merge"]
    message = refused(cli, 1, ["refuse values of another type", "--max-rejects"], *arguments, *merge)
    assert "--restore-id" not in message
    message = refused(cli, 1, ["--restore-id"], *arguments, *merge, "--max-rejects", "1")
    restore_id = message.rsplit("--restore-id ", 1)[1].split(".")[0]
    folder = Path(backed_up.repository.removeprefix("file://")) / "restores"
    assert [path.stem for path in folder.glob("*.json")] == [restore_id]
    message = refused(cli, 1, ["with another request"], *arguments, "--restore-id", restore_id)
    assert "It goes on where it ended" not in message
    backed_up.server.query(f'DROP DATABASE "{target}"')


def test_a_running_restore_says_its_id(backed_up: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known as long as it runs, also to whoever finds it killed."""
    monkeypatch.setattr(output, "PLAIN_SECONDS", 0.0)
    target = f"{backed_up.database}_target"
    done = cli.ok("restore", "telemetry@latest", "--target-database", target, "--json")
    assert f"restore {done.document['restore_id']}: write" in done.err
