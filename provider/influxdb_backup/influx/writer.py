"""
Writes line protocol over several connections until the server has confirmed every line, or says which it refused.

What an answer means is the same for 1.x and 2.x: 204 is the only confirmation. 400 and 422 say that an unknown
subset was written (a refused line, a type conflict, points beyond the retention), with a count that cannot be
believed; the lines are then sent again in halves until the refused ones are known, which is harmless because
writing a point twice gives the same point. 413 is halved as well. 429, 5xx and lost connections are tried again
for a bounded time. Everything else ends the write with an error.

Batches travel in parallel, so that two batches may arrive in the other order. This matters only to a point
that occurs twice with different values, and one pass of a restore never writes a point twice. Only what begins a
shard group travels alone: a line of it, before the others.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from types import TracebackType

import pyarrow as pa

from influxdb_backup.errors import (
    AccessError,
    InfluxdbBackupError,
    NotVisibleError,
    RejectedPointsError,
    ServerUnavailableError,
    WriteError,
)
from influxdb_backup.influx.dialect import escape_measurement
from influxdb_backup.influx.first_writes import FirstLines, FirstWrites
from influxdb_backup.influx.line_protocol import encode
from influxdb_backup.influx.lines import Lines, join_lines
from influxdb_backup.influx.protocol import Dialect, WriteOptions, WriteResult
from influxdb_backup.influx.rejects import REASON_CHARACTERS, RejectFile
from influxdb_backup.messages import logger_of
from influxdb_backup.model import printable

logger = logger_of(__name__)

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 10.0
_QUIET_SECONDS = 1.0
"""how long a batch is tried before the log says so"""
_REASONS_KEPT = 5
_REJECTS_BEYOND = 100
"""how many refused lines more than allowed are still isolated, so that the report says more than the first"""
_ABSENT = ("database not found", "retention policy not found", "bucket not found", "organization name")


@dataclass(frozen=True)
class SendResult:
    """One answer to one write request."""

    status: int
    reason: str
    """the server's words; empty for 204"""
    retry_after: float | None = None
    """seconds that the server asks to wait"""


Send = Callable[[memoryview], SendResult]
"""
Sends one body of line protocol with precision ns and returns the answer. Called by several threads at once.

It tries once, and raises ServerUnavailableError (or OSError) when the connection is lost or no answer comes.
"""

_CLOSED = "engine is closed"
_CLOSED_SECONDS = 10.0
"""a shard is closed for a moment while it is restored; one that stays closed does so until the server is restarted"""
_CLOSED_HINT = (
    "A shard of the target stays closed after a restore by whole shards was cut off there (seen on 2.4.0 and 2.9.1): "
    "drop the target database, or restart the server, and run the same again with the same --restore-id."
)


class Verdict(Enum):
    """What an answer to a write means."""

    WRITTEN = "written"
    HALVE = "halve"
    AGAIN = "again"


def judge(answer: SendResult, name: str) -> Verdict:
    """What to do about an answer. Raises when neither trying again nor smaller bodies can help."""
    status, reason = answer.status, printable(answer.reason)[:REASON_CHARACTERS]
    if status == 204:
        return Verdict.WRITTEN
    if status in (400, 413, 422):
        return Verdict.HALVE
    if status == 404 or (status == 500 and any(words in reason for words in _ABSENT)):
        raise NotVisibleError(
            f"{name} has no such target to write to: {reason or status}.",
            hint="Check the database and retention policy (2.x: bucket and organisation), and the write permission.",
        )
    if status in (401, 403):
        raise AccessError(
            f"{name} refuses these credentials for writing: {reason or status}.",
            hint="Give the user or token the right to write to the target.",
        )
    if status in (408, 429, 500, 502, 503, 504):
        return Verdict.AGAIN
    raise WriteError(
        f"{name} answered a write with status {status}: {reason or 'no reason given'}.",
        hint="Check that the connection's URL is that of an InfluxDB server.",
    )


def _words(answer: SendResult | Exception) -> str:
    """What a server said that took no batch, or why it said nothing."""
    if isinstance(answer, SendResult):
        return f"status {answer.status}: {printable(answer.reason)[:REASON_CHARACTERS] or 'no reason given'}"
    words = answer.message if isinstance(answer, InfluxdbBackupError) else str(answer)
    return printable(words).rstrip(".")[:REASON_CHARACTERS] or type(answer).__name__


