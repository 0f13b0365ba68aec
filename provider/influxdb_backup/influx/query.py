"""
InfluxQL over ``/query``, answered in msgpack and read while it arrives, with proof that the answer is complete.

The reply is a row of documents ``{"results": [{"statement_id", "series": [{"name", "tags", "columns", "values",
"partial"}], "partial"}]}``. Status 200 is sent before the query runs and so proves nothing: every document but the
last carries ``partial`` in its result, an error in the middle of a read is a last document with ``error`` (which 1.6.7
sends even after one that is not partial), and a connection that was cut ends its chunked encoding short. So an answer
is read to its very end, and is whole when its last document is neither partial nor an error (run on 1.6.7, 1.12.4 and
2.9.1).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeGuard

import msgpack

from influxdb_backup.errors import (
    AccessError,
    IncompleteReadError,
    NotVisibleError,
    QueryError,
    ServerError,
    ServerUnavailableError,
    UnsupportedServerError,
)
from influxdb_backup.influx.http import WHOLE_TRIES, ByteStream, Http, Reply, ReplyTimeoutError, form, status_error
from influxdb_backup.messages import logger_of, quoted
from influxdb_backup.model import decode_name, printable

logger = logger_of(__name__)

MSGPACK = "application/x-msgpack"
READ_SIZE = 64 * 1024
_MOST_VALUES = 2**25
"""of one array of an answer, which is made as a whole: more than a server has of series"""
_MOST_ENTRIES = 2**16
"""of one map of an answer: tags, and what a document has"""
DEFAULT_CHUNK = 10_000

_LIMITS = ("query-timeout", "max-select-", "max-row-limit")
_NOT_FOUND = (
    "database not found",
    "retention policy not found",
    "default retention policy not set",
    "bucket not found",
)
_FULL = "max-concurrent-queries"
"""status 200, and nothing was run (1.x with a limit in its configuration)"""
_LISTINGS = ("SHOW ", "EXPLAIN ")
"""how statements begin that cost little and may be asked again"""
_LONGEST_REFUSAL = 1024
_LONGEST_PAUSE = 1.0
"""seconds: a place that other clients leave free is soon taken again"""
_BUSY = (_FULL, "server is shutting down", "engine is closed", "shard is disabled")
_DENIED = ("not authorized", "insufficient permissions", "unauthorized")


_MALFORMED = (msgpack.UnpackException, ValueError, TypeError, OverflowError, RecursionError)
"""what the decoder raises for bytes that are no msgpack, or too much of it"""


class Feed:
    """Bytes for an Unpacker from a reply, some of which may be given back."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._returned = b""
        self.given = 0
        """bytes handed out, those that were handed out again counted again: as ``Unpacker.tell`` counts them"""

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer at the end."""
        out, self._returned = self._returned[:size], self._returned[size:]
        if len(out) < size:
            out += self._read(size - len(out))
        self.given += len(out)
        return out

    def give_back(self, data: bytes) -> None:
        """The next reads return ``data`` first."""
        self._returned = data + self._returned


@dataclass
class Series:
    """The head of one series in one document; its ``count`` rows wait in the stream."""

    name: bytes
    tags: Mapping[bytes, bytes]
    columns: tuple[bytes, ...]
    count: int


@dataclass
class _End:
    """What the last document said."""

    partial: bool = True
    error: str | None = None
    documents: int = 0


@dataclass(frozen=True)
class Rows:
    """A whole small answer: one series with its rows."""

    name: bytes
    tags: Mapping[bytes, bytes]
    columns: tuple[bytes, ...]
    values: list[tuple[object, ...]] = field(default_factory=list)


class ResultStream:
    """
    One statement's answer as it arrives: iterate ``series()``, and take each one's rows before the next.

    ``series()`` returns normally only when the answer was complete. ``begun`` are bytes that were read of it already.

    With ``goes_on`` documents may follow one that does not say that more come: 1.6.7 answers SHOW TAG KEYS so. Then the
    end of the reply, without which its transfer is an error, is the end of the answer.
    """

    def __init__(self, body: ByteStream, subject: str, *, begun: bytes = b"", goes_on: bool = False) -> None:
        self._feed = Feed(body.read)
        self._feed.give_back(begun)
        self._may_go_on = goes_on
        self._unpacker = msgpack.Unpacker(
            self._feed,
            read_size=READ_SIZE,
            use_list=False,
            raw=True,
            strict_map_key=True,
            max_buffer_size=2**31 - 1,
            max_array_len=_MOST_VALUES,
            max_map_len=_MOST_ENTRIES,
        )
        self._subject = subject
        self._waiting = 0
        self._width = 0
        """values of each of the rows that wait"""
        self._goes_on = False

    @property
    def consumed(self) -> int:
        """Bytes of the reply that were decoded so far."""
        return int(self._unpacker.tell())

    def series(self) -> Iterator[Series]:
        """
        Every series of every document, in order.

        Raises IncompleteReadError when the answer ends early, is interrupted or hits a limit of the server, and
        NotVisibleError, AccessError or QueryError when the server did not run the statement.
        """
        end = _End()
        try:
            while True:
                try:
                    entries = self._unpacker.read_map_header()
                except msgpack.OutOfData:
                    break
                ended = end.documents > 0 and (end.error is not None or not end.partial)
                end.documents += 1
                yield from self._document(entries, end)
                if ended and end.error is None and not self._may_go_on:
                    raise self._malformed("a document follows the last one")
        except msgpack.OutOfData as error:
            raise self._cut("inside a document") from error
        except _MALFORMED as error:
            raise self._malformed(str(error) or type(error).__name__) from error
        if end.error is not None:
            raise query_error(self._subject, end.error, began=end.documents > 1)
        if end.partial:
            raise self._cut("before the last document")

    def take(self, limit: int) -> list[tuple[object, ...]]:
        """
        Up to ``limit`` of the present series' rows, each with a value for every column; text is ``bytes``.

        Raises IncompleteReadError for what is no row.
        """
        wanted = min(limit, self._waiting)
        try:
            rows: list[tuple[object, ...]] = list(islice(self._unpacker, wanted))
        except _MALFORMED as error:
            raise self._malformed(str(error) or type(error).__name__) from error
        if len(rows) < wanted:
            raise self._cut("inside a series")
        if not all(type(row) is tuple and len(row) == self._width for row in rows):
            raise self._malformed("a row that has not a value for each column")
        self._waiting -= wanted
        return rows

    def take_bytes(self, size: int) -> bytes:
        """The next bytes, the present series' rows first, fewer at the end; ``took`` must be called next."""
        return bytes(self._unpacker.read_bytes(size))

    def took(self, rows: int, rest: bytes) -> None:
        """Of the bytes that were taken out, ``rows`` rows were decoded and ``rest`` was not."""
        self._waiting -= rows
        if rest:
            ahead = self._feed.given - int(self._unpacker.tell())
            self._feed.give_back(rest + bytes(self._unpacker.read_bytes(ahead)))

    def _document(self, entries: int, end: _End) -> Iterator[Series]:
        unpack = self._unpacker.unpack
        for _ in range(entries):
            key = unpack()
            if key == b"results":
                results = self._unpacker.read_array_header()
                if results != 1:
                    raise self._malformed(f"{results} results for one statement")
                yield from self._result(end)
            elif key == b"error":
                end.error = _text(unpack())
            else:
                unpack()

    def _result(self, end: _End) -> Iterator[Series]:
        unpack = self._unpacker.unpack
        partial = False
        for _ in range(self._unpacker.read_map_header()):
            key = unpack()
            if key == b"series":
                for _ in range(self._unpacker.read_array_header()):
                    yield from self._one_series()
                    partial = partial or self._goes_on
            elif key == b"partial":
                partial = bool(unpack()) or partial
            elif key == b"error":
                end.error = _text(unpack())
            else:
                unpack()
        end.partial = partial

    def _one_series(self) -> Iterator[Series]:
        unpack = self._unpacker.unpack
        found: dict[bytes, object] = {}
        self._goes_on = False
        for _ in range(self._unpacker.read_map_header()):
            key = unpack()
            if key == b"values":
                name, columns, tags = found.get(b"name", b""), found.get(b"columns"), found.get(b"tags") or {}
                if not isinstance(name, bytes):
                    raise self._malformed("a name that is no text")
                if not isinstance(columns, tuple) or not all(isinstance(column, bytes) for column in columns):
                    raise self._malformed("values without columns")
                if not _is_text_map(tags):
                    raise self._malformed("tags that are no map of texts")
                self._waiting, self._width = self._unpacker.read_array_header(), len(columns)
                yield Series(name, tags, columns, self._waiting)
                if self._waiting:
                    raise AssertionError("The rows of a series were not taken.")
                found[key] = None
            elif b"values" in found and key in (b"name", b"tags", b"columns"):
                raise self._malformed("a series that is described behind its values")
            else:
                found[key] = unpack()
        self._goes_on = bool(found.get(b"partial"))

    def _cut(self, where: str) -> IncompleteReadError:
        return IncompleteReadError(
            f"{self._subject}: the answer ends {where}.", hint="Nothing of it was kept.", kind="read-limit"
        )

    def _malformed(self, what: str) -> IncompleteReadError:
        return IncompleteReadError(f"{self._subject}: the answer is not what a server sends: {what}.")


