"""What travels between the product and a real server: a loopback relay that keeps what the client sent."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import urllib3

from tests.listening import QuietHandler, listening

_HEAD = re.compile(rb"(?:GET|POST|HEAD|PATCH|DELETE) /[^\r\n]* HTTP/1\.1\r\n.*?\r\n\r\n", re.DOTALL)


@dataclass
class Wire:
    """A relay in front of one server."""

    port: int
    sent: list[bytearray] = field(default_factory=list)
    """the bytes of each connection that a client opened"""

    @property
    def heads(self) -> list[bytes]:
        """Request lines and headers of all requests."""
        return [head for sent in list(self.sent) for head in _HEAD.findall(bytes(sent))]

    def of(self, path: str) -> list[bytes]:
        """The heads of the requests to one path."""
        return [head for head in self.heads if head.split()[1].split(b"?")[0] == path.encode()]


@contextmanager
def relayed(url: str) -> Iterator[Wire]:
    """Passes every byte on to the server at ``url`` and back."""
    parts = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    wire = Wire(port=listener.getsockname()[1])

    def pump(source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if kept is not None:
                    kept += data
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((parts.hostname, parts.port))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                kept = bytearray()
                wire.sent.append(kept)
                for way in ((client, server, kept), (server, client, None)):
                    threading.Thread(target=pump, args=way, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@contextmanager
def swallowing(url: str, bodies: int) -> Iterator[str]:
    """
    The address of a proxy before the server at ``url`` that confirms so many bodies of points and drops them.

    So does a server that loses a write which it has confirmed; everything else is passed on.
    """
    left = itertools.chain([True] * bodies, itertools.repeat(False))

    class Handler(QuietHandler):
        def answer(self) -> None:
            body = self.body()
            if self.path.startswith("/write") and next(left):
                self._answer(204, {}, b"")
                return
            headers = {name: value for name, value in self.headers.items() if name not in {"Host", "Connection"}}
            reply = urllib3.request(self.command, url + self.path, body=body, headers=headers, redirect=False)
            kept = {"Content-Type", "Date", "X-Influxdb-Version", "X-Influxdb-Build", "X-Influxdb-Error"}
            self._answer(reply.status, {k: v for k, v in reply.headers.items() if k in kept}, reply.data)

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with listening(Handler) as address:
        yield address


@contextmanager
def trickling(address: str, marker: bytes, *, after: int, times: int, pause: float = 0.1) -> Iterator[str]:
    """
    The address of a relay to ``address`` whose answers to requests with ``marker`` become slow.

    From the byte ``after`` of such an answer on one byte passes every ``pause`` seconds; so ``times`` times, then every
    answer passes as it is.
    """
    host, _, port = address.rpartition(":")
    left = [times]

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection((host, int(port))) as upstream:
            is_marked, passed = threading.Event(), [0]

            def pass_on() -> None:
                with suppress(OSError):
                    while request := client.recv(1 << 16):
                        passed[0] = 0
                        if marker in request:
                            is_marked.set()
                        elif request[:5] in (b"GET /", b"POST ") and b"\r\n\r\n" in request:
                            is_marked.clear()
                        upstream.sendall(request)
                    upstream.shutdown(socket.SHUT_WR)

            threading.Thread(target=pass_on, daemon=True).start()
            while answer := upstream.recv(1 << 16):
                at_once = max(0, after - passed[0]) if is_marked.is_set() else len(answer)
                if at_once < len(answer):
                    left[0] -= 1
                    at_once = at_once if left[0] >= 0 else len(answer)
                client.sendall(answer[:at_once])
                for place in range(at_once, len(answer)):
                    time.sleep(pause)
                    client.sendall(answer[place : place + 1])
                passed[0] += len(answer)
            client.shutdown(socket.SHUT_WR)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