class LineProtocolWriter:
    """
    The PointWriter of 1.x and 2.x over an injected ``send``.

    ``write`` encodes in the caller's thread and hands full batches to ``options.connections`` threads over a
    queue of as many places. Any error of a thread is raised by the next ``write`` or when the block is left.
    ``shard_duration`` (ns) is that of the target's retention policy.
    """

    def __init__(
        self, send: Send, dialect: Dialect, options: WriteOptions, *, shard_duration: int, name: str = "The server"
    ) -> None:
        self._send = send
        self._dialect = dialect
        self._options = options
        self._name = name
        self._queue: Queue[tuple[Lines, FirstLines] | None] = Queue(maxsize=max(1, options.connections))
        self._threads: list[Thread] = []
        self._first_writes = FirstWrites(shard_duration) if options.connections > 1 else None
        self._stop = Event()
        self._lock = Lock()
        self._failure: BaseException | None = None
        self._pending: list[Lines] = []
        self._pending_lines = self._pending_bytes = 0
        self._rejects = RejectFile(options.reject_file)
        self._reasons: list[str] = []
        self._given = 0
        self._rows = self._values = self._bytes = self._batches = self._refused = 0
        self._partial = False
        self._measurements: dict[bytes, str] = {}
        self._refused_of: dict[str, int] = {}
        self._started = 0.0
        self._seconds = 0.0

    def __enter__(self) -> LineProtocolWriter:
        self._started = time.monotonic()
        for number in range(max(1, self._options.connections)):
            thread = Thread(target=self._work, name=f"influxdb-write-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                for _ in self._threads:
                    self._put(None)
            else:
                self._stop.set()
        except BaseException:
            self._stop.set()
            raise
        finally:
            self._join()
            self._rejects.close()
            self._seconds = time.monotonic() - self._started
        if kind is None:
            self._raise_failure()
            self._prove_complete()
        elif error is not None and self._failure is not None and error is not self._failure:
            error.add_note(f"A connection had failed as well: {self._failure}")

    def write(self, measurement: str, batch: pa.RecordBatch) -> None:
        """
        Encodes and queues the batch; blocks while the connections are behind.

        Raises UnrepresentableError before anything of the batch is queued, RejectedPointsError and every
        error of a connection as soon as it is known.
        """
        if not self._threads:
            raise WriteError("A writer takes points only inside of its with block.")
        self._raise_failure()
        with self._lock:
            self._measurements[escape_measurement(measurement)] = measurement
        for lines in encode(measurement, batch, self._dialect, self._options):
            if not self._has_room_for(lines):
                self._flush()
            self._pending.append(lines)
            self._pending_lines += len(lines)
            self._pending_bytes += len(lines.body)
            if not self._has_room_for(lines):  # nor for the next one, if it is like this one: a connection may wait
                self._flush()

    @property
    def result(self) -> WriteResult:
        """Totals of what the server confirmed; complete after the block was left."""
        with self._lock:
            return WriteResult(
                rows=self._rows,
                values=self._values,
                bytes=self._bytes,
                batches=self._batches,
                seconds=self._seconds or (time.monotonic() - self._started if self._started else 0.0),
                rejects=self._refused,
                reject_reasons=tuple(self._reasons),
                reject_file=self._rejects.path,
                late_visibility=self._partial,
                refused=dict(self._refused_of),
            )

    # --- the caller's thread

    def _has_room_for(self, lines: Lines) -> bool:
        count, size = len(lines) + self._pending_lines, len(lines.body) + self._pending_bytes
        return count <= self._options.batch_lines and size <= self._options.batch_bytes

    def _flush(self) -> None:
        if self._pending:
            batch, self._pending = join_lines(self._pending), []
            self._given += len(batch)
            self._pending_lines = self._pending_bytes = 0
            self._put((batch, self._first_writes.first_lines(batch) if self._first_writes else {}))

    def _put(self, item: tuple[Lines, FirstLines] | None) -> None:
        while True:
            self._raise_failure()
            try:
                self._queue.put(item, timeout=0.2)
                return
            except Full:
                continue

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _prove_complete(self) -> None:
        if self._rows + self._refused != self._given:
            raise WriteError(
                f"Of {self._given} points {self._name} confirmed {self._rows} and refused {self._refused}; "
                "the rest is unaccounted for."
            )

    def _too_many(self) -> bool:
        return self._refused > self._options.max_rejects

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._too_many():
            return
        # The threads take no new batch now; what they are isolating belongs into the report and the file.
        self._join()
        if self._failure is not None:
            raise self._failure
        reasons = "; ".join(self._reasons)
        raise RejectedPointsError(
            f"{self._name} refused {self._refused} points or more where {self._options.max_rejects} are allowed. "
            f"They are in {self._rejects.path}. The server says: {reasons}.",
            hint="Mend the target (or allow that many rejects) and run the same again.",
        )

    # --- the connections' threads

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and not self._too_many():
                try:
                    item = self._queue.get(timeout=0.2)
                except Empty:
                    continue
                if item is None:
                    return
                self._deliver(*item)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            with self._lock:
                if self._failure is None:
                    self._failure = error
            self._stop.set()

    def _deliver(self, batch: Lines, first_lines: FirstLines) -> None:
        """Sends a batch, after those of its lines that begin a shard group."""
        with self._lock:
            self._batches += 1
            self._bytes += len(batch.body)
        if self._first_writes is None:
            self._settle(batch)
            return
        with self._first_writes.before(batch, first_lines) as (beginning, rest):
            self._settle(beginning)
        self._settle(rest)

    def _settle(self, batch: Lines) -> None:
        """Sends lines, and what is refused of them in halves, until each is confirmed or refused alone."""
        waiting = [batch] if len(batch) else []
        while waiting and not self._stop.is_set():
            lines = waiting.pop()
            answer = self._confirm(lines)
            if answer is None:
                with self._lock:
                    self._rows += len(lines)
                    self._values += lines.values
                continue
            self._note_refusal(answer)
            if len(lines) > 1:
                middle = len(lines) // 2
                waiting += [lines.part(middle, len(lines)), lines.part(0, middle)]
                continue
            self._reject(lines, answer)

    def _confirm(self, lines: Lines) -> SendResult | None:
        """None when the server confirmed all lines, its answer when smaller bodies must tell more."""
        first = time.monotonic()
        delay = _FIRST_DELAY
        while True:
            answer = self._try(lines.body)
            if isinstance(answer, SendResult):
                verdict = judge(answer, self._name)
                if verdict is Verdict.WRITTEN:
                    return None
                if verdict is Verdict.HALVE:
                    return answer
            waited = time.monotonic() - first
            wait = min(delay, _LONGEST_DELAY) * random.uniform(0.75, 1.25)  # noqa: S311 - spreads connections
            if isinstance(answer, SendResult) and answer.retry_after is not None:
                wait = max(wait, answer.retry_after)
            patience = self._options.retry_seconds
            if isinstance(answer, SendResult) and _CLOSED in answer.reason:
                patience = min(patience, _CLOSED_SECONDS)
            if waited + wait > patience:
                raise self._gave_up(answer, waited)
            if waited > _QUIET_SECONDS:
                logger.warning(
                    "%s does not take a batch since %.0f s: %s. Trying again for %.0f s.",
                    self._name,
                    waited,
                    _words(answer),
                    patience - waited,
                )
            if self._stop.wait(wait):
                raise self._gave_up(answer, waited)
            delay *= 2

    def _try(self, body: memoryview) -> SendResult | Exception:
        try:
            return self._send(body)
        except (ServerUnavailableError, OSError) as error:
            return error

    def _gave_up(self, answer: SendResult | Exception, waited: float) -> InfluxdbBackupError:
        said = _words(answer)
        error = ServerUnavailableError(
            f"{self._name} did not take a batch in {waited:.0f} s. The last answer was {said}.",
            hint=_CLOSED_HINT if _CLOSED in said else "Look at the server's log and load, then run the same again.",
        )
        if isinstance(answer, Exception):
            error.__cause__ = answer
        return error

    def _measurement_of(self, line: Lines) -> str:
        """An escaped name ends at the first comma or space that is not part of it."""
        text = bytes(line.body)
        return next(
            name for escaped, name in self._measurements.items() if text.startswith((escaped + b",", escaped + b" "))
        )

    def _note_refusal(self, answer: SendResult) -> None:
        if answer.status != 413:
            with self._lock:
                self._partial = True

    def _reject(self, line: Lines, answer: SendResult) -> None:
        reason = f"{answer.status} {answer.reason or 'no reason given'}"
        self._rejects.add(bytes(line.body), reason)
        with self._lock:
            self._refused += 1
            measurement = self._measurement_of(line)
            self._refused_of[measurement] = self._refused_of.get(measurement, 0) + 1
            shown = printable(reason)[:REASON_CHARACTERS]
            if shown not in self._reasons and len(self._reasons) < _REASONS_KEPT:
                self._reasons.append(shown)
            if self._refused > self._options.max_rejects + _REJECTS_BEYOND:
                self._stop.set()
