"""
The frozen values that cross the rooms of the package.

Unknown fields of a document are ignored when it is read; how names and numbers are written is in ``values``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from influxdb_backup.messages import printable
from influxdb_backup.values import (
    MAX_END,
    MIN_TIME,
    Fingerprint,
    Int64,
    Name,
    Sha256,
    Value,
    decode_name,
    encode_name,
    is_utf8,
)


class Window(Value):
    """A half-open UTC interval ``[start, end)`` in ns since 1970."""

    start: Int64
    end: Int64

    @model_validator(mode="after")
    def _not_empty(self) -> Window:
        if not MIN_TIME <= self.start < self.end <= MAX_END:
            raise ValueError(f"a window needs {MIN_TIME} <= start < end <= {MAX_END}: {self.start}, {self.end}")
        return self

    def contains(self, other: Window) -> bool:
        """Whether every instant of ``other`` is in this window."""
        return self.start <= other.start and other.end <= self.end


class Role(StrEnum):
    """What a column is in InfluxDB."""

    TIME = "time"
    TAG = "tag"
    FIELD = "field"


class InfluxType(StrEnum):
    """The InfluxDB type of a column; ``timestamp`` and ``tag`` for the columns that are no fields."""

    TIMESTAMP = "timestamp"
    TAG = "tag"
    FLOAT = "float"
    INTEGER = "integer"
    UNSIGNED = "unsigned"
    STRING = "string"
    BOOLEAN = "boolean"


class Column(Value):
    """A tag or field of a table. The same field with two types is two columns."""

    role: Role
    name: Name
    type: InfluxType


class Table(Value):
    """A measurement within one retention policy. On 2.x the policy is the bucket's part after the slash."""

    retention_policy: Name
    measurement: Name

    def __str__(self) -> str:
        return f"{printable(self.retention_policy)}.{printable(self.measurement)}"


class TableSchema(Value):
    """What a server says a table holds, over all of its shards: every tag key, every (field, type)."""

    table: Table
    columns: tuple[Column, ...]

    @property
    def tags(self) -> tuple[str, ...]:
        """The tag keys, in the server's order."""
        return tuple(column.name for column in self.columns if column.role is Role.TAG)

    @property
    def fields(self) -> tuple[Column, ...]:
        """The field columns, one for each type of a field."""
        return tuple(column for column in self.columns if column.role is Role.FIELD)


class UnreadableTable(Value):
    """A measurement that the server stores and no query can read."""

    table: Table
    reason: str


class RetentionPolicy(Value):
    """A retention policy; a 2.x bucket is one as well."""

    name: Name
    duration: Int64
    """ns that points are kept; 0 = for ever"""
    shard_duration: Int64
    """ns of a shard group; 0 where the server does not say"""
    default: bool = False
    replication: int = 1
    past_write_limit: Int64 | None = None
    """ns before now beyond which writes are dropped (1.12 and later)"""
    future_write_limit: Int64 | None = None
    bucket: Name | None = None
    """2.x: the bucket's own name where another one follows from database and policy (``db/autogen``)"""


class ServerInfo(Value):
    """What answers at the other end."""

    product: str
    """``influxdb``"""
    version: str
    """as the server prints it, without a leading ``v``"""
    generation: int
    """1, 2 or 3"""
    instance_id: str | None = None
    """an id that survives restarts and address changes, where the server has one (2.x: the organisation's id)"""


class FieldCount(Value):
    """How many points of a table have a value of this type in this field."""

    name: Name
    type: InfluxType
    count: Int64


class Part(Value):
    """One immutable Parquet file of a table."""

    path: str
    """relative to the repository's root, no ``..``"""
    size: Int64
    sha256: Sha256
    rows: Int64
    min_time: Int64
    max_time: Int64
    piece: Window
    """the shard-group piece of the window that it was read from"""
    columns: tuple[Column, ...]
    """tags and fields that this part holds, in file order, ``time`` left out"""
    counts: tuple[FieldCount, ...]
    fingerprint: Fingerprint


class TableEntry(Value):
    """One table of a backup. A table without rows is listed with no parts."""

    number: int
    table: Table
    columns: tuple[Column, ...]
    """the union over the parts and what the server's schema lists"""
    rows: Int64
    counts: tuple[FieldCount, ...]
    min_time: Int64 | None
    max_time: Int64 | None
    fingerprint: Fingerprint
    parts: tuple[Part, ...]


