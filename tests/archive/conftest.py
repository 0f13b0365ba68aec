"""The three kinds of store, each empty; S3 is moto's server on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import Store, open_store
from tests.s3 import create_bucket, start_s3

MakeStore = Callable[[str], Store]


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server on a free loopback port."""
    with start_s3(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3_store(s3_endpoint: str) -> Store:
    """A new bucket's store."""
    bucket = f"b{uuid4().hex}"
    create_bucket(s3_endpoint, bucket)
    options = {
        "key": "testing-key-id",
        "secret": "testing-secret",
        "client_kwargs": {"endpoint_url": s3_endpoint, "region_name": "us-east-1"},
    }
    return open_store(f"s3://{bucket}/some/prefix", options)


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "s3":
        made: Store = request.getfixturevalue("s3_store")
        return made
    made = open_store(f"memory://{uuid4().hex}" if request.param == "memory" else f"file://{tmp_path}/repository")
    made.make_root()
    return made


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty folder."""
    made = open_store(f"file://{tmp_path}/repository")
    made.make_root()
    return made


@pytest.fixture
def repository(local_store: Store) -> Repository:
    """A new repository in a folder."""
    return Repository.init(local_store)
