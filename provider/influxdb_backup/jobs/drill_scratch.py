"""
The scratch database of a drill, and what becomes of those that killed drills left.

A record in the repository says what to look at. What is dropped is decided by the server alone: the name has the form
of a scratch's, the server shows that a drill made the database, and that drill has not said for a while that it is at
work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from threading import Event, Thread

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository, pass_over
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import InfluxdbBackupError
from influxdb_backup.influx.protocol import LEASE, Mark, MarkedDatabase, Server, has_form, new_marked_name
from influxdb_backup.jobs.drills import ScratchCreated, ScratchDropped, ScratchStarted
from influxdb_backup.jobs.progress import ProgressCallback
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Ref

logger = logger_of(__name__)

SCRATCH_PREFIX = "influxdb_backup_drill_"
_RENEW_SECONDS = LEASE / 4 / 10**9
_STOP_SECONDS = 1.0


def new_scratch_name() -> str:
    """A database name that nobody uses."""
    return new_marked_name("drill")


@dataclass(frozen=True)
class DrillRun:
    """One running drill."""

    plan: Plan
    repository: Repository
    server: Server
    ref: Ref
    drill_id: str
    scratch: str
    progress: ProgressCallback

    def key(self, stage: str) -> str:
        """Of the document that records a stage of the scratch."""
        return layout.drill_stage_key(self.ref.plan, self.ref.window, self.ref.revision, self.scratch, stage)


class DrillScratch:
    """The scratch of one run: its documents, its mark, and its end."""

    def __init__(self, run: DrillRun) -> None:
        self._run = run
        self.announced = False
        """whether it may have been made"""
        self._id: str | None = None
        self._ended = Event()
        self._renewing: Thread | None = None
        self.reason = ""
        """why it could not be dropped, where the server said so"""

    def announce(self) -> None:
        """Records the name, before anything is created."""
        run = self._run
        self.announced = True
        started = ScratchStarted(
            drill_id=run.drill_id,
            ref=run.ref.id,
            server=run.server.name,
            database=run.scratch,
            started_at=time.time_ns(),
        )
        run.repository.put_document(run.key("started"), started)

    def mark(self) -> Mark:
        """What the server shows of this drill: that it is at work, from now on for a while."""
        return Mark(self._run.drill_id, self._run.server.now() + LEASE)

    @property
    def is_in_doubt(self) -> bool:
        """Whether it was about to be created, and nobody knows whether it was."""
        return self.announced and self._id is None

    def created(self, scratch_id: str) -> None:
        """Records that it exists, and has the server show from now on that this drill is at work."""
        self._id = scratch_id
        self._renewing = Thread(target=self._renew, args=(scratch_id,), name="scratch", daemon=True)
        self._renewing.start()
        document = ScratchCreated(drill_id=self._run.drill_id, scratch_id=scratch_id)
        self._run.repository.put_document(self._run.key("created"), document)

    def _renew(self, scratch_id: str) -> None:
        while not self._ended.wait(_RENEW_SECONDS):
            try:
                self._run.server.renew_scratch(self._run.scratch, scratch_id, self.mark())
            except InfluxdbBackupError as error:
                logger.warning("%s could not be told that this drill is at work: %s", self._run.server.name, error)

    def drop(self) -> bool:
        """Drops it and records that; False when it may still be there. Without an announcement there is nothing."""
        run = self._run
        if not self.announced:
            return True
        self._end()
        try:
            scratch_id = self._id or self._found()
            if scratch_id is None:
                self.reason = f"{run.server.name} shows no such database of this drill"
                return False
            run.server.drop_scratch(run.scratch, scratch_id)
        except InfluxdbBackupError as error:
            self.reason = error.message
            self._leave()
            return False
        run.repository.put_document(
            run.key("dropped"), ScratchDropped(drill_id=run.drill_id, dropped_at=time.time_ns())
        )
        return True

    def _found(self) -> str | None:
        """The id of a scratch whose making was not answered for."""
        found = (scratch for scratch in self._run.server.scratches() if scratch.name == self._run.scratch)
        return next((scratch.scratch_id for scratch in found if scratch.mark.owner == self._run.drill_id), None)

    def _end(self) -> None:
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join(_STOP_SECONDS)

    def _leave(self) -> None:
        """Has the server show that nobody is at work in it any more."""
        run = self._run
        if self._id is not None:
            try:
                run.server.renew_scratch(run.scratch, self._id, Mark(run.drill_id, run.server.now()))
            except InfluxdbBackupError as error:
                logger.info("%s shows this drill at work for a while yet: %s", run.server.name, error)


@dataclass(frozen=True)
class Cleaned:
    """What became of the scratches that drills recorded and did not drop; the names of each."""

    dropped: tuple[str, ...] = ()
    """seen before, and gone now"""
    running: tuple[str, ...] = ()
    """their drills are at work, or were until a few minutes ago"""
    unseen: tuple[str, ...] = ()
    """not among the databases that these credentials see: never made, gone, or hidden"""
    foreign: tuple[str, ...] = ()
    """there, but the server does not show that a drill made them: never dropped"""
    forged: tuple[str, ...] = ()
    """there, and not even called as a scratch is, so that the record is damaged or somebody's trap: never dropped"""


