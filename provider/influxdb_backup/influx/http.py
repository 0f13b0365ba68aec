"""
HTTP to one server: keep-alive connections, TLS, timeouts, and retries that are named and bounded in time.

A request is tried again only when no byte of a reply has come (refused, reset or closed connections) or the
status says so (429, 502, 503, 504). A reply that has begun is never resumed: its reader gets an
IncompleteReadError. Over plain HTTP from another machine the answers of queries are asked for as gzip, whose checksum
proves that no byte changed on the way; TLS proves that by itself. Elsewhere replies are asked for uncompressed: on
2.9.1 gzip made a read of 52 MB a quarter slower and saved a fifth of the bytes.
"""

from __future__ import annotations

import ipaddress
import json
import random
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import msgpack
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from influxdb_backup.errors import (
    AccessError,
    ConfigError,
    IncompleteReadError,
    QueryError,
    ServerError,
    ServerUnavailableError,
)
from influxdb_backup.influx.http_pool import connection_pool
from influxdb_backup.influx.pace import LEAST_BYTES, SlowReply
from influxdb_backup.influx.protocol import ServerSettings
from influxdb_backup.messages import logger_of, quoted
from influxdb_backup.model import encode_name

logger = logger_of(__name__)

TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
RETRY_SECONDS = 30.0
FIRST_CONTACT_SECONDS = 4.0
"""how long a server that never answered yet is tried: a wrong address is told soon, a restart later is waited for"""
CONNECT_SECONDS = 10.0
WHOLE_TRIES = 3
"""how often a listing is asked for whose reply breaks off"""
_CONNECTIONS = 16
_LONGEST_REASON = 500
_BLOCK = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS

Parameters = Mapping[str, str]


class ReplyTimeoutError(ServerUnavailableError):
    """The connection stands, but no reply came within the timeout."""


@dataclass(frozen=True)
class Reply:
    """A whole reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        """The server's own words, whatever form the body has; at most a few hundred characters."""
        return reason_of(self.body, self.headers)

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait; None when it does not say, or says a date."""
        text = self.headers.get("Retry-After", "").strip()
        return float(text) if text.isascii() and text.isdigit() else None


def reason_of(body: bytes, headers: Mapping[str, str]) -> str:
    """The message of an error body in JSON (1.x and 2.x forms) or msgpack, else its text, for people."""
    found: object = None
    kind = headers.get("Content-Type", "")
    try:
        found = msgpack.unpackb(body, raw=False) if "msgpack" in kind else json.loads(body)
    except (ValueError, msgpack.UnpackException, RecursionError):
        found = None
    words = ""
    if isinstance(found, dict):
        words = str(found.get("error") or found.get("message") or "")
    words = words or headers.get("X-Influxdb-Error", "") or body.decode("utf-8", "replace").strip()
    return quoted(words, _LONGEST_REASON)


def date_of(headers: Mapping[str, str]) -> int | None:
    """The ``Date`` header in ns since 1970 (whole seconds); None when there is none that can be read."""
    try:
        moment: datetime = parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError, TypeError):
        return None
    return int(moment.timestamp()) * 1_000_000_000


class ByteStream:
    """
    The body of a reply as it arrives. ``read(n)`` gives exactly n bytes, fewer only at the end.

    A body that came as gzip ends only when its checksum was right, so what was read of it is proved by its end.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, name: str) -> None:
        self._response = response
        self._name = name
        self._gzip = zlib.decompressobj(_GZIP) if response.headers.get("Content-Encoding") == "gzip" else None
        self._packed = b""

    def read(self, size: int | None) -> bytes:
        """
        The next ``size`` bytes, b"" at the end; the whole rest for None.

        Raises IncompleteReadError: ``read-limit`` when the connection breaks, falls silent or ends short, and
        ``slow-reply`` when it brings next to nothing.
        """
        try:
            if self._gzip is not None:
                return self._unpacked(self._gzip, size)
            return self._response.read(size)
        except zlib.error as error:
            raise self._changed(str(error)) from error
        except (HTTPError, OSError) as error:
            if isinstance(cause := first_cause(error), SlowReply):
                raise slow_reply(f"The reply of {self._name}", cause) from error
            raise IncompleteReadError(
                f"The reply of {self._name} broke off: {words_of(error)}.",
                hint="The server may have a time limit for replies, or it was stopped.",
                kind="read-limit",
            ) from error

    def _unpacked(self, unpacker: zlib._Decompress, size: int | None) -> bytes:
        found: list[bytes] = []
        left = size
        while left is None or left > 0:
            if not self._packed:
                self._packed = self._response.read(_BLOCK, decode_content=False)
            is_end = not self._packed
            if unpacker.eof and not is_end:
                raise self._changed("bytes follow its end")
            block = unpacker.decompress(self._packed, left or 0)
            self._packed = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            found.append(block)
            left = None if left is None else left - len(block)
            if is_end and not block:
                if not unpacker.eof:
                    raise self._changed("it ends before its checksum")
                break
        return b"".join(found)

    def _changed(self, how: str) -> IncompleteReadError:
        return IncompleteReadError(
            f"The reply of {self._name} is not what was sent: {how}.",
            hint="Bytes change on the way, or a proxy breaks it off. Use TLS.",
            kind="read-limit",
        )


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine, where compression only costs time."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def slow_reply(what: str, error: SlowReply) -> IncompleteReadError:
    """The error of a reply, called ``what``, that is given up since it brings next to nothing."""
    return IncompleteReadError(
        f"{what} is given up: {error}, where at least {LEAST_BYTES} bytes in twice the timeout are waited for.",
        hint="Look at the server's load and at proxies on the way; for a server that is that slow raise its timeout.",
        kind="slow-reply",
    )