class Scope(Value):
    """What a plan asks for. ``None`` means all."""

    retention_policies: tuple[Name, ...] | None = None
    measurements: tuple[Name, ...] | None = None
    exclude_measurements: tuple[Name, ...] = ()
    """names or globs"""


class Source(Value):
    """Where the points were read. No credentials and no URLs."""

    product: str
    version: str
    generation: int
    database: Name
    instance_id: str | None = None
    name: str | None = None
    """the plan's ``source:`` word, for servers without an instance id"""
    retention_policies: tuple[RetentionPolicy, ...] = ()


class SourcePiece(Value):
    """A stretch of one policy that was read on its own: within it every field has one type."""

    retention_policy: Name
    window: Window
    by_query: str | None = None
    """why its shard was not copied, though others could be; None where it was, or where no shard could be"""


class SourceCount(Value):
    """What ``count(*)`` said of one table in one piece, and whether points arrived while it was read."""

    table: Table
    window: Window
    counts: tuple[tuple[Name, Int64], ...]
    moved: bool = False
    reader: Literal["query", "shard"] = "query"
    """whether the points came by a query or from a copy of the shard's files"""


class ExpiredPolicy(Value):
    """A policy of which the source may have dropped points of the window before they were read."""

    retention_policy: Name
    kept_from: Int64
    """points before this instant may have been gone: of them the backup holds what was left"""


MAX_SEQUENCE = 2**53
"""more backups than any plan ever has: a ref that says a greater number was not written by an export"""


class Clocks(Value):
    """What three clocks said when a read began, ns since 1970."""

    server: Int64
    worker: Int64
    store: Int64


class Evidence(Value):
    """How the read was made and what proves that it was complete."""

    predicate: str
    """the time predicate as sent"""
    read_start: Int64
    """the server's clock, ns"""
    read_end: Int64
    settle: Int64
    open: bool
    """the window's end was later than read_start minus settle (forced)"""
    pieces: tuple[SourcePiece, ...]
    counts: tuple[SourceCount, ...]
    unreadable: tuple[UnreadableTable, ...]
    expired: tuple[ExpiredPolicy, ...] = ()
    """policies that no longer kept the whole window; that this was to be backed up was allowed"""
    sequence: int = Field(default=0, ge=0, le=MAX_SEQUENCE)
    """greater than that of every backup of the same time that was there: the order of reads, whatever clocks say"""
    clocks: Clocks | None = None
    """given where the server's clock was another one than the worker's and the store's, and that was accepted"""
    outside: tuple[SourcePiece, ...] = ()
    """stretches for which the source had shards and which no window of the plan reaches: before its start, or ahead"""
    ended: tuple[Table, ...] = ()
    """tables of the plan's last backup that the source no longer shows, since all of their points have expired"""


class Tool(Value):
    """What wrote the backup."""

    package: str
    pyarrow: str
    python: str
    codec: str
    dag_id: str | None = None
    run_id: str | None = None


MANIFEST_MEDIA_TYPE = "application/vnd.influxdb-backup.manifest.v1+json"
REF_MEDIA_TYPE = "application/vnd.influxdb-backup.ref.v1+json"
PLAN_MEDIA_TYPE = "application/vnd.influxdb-backup.plan.v1+json"
REPOSITORY_MEDIA_TYPE = "application/vnd.influxdb-backup.repository.v1+json"
DRILL_MEDIA_TYPE = "application/vnd.influxdb-backup.drill.v1+json"
CHECK_MEDIA_TYPE = "application/vnd.influxdb-backup.check.v1+json"
RESTORE_MEDIA_TYPE = "application/vnd.influxdb-backup.restore.v1+json"