def _is_text_map(value: object) -> TypeGuard[dict[bytes, bytes]]:
    return isinstance(value, dict) and all(isinstance(text, bytes) for item in value.items() for text in item)


def entries(answer: Iterable[Rows], *columns: bytes) -> Iterator[dict[bytes, object]]:
    """The rows by column. Raises IncompleteReadError for an answer that lacks one of these columns."""
    for series in answer:
        missing = [column for column in columns if column not in series.columns]
        if missing:
            raise IncompleteReadError(
                f"The answer is not what a server sends: it has no column {printable(decode_name(missing[0]))}."
            )
        for row in series.values:
            yield dict(zip(series.columns, row, strict=True))


def _refusal(begun: bytes) -> str | None:
    """The server's words when it did not run the statement since too many others run; None for every other answer."""
    if len(begun) >= _LONGEST_REFUSAL or _FULL.encode() not in begun:
        return None
    try:
        found = msgpack.unpackb(begun, raw=False)
        words = found["results"][0]["error"] if isinstance(found, dict) else None
    except (ValueError, msgpack.UnpackException, LookupError, TypeError):
        return None
    return printable(words) if isinstance(words, str) and words.startswith(_FULL) else None


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def query_error(subject: str, words: str, *, began: bool = False) -> ServerError:
    """
    The error that a server's words in a document mean; ``began``: documents with data came before it.

    What a shorter piece may avoid is an IncompleteReadError of kind ``read-limit``.
    """
    text = f"{subject}: {quoted(words, 500)}."
    lowered = words.lower()
    if any(limit in lowered for limit in _LIMITS):
        return IncompleteReadError(text, hint="A shorter piece may succeed, or a higher limit.", kind="read-limit")
    if "query interrupted" in lowered or "query killed" in lowered:
        return IncompleteReadError(text, hint="Somebody ended the query; nothing of it was kept.")
    if any(busy in lowered for busy in _BUSY):
        return ServerUnavailableError(text, hint="Try again later.")
    if any(missing in lowered for missing in _NOT_FOUND):
        return NotVisibleError(text, hint="It is unknown, or not visible to these credentials.")
    if any(denied in lowered for denied in _DENIED):
        return AccessError(text, hint="Grant these credentials the right.")
    return IncompleteReadError(text) if began else QueryError(text)