def first_cause(error: BaseException) -> BaseException:
    """The innermost error that one of urllib3's was caused by."""
    while (inner := _within(error)) is not None:
        error = inner
    return error


def words_of(error: BaseException) -> str:
    """What urllib3 says, without the address of the pool and without the address of Python objects."""
    error = first_cause(error)
    text = str(error) or type(error).__name__
    return quoted(text.rsplit(">: ", 1)[-1], _LONGEST_REASON)


def _within(error: BaseException) -> BaseException | None:
    """What an error of urllib3 was caused by, wherever it keeps that."""
    kept = (error.__cause__, getattr(error, "reason", None), *error.args[-1:])
    return next((inner for inner in kept if isinstance(inner, BaseException)), None)


def tls_error(error: BaseException, name: str, where: str) -> AccessError:
    """The error that a failed TLS handshake means, for the server ``name`` at ``where``."""
    words = words_of(error)
    if "WRONG_VERSION_NUMBER" in words:
        return AccessError(
            f"{where} does not speak TLS there: {words}.",
            hint="Switch tls off in the connection (of the type influxdb by its schema: influxdb://host:8086/http), "
            "or give the port that speaks TLS.",
        )
    return AccessError(
        f"{name} does not prove who it is: {words}.",
        hint="Give the file of its certificate authority (ca_file), or the host name of its certificate.",
    )


def authorization(settings: ServerSettings) -> str | None:
    """The ``Authorization`` header: a token (1.x: ``user:password``) before a user and password."""
    if settings.token:
        return f"Token {settings.token}"
    if settings.username:
        pair = f"{settings.username}:{settings.password or ''}"
        return "Basic " + b64encode(pair.encode()).decode("ascii")
    return None


