"""How many requests the jobs make at an S3 store, counted by a proxy in front of a real server of S3's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from influxdb_backup.archive.fetching import REQUESTS
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.errors import IntegrityError
from influxdb_backup.model import Part
from tests.archive.earlier import multiply
from tests.jobs.sources import fill
from tests.jobs.support import DAY, DAY_NS, back_up, new_database, opened, plan, window
from tests.s3 import Counted, counting, create_bucket, start_s3
from tests.servers import RunningServer


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """S3 behind a proxy that counts."""
    with start_s3(tmp_path_factory.mktemp("s3")) as endpoint, counting(endpoint) as counted:
        yield counted


@pytest.fixture
def remote(s3: Counted) -> Repository:
    """A new repository there, opened as a job opens it."""
    bucket = f"b-{uuid4().hex}"
    create_bucket(s3.url, bucket)
    options = {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": s3.url, "region_name": "us-east-1"},
    }
    return Repository.init(open_store(f"s3://{bucket}/backups", options))


TABLES = 40
DELAY = 0.3


def many_parts(server: RunningServer, repository: Repository) -> list[Part]:
    """The parts of a backup of many tables."""
    database = new_database(server)
    lines = [f"table_{number} value={number} {DAY.start + number}" for number in range(TABLES)]
    server.write("\n".join(lines).encode(), database)
    with opened(server) as source:
        ref = repository.ref(back_up(repository, source, plan(database)).ref)
    parts = [part for entry in repository.manifest(ref).tables for part in entry.parts]
    assert len(parts) == TABLES
    return parts


def test_one_listing_tells_that_the_parts_of_many_tables_are_there(
    influx1: RunningServer, remote: Repository, s3: Counted
) -> None:
    """A restore asks for no listing of each table; a part that is missing is found all the same."""
    parts = many_parts(influx1, remote)
    s3.requests.clear()
    remote.refuse_missing(parts)
    assert s3.methods() == {"GET": 1}
    remote.store.delete(parts[7].path)
    with pytest.raises(IntegrityError, match=parts[7].path):
        remote.refuse_missing(parts)


def test_as_many_parts_are_fetched_at_once_as_are_asked_for(
    influx1: RunningServer, remote: Repository, s3: Counted
) -> None:
    """A store that answers late is not waited for ten requests at a time, which is what its client would do."""
    parts = many_parts(influx1, remote)
    with counting(s3.url, DELAY) as far:
        options = {
            "key": "testing",
            "secret": "testing",
            "client_kwargs": {"endpoint_url": far.url, "region_name": "us-east-1"},
        }
        repository = Repository.open(open_store(remote.url, options))
        with repository.fetch(parts) as fetched:
            for part in parts:
                assert fetched.take(part) is not None
    assert far.most_waiting == REQUESTS


@pytest.mark.parametrize("windows", [5, 300])
def test_export_makes_as_few_requests_whatever_the_number_of_earlier_windows(
    influx1: RunningServer, remote: Repository, s3: Counted, windows: int
) -> None:
    """
    At most twelve for a small window of one table, and no HEAD: what a reply says is not asked again.

    The first export of an opened repository is one with the question whether the store refuses to create an object again.
    """
    database = new_database(influx1)
    chosen = plan(database, start="2024-03-01T00:00:00Z")
    with opened(influx1) as server:
        fill(influx1, database)
        first = back_up(remote, server, chosen)
        multiply(remote, first.ref, windows)
        for number in (1, 2, 3):
            span = window(DAY.start + number * DAY_NS, DAY.end + number * DAY_NS)
            fill(influx1, database, start=span.start)
            s3.requests.clear()
            if number < 3:  # a command opens the repository; the rest is the export
                repository = Repository.open(remote.store)
            result = back_up(repository, server, chosen, span)
            assert result.created
            told = "\n".join(f"{method} {path}" for method, path in s3.requests)
            assert s3.methods()["HEAD"] == 0, told
            asked_again = sum(method == "PUT" and "/manifests/" in path for method, path in s3.requests) - 1
            assert asked_again == (number < 3), told
            assert len(s3.requests) <= 12 - (not asked_again), told
