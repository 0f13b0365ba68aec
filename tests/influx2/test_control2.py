"""What a server, or a proxy before it, may answer instead of a listing of buckets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from influxdb_backup.errors import AccessError, ServerError, ServerUnavailableError
from influxdb_backup.influx.control2 import ControlPlane
from influxdb_backup.influx.protocol import ServerSettings
from tests.listening import QuietHandler, listening


@contextmanager
def answering(status: int, body: bytes, missing: int = 0) -> Iterator[ControlPlane]:
    """A control plane whose server gives every request this answer, and hangs up ``missing`` bytes before its end."""

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.0"

        def answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + missing))
            self.end_headers()
            self.wfile.write(body)

    with listening(Handler) as url:
        control = ControlPlane(ServerSettings(url=url, token="t", name="production", timeout=5))
        with closing(control):
            yield control


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"", b"[1, 2]", b"\xff\xfe"])
def test_what_is_no_listing_is_no_empty_listing(body: bytes) -> None:
    """A page of a proxy, or nothing at all, is an error with the server's name and a next step."""
    with answering(200, body) as control, pytest.raises(ServerError, match=r"production does not answer in JSON.*URL"):
        control.buckets("0123456789abcdef")


@pytest.mark.parametrize("body", [b"", b"busy", b'{"code": "unavailable", "message": "busy"}'])
def test_a_busy_server_is_tried_again_later(body: bytes) -> None:
    """A passing status is retryable, with the server's words where it has any."""
    with answering(503, body) as control, pytest.raises(ServerUnavailableError, match=r"production.*503") as caught:
        control.buckets("0123456789abcdef")
    assert not body or "busy" in str(caught.value)


def test_a_refused_token_is_told() -> None:
    """401 is about the credentials, whether it has a body or not."""
    with answering(401, b"") as control, pytest.raises(AccessError, match="production"):
        control.bucket("0123456789abcdef")


def test_a_bucket_that_is_not_there_is_none() -> None:
    """404 is an answer, not an error."""
    with answering(404, b'{"code": "not found", "message": "bucket not found"}') as control:
        assert control.bucket("0123456789abcdef") is None
        assert control.bucket_named("0123456789abcdef", "b") is None


def test_a_listing_that_ends_early_is_not_taken_for_whole() -> None:
    """A connection that breaks in the middle of the body is retryable; what came of it is not used."""
    body = b'{"buckets": []}'
    with answering(200, body, missing=1) as control, pytest.raises(ServerUnavailableError, match="production"):
        control.buckets("0123456789abcdef")
