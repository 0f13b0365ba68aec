"""An answer is taken for complete only when the server's last document says so."""

from __future__ import annotations

import time

import pytest

from influxdb_backup.errors import (
    AccessError,
    ConfigError,
    IncompleteReadError,
    InfluxdbBackupError,
    NotVisibleError,
    QueryError,
    ServerUnavailableError,
    UnsupportedServerError,
)
from influxdb_backup.influx.http import FIRST_CONTACT_SECONDS, Http, Reply, status_error
from influxdb_backup.influx.protocol import ReadOptions, ServerSettings
from influxdb_backup.influx.query import QueryApi
from influxdb_backup.influx.reader import Reader
from influxdb_backup.model import Column, InfluxType, Role, Table, TableSchema, Window
from tests.influx_read.support import document, replaying, reply
from tests.listening import QuietHandler, listening

SERIES: dict[str, object] = {"name": "m", "tags": {"t": "a"}, "columns": ["time", "v"], "values": [[1, 1.5], [2, None]]}
ONE = document([SERIES])
MORE = document([{**SERIES, "partial": True}], partial=True)


def ask(url: str, *, retry_seconds: float = 0.0, timeout: float = 5.0) -> list[tuple[object, ...]]:
    """Rows of one statement."""
    http = Http(ServerSettings(url=url, name="x", timeout=timeout), retry_seconds=retry_seconds)
    try:
        return [row for series in QueryApi(http).rows("SELECT", chunk_size=10) for row in series.values]
    finally:
        http.close()


def test_documents_up_to_the_last_are_read() -> None:
    """Parts of one series are joined, nil stays nil."""
    with replaying(reply(MORE + ONE)) as url:
        assert ask(url) == [(1, 1.5), (2, None)] * 2


@pytest.mark.parametrize(
    ("body", "ended", "kind"),
    [
        (MORE, True, "read-limit"),
        (MORE, False, "read-limit"),
        (ONE[:-3], True, "read-limit"),
        (MORE + ONE[:40], False, "read-limit"),
        (b"", True, "read-limit"),
        (ONE, False, "read-limit"),
        (document([{**SERIES, "partial": True}]), True, "read-limit"),
        (MORE + document(error="query-timeout limit exceeded"), True, "read-limit"),
        (MORE + document(error="max-select-point limit exceeded: (3/2)"), True, "read-limit"),
        (document(error="max-select-series limit exceeded: (3/2)"), True, "read-limit"),
        (MORE + document(error="query interrupted"), True, "incomplete-read"),
        (MORE + document(error="something new"), True, "incomplete-read"),
        (ONE + ONE, True, "incomplete-read"),
        (ONE + document(error="query-timeout limit exceeded"), True, "read-limit"),
        (b"\xc1" + ONE, True, "incomplete-read"),
    ],
)
def test_an_answer_that_is_not_complete_is_an_error(body: bytes, ended: bool, kind: str) -> None:
    """Cut streams, documents that promise more, errors in the middle: none is taken for the whole."""
    with replaying(reply(body, end=ended)) as url, pytest.raises(IncompleteReadError) as caught:
        ask(url)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("database not found: x", NotVisibleError),
        ("retention policy not found: x", NotVisibleError),
        ("error authorizing query: ro not authorized to execute statement 'SHOW SHARDS'", AccessError),
        ("unable to use system source '_series': use SHOW SERIES instead", QueryError),
        ("max-concurrent-queries limit exceeded(2, 2)", ServerUnavailableError),
    ],
)
def test_errors_with_status_200_are_errors(words: str, kind: type[InfluxdbBackupError]) -> None:
    """Status 200 is sent before the query runs: the document decides."""
    with replaying(reply(document(error=words))) as url, pytest.raises(kind, match="x"):
        ask(url)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("401 Unauthorized", b'{"code":"unauthorized","message":"unauthorized access"}', AccessError),
        ("403 Forbidden", b'{"error":"no"}', AccessError),
        ("400 Bad Request", b'{"code":"invalid","message":"failed to parse query: x"}', QueryError),
        ("302 Found", b"", QueryError),
        ("500 Internal Server Error", b"boom", ServerUnavailableError),
        ("200 OK", b'{"results":[{"statement_id":0}]}', UnsupportedServerError),
    ],
)
def test_statuses_and_other_content_are_refused(status: str, body: bytes, kind: type[InfluxdbBackupError]) -> None:
    """JSON error bodies are understood whatever was asked for, and JSON data is never taken for an answer."""
    with replaying(reply(body, status=status, kind="application/json")) as url, pytest.raises(kind):
        ask(url)


def test_named_transient_answers_are_tried_again() -> None:
    """A connection that closes without a byte and a 503 are retried; the answer is then whole."""
    busy = reply(b"busy", status="503 Service Unavailable", kind="text/plain")
    with replaying(b"", busy, reply(ONE)) as url:
        assert len(ask(url, retry_seconds=10)) == 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_every_named_status_is_tried_again(status: int) -> None:
    """Too many requests, and what a proxy says of a server that is about to come back."""
    busy = reply(b"busy", status=f"{status} Busy", kind="text/plain")
    with replaying(busy, reply(ONE)) as url:
        assert len(ask(url, retry_seconds=10)) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 500, 501])
