"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import (
    RunningServer,
    find_influxd1,
    find_influxd2,
    find_newer_influxd1,
    start_influxdb1,
    start_influxdb2,
)

settings.register_profile(
    "default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def influx1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real 1.x server: of Debian's package, or the one at INFLUXDB_URL; without one the suite proves nothing."""
    binary = find_influxd1()
    if binary is None and os.environ.get("INFLUXDB_URL"):
        yield RunningServer(url=os.environ["INFLUXDB_URL"].rstrip("/"), generation=1)
        return
    if binary is None:
        pytest.fail("No influxd on PATH: install the Debian package influxdb, or set INFLUXDB_URL to a 1.x server.")
    with start_influxdb1(tmp_path_factory.mktemp("influxdb1"), binary) as server:
        yield server


@pytest.fixture(scope="session")
def newer_influx1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real 1.12 server, where one is in the cache folder."""
    binary = find_newer_influxd1()
    if binary is None:
        pytest.skip("no influxd-1.* in the cache folder influxdb-backup-tests")
    with start_influxdb1(tmp_path_factory.mktemp("influxdb112"), binary) as server:
        yield server


@pytest.fixture(scope="session")
def influx2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real 2.x server: one given by INFLUXDB2_URL, or started from a binary."""
    url = os.environ.get("INFLUXDB2_URL")
    if url:
        yield RunningServer(
            url=url.rstrip("/"),
            generation=2,
            token=os.environ["INFLUXDB2_TOKEN"],
            organization=os.environ["INFLUXDB2_ORG"],
        )
        return
    binary = find_influxd2()
    if binary is None:
        pytest.skip("no 2.x server: set INFLUXDB2_URL, or INFLUXDB2_INFLUXD, or fill the cache folder")
    with start_influxdb2(tmp_path_factory.mktemp("influxdb2"), binary) as server:
        yield server


@pytest.fixture(params=["influx1", "newer_influx1", "influx2"])
def any_influx(request: pytest.FixtureRequest) -> RunningServer:
    """Each kind of server that is at hand."""
    server: RunningServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """A database name that no other test uses; the test creates it."""
    return f"db_{uuid4().hex[:12]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for a repository."""
    return tmp_path
