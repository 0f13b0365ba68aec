"""Small HTTP servers on loopback, each of which says only how it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.certificates import server_context


class QuietHandler(BaseHTTPRequestHandler):
    """Gives every request to ``answer``, and logs nothing; connections stay open."""

    protocol_version = "HTTP/1.1"
    wbufsize = 2**16
    disable_nagle_algorithm = True

    def answer(self) -> None:
        """Answers a request of any method."""
        raise NotImplementedError

    def _answered(self) -> None:
        self.answer()

    do_GET = do_POST = do_PATCH = do_DELETE = _answered  # noqa: N815

    def body(self) -> bytes:
        """The request's own."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


@contextmanager
def listening(handler: type[QuietHandler], certificate: Path | None = None) -> Iterator[str]:
    """The URL of a server with this handler, over TLS where it has a certificate."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        if certificate is not None:
            server.socket = server_context(certificate).wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
