"""The three kinds of store, each empty; S3 is moto's server on loopback."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import Store, open_store

MakeStore = Callable[[str], Store]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server on a free loopback port."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_store(s3_endpoint: str) -> Store:
    """A new bucket's store."""
    bucket = f"b{uuid4().hex}"
    request = urllib.request.Request(f"{s3_endpoint}/{bucket}", method="PUT")
    request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request")
    urllib.request.urlopen(request).close()
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
    return open_store(f"memory://{uuid4().hex}" if request.param == "memory" else f"file://{tmp_path}/repository")


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty folder."""
    return open_store(f"file://{tmp_path}/repository")


@pytest.fixture
def repository(local_store: Store) -> Repository:
    """A new repository in a folder."""
    return Repository.init(local_store)
