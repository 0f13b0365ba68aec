"""
An S3 server on loopback: moto's, in a process of its own, ``python -m tests.s3 PORT``.

moto looks whether an object is there and writes it in two steps, so that two conditional creates at once can both
succeed, which S3 promises not to happen. Here requests are answered one after the other.
"""

from __future__ import annotations

import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import free_port

ROOT = Path(__file__).parents[1]
SIGNATURE = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request"


class OneAtATime:
    """A WSGI application that answers one request at a time."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """The whole answer, made under the lock."""
        with self._lock:
            return list(self._application(environ, start_response))


def serve(port: int) -> None:
    """Serves until the process is ended."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    make_server("127.0.0.1", port, application, threaded=True).serve_forever()


def create_bucket(endpoint: str, bucket: str) -> None:
    """A new bucket, through the raw protocol."""
    request = urllib.request.Request(f"{endpoint}/{bucket}", method="PUT", headers={"Authorization": SIGNATURE})
    urllib.request.urlopen(request).close()


@contextmanager
def start_s3(folder: Path) -> Iterator[str]:
    """The endpoint of a new, empty S3 server."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    log = folder / f"s3-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3", str(port)],
            cwd=ROOT,
            env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=5).close()
                break
            except (OSError, urllib.error.URLError):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"moto's server did not answer:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.1)
        yield endpoint
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Counted:
    """A store behind a proxy, and what it was asked."""

    url: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    """method and target of each, in order of their arrival"""
    waiting: int = 0
    most_waiting: int = 0
    """how many waited for the delay at the same time"""

    def methods(self) -> Counter[str]:
        """How many of each method."""
        return Counter(method for method, _ in self.requests)


_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


@contextmanager
def counting(endpoint: str, delay: float = 0.0) -> Iterator[Counted]:
    """
    A proxy that passes every byte on, and writes down each request: a client sends none before it has a reply.

    Each request waits ``delay`` seconds before it goes on, as if the store were so far away; those of several
    connections wait at the same time.
    """
    host, port = endpoint.removeprefix("http://").split(":")
    counted = Counted("")
    lock = threading.Lock()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            """One connection."""
            with socket.create_connection((host, int(port))) as server:
                for end in (server, self.request):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=_copy, args=(server, self.request))
                back.start()
                while data := self.request.recv(1 << 16):
                    found = _REQUEST.match(data)
                    if found:
                        with lock:
                            counted.requests.append((found[1].decode(), found[2].decode()))
                            counted.waiting += 1
                            counted.most_waiting = max(counted.most_waiting, counted.waiting)
                        time.sleep(delay)
                        with lock:
                            counted.waiting -= 1
                    server.sendall(data)
                with suppress(OSError):
                    server.shutdown(socket.SHUT_WR)
                back.join()

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

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


if __name__ == "__main__":
    serve(int(sys.argv[1]))