class Manifest(Value):
    """Everything of one backup. Named by the sha256 of its own bytes."""

    media_type: str = MANIFEST_MEDIA_TYPE
    format_version: int = 1
    features_required: tuple[str, ...] = ()
    repository_id: str
    plan: str
    window: Window
    attempt: str
    content_id: Sha256
    source: Source
    scope: Scope
    evidence: Evidence
    tables: tuple[TableEntry, ...]
    tool: Tool
    previous_revision: int | None = None
    annotations: dict[str, str] = Field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Points of all tables."""
        return sum(entry.rows for entry in self.tables)

    @property
    def bytes(self) -> int:
        """Bytes of all parts as stored."""
        return sum(part.size for entry in self.tables for part in entry.parts)


class Ref(Value):
    """The small object whose creation is the backup."""

    media_type: str = REF_MEDIA_TYPE
    format_version: int = 1
    features_required: tuple[str, ...] = ()
    plan: str
    window: Window
    revision: int
    write_id: str
    manifest: Sha256
    manifest_size: Int64
    content_id: Sha256
    scope: Scope
    scope_hash: Sha256
    read_start: Int64
    read_end: Int64
    settle: Int64
    rows: Int64
    bytes: Int64
    open: bool
    unreadable: int
    retention_policies: tuple[Name, ...]
    """the policies that the source had and this backup looked at"""
    expired: tuple[ExpiredPolicy, ...] = ()
    """those of which the source may have dropped points of the window before they were read"""
    sequence: int = Field(default=0, ge=0, le=MAX_SEQUENCE)
    """greater than that of every backup that the read found of the same time; 0 before there were sequences"""

    @property
    def read_order(self) -> tuple[int, int, int, int]:
        """
        What sorts refs of the same time by when they were read; the greatest one says what is true now.

        A clock decides only between reads that did not know of each other.
        """
        return self.sequence, self.read_start, self.read_end, self.revision

    def kept_from(self, retention_policy: str) -> int:
        """From when on this backup says what a policy holds; before it another backup that looked there says more."""
        found = [entry.kept_from for entry in self.expired if entry.retention_policy == retention_policy]
        return max(self.window.start, *found) if found else self.window.start

    @property
    def id(self) -> str:
        """``plan/start_end/revision``, as every command takes it."""
        from influxdb_backup.windows import format_key

        return f"{self.plan}/{format_key(self.window.start)}_{format_key(self.window.end)}/{self.revision:06d}"


class PlanIdentity(Value):
    """What a plan's backups are backups of; written by its first export and never changed."""

    media_type: str = PLAN_MEDIA_TYPE
    format_version: int = 1
    plan: str
    database: Name
    generation: int
    instance_id: str | None
    source: str | None


class VerifyLevel(StrEnum):
    """How much of a backup was proved; each includes the ones before it."""

    PRESENT = "present"
    COMPLETE = "complete"
    VALID = "valid"
    RESTORABLE = "restorable"


class Problem(Value):
    """One finding of a verification."""

    kind: str
    """
    ``missing``, ``size``, ``digest``, ``foreign``, ``path``, ``unreadable``, ``rows``, ``counts``, ``times``,
    ``fingerprint``, ``drill``
    """
    object: str
    """the object's key, or the table"""
    message: str


class VerifyReport(Value):
    """The result of verifying one ref. It holds when ``problems`` is empty."""

    media_type: str = CHECK_MEDIA_TYPE
    ref: str
    manifest: str
    level: VerifyLevel
    ok: bool
    problems: tuple[Problem, ...]
    tables: int
    parts: int
    rows: Int64
    bytes: Int64
    seconds: float


__all__ = [
    "CHECK_MEDIA_TYPE",
    "DRILL_MEDIA_TYPE",
    "MANIFEST_MEDIA_TYPE",
    "MAX_END",
    "MAX_SEQUENCE",
    "MIN_TIME",
    "PLAN_MEDIA_TYPE",
    "REF_MEDIA_TYPE",
    "REPOSITORY_MEDIA_TYPE",
    "RESTORE_MEDIA_TYPE",
    "Clocks",
    "Column",
    "Evidence",
    "ExpiredPolicy",
    "FieldCount",
    "Fingerprint",
    "InfluxType",
    "Int64",
    "Manifest",
    "Name",
    "Part",
    "PlanIdentity",
    "Problem",
    "Ref",
    "RetentionPolicy",
    "Role",
    "Scope",
    "ServerInfo",
    "Sha256",
    "Source",
    "SourceCount",
    "SourcePiece",
    "Table",
    "TableEntry",
    "TableSchema",
    "Tool",
    "UnreadableTable",
    "Value",
    "VerifyLevel",
    "VerifyReport",
    "Window",
    "decode_name",
    "encode_name",
    "is_utf8",
    "printable",
]