def test_other_statuses_are_not_tried_again(status: int) -> None:
    """A defect of the server, or of the question, does not pass by being asked again."""
    with (
        replaying(reply(b'{"error":"no"}', status=f"{status} No", kind="application/json"), reply(ONE)) as url,
        pytest.raises(InfluxdbBackupError, match=str(status)),
    ):
        ask(url, retry_seconds=10)


@pytest.mark.parametrize("time", [9, 20, 2**62])
def test_points_of_another_time_are_refused(time: int) -> None:
    """A server that answers with points outside of the piece is not believed: the start is in it, the end is not."""
    schema = TableSchema(
        table=Table(retention_policy="autogen", measurement="m"),
        columns=(
            Column(role=Role.TAG, name="t", type=InfluxType.TAG),
            Column(role=Role.FIELD, name="v", type=InfluxType.FLOAT),
        ),
    )
    for first, good in ((10, True), (time, False)):
        body = document([{**SERIES, "values": [[first, 1.5]]}])
        with replaying(reply(body)) as url:
            http = Http(ServerSettings(url=url, name="x"), retry_seconds=0)
            batches = Reader(QueryApi(http)).read("db", schema, Window(start=10, end=20), ReadOptions())
            if good:
                assert sum(batch.num_rows for batch in batches) == 1
                continue
            with pytest.raises(QueryError, match="points of another time"):
                list(batches)


def test_retries_are_bounded_in_time() -> None:
    """A server that stays away is an error that says so."""
    with replaying() as url:
        pass
    with pytest.raises(ServerUnavailableError, match="cannot be reached"):
        ask(url, retry_seconds=0.5)


def test_a_server_that_never_answered_is_given_up_soon() -> None:
    """A wrong port is told within seconds, with its address; a server that answered before is waited for longer."""
    with replaying(reply(ONE)) as url:
        http = Http(ServerSettings(url=url, name="plant-7"), retry_seconds=FIRST_CONTACT_SECONDS + 6)
        http.request("GET", "/ping")
    began = time.monotonic()
    with pytest.raises(ServerUnavailableError, match="cannot be reached"):
        http.request("GET", "/ping")
    waited = time.monotonic() - began
    stranger = Http(ServerSettings(url=url, name="plant-7"))
    began = time.monotonic()
    with pytest.raises(ServerUnavailableError, match="cannot be reached") as caught:
        stranger.request("GET", "/ping")
    assert time.monotonic() - began < FIRST_CONTACT_SECONDS + 1
    assert waited > FIRST_CONTACT_SECONDS - 1
    assert url in caught.value.message and "port" in caught.value.hint


def test_a_missing_right_is_not_taken_for_a_wrong_token() -> None:
    """2.9.1 answers 401 to both; the words tell them apart."""
    for words, said in (("write:orgs/1/buckets is unauthorized", "denies this"), ("unauthorized access", "refuses")):
        answer = Reply(401, {}, b'{"code": "unauthorized", "message": "%s"}' % words.encode())
        assert said in status_error("plant-7", answer).message


def test_a_stream_that_began_is_never_resumed() -> None:
    """After the first byte of an answer there is no second request."""
    with replaying(reply(MORE, end=False), reply(ONE)) as url, pytest.raises(IncompleteReadError):
        ask(url, retry_seconds=10)


def test_silence_is_a_limit_of_the_read() -> None:
    """A server that begins no reply within the timeout may answer a shorter piece."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(IncompleteReadError) as caught:
            ask(url, timeout=0.3)
    assert caught.value.kind == "read-limit"


def test_no_message_shows_credentials() -> None:
    """Neither a URL with a password nor a refused login repeats the secret."""
    with pytest.raises(ConfigError) as caught:
        Http(ServerSettings(url="http://me:s3cret@host:8086"))
    assert "s3cret" not in str(caught.value)
    with replaying(reply(b"{}", status="401 Unauthorized", kind="application/json")) as url:
        settings = ServerSettings(url=url, username="me", password="s3cret")
        with pytest.raises(AccessError) as refused:
            QueryApi(Http(settings)).rows("SELECT")
    assert "s3cret" not in str(refused.value) + repr(settings)


class Cutting(QuietHandler):
    """The first replies end short."""

    left = 2

    def answer(self) -> None:
        """Twenty bytes are told, and ten or all of them are sent."""
        kind = type(self)
        cut, kind.left = kind.left > 0, kind.left - 1
        self.send_response_only(200)
        self.send_header("Content-Length", "20")
        self.end_headers()
        self.wfile.write(b"0123456789" if cut else b"0123456789" * 2)
        self.close_connection = True


def test_a_listing_that_breaks_off_is_asked_for_again() -> None:
    """Twice; then it is an error, and what is no GET is sent once."""
    with listening(type("Cut", (Cutting,), {})) as url:
        assert Http(ServerSettings(url=url)).request("GET", "/api/v2/backup/metadata").body == b"0123456789" * 2
    for method, left in (("GET", 3), ("POST", 1)):
        with listening(type("Cut", (Cutting,), {"left": left})) as url, pytest.raises(IncompleteReadError):
            Http(ServerSettings(url=url)).request(method, "/write")
