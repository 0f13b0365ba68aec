"""Two loopback HTTP servers: one that replays recorded exchanges, one that records them in front of a real server."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import urllib3

from tests.listening import QuietHandler, listening
from tests.recorded.exchanges import KEPT_HEADERS, Answers, Exchange

_PIECE = 97
"""Bytes of a replayed chunk: small, so that readers meet every way in which an answer can be cut"""

Handle = Callable[[str, str, str, bytes], Exchange]
"""(token, method, target, body) -> the exchange whose reply is sent"""


def _token(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token if scheme == "Token" else ""


@contextmanager
def _serving(handle: Handle, certificate: Path | None = None) -> Iterator[str]:
    class Handler(QuietHandler):
        def answer(self) -> None:
            body = self.body()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            exchange = handle(_token(self.headers), self.command, self.path, body)
            self.send_response_only(exchange.status)
            chunked = exchange.headers.get("Transfer-Encoding") == "chunked"
            for name, value in exchange.headers.items():
                self.send_header(name, value)
            if not chunked and exchange.status != 204:
                self.send_header("Content-Length", str(len(exchange.reply)))
            self.end_headers()
            if not chunked:
                self.wfile.write(exchange.reply)
                return
            for start in range(0, len(exchange.reply), _PIECE):
                piece = exchange.reply[start : start + _PIECE]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    with listening(Handler, certificate) as url:
        yield url


@contextmanager
def replaying(answers: Answers, certificate: Path | None = None) -> Iterator[str]:
    """The URL of a server that gives recorded replies, over TLS with a certificate; 501 to what was not recorded."""
    lock = threading.Lock()

    def handle(token: str, method: str, target: str, body: bytes) -> Exchange:
        with lock:
            found = answers.find(token, method, target, body)
        words = f"not recorded: {method} {target}; record again with python -m tests.recorded.record"
        return found or Exchange(token, method, target, body, 501, {"Content-Type": "text/plain"}, words.encode())

    with _serving(handle, certificate) as url:
        yield url


@contextmanager
def recording(real: str, tokens: Mapping[str, str], into: list[Exchange]) -> Iterator[str]:
    """The URL of a server that passes requests on to a real one, tokens by their labels, and keeps the exchanges."""
    pool = urllib3.PoolManager(maxsize=8, retries=False, timeout=30)
    lock = threading.Lock()

    def handle(token: str, method: str, target: str, body: bytes) -> Exchange:
        kind = {"POST": "application/x-www-form-urlencoded" if target.startswith("/query") else "application/json"}
        headers = {
            "Accept": "application/x-msgpack" if target.startswith("/query") else "application/json",
            "Content-Type": "text/plain" if "/write" in target else kind.get(method, "application/json"),
            "Accept-Encoding": "identity",
        }
        if token:
            headers["Authorization"] = f"Token {tokens.get(token, token)}"
        reply = pool.request(method, real + target, body=body or None, headers=headers)
        kept = {name: reply.headers[name] for name in KEPT_HEADERS if name in reply.headers}
        exchange = Exchange(token, method, target, body, reply.status, kept, without_secrets(reply.data))
        with lock:
            into.append(exchange)
        return exchange

    with _serving(handle) as url:
        yield url


def without_secrets(reply: bytes) -> bytes:
    """A backup metadata reply whose key-value store and SQL parts are a few bytes; any other reply as it is."""
    if not reply.startswith(b"--") or b'name="kv"' not in reply:
        return reply
    boundary = reply[2 : reply.index(b"\r\n")]
    parts = reply.split(b"--" + boundary)
    short = []
    for part in parts:
        head, blank, _ = part.partition(b"\r\n\r\n")
        is_store = b'name="kv"' in head or b'name="sql"' in head
        short.append(head + blank + b"left out\r\n--of the recording\r\n" if is_store else part)
    return (b"--" + boundary).join(short)