class QueryApi:
    """Runs InfluxQL on one server. ``parameters`` and ``headers`` are what a generation adds to every query."""

    def __init__(
        self,
        http: Http,
        *,
        path: str = "/query",
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.http = http
        self._path = path
        self._parameters = dict(parameters or {})
        self._places: threading.Semaphore | None = None
        self._headers = {"Accept": MSGPACK, "Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        if http.proves_answers:
            self._headers["Accept-Encoding"] = "gzip"

    @contextmanager
    def at_most(self, queries: int) -> Iterator[None]:
        """While the context lasts no more queries than these are running at a time; the others wait for their turn."""
        before, self._places = self._places, threading.Semaphore(max(1, queries))
        try:
            yield
        finally:
            self._places = before

    @contextmanager
    def stream(
        self,
        statement: str,
        *,
        database: str | None = None,
        retention_policy: str | None = None,
        chunk_size: int = DEFAULT_CHUNK,
        subject: str = "",
    ) -> Iterator[ResultStream]:
        """
        Sends one statement; the answer is read from the ResultStream, in documents of ``chunk_size`` rows.

        A thread that reads one must not send another before it has left the context: with ``at_most(1)`` it would wait
        for itself. A server that has as many queries as it allows is asked again for as long as one that answers 503.
        ``subject`` begins every message. Raises IncompleteReadError (``read-limit``) when the server keeps silent
        for longer than the timeout, since a shorter piece may answer in time.
        """
        parameters = {
            **self._parameters,
            **({"db": database} if database is not None else {}),
            **({"rp": retention_policy} if retention_policy is not None else {}),
            "epoch": "ns",
            "chunked": "true",  # without it max-row-limit cuts an answer, and does not say so where a series ends there
            "chunk_size": str(chunk_size),
            "q": statement,
        }
        about = f"{self.http.name}: {subject}" if subject else self.http.name
        body = form(parameters)
        with ExitStack() as stack:
            if self._places is not None:
                stack.enter_context(self._places)
            began, pause = time.monotonic(), 0.05
            while True:
                with ExitStack() as reply:
                    stream, begun = reply.enter_context(self._asked(body, about))
                    words = _refusal(begun)
                    if words is None or time.monotonic() + pause > began + self.http.retry_seconds:
                        yield ResultStream(stream, about, begun=begun, goes_on=statement.startswith("SHOW "))
                        return
                if pause >= _LONGEST_PAUSE:
                    left = began + self.http.retry_seconds - time.monotonic()
                    logger.warning("%s: %s. Trying again for %.0f s.", about, words, left)
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients
                pause = min(pause * 2, _LONGEST_PAUSE)

    @contextmanager
    def _asked(self, body: bytes, about: str) -> Iterator[tuple[ByteStream, bytes]]:
        """One reply, and what was read of it."""
        try:
            with self.http.stream("POST", self._path, body=body, headers=self._headers) as response:
                stream = ByteStream(response, about)
                self._check(response.status, response.headers, stream)
                yield stream, stream.read(_LONGEST_REFUSAL)
        except ReplyTimeoutError as error:
            raise IncompleteReadError(error.message, hint=error.hint, kind="read-limit") from error

    def rows(
        self,
        statement: str,
        *,
        database: str | None = None,
        retention_policy: str | None = None,
        subject: str = "",
        chunk_size: int = DEFAULT_CHUNK,
        limit: int | None = None,
        listing: bool = False,
    ) -> list[Rows]:
        """
        The whole answer of a small statement; series that were sent in several documents are joined.

        A ``listing``, as SHOW and EXPLAIN always are, is asked for again when its reply breaks off; counts are not,
        since a shorter piece may answer where a limit of the server ended one. More than ``limit`` rows raise
        QueryError.
        """
        ask = partial(
            self._rows,
            statement,
            database=database,
            retention_policy=retention_policy,
            subject=subject or statement,
            chunk_size=chunk_size,
            limit=limit,
        )
        for left in reversed(range(WHOLE_TRIES if listing or statement.startswith(_LISTINGS) else 1)):
            try:
                return ask()
            except IncompleteReadError as error:
                if not left or isinstance(error.__cause__, ReplyTimeoutError):
                    raise
                logger.info("%s is asked again: %s", printable(subject or statement), error.message)
        raise AssertionError("unreachable")

    def _rows(
        self,
        statement: str,
        *,
        database: str | None,
        retention_policy: str | None,
        subject: str,
        chunk_size: int,
        limit: int | None,
    ) -> list[Rows]:
        """The answer, asked for once."""
        answer: list[Rows] = []
        total = 0
        with self.stream(
            statement,
            database=database,
            retention_policy=retention_policy,
            chunk_size=chunk_size,
            subject=subject,
        ) as stream:
            for series in stream.series():
                values = stream.take(series.count)
                total += len(values)
                if limit is not None and total > limit:
                    raise QueryError(f"{self.http.name}: more than {limit} rows answer {printable(statement)}.")
                last = answer[-1] if answer else None
                if last and (last.name, last.tags, last.columns) == (series.name, series.tags, series.columns):
                    last.values.extend(values)
                else:
                    answer.append(Rows(series.name, series.tags, series.columns, values))
        return answer

    def _check(self, status: int, headers: Mapping[str, str], body: ByteStream) -> None:
        kind = headers.get("Content-Type", "")
        if status == 200 and kind.split(";")[0].strip() == MSGPACK:
            return
        reply = Reply(status, headers, body.read(64 * 1024))
        if status == 200:
            raise UnsupportedServerError(
                f"{self.http.name} answers a query with {kind or 'no content type'} where msgpack was asked for.",
                hint="Is there a proxy in between, or a server other than InfluxDB?",
            )
        raise status_error(self.http.name, reply)
