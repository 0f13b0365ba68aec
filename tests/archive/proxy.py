"""A proxy in front of an S3 server that answers some requests itself, changes them, or swallows their replies."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    """by lower-case name"""


@dataclass(frozen=True)
class Reply:
    """What is answered without asking the server."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Swallow:
    """The server does it, and the connection is cut instead of a reply."""


@dataclass(frozen=True)
class Without:
    """The request goes on without this header."""

    header: str


Rule = Callable[[Asked], Reply | Swallow | Without | None]


def error(status: int, code: str, message: str = "as the test wants") -> Reply:
    """An error in S3's words."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status, body.encode(), {"Content-Type": "application/xml"})


@contextmanager
def proxied(endpoint: str, rule: Rule) -> Iterator[tuple[str, list[Asked]]]:
    """The endpoint of the proxy, and the requests that it has seen."""
    seen: list[Asked] = []
    server = urlsplit(endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_one(self) -> None:
            asked = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
            seen.append(asked)
            body = self._body()
            act = rule(asked)
            if isinstance(act, Reply):
                self._answer(act.status, act.headers, act.body)
                return
            sent = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
            sent["Content-Length"] = str(len(body))
            if isinstance(act, Without):
                sent = {name: value for name, value in sent.items() if name.lower() != act.header}
            connection = http.client.HTTPConnection(server.hostname or "", server.port, timeout=60)
            connection.request(self.command, self.path, body, sent)
            reply = connection.getresponse()
            content = reply.read()
            if isinstance(act, Swallow):
                self.close_connection = True
                return
            kept = {"connection", "transfer-encoding", "server", "date"}
            headers = {name: value for name, value in reply.getheaders() if name.lower() not in kept}
            self._answer(reply.status, headers, content)
            connection.close()

        def _body(self) -> bytes:
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                continue
            return body

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if self.command == "HEAD" or name.lower() != "content-length":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one  # noqa: N815

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}", seen
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
