"""Servers with their backup doors, and what else the tests need that read or write whole shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.influx.protocol import Server
from tests.jobs.support import local_repository, opened
from tests.servers import RunningServer


@pytest.fixture(scope="session")
def compiled() -> None:
    """Shards are read and written by compiled loops only."""
    from influxdb_backup.fast import why_not_fast

    if why_not_fast():
        pytest.skip(f"lacks compiled loops: {why_not_fast()}")


@pytest.fixture
def server(any_influx: RunningServer) -> Iterator[Server]:
    """Each kind of server at hand, with its backup door."""
    with opened(any_influx, snapshot_address=any_influx.backup_address) as found:
        yield found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A new repository in a folder."""
    return local_repository(tmp_path)
