"""A 2.x server and the means to prepare it."""

from __future__ import annotations

import pytest

from tests.influx2.support import Preparation
from tests.servers import RunningServer


@pytest.fixture
def two(influx2: RunningServer) -> Preparation:
    """A real 2.x server with the operator's means to prepare it."""
    return Preparation(influx2)
