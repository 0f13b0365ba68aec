"""Which servers are on this machine, and how bodies travel."""

from __future__ import annotations

import gzip

import pytest

from influxdb_backup.errors import ServerUnavailableError
from influxdb_backup.influx.http import Http
from influxdb_backup.influx.protocol import ServerSettings
from influxdb_backup.influx.sending import http_sender, is_loopback
from tests.influx_read.support import replaying
from tests.influx_write.support import loopback


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8086", True),
        ("http://127.7.7.7", True),
        ("http://[::1]:8086/influx", True),
        ("https://localhost:8086", True),
        ("http://db.localhost", True),
        ("http://10.0.0.1:8086", False),
        ("https://influx.example.org", False),
        ("http://localhost.example.org", False),
    ],
)
def test_servers_on_this_machine(url: str, here: bool) -> None:
    """Only loopback addresses are this machine."""
    assert is_loopback(url) == here


@pytest.mark.parametrize("compress", [True, False])
def test_a_body_travels_stored_or_compressed_and_with_a_checksum(compress: bool) -> None:
    """The server gets the same lines either way, as gzip whose CRC it proves."""
    bodies: list[bytes] = []

    def answer(body: bytes) -> tuple[int, bytes]:
        bodies.append(body)
        return 204, b""

    with loopback(answer) as server:
        http = Http(ServerSettings(url=server.url))
        assert http_sender(http, "/write", {"db": "x"}, compress=compress)(b"m v=1 1\n").status == 204
        http.close()
    assert [gzip.decompress(body) for body in bodies] == [b"m v=1 1\n"]


def test_an_answer_is_passed_on_with_its_words() -> None:
    """Statuses are returned, not raised: the writer judges them."""
    with loopback(lambda body: (422, b'{"code":"unprocessable entity","message":"because"}')) as server:
        http = Http(ServerSettings(url=server.url))
        answer = http_sender(http, "/write", {}, compress=False)(b"m v=1 1\n")
        http.close()
    assert (answer.status, answer.reason) == (422, "because")


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"7", 7.0), (b" 30 ", 30.0), (b"Wed, 21 Oct 2026 07:28:00 GMT", None), (b"-1", None)]
)
def test_the_time_to_wait_is_passed_on(value: bytes, seconds: float | None) -> None:
    """Retry-After in seconds; a date, and what is none of both, is no word on it."""
    answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: " + value + b"\r\n\r\n"
    with replaying(answer) as url:
        http = Http(ServerSettings(url=url))
        assert http_sender(http, "/write", {}, compress=False)(b"m v=1 1\n").retry_after == seconds
        http.close()


def test_a_lost_connection_is_a_try_that_failed() -> None:
    """A server that is not there raises the error that the writer tries again on, at once."""
    with loopback(lambda body: (204, b"")) as server:
        url = server.url
    http = Http(ServerSettings(url=url))
    with pytest.raises(ServerUnavailableError):
        http_sender(http, "/write", {}, compress=False)(b"m v=1 1\n")
    http.close()