def clean(plan: str, *, repository: Repository, server: Server) -> Cleaned:
    """
    Drops the scratch databases that killed drills of the plan left on this server.

    Raises the server's first error, after the others were dropped.
    """
    recorded = [record for record in _open_records(repository, plan) if record[1].server == server.name]
    names = dict.fromkeys(record.database for _, record in recorded)
    found = {scratch.name: scratch for scratch in server.scratches() if scratch.name in names}
    now = server.now()
    idle = [scratch for scratch in found.values() if scratch.mark.until <= now]
    dropped = _dropped(idle, server, partial(_tick_off, repository, recorded))
    visible = set(server.databases()) if names.keys() - found.keys() else set[str]()
    return Cleaned(
        dropped=dropped,
        running=tuple(name for name, scratch in found.items() if scratch.mark.until > now),
        unseen=tuple(name for name in names if name not in found and name not in visible),
        foreign=tuple(name for name in names if name not in found and name in visible and has_form(name, "drill")),
        forged=tuple(name for name in names if name in visible and not has_form(name, "drill")),
    )


def drop_scratches_of(
    plan: str, *, owners: Callable[[str], bool], repository: Repository, server: Server
) -> tuple[str, ...]:
    """
    Drops the scratches that the server shows to be made by drills whose ids ``owners`` knows to have ended.

    Raises as ``clean``.
    """
    found = [scratch for scratch in server.scratches() if owners(scratch.mark.owner)]
    if not found:
        return ()
    return _dropped(found, server, partial(_tick_off, repository, _open_records(repository, plan)))


_Records = list[tuple[str, ScratchStarted]]


def _open_records(repository: Repository, plan: str) -> _Records:
    """Records of scratches that no other says were dropped, each with its key's beginning."""
    prefix = layout.report_prefix(layout.DRILLS, plan)
    dropped = {
        key.removesuffix(".dropped.json") for key, _ in repository.read_documents(prefix, ScratchDropped, pass_over)
    }
    started = [
        (key.removesuffix(".started.json"), record)
        for key, record in repository.read_documents(prefix, ScratchStarted, pass_over)
    ]
    return [(stem, record) for stem, record in started if stem not in dropped]


def _dropped(
    scratches: Iterable[MarkedDatabase], server: Server, tick_off: Callable[[MarkedDatabase], None]
) -> tuple[str, ...]:
    names: list[str] = []
    stuck: list[InfluxdbBackupError] = []
    for scratch in scratches:
        try:
            server.drop_scratch(scratch.name, scratch.scratch_id)
        except InfluxdbBackupError as error:
            stuck.append(error)
            continue
        names.append(scratch.name)
        tick_off(scratch)
    if stuck:
        raise stuck[0]
    return tuple(names)


def _tick_off(repository: Repository, records: _Records, scratch: MarkedDatabase) -> None:
    for stem, record in records:
        if record.database == scratch.name:
            document = ScratchDropped(drill_id=record.drill_id, dropped_at=time.time_ns())
            repository.put_document(f"{stem}.dropped.json", document)
