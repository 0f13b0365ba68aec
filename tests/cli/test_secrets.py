"""No command shows a secret, whatever is wrong and whoever repeats it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.cli.conftest import DAY, Cli, Result, Site
from tests.listening import QuietHandler, listening

SECRET = "pa/ss@wo?rd#1'\\\"&é"
"""with the characters that end a part of a URI, and those that JSON, HTML and Python escape"""
TOKEN = "tok-0123456789abcdef=="


class Echo(QuietHandler):
    """Refuses everything and repeats the request's headers, as proxies and debugging servers do."""

    def answer(self) -> None:
        """Headers, the line and the body of the request as the reason."""
        self.body()
        text = f"{self.requestline}\n{self.headers}"
        body = json.dumps({"error": text, "message": text}).encode()
        self.send_response(200 if self.path.startswith(("/ping", "/health")) else 403)
        self.send_header("X-Influxdb-Version", "2.7.1" if "Token" in text else "1.8.0")
        self.send_header("X-Influxdb-Error", " ".join(text.split()))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def holds_no_part(result: Result, *secrets: str) -> None:
    """Nothing of four or more characters of a secret stands in what was put out."""
    text = result.out + result.err
    for secret in secrets:
        for at in range(len(secret) - 5):
            assert secret[at : at + 6] not in text, (secret[at : at + 6], text)


@pytest.mark.parametrize("debug", [[], ["--debug"], ["--verbose"]])
@pytest.mark.parametrize("credentials", [f"root:{quote(SECRET, safe='')}@", f":{quote(TOKEN, safe='')}@"])
def test_a_server_that_repeats_the_request(
    site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch, credentials: str, debug: list[str]
) -> None:
    """Neither its words nor the traceback of --debug show a password, a token or the Basic header."""
    with listening(Echo) as url:
        address = url.removeprefix("http://")
        monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", f"influxdb-backup://{credentials}{address}/?organization=o")
        cli.ok("repo", "init", "primary")
        for command in (["databases"], ["export", "telemetry", *DAY]):
            result = cli(*debug, *command)
            assert result.status in (1, 2), result.out
            assert result.err.count("\nError: ") + result.err.startswith("Error: ") == 1
            holds_no_part(result, SECRET, TOKEN, "cm9vdDpwYS9zc0B3bz9yZCMx")
            assert "***" in result.err


@pytest.mark.parametrize(
    "uri",
    [
        f"influxdb-backup://user:{SECRET}@127.0.0.1:8086",
        "influxdb-backup://user:12/34topsecret@127.0.0.1:8086",
        "influxdb-backup://user:12?34topsecret@127.0.0.1:8086",
        "influxdb-backup://user:12#34topsecret@127.0.0.1:8086",
        "influxdb-backup://user:1@2/34topsecret@127.0.0.1:8086",
        "influxdb-backup://user:top\nsecret@127.0.0.1:8086",
        "influxdb-backup://user:top%0Asecret@127.0.0.1:8086",
    ],
)
def test_a_uri_that_was_not_encoded(site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    """Whatever character the password has, the message says to encode it and shows nothing of it."""
    monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", uri)
    result = cli("databases")
    assert result.status == 2, result.err
    assert "ercent-encode" in result.err or "control character" in result.err
    for part in ("34topsecret", "secret", "pa/ss", "wo?rd", "rd#1"):
        assert part not in result.err


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"password": "top\nsecret"}, "control character"),
        ({"extra": {"token": "top\rsecret"}}, "control character"),
        ({"extra": {"token": "töpsecret-topsecret"}}, "plain ASCII"),
        ({"schema": "34@topsecret"}, "has a schema"),
        ({"topsecret": "x"}, "unknown field"),
        ({"extra": {"topsecret": "x"}}, "unknown extra"),
        ({"extra": {"snapshot_address": "topsecret"}}, "host:port"),
        ({"host": "http://12/topsecret@h", "port": 8086}, "without credentials"),
    ],
)
def test_what_is_not_understood_is_not_quoted(
    site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], expected: str
) -> None:
    """A part of a connection that means nothing may be a part of its secret."""
    text = json.dumps({"conn_type": "influxdb_backup", "host": "127.0.0.1", **fields})
    monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", text)
    result = cli("databases")
    assert (result.status, expected in result.err) == (2, True), result.err
    assert "topsecret" not in result.err


def test_a_line_end_behind_a_secret_is_no_part_of_it(site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was read from a file with its line end works."""
    address = site.server.url.removeprefix("http://")
    host, _, port = address.partition(":")
    fields = {"conn_type": "influxdb_backup", "host": host, "port": port, "login": "me", "password": "pw\r\n"}
    monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", json.dumps(fields))
    assert site.database in cli.ok("databases").out


@pytest.mark.parametrize(
    "arguments",
    [
        ["databases", "--connection", "influxdb-backup://u:topsecret@h:1"],
        ["scrub-server", "influxdb-backup://:topsecret@h:1"],
        ["restore", "telemetry@latest", "--target-connection", "influxdb-backup://u:topsecret@h:1"],
        ["restore", "telemetry@latest", "--target-url", "http://u:12/topsecret@h:1", "--target-database", "x"],
        ["list", "--repository-url", "s3://b/x", "--repository-connection", "aws://k:topsecret@"],
        ["list", "telemetry", "--repository-url", "s3://key:se/cr/topsecret@bucket/x"],
        ["repo", "init", "s3://key:topsecret/x@bucket"],
    ],
)
def test_a_secret_in_the_wrong_place(backed_up: Site, cli: Cli, arguments: list[str]) -> None:
    """A URI where an id or an address without credentials belongs is refused without a part of it."""
    result = cli(*arguments)
    assert result.status == 2, result.err
    assert "topsecret" not in result.err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("connection: source", 'connection: "influxdb-backup://u:topsecret@h:8086"'),
        ("connection: source", 'connection: "influxdb-backup://topsecret"'),
        ("file:///", "s3://key:se/topsecret@bucket/"),
    ],
)
def test_a_secret_in_the_file(site: Site, cli: Cli, old: str, new: str) -> None:
    """`config check` says that it does not belong there, and where it does, without it."""
    site.config.write_text(site.config.read_text().replace(old, new, 1))
    result = cli("config", "check")
    assert (result.status, "topsecret" in result.err) == (2, False), result.err
    assert "id belongs" in result.err or "credentials" in result.err


def test_secrets_are_not_taken_from_arguments_in_silence(backed_up: Site, cli: Cli, tmp_path: Path) -> None:
    """An option that stands in the list of processes works, and the way that does not is said; a file is one."""
    target = ("--target-url", backed_up.server.url, "--target-database", f"{backed_up.database}_copy")
    warned = cli.ok("restore", "telemetry@latest", *target, "--dry-run", "--target-token", "topsecret")
    assert "INFLUXDB_BACKUP_TARGET_TOKEN" in warned.err
    assert "--target-token-file" in warned.err
    (tmp_path / "token").write_text("topsecret\n")
    quiet = cli.ok("restore", "telemetry@latest", *target, "--dry-run", "--target-token-file", str(tmp_path / "token"))
    assert "INFLUXDB_BACKUP_TARGET_TOKEN" not in quiet.err
    missing = cli("restore", "telemetry@latest", *target, "--dry-run", "--target-password-file", str(tmp_path / "no"))
    assert (missing.status, "cannot be read" in missing.err) == (2, True)
    both = cli("restore", "telemetry@latest", *target, "--target-token", "a", "--target-token-file", sys.executable)
    assert both.status == 2
