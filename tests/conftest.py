"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from influxdb_backup.messages import MASKER
from tests.proved import Proved
from tests.servers import (
    NEWER,
    STARTED,
    TWO,
    RunningServer,
    daemon,
    find_influxd1,
    product,
    start_influxdb1,
    start_influxdb2,
)

settings.register_profile(
    "default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")


_BEFORE = pytest.StashKey[int]()
"""how many servers had been started before a case"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options by which a second run takes what a first one had no server for."""
    group = parser.getgroup("servers")
    group.addoption("--proved", type=Path, help="keep in this file what was proved and what lacked a server")
    group.addoption(
        "--lacking", type=Path, help="run only the cases for which the run that kept this file had no server"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves what the earlier run lacked."""
    earlier = config.getoption("--lacking")
    if earlier is not None:
        lacking = Proved.read(earlier).lacking
        items[:] = [item for item in items if item.nodeid in lacking]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Servers that are started from here on are the case's."""
    item.stash[_BEFORE] = len(STARTED)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Notes the servers of a case: those of its fixtures, and those that it started itself."""
    if call.when == "call":
        fixtures = getattr(item, "funcargs", {}).values()
        used = {value.product for value in fixtures if isinstance(value, RunningServer)}
        used.update(STARTED[item.stash[_BEFORE] :])
        item.user_properties += [("server", name) for name in sorted(used)]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Generator[None, None, None]:
    """Above the closing line: which servers were proved and by how many cases, and what was lacking."""
    yield
    if hasattr(config, "workerinput"):  # one of xdist's processes, whose cases the first process counts
        return
    proved = Proved()
    for report in terminalreporter.stats.get("passed", ()):
        if report.when == "call":
            proved.passed(value for name, value in report.user_properties if name == "server")
    for report in terminalreporter.stats.get("skipped", ()):
        proved.skipped(report.nodeid, report.longrepr[2])
    earlier, kept = config.getoption("--lacking"), config.getoption("--proved")
    if earlier is not None:
        proved = Proved.read(earlier).add(proved)
    if kept is not None:
        proved.keep(kept)
    for line in proved.lines():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def influx1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real 1.x server: of Debian's package, or the one at INFLUXDB_URL; without one the suite proves nothing."""
    binary = find_influxd1()
    if binary is None and os.environ.get("INFLUXDB_URL"):
        url = os.environ["INFLUXDB_URL"].rstrip("/")
        yield RunningServer(url=url, generation=1, product=product(url))
        return
    if binary is None:
        pytest.fail("No influxd on PATH: install the Debian package influxdb, or set INFLUXDB_URL to a 1.x server.")
    with start_influxdb1(tmp_path_factory.mktemp("influxdb1"), binary) as server:
        yield server


@pytest.fixture(scope="session")
def newer_influx1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real 1.12 server, where one is in the cache folder."""
    with start_influxdb1(tmp_path_factory.mktemp("influxdb112"), daemon(NEWER)) as server:
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
            product=product(url),
        )
        return
    with start_influxdb2(tmp_path_factory.mktemp("influxdb2"), daemon(TWO)) as server:
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


@pytest.fixture(autouse=True)
def own_secrets() -> Iterator[None]:
    """What a case made secret is forgotten after it: a password 'wrong' would hide that word from all others."""
    with MASKER.forgetting():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for a repository."""
    return tmp_path
