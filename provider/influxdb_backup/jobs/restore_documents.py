"""What a restore says: its plan, its report, and what it leaves in the repository while it runs."""

from __future__ import annotations

from typing import Literal

from influxdb_backup.archive.salvage import LostRows
from influxdb_backup.model import RESTORE_MEDIA_TYPE, Int64, Name, Table, Value, Window

ReadBackOf = Literal["counts", "files", "values"]


class TableWrite(Value):
    """One table of a restore plan."""

    source: Table
    target: Table
    parts: int
    rows: Int64
    """points of the parts; fewer are written when parts are cut by the range or by tags"""
    bytes: Int64


class Refusal(Value):
    """Why a restore would be refused before its first change, and what to choose instead."""

    kind: str
    """the error's that the restore would raise"""
    message: str
    hint: str


class RestorePlan(Value):
    """What a restore would read, create, drop and write. Nothing was changed to make it."""

    window: Window
    refs: tuple[str, ...]
    target_server: str
    target_database: Name
    tables: tuple[TableWrite, ...]
    creates: tuple[str, ...]
    """database and retention policies that would be created"""
    infinite: tuple[str, ...]
    """of those, policies that get infinite retention since the source's would drop restored points"""
    widens: tuple[str, ...]
    drops: tuple[str, ...]
    """points that would not be written, and why"""
    gaps: tuple[str, ...]
    expired: tuple[str, ...] = ()
    """stretches that were backed up when the source no longer kept them: of them there is what was left"""
    rows: Int64
    bytes: Int64
    separated: tuple[str, ...] = ()
    """policies that get shorter shard groups than the source's, so that types of fields stay apart"""
    refusals: tuple[Refusal, ...] = ()
    """why the restore would be refused; it would run where there are none"""


class RestoreIdentity(Value):
    """``restores/<id>.json``: written before the first point."""

    media_type: str = RESTORE_MEDIA_TYPE
    restore_id: str
    request: str
    """sha256 of what was asked; another request cannot take the id over"""
    target_server: str
    target_database: Name
    started_at: Int64
    write_id: str = ""
    """random: two calls that begin at once do not take each other's document for their own"""


class RestoreProgress(Value):
    """``restores/<id>/<n>.json``: units that are said to be written, which the target has to prove."""

    media_type: str = "application/vnd.influxdb-backup.restore-progress.v1+json"
    units: tuple[str, ...]
    rows: Int64
    values: Int64
    rejects: int
    dropped: Int64 = 0


class RestoreReport(Value):
    """What a restore did."""

    restore_id: str
    refs: tuple[str, ...]
    target_server: str
    target_database: Name
    tables: int
    rows: int
    """written by this call and, when it went on, by the ones before"""
    values: int
    rejects: int
    reject_reasons: tuple[str, ...]
    reject_file: str | None
    dropped_points: int
    """older than the target keeps, left out because the request says so"""
    created: tuple[str, ...]
    infinite: tuple[str, ...]
    separated: tuple[str, ...] = ()
    """created policies that got shorter shard groups than the source's, so that types of fields stay apart"""
    widened: tuple[str, ...] = ()
    """policies of the target that had a shorter retention and now keep points for ever"""
    gaps: tuple[str, ...]
    lost: tuple[LostRows, ...] = ()
    """with ``salvage``: stretches of rows of damaged parts that were not restored, or not whole"""
    expired: tuple[str, ...] = ()
    """stretches that were backed up when the source no longer kept them: of them there is what was left"""
    continued_units: int
    """parts that an earlier call with this id had written"""
    writer: Literal["lines", "shard"] = "lines"
    """how the points were written: by line protocol or as whole shards"""
    written_again: bool = False
    """whether points were missing that the target had confirmed, so that all of them were written a second time"""
    fingerprints: bool = False
    """whether everything was read back, and had the archive's fingerprints"""
    read_back: tuple[ReadBackOf, ...] = ()
    """
    what of the target was compared: ``counts`` of values, which see no changed one; the ``files`` of whole shards, byte
    for byte, or their values; all ``values`` by fingerprints
    """
    check_seconds: float
    """
    before the first write: by line protocol for reading every part once (its digest, and what that can carry), by
    shards for building the first shard group
    """
    write_seconds: float
    read_back_seconds: float
    seconds: float

    @property
    def proved_by(self) -> str:
        """What was read back, in words: counts see no changed value, the shards' files and fingerprints do."""
        words = {"counts": "counts", "files": "the shards' files", "values": "fingerprints"}
        return " and ".join(words[what] for what in self.read_back)
