"""Shard groups on their way to a server: built, opened and sent beside each other, a few at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Semaphore, Thread
from types import TracebackType
from typing import Literal

import pyarrow as pa

from influxdb_backup.archive.fetching import FetchedParts
from influxdb_backup.influx.protocol import NewShards
from influxdb_backup.influx.shard_digests import digests_of
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.jobs.restore_run import RestoreRun, batches
from influxdb_backup.jobs.shard_building import MOST_BUILT, BuiltGroup, GroupBuilder, Lot
from influxdb_backup.messages import logger_of
from influxdb_backup.model import printable
from influxdb_backup.windows import format_window

logger = logger_of(__name__)

SENDERS = 2
"""groups that are sent at a time"""
TELL_SECONDS = 1.0
STOP_SECONDS = 1.0
"""for what is at work, when the job is stopped: Airflow kills a task five seconds after it told it"""

Stage = Literal["build", "open", "send"]


class StageError(Exception):
    """A group could not be built, opened or sent, as ``__cause__`` says."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.stage = stage


@dataclass(frozen=True)
class SentGroup:
    """A group that the server took, and whose files are not on this machine any more."""

    built: BuiltGroup
    digests: frozenset[str]
    """SHA-256 of each file"""
    seconds: float
    """that sending took"""


@dataclass(frozen=True)
class _Failure:
    stage: Stage
    error: BaseException


class _StoppedError(Exception):
    """Ends a thread that nobody waits for."""


class ShardPipeline:
    """
    Builds the groups of a restore one after the other and sends them; a context that ends with its threads.

    Files of at most ``MOST_BUILT`` groups are in ``folder`` at a time: a lot is begun when there is room for all of its
    groups. The caller's thread builds and sends nothing. It tells progress every second, so that whoever stops the job
    does not wait for a store or a server.
    """

    def __init__(self, run: RestoreRun, lots: Sequence[Lot], durations: Mapping[str, int], folder: Path) -> None:
        self.sent: list[SentGroup] = []
        self.begun: list[BuiltGroup] = []
        """groups that were built: the server may have some files of each"""
        self._run = run
        self._lots = lots
        self._durations = durations
        self._folder = folder
        self._room = Semaphore(MOST_BUILT)
        self._stopped = Event()
        self._waiting: SimpleQueue[BuiltGroup | None] = SimpleQueue()
        self._events: SimpleQueue[Lot | BuiltGroup | SentGroup | _Failure] = SimpleQueue()
        self._opening = Lock()
        self._building = Thread(target=self._build, name="shards", daemon=True)
        self._sending: list[Thread] = []
        self._lots_built = 0
        self._rows_sent = 0

    def __enter__(self) -> ShardPipeline:
        self._building.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(STOP_SECONDS)

    def stop(self, seconds: float) -> None:
        """Has every thread end after what it is doing now, and waits so long at most for those that send. Once."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        for _ in self._sending:
            self._waiting.put(None)
        until = time.monotonic() + seconds
        for thread in self._sending:
            thread.join(max(0.0, until - time.monotonic()))
        self._building.join(STOP_SECONDS)

    def wait_for_first(self) -> bool:
        """Waits until a group is built; False when there are no points. Raises StageError."""
        while not self.begun and self._lots_built < len(self._lots):
            self._take()
            if not self.begun:
                self._tell("check", self._lots_built, len(self._lots), self._lots[0].policy)
        return bool(self.begun)

    def send(self, made: NewShards) -> None:
        """Opens and sends all groups, and takes their files away. Raises StageError."""
        self._sending += [
            Thread(target=self._send_waiting, args=(made,), name="shards", daemon=True) for _ in range(SENDERS)
        ]
        for thread in self._sending:
            thread.start()
        self._tell("write", 0, self._total(), self.begun[0].policy)
        while self._lots_built < len(self._lots) or len(self.sent) < len(self.begun):
            self._take()
            self._tell("write", len(self.sent), self._total(), self.begun[-1].policy)

    def _total(self) -> int:
        """Groups, as far as it is known by now which have points."""
        return len(self.begun) + sum(len(lot.windows) for lot in self._lots[self._lots_built :])

    def _take(self) -> None:
        """Takes in what a thread says, or that none says anything for a while."""
        try:
            event = self._events.get(timeout=TELL_SECONDS)
        except Empty:
            return
        match event:
            case _Failure():
                raise StageError(event.stage) from event.error
            case SentGroup():
                self.sent.append(event)
                self._rows_sent += event.built.totals.rows
            case BuiltGroup():
                self.begun.append(event)
            case Lot():
                self._lots_built += 1

    def _tell(self, stage: str, done: int, total: int, policy: str) -> None:
        self._run.progress(Progress(stage, done, total, self._rows_sent, 0, printable(policy)))

    def _refuse_stopped(self) -> None:
        if self._stopped.is_set():
            raise _StoppedError

    # --- in threads of their own

    def _build(self) -> None:
        try:
            parts = [unit.part for lot in self._lots for unit in lot.units]
            with self._run.repository.fetch(parts) as fetched:
                builder = GroupBuilder(
                    self._durations,
                    batches=lambda unit: self._batches(unit, fetched),
                    generation=self._run.target.server.info.generation,
                    folder=self._folder,
                )
                for lot in self._lots:
                    self._take_room(len(lot.windows))
                    empty = len(lot.windows)
                    for group in builder.build(lot):
                        empty -= 1
                        self._events.put(group)
                        self._waiting.put(group)
                    for _ in range(empty):
                        self._room.release()
                    self._events.put(lot)
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._events.put(_Failure("build", error))

    def _take_room(self, groups: int) -> None:
        for _ in range(groups):
            while not self._room.acquire(timeout=TELL_SECONDS):
                self._refuse_stopped()
        self._refuse_stopped()

    def _batches(self, unit: Unit, fetched: FetchedParts) -> Iterator[pa.RecordBatch]:
        for batch in batches(self._run, unit, large=True, fetched=fetched):
            self._refuse_stopped()
            yield batch

    def _send_waiting(self, made: NewShards) -> None:
        stage: Stage = "open"
        try:
            while (group := self._waiting.get()) is not None and not self._stopped.is_set():
                stage = "open"
                with self._opening:
                    made.open(group.policy, {group.window: group.series})
                stage = "send"
                self._events.put(self._send(made, group))
                self._room.release()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._events.put(_Failure(stage, error))

    def _send(self, made: NewShards, group: BuiltGroup) -> SentGroup:
        digests = digests_of(group.files)
        began = time.monotonic()
        logger.debug("The shard of %s is sent in %d parts.", format_window(group.window), len(group.sendings))
        for files in group.sendings:
            made.send(group.policy, group.window, files)
        seconds = time.monotonic() - began
        for file in group.files:
            with suppress(OSError):  # the folder is removed at the end in any case
                file.unlink()
        return SentGroup(group, digests, seconds)


__all__ = ["SENDERS", "STOP_SECONDS", "TELL_SECONDS", "SentGroup", "ShardPipeline", "StageError"]
