"""TLS is verified unless somebody says otherwise, and an own certificate authority can be named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from influxdb_backup.errors import AccessError, ConfigError
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import ServerSettings
from tests.certificates import self_signed, server_context


class _Ping(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.send_header("X-Influxdb-Version", "1.8.10")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keeps the test's output clean."""


class _OnlyTls(_Ping):
    def do_GET(self) -> None:
        body = b"Client sent an HTTP request to an HTTPS server.\n"
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler], certificate: Path | None = None) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), handler)
    if certificate is not None:
        server.socket = server_context(certificate).wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key beside it."""
    return self_signed(tmp_path)


@pytest.fixture
def url(certificate: Path) -> Iterator[str]:
    """An https server that says it is 1.8.10."""
    with _served(_Ping, certificate) as address:
        yield f"https://{address}"


def test_an_unknown_certificate_is_refused(url: str) -> None:
    """Verification is on by default; the hint names ca_file."""
    with pytest.raises(AccessError, match="ca_file"):
        connect(ServerSettings(url=url))


def test_an_own_authority_is_accepted(url: str, certificate: Path) -> None:
    """With ca_file the same server is trusted."""
    assert connect(ServerSettings(url=url, ca_file=str(certificate))).info.version == "1.8.10"


def test_tls_where_there_is_none() -> None:
    """A server that speaks no TLS is not taken for one with a bad certificate."""
    with _served(_Ping) as plain, pytest.raises(AccessError, match=r"does not speak TLS there: .* Switch tls off"):
        connect(ServerSettings(url=f"https://{plain}"))


def test_no_tls_where_it_is_spoken() -> None:
    """A server that only speaks TLS is recognised by what InfluxDB answers to plain HTTP, and the switch is named."""
    with _served(_OnlyTls) as plain, pytest.raises(AccessError, match=r"speaks TLS only\. Switch tls on"):
        connect(ServerSettings(url=f"http://{plain}"))


@pytest.mark.filterwarnings("error::urllib3.exceptions.InsecureRequestWarning")
def test_verification_can_be_turned_off(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Only the explicit setting accepts a certificate that proves nothing; one line says so, not one per request."""
    server = connect(ServerSettings(url=url, name="plant-7", verify_tls=False))
    assert server.info.version == "1.8.10"
    assert [record.message for record in caplog.records] == [
        "The certificate of plant-7 is not checked, since verify_tls is false."
    ]


def test_a_file_of_authorities_that_is_not_there_is_named(url: str, tmp_path: Path) -> None:
    """A wrong path in the configuration is not taken for a server that cannot prove itself."""
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        connect(ServerSettings(url=url, ca_file=str(tmp_path / "missing.pem")))
