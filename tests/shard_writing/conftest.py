"""Fixtures of the tests that write whole shards."""

from __future__ import annotations

import pytest

from tests.servers import RunningServer
from tests.shard_fixtures import compiled, repository, server

__all__ = ["compiled", "repository", "server"]


@pytest.fixture(autouse=True)
def _compiled(compiled: None) -> None:
    """Nothing is written without the loops."""


@pytest.fixture(params=["influx1", "newer_influx1"])
def one(request: pytest.FixtureRequest) -> RunningServer:
    """Each 1.x server that is at hand."""
    found: RunningServer = request.getfixturevalue(request.param)
    return found
