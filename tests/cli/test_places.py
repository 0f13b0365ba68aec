"""The same commands with other servers and stores, reached through connections of the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.cli.conftest import DAY, ROWS, Cli, Site, fill
from tests.s3 import create_bucket, start_s3
from tests.servers import RunningServer


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    """The endpoint of an S3 server with the bucket ``backups``."""
    with start_s3(tmp_path) as endpoint:
        create_bucket(endpoint, "backups")
        yield endpoint


def test_s3(site: Site, cli: Cli, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository in S3, its credentials and endpoint from a connection of type aws."""
    text = site.config.read_text().replace(f'url: "{site.repository}"', 'url: "s3://backups/influx", connection: store')
    site.config.write_text(text)
    missing = cli("repo", "init", "primary")
    assert (missing.status, "INFLUXDB_BACKUP_CONN_STORE" in missing.err) == (2, True)
    extra = f"endpoint_url={quote(bucket, safe='')}&region_name=us-east-1"
    monkeypatch.setenv("INFLUXDB_BACKUP_CONN_STORE", f"aws://key:topsecret@/?{extra}")
    cli.ok("repo", "init", "primary")
    cli.ok("export", "telemetry", *DAY)
    cli.ok("verify", "telemetry")
    place = ("--repository-url", "s3://backups/influx", "--repository-connection", "store")
    assert len(cli.ok("list", "--ids", *place).out.splitlines()) == 1
    monkeypatch.setenv(
        "INFLUXDB_BACKUP_CONN_STORE", f"aws://key:topsecret@/?{extra.replace('endpoint_url', 'endpoint')}"
    )
    refused = cli("list")
    assert (refused.status, "Did you mean 'endpoint_url'?" in refused.err) == (2, True)
    assert "topsecret" not in refused.err


def test_any_server(
    any_influx: RunningServer, database: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export, verify, drill and restore on each kind of server, with a connection as Airflow's variable holds it."""
    fill(any_influx, database)
    config = tmp_path / "backup.yaml"
    config.write_text(
        f"""
repositories: {{primary: {{url: "file://{tmp_path}/repository"}}}}
plans: {{telemetry: {{database: {database}, connection: source}}}}
"""
    )
    credentials = f":{any_influx.token}@" if any_influx.token else ""
    organization = f"?organization={any_influx.organization}" if any_influx.organization else ""
    address = any_influx.url.removeprefix("http://")
    monkeypatch.setenv("AIRFLOW_CONN_SOURCE", f"influxdb-backup://{credentials}{address}/{organization}")
    monkeypatch.setenv("INFLUXDB_BACKUP_CONFIG", str(config))
    cli.ok("repo", "init", "primary")
    assert cli.ok("export", "telemetry", *DAY, "--json").document["rows"] == ROWS
    cli.ok("verify", "telemetry")
    cli.ok("drill", "telemetry")
    target = ("--target-url", any_influx.url, "--target-database", f"{database}_copy")
    if any_influx.token:
        target += ("--target-token", any_influx.token, "--target-organization", any_influx.organization or "")
    report = cli.ok("restore", "telemetry@latest", *target, "--json").document
    assert (report["rows"], report["rejects"]) == (ROWS, 0)
    assert database in cli.ok("databases").out
