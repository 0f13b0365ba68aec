"""The scratch database of a drill: recorded before it is made, so that what a killed drill leaves can be dropped."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import DrillError, InfluxdbBackupError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.drills import ScratchCreated, ScratchDropped, ScratchStarted
from influxdb_backup.jobs.progress import ProgressCallback
from influxdb_backup.model import Ref, printable

SCRATCH_PREFIX = "influxdb_backup_drill_"


def new_scratch_name() -> str:
    """A database name that nobody uses."""
    return f"{SCRATCH_PREFIX}{secrets.token_hex(8)}"


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
    """The scratch of one run: its documents, and its end."""

    def __init__(self, run: DrillRun) -> None:
        self._run = run
        self.announced = False
        """whether it may have been made"""
        self._id: str | None = None
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

    @property
    def is_in_doubt(self) -> bool:
        """Whether it was about to be created, and nobody knows whether it was."""
        return self.announced and self._id is None

    def created(self, scratch_id: str) -> None:
        """Records the id that it can be dropped by."""
        self._id = scratch_id
        document = ScratchCreated(drill_id=self._run.drill_id, scratch_id=scratch_id)
        self._run.repository.put_document(self._run.key("created"), document)

    def drop(self) -> bool:
        """Drops it and records that; False when it may still be there. Without an announcement there is nothing."""
        run = self._run
        if not self.announced:
            return True
        if self._id is None:
            return False
        try:
            run.server.drop_scratch(run.scratch, self._id)
        except InfluxdbBackupError as error:
            self.reason = error.message
            return False
        run.repository.put_document(
            run.key("dropped"), ScratchDropped(drill_id=run.drill_id, dropped_at=time.time_ns())
        )
        return True


def clean(plan: str, *, repository: Repository, server: Server, drill_id: str | None = None) -> tuple[str, ...]:
    """
    Drops scratch databases that drills of the plan recorded and did not drop, on this server. Returns their names.

    With ``drill_id`` only that drill's. What no record names is never touched. Raises DrillError for one that cannot
    be dropped, after the others were, and the server's errors.
    """
    prefix = layout.report_prefix(layout.DRILLS, plan)
    dropped = {key.removesuffix(".dropped.json") for key, _ in repository.read_documents(prefix, ScratchDropped)}
    ids = {
        key.removesuffix(".created.json"): document.scratch_id
        for key, document in repository.read_documents(prefix, ScratchCreated)
    }
    names: list[str] = []
    stuck: list[DrillError] = []
    for key, record in repository.read_documents(prefix, ScratchStarted):
        stem = key.removesuffix(".started.json")
        wanted = drill_id is None or record.drill_id == drill_id
        if stem in dropped or not wanted or record.server != server.name:
            continue
        try:
            _drop_leftover(record.database, ids.get(stem), server)
        except DrillError as error:
            stuck.append(error)
            continue
        repository.put_document(
            f"{stem}.dropped.json", ScratchDropped(drill_id=record.drill_id, dropped_at=time.time_ns())
        )
        names.append(record.database)
    if stuck:
        raise stuck[0]
    return tuple(names)


def _drop_leftover(database: str, scratch_id: str | None, server: Server) -> None:
    """A drill that was killed between creating a scratch and recording its id leaves only the recorded name."""
    if scratch_id is not None:
        server.drop_scratch(database, scratch_id)
        return
    refusal: InfluxdbBackupError | None = None
    if database in server.databases():
        try:
            server.drop_scratch(database, database)
        except InfluxdbBackupError as error:
            if error.retryable:
                raise
            refusal = error
    if database in server.databases():
        raise DrillError(
            f"The scratch database {printable(database)!r} is on {server.name}, and no record says its id there.",
            hint="Look at it and delete it by hand; nothing but a killed drill has ever used this name.",
        ) from refusal
