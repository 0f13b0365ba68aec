"""Opened servers and repositories for the tests of the jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.influx.protocol import Server
from tests.jobs.support import local_repository, opened
from tests.servers import RunningServer
from tests.shard_fixtures import compiled

__all__ = ["compiled"]


@pytest.fixture(scope="session")
def server1(influx1: RunningServer) -> Iterator[Server]:
    """The product's view of the real 1.6.7 server."""
    with opened(influx1) as server:
        yield server


@pytest.fixture(scope="session")
def server2(influx2: RunningServer) -> Iterator[Server]:
    """The product's view of the real 2.x server."""
    with opened(influx2) as server:
        yield server


@pytest.fixture
def any_server(any_influx: RunningServer) -> Iterator[Server]:
    """The product's view of each kind of server that is at hand."""
    with opened(any_influx) as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A new repository in a folder."""
    return local_repository(tmp_path)
