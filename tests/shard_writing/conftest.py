"""Servers with their backup doors and a new repository, for all that writes whole shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.influx.protocol import Server
from tests.jobs.support import local_repository, opened
from tests.servers import RunningServer


@pytest.fixture(autouse=True)
def compiled() -> None:
    """Shards are written by compiled loops only."""
    from influxdb_backup.fast import why_not_fast

    if why_not_fast():
        pytest.skip(str(why_not_fast()))


@pytest.fixture
def server(any_influx: RunningServer) -> Iterator[Server]:
    """Each kind of server at hand, with its backup door."""
    with opened(any_influx, snapshot_address=any_influx.backup_address) as found:
        yield found


@pytest.fixture(params=["influx1", "newer_influx1"])
def one(request: pytest.FixtureRequest) -> RunningServer:
    """Each 1.x server that is at hand."""
    found: RunningServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A new repository in a folder."""
    return local_repository(tmp_path)
