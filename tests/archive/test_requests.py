"""How many requests the jobs make at an S3 store, counted by a proxy in front of a real server of S3's protocol."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from influxdb_backup.archive.documents import content_id, ref_of, sha256, to_bytes
from influxdb_backup.archive.layout import manifest_key, ref_key
from influxdb_backup.archive.repository import Repository, at_once
from influxdb_backup.archive.store import open_store
from tests.jobs.sources import fill
from tests.jobs.support import DAY, DAY_NS, back_up, new_database, opened, plan, window
from tests.s3 import create_bucket, start_s3
from tests.servers import RunningServer


@dataclass
class Counted:
    """A store behind a proxy, and what it was asked."""

    url: str
    requests: list[tuple[str, str]] = field(default_factory=list)

    def methods(self) -> Counter[str]:
        """How many of each method."""
        return Counter(method for method, _ in self.requests)


_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


@contextmanager
def counting(endpoint: str) -> Iterator[Counted]:
    """A proxy that passes every byte on, and writes down each request: a client sends none before it has a reply."""
    host, port = endpoint.removeprefix("http://").split(":")
    counted = Counted("")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            """One connection."""
            with socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=_copy, args=(server, self.request))
                back.start()
                while data := self.request.recv(1 << 16):
                    found = _REQUEST.match(data)
                    if found:
                        counted.requests.append((found[1].decode(), found[2].decode()))
                    server.sendall(data)
                with suppress(OSError):
                    server.shutdown(socket.SHUT_WR)
                back.join()

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Proxy(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        counted.url = f"http://127.0.0.1:{proxy.server_address[1]}"
        try:
            yield counted
        finally:
            proxy.shutdown()
            thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


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


def multiply(repository: Repository, ref: str, count: int) -> None:
    """As many further windows before a backup's own, of the same parts."""
    first = repository.ref(ref)
    said = repository.manifest(first)

    def put(number: int) -> None:
        span = window(first.window.start - number * DAY_NS, first.window.end - number * DAY_NS)
        content = content_id(said.source, said.scope, span, said.tables)
        manifest = said.model_copy(update={"window": span, "content_id": content})
        data = to_bytes(manifest)
        digest = sha256(data)
        repository.store.create(manifest_key(digest), data)
        copy = ref_of(manifest, digest, len(data), revision=0, write_id=uuid4().hex)
        repository.store.create(ref_key(copy.plan, copy.window, 0), to_bytes(copy))

    at_once(put, range(1, count + 1))


@pytest.mark.parametrize("windows", [5, 300])
def test_export_makes_as_few_requests_whatever_the_number_of_earlier_windows(
    influx1: RunningServer, remote: Repository, s3: Counted, windows: int
) -> None:
    """
    At most twelve for a small window of one table, and no HEAD: what a reply says is not asked again.

    An opened repository asks once more, the first time: whether the store refuses to create an object again.
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
            assert len(s3.requests) - asked_again <= 12, told