class Http:
    """The connections to one server. Thread-safe; ``close`` ends them."""

    def __init__(self, settings: ServerSettings, *, retry_seconds: float = RETRY_SECONDS) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("The server's URL must look like http://host:8086 or https://host:8086.")
        if parts.username or parts.password:
            raise ConfigError(
                f"The URL of the server {parts.hostname} holds credentials.",
                hint="Give user and password or the token as their own settings, so that no message shows them.",
            )
        if settings.ca_file and not Path(settings.ca_file).is_file():
            raise ConfigError(
                f"There is no file {settings.ca_file} with the certificate authority of {parts.hostname}.",
                hint="Correct ca_file.",
            )
        self.name = settings.name or settings.url
        self.proves_answers = (
            parts.scheme == "http" and not is_loopback(settings.url) if settings.compress is None else settings.compress
        )
        """whether answers of queries are asked for as gzip, whose checksum finds bytes that changed on the way"""
        if parts.scheme == "https" and not settings.verify_tls:
            urllib3.disable_warnings(InsecureRequestWarning)  # once is enough, and it comes with every request
            logger.warning("The certificate of %s is not checked, since verify_tls is false.", self.name)
        self._root = settings.url.rstrip("/")
        self.retry_seconds = retry_seconds
        """for how long a server that is too busy is asked again"""
        self._timeout = settings.timeout
        self._has_answered = False
        secret = authorization(settings)
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "influxdb-backup"}
        if secret:
            self._headers["Authorization"] = secret
        self._pool = connection_pool(
            settings.timeout,
            num_pools=2,
            maxsize=_CONNECTIONS,
            retries=False,
            timeout=urllib3.Timeout(connect=min(settings.timeout, CONNECT_SECONDS), read=settings.timeout),
            cert_reqs="CERT_REQUIRED" if settings.verify_tls else "CERT_NONE",
            ca_certs=settings.ca_file,
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        parameters: Parameters | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        retry: bool = True,
    ) -> Reply:
        """
        One request and its whole reply, whatever the status.

        Raises ServerUnavailableError when no reply comes or a transient status stays; with ``retry=False`` a
        transient status is returned and a lost connection raises at once.
        """
        for left in reversed(range(WHOLE_TRIES if retry and method == "GET" else 1)):
            with self.stream(method, path, parameters=parameters, body=body, headers=headers, retry=retry) as response:
                try:
                    content = ByteStream(response, self.name).read(None)
                except IncompleteReadError as error:
                    if not left:
                        raise
                    logger.info("%s is asked again: %s", path, error.message)
                    continue
                return Reply(response.status, response.headers, content)
        raise AssertionError("unreachable")

    def send(self, method: str, path: str, chunks: Iterator[bytes], *, size: int, seconds: float) -> Reply:
        """
        One request with a long body of ``size`` bytes, sent once; the server may take ``seconds`` to answer.

        Raises ServerUnavailableError when the connection is lost or no reply comes.
        """
        headers = {**self._headers, "Content-Length": str(size), "Content-Type": "application/octet-stream"}
        try:
            response = self._pool.request(
                method,
                self._root + path,
                body=chunks,
                headers=headers,
                preload_content=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=max(seconds, self._timeout)),
            )
        except (HTTPError, OSError) as error:
            raise ServerUnavailableError(f"{self._where()} did not take it: {words_of(error)}.") from error
        try:
            return Reply(response.status, response.headers, ByteStream(response, self.name).read(None))
        finally:
            response.release_conn()

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        parameters: Parameters | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        retry: bool = True,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """One request whose body the caller reads; left early, the connection is closed and not reused."""
        target = self._root + path + (f"?{form(parameters).decode('ascii')}" if parameters else "")
        response = self._send(method, target, body, {**self._headers, **(headers or {})}, retry=retry)
        try:
            yield response
        finally:
            if not response.closed:
                response.close()
            response.release_conn()

    def _send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], *, retry: bool
    ) -> urllib3.BaseHTTPResponse:
        began, pause = time.monotonic(), 0.1
        while True:
            problem, patience = "", self.retry_seconds if retry else 0.0
            hint = "Try again when the server is up."
            try:
                response = self._pool.request(
                    method, target, body=body, headers=headers, preload_content=False, redirect=False
                )
            except SSLError as error:
                raise tls_error(error, self.name, self._where()) from error
            except ReadTimeoutError as error:
                raise ReplyTimeoutError(
                    f"{self.name} did not begin to reply within {self._timeout:g} s.",
                    hint="Look whether it runs; if it only takes long, raise its timeout.",
                ) from error
            except (NewConnectionError, ConnectTimeoutError, ProtocolError) as error:
                problem = f"{self._where()} cannot be reached: {words_of(error)}."
                cause: BaseException | None = error
                if not self._has_answered:
                    patience = min(patience, FIRST_CONTACT_SECONDS)
                    hint = "Check that the server runs, and the host, port and TLS of the connection."
            except HTTPError as error:
                raise ServerUnavailableError(f"{self.name} cannot be asked: {words_of(error)}.") from error
            else:
                self._has_answered = True
                if not retry or response.status not in TRANSIENT_STATUSES:
                    return response
                words = self._reason(response)
                problem = f"{self.name} answers {response.status}: {words or 'no reason given'}."
                cause = None
            if time.monotonic() + pause > began + patience:
                raise ServerUnavailableError(problem, hint=hint) from cause
            if pause > 1:
                logger.warning("%s Trying again for %.0f s.", problem, began + patience - time.monotonic())
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients
            pause = min(pause * 2, 5.0)

    def _reason(self, response: urllib3.BaseHTTPResponse) -> str:
        """Why the server cannot answer now, as far as it says so; the connection is kept where the reply ended."""
        try:
            return reason_of(ByteStream(response, self.name).read(None), response.headers)
        except IncompleteReadError:
            return ""
        finally:
            response.release_conn()

    def _where(self) -> str:
        """The connection's name and its address, so that a wrong one is seen."""
        address = self._root.removesuffix(urlsplit(self._root).path)  # a path may be a secret of the proxy's
        return self.name if self.name == self._root else f"{self.name} ({address})"

    def now(self) -> int:
        """The server's clock, ns (whole seconds), from a fresh reply's ``Date`` header."""
        reply = self.request("GET", "/ping")
        moment = date_of(reply.headers)
        if moment is None:
            raise ServerError(
                f"{self.name} sends no Date header, so its clock cannot be read.",
                hint="Let a proxy in between pass it on, or connect to the server itself.",
            )
        return moment

    def close(self) -> None:
        """Ends the idle connections."""
        self._pool.clear()


def form(parameters: Parameters | Sequence[tuple[str, str]]) -> bytes:
    """Parameters as a form body or query string; names that are not UTF-8 keep their bytes."""
    items = parameters.items() if isinstance(parameters, Mapping) else parameters
    return urlencode([(key, encode_name(value)) for key, value in items], quote_via=quote).encode("ascii")


def status_error(name: str, reply: Reply) -> ServerError:
    """The error that a reply other than 2xx means."""
    words = reply.reason or "no reason given"
    if reply.status == 401 and words.endswith("is unauthorized"):  # 2.x knows the token, which lacks the right
        return AccessError(f"{name} denies this (401: {words}).", hint="Use a token that has this right.")
    if reply.status == 401:
        return AccessError(
            f"{name} refuses the credentials (401: {words}).", hint="Check user and password or the token."
        )
    if reply.status == 403:
        return AccessError(f"{name} denies this (403: {words}).", hint="Grant these credentials the right.")
    if reply.status in TRANSIENT_STATUSES or reply.status >= 500:
        return ServerUnavailableError(f"{name} answers {reply.status}: {words}.")
    if 300 <= reply.status < 400:
        return QueryError(f"{name} redirects to another address ({reply.status}).", hint="Use that address as its URL.")
    return QueryError(f"{name} answers {reply.status}: {words}.")
