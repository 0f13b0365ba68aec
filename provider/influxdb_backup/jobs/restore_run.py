"""One running restore: what it was asked, where it writes, and what was written so far."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.archive.fetching import FetchedParts
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.salvage import LostRows
from influxdb_backup.columns import batch_columns
from influxdb_backup.influx.protocol import Mark, WriteOptions, WriteResult, new_marked_name
from influxdb_backup.jobs.progress import ProgressCallback
from influxdb_backup.jobs.read_back import Expected
from influxdb_backup.jobs.restore_request import Reads, RestoreRequest, Unit
from influxdb_backup.jobs.restore_target import Target
from influxdb_backup.model import Column, Role, Table

_PASSING = {"restore_id", "connections", "max_rejects", "writer", "fingerprints"}
"""of a request: what may be another when a restore is gone on with"""


@dataclass
class Totals:
    """What was written so far."""

    rows: int = 0
    values: int = 0
    rejects: int = 0
    refused: dict[Table, int] = field(default_factory=dict)
    """of the rejects, how many are of each table of the target"""
    reasons: tuple[str, ...] = ()
    reject_file: str | None = None
    late: bool = False
    dropped: int = 0
    expected: Expected = field(default_factory=Expected)
    table_rows: dict[Table, int] = field(default_factory=dict)
    table_fields: dict[Table, set[Column]] = field(default_factory=dict)
    """fields that have values"""

    def absorb(self, policy: str, result: WriteResult) -> None:
        """Adds what a writer of line protocol into this policy refused."""
        self.rejects += result.rejects
        for measurement, count in result.refused.items():
            table = Table(retention_policy=policy, measurement=measurement)
            self.refused[table] = self.refused.get(table, 0) + count
        self.reasons = tuple(dict.fromkeys([*self.reasons, *result.reject_reasons]))[:5]
        if result.reject_file and result.rejects:
            self.reject_file = str(result.reject_file)
        self.late = self.late or result.late_visibility

    def count(self, table: Table, batch: pa.RecordBatch) -> None:
        """Adds the rows and values of a batch that goes to ``table``."""
        self.rows += batch.num_rows
        self.table_rows[table] = self.table_rows.get(table, 0) + batch.num_rows
        fields = self.table_fields.setdefault(table, set())
        for position, column in enumerate(batch_columns(batch.schema)):
            if column.role is Role.FIELD:
                array = batch.column(position + 1)
                present = len(array) - array.null_count
                self.values += present
                self.expected.add(table, column.name, present)
                if present:
                    fields.add(column)


@dataclass(frozen=True)
class RestoreRun:
    """One running restore."""

    request: RestoreRequest
    repository: Repository
    reads: Reads
    target: Target
    options: WriteOptions
    progress: ProgressCallback
    restore_id: str
    started: float

    lost: dict[tuple[str, int, str | None], LostRows] = field(default_factory=dict)
    """with ``salvage``: rows of damaged parts that cannot be read, by part, first row and field, as they are found"""

    unpublished: str = field(default_factory=lambda: new_marked_name("restore"))
    """what a new database is called until all of it is there, where the server can rename it"""

    @property
    def asked(self) -> str:
        """Digest of the request and of the backups that answer it."""
        asked = self.request.model_dump(mode="json", exclude=_PASSING)
        asked["refs"] = sorted(ref.id for ref in self.reads.refs)
        return "sha256:" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    @property
    def owner(self) -> str:
        """As what the server knows this very restore, in the marks of what it makes and writes into."""
        return hashlib.sha256(f"{self.restore_id} {self.asked}".encode()).hexdigest()[:32]

    def cutoff(self, policy: str) -> int | None:
        """The instant before which points of a policy are left out by now: a retention's edge moves on."""
        edge = self.target.cutoffs.get(policy)
        return None if edge is None else edge + int((time.monotonic() - self.started) * 1e9)


@dataclass(frozen=True)
class Scratch:
    """A restore that makes its own database, whose policies keep points for ever."""

    mark: Callable[[], Mark]
    """for whom the server shows it to be made, from now on"""
    announce: Callable[[], None]
    """called before anything is created"""
    created: Callable[[str], None]
    """called with its id as soon as it exists"""


@dataclass(frozen=True)
class Outcome:
    """What was written; times are seconds of ``time.monotonic``."""

    totals: Totals
    created: tuple[str, ...]
    checked: float
    """when everything had been read and found writable"""
    written: float
    written_again: bool = False
    """whether the target did not hold what it had confirmed the first time"""


def batches(
    run: RestoreRun, unit: Unit, *, large: bool = False, fetched: FetchedParts | None = None
) -> Iterator[pa.RecordBatch]:
    """
    The points of a unit that the request asks for, bounded as ``archive.parquet.read_batches`` says.

    Of parts that are ``fetched`` the copy is read. With ``salvage`` those that are whole; the rows that are not are
    noted in ``run.lost``.
    """
    tags = dict(run.request.tags) or None
    window = None if unit.whole else unit.window
    if run.request.salvage:

        def note(lost: LostRows) -> None:
            if lost.min_time < unit.window.end and lost.max_time >= unit.window.start:
                run.lost[lost.path, lost.first_row, lost.column] = lost

        return run.repository.read_part_salvaged(unit.part, unit.table.measurement, note, window=window, tags=tags)
    return run.repository.read_part(unit.part, window=window, tags=tags, large=large, fetched=fetched)


def after_cutoff(batch: pa.RecordBatch, cutoff: int | None) -> pa.RecordBatch:
    """The points that are not older than the cutoff, ns; all without one."""
    if cutoff is None:
        return batch
    times = batch.column(0).cast("int64")
    return batch.filter(pc.greater_equal(times, cutoff))
