"""
What every generation of InfluxDB offers to the jobs; one file per generation implements it.

The only form in which points cross this room's wall is the Arrow ``RecordBatch`` described in
``influxdb_backup.columns``: column ``time`` (``timestamp[ns, UTC]``), tags as dictionaries of strings, typed
nullable fields, and each column's role, InfluxDB name and type in its metadata.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from influxdb_backup.influx.marks import LEASE, Mark, MarkedDatabase, has_form, new_marked_name
from influxdb_backup.model import (
    Column,
    FieldCount,
    RetentionPolicy,
    ServerInfo,
    Table,
    TableSchema,
    UnreadableTable,
    Window,
)

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How to reach one server. Built from an Airflow connection, from the environment or from options."""

    url: str
    """``http(s)://host:port`` and an optional path prefix, without credentials"""
    username: str | None = None
    password: str | None = None
    token: str | None = None
    organization: str | None = None
    """2.x: name or id; must be the token's own"""
    verify_tls: bool = True
    ca_file: str | None = None
    timeout: float = 60.0
    """seconds that a silence in a reply may take; a reply that brings next to nothing in twice that is given up"""
    snapshot_address: str | None = None
    """1.x: ``host:port`` of its backup port, which knows neither credentials nor TLS"""
    version: str | None = None
    """skips detection: ``1.8.10``, ``2.7``"""
    compress: bool | None = None
    """ask for the answers of queries as gzip, which has a checksum; None: over plain HTTP from other machines"""
    name: str = ""
    """how messages call this server: the connection's id, or the URL"""

    def __repr__(self) -> str:
        return f"ServerSettings(name={self.name!r}, url={self.url!r})"


@dataclass(frozen=True)
class PolicySchema:
    """Everything one retention policy holds: tables that can be read, and those that cannot, with the reason."""

    tables: tuple[TableSchema, ...]
    unreadable: tuple[UnreadableTable, ...]


class Conflict(StrEnum):
    """What stands in the way of writing a name or value to a generation."""

    MEASUREMENT = "measurement"
    TAG_KEY = "tag-key"
    TAG_VALUE = "tag-value"
    FIELD_KEY = "field-key"
    FIELD_VALUE = "field-value"
    FIELD_TYPE = "field-type"


@dataclass(frozen=True)
class Unrepresentable:
    """One name or value that line protocol of the target cannot carry."""

    conflict: Conflict
    name: str
    """the name or value, or the field's key for values"""
    reason: str


@dataclass(frozen=True)
class Dialect:
    """How a generation's line protocol is written."""

    name: str
    """``1.x``, ``2.x``"""
    unsigned: bool
    """whether the ``u`` suffix exists"""
    reserved_tag_keys: frozenset[str]
    """keys that the server refuses although the syntax can carry them"""
    reserved_measurements: frozenset[str]
    """names that are written and then cannot be read"""
    index_fields: frozenset[str] = frozenset()
    """
    fields that are written as any other, and that queries answer from the index at time 0: their values stand in the
    shards' files alone
    """
    max_string_bytes: int | None = 2**20
    """the longest string value; None where the server has no limit"""
    utf8_names: bool = False
    """whether measurements and field keys must be UTF-8, without which the server does not open the shard again"""


@dataclass(frozen=True)
class WriteOptions:
    """How hard to press on a target."""

    connections: int = 2
    batch_lines: int = 20_000
    batch_bytes: int = 4 * 2**20
    """a batch ends at whichever bound comes first"""
    max_rejects: int = 0
    """points that may be refused before the write fails"""
    reject_file: Path | None = None
    """where refused lines go (line protocol, zstd); a temporary file when None"""
    retry_seconds: float = 120.0
    """for how long one batch is tried again on 429, 5xx and lost connections"""
    unsigned_as_integer: bool = False
    """write unsigned fields as integers where the target has no ``u``; values above 2^63-1 then are refused"""
    compress: bool | None = None
    """make the bodies smaller, which are gzip in any case; None: unless the server is on this machine"""


@dataclass(frozen=True)
class WriteResult:
    """What a finished write did."""

    rows: int
    values: int
    bytes: int
    """of line protocol, before compression"""
    batches: int
    seconds: float
    rejects: int
    reject_reasons: tuple[str, ...]
    """the first few distinct answers of the server"""
    reject_file: Path | None
    late_visibility: bool = False
    """a partial refusal happened, after which other points may become visible only a moment later"""
    refused: Mapping[str, int] = field(default_factory=dict)
    """of ``rejects``, how many are of each measurement"""


class PointWriter(Protocol):
    """
    Writes points into one database and policy over several connections. A context manager.

    Leaving the block normally flushes, waits for every answer and fills ``result``; leaving it by an
    exception stops the connections. More refused points than allowed raise RejectedPointsError.
    """

    def __enter__(self) -> PointWriter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, measurement: str, batch: pa.RecordBatch) -> None:
        """Encodes and queues the batch; blocks while the connections are behind. Batches may overtake each other."""

    @property
    def result(self) -> WriteResult:
        """Totals; complete after the block was left."""


@dataclass(frozen=True)
class ReadOptions:
    """Bounds of a read."""

    batch_rows: int = 65_536
    batch_bytes: int = 8 * 2**20
    """a record batch ends at whichever bound comes first"""


@dataclass(frozen=True)
class ShardReport:
    """What reading every block of a shard found."""

    rows: int
    """that could be read"""
    damages: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """Some of a table's values: those of one field in a stretch of time."""

    window: Window
    field: str


class ShardCopy(Protocol):
    """The files of one shard, fetched and proved, as tables."""

    @property
    def files(self) -> int:
        """The number of its TSM files."""

    def scrub(self) -> ShardReport:
        """Reads everything."""

    def measurements(self) -> frozenset[str]:
        """Measurements that its files have series of, also those whose points are all deleted."""

    def holds(self, measurement: str, piece: Window) -> bool:
        """Whether it has a point of the measurement in the piece."""

    def sample(self, measurement: str, piece: Window) -> Sample | None:
        """
        A few values of the piece, at random, that the server is to count; None where it is to count them all.

        All, unless there are many of them and the server says that it answers queries from the copy's files and no
        others.
        """

    def stored(self, schema: TableSchema, piece: Window) -> Mapping[str, int] | None:
        """
        The values of each field in all of its shards, where several shards hold the piece; None where one does.

        They can be more than ``read`` gives, since that gives a point once. A query counts no other number of a field
        that has one type, and no more of one that has several.
        """

    def read(self, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """
        As ``Server.read``. Thread-safe.

        Raises IncompleteReadError of kind ``schema-changed`` for a tag or field that ``schema`` does not know and that
        has points in the piece, and SourceError (``overlapping-groups``) when the shards of the piece contradict each
        other.
        """


class NewShards(Protocol):
    """
    A new database whose shards take whole files; nothing tells whether they arrived but a count.

    Thread-safe, but for ``open``, which is for one thread at a time.
    """

    @property
    def database(self) -> str:
        """The name that it has until it is published."""

    @property
    def created(self) -> tuple[str, ...]:
        """What was created, as ``Server.create_database`` names it, by the names that it is published under."""

    @property
    def scratch_id(self) -> str:
        """What ``Server.drop_scratch`` drops it by."""

    def open(self, retention_policy: str, groups: Mapping[Window, bytes | None]) -> None:
        """
        Has the server make these shard groups, each with its shard, whose files the backup door takes.

        Each comes with one of its series as line protocol spells it (None: it can spell none). Raises TargetError
        (``shards-refused``) when the server makes others, and the errors of a request.
        """

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """Sends the files of one group that was opened. Sending them again is safe. Raises the errors of a request."""

    def digests(self, retention_policy: str, group: Window) -> frozenset[str]:
        """SHA-256 of each file that the group's shard has on the server now. Raises as ``Server.copy_shard``."""

    def publish(self) -> None:
        """Gives the database the name it was created for. Raises TargetError when that is taken by now."""


class Server(Protocol):
    """
    One InfluxDB server with open connections. Thread-safe. ``close`` ends the connections.

    ``retention_policy`` is always named. On 2.x the pair (database, retention policy) stands for one bucket,
    split at the first slash, and is resolved to the bucket's id before anything is read or written.
    Every method raises ServerUnavailableError, AccessError or QueryError besides what it names.
    """

    @property
    def info(self) -> ServerInfo:
        """Product, version, generation and instance id."""

    @property
    def dialect(self) -> Dialect:
        """The line protocol to write."""

    @property
    def name(self) -> str:
        """What messages call this server."""

    def now(self) -> int:
        """The server's clock from a reply's ``Date`` header, ns (whole seconds)."""

    def at_most(self, queries: int) -> AbstractContextManager[None]:
        """While the context lasts no more queries than these run at a time, listings and counts among them."""

    def databases(self) -> tuple[str, ...]:
        """Databases that these credentials see, without ``_internal`` and other system databases; sorted."""

    def retention_policies(self, database: str) -> tuple[RetentionPolicy, ...]:
        """Policies of a database. Raises NotVisibleError when the database is unknown or not visible."""

    def schema(self, database: str, retention_policy: str) -> PolicySchema:
        """
        Every measurement of the policy with all tag keys and (field, type) pairs, over all shards.

        Measurements that are stored but that no query can read are in ``unreadable`` by name.
        """

    def pieces(self, database: str, retention_policy: str, window: Window) -> tuple[Window, ...]:
        """Tiles the window so that no piece crosses a shard group, also where no group is known."""

    def listed_groups(self, database: str, retention_policy: str) -> tuple[Window, ...] | None:
        """The shard groups that ``pieces`` listed last; None where these credentials may not list them."""

    def overlaps(self, database: str, retention_policy: str, window: Window) -> Mapping[Window, str]:
        """
        The stretches of the window that several shards hold, with the names of these shards in words.

        Empty too where the credentials may not list shards.
        """

    def counts(
        self, database: str, retention_policy: str, measurement: str, window: Window, fields: Sequence[str]
    ) -> Mapping[str, int]:
        """``count(*)`` by field name in a window that crosses no shard group. Fields without points are left out."""

    def count(self, database: str, table: Table, window: Window, field: str) -> int:
        """The values of one field in a window that crosses no shard group."""

    def has_fields(self, database: str, table: Table, window: Window, fields: Collection[Column]) -> bool:
        """Whether queries of a window find all of these fields, each with its type: a shard may not know its own."""

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """
        The points of one table in one piece: series contiguous, time ascending, each batch bounded.

        All batches of one call have one schema: tag keys and fields that occur in the piece, each field with
        its type in that piece. Raises IncompleteReadError when the reply ends early, with ``kind``
        ``read-limit`` when a shorter piece may succeed (query-timeout, max-select-*, a cut stream), and
        ``schema-changed`` when a tag, field or type appears that ``schema`` does not know.
        """

    def shard_door_closed(self) -> str | None:
        """Why shards cannot be copied from this server, in a few words; None when they can."""

    def copy_shard(
        self, database: str, retention_policy: str, piece: Window, least_share: float, allow_hot: bool = False
    ) -> AbstractContextManager[ShardCopy | None]:
        """
        A copy of the shard that the piece is part of, on this machine while the context lasts.

        None when the piece is less than ``least_share`` of the shard's duration. Raises HotShardError for a shard with
        writes in its cache unless ``allow_hot``, IncompleteReadError when the copy is not whole, and CorruptShardError
        when a block of the server's own files is damaged.
        """

    def name_until_published(self, database: str, until_published: str | None) -> str:
        """What ``create_with_shards`` calls a database before it is published."""

    def create_with_shards(
        self,
        database: str,
        policies: Sequence[RetentionPolicy],
        *,
        until_published: str | None = None,
        mark: Mark | None = None,
    ) -> NewShards:
        """
        Creates a database that does not exist, for shards whose files the backup door takes; it has no group yet.

        The ``mark`` is a restore's where it has another name until it is published, else a drill's, and then it is a
        scratch.

        It has the name ``until_published`` before it is published, where that is given and the server can rename a
        database (2.x), so that nobody else uses it before it is whole. Durations of shards must be given. Raises
        TargetError when a name is taken or cannot be.
        """

    def select(self, database: str, retention_policy: str | None, query: str) -> list[dict[str, object]]:
        """Rows of a user's own InfluxQL SELECT, small. Raises QueryError with the server's words."""

    def writer(self, database: str, retention_policy: str, options: WriteOptions) -> PointWriter:
        """A writer; nothing is sent before its block is entered. Raises NotVisibleError when there is no target."""

    def unrepresentable(
        self, measurement: str, columns: Sequence[Column], batch: pa.RecordBatch | None, options: WriteOptions
    ) -> list[Unrepresentable]:
        """What of these names (and of the batch's values) this generation's line protocol cannot carry."""

    def create_database(self, database: str, policies: Sequence[RetentionPolicy]) -> tuple[str, ...]:
        """
        Creates what is missing of a database and policies with these durations, and never changes one that exists.

        Returns the names of what it created (database, policies; 2.x: buckets as ``name#id``).
        """

    def database_named(self, text: str) -> tuple[str, str | None]:
        """
        The database that a person means by a target's name, and the own name of its ``autogen`` where that is told.

        On 2.x ``db/autogen`` is the database ``db``, whose bucket is to have this name; elsewhere a name is a name.
        """

    def check_names(self, database: str, policies: Sequence[RetentionPolicy]) -> None:
        """Raises TargetError for a name or a duration that ``create_database`` would be refused."""

    def mark_restore(self, database: str, retention_policies: Collection[str], owner: str) -> None:
        """
        Has these policies of a database show that a restore writes into them, until ``unmark_restore``.

        What its credentials may not mark is left as it is, by AccessError.
        """

    def marked_for_restore(self, database: str, owner: str) -> frozenset[str]:
        """Policies of the database that show that this restore writes into them."""

    def unmark_restore(self, database: str, owner: str) -> None:
        """Takes the mark of a restore away; none is fine."""

    def drop_unpublished(self, owner: str) -> None:
        """Drops what the server shows to be made for this restore and never published; nothing there is fine."""

    def alter_retention(self, database: str, retention_policy: str, duration: int) -> None:
        """Sets how long a policy keeps points (ns, 0 = for ever)."""

    def create_scratch(self, database: str, policies: Sequence[RetentionPolicy], mark: Mark) -> str:
        """
        Creates a new database that must not exist, with infinite retention, and proves that it is empty.

        It bears the mark from the beginning. Returns the id to drop it by. Raises TargetError when the name is taken.
        """

    def scratches(self) -> tuple[MarkedDatabase, ...]:
        """Databases that these credentials see, have a scratch's name, and show by a mark that a drill made them."""

    def renew_scratch(self, database: str, scratch_id: str, mark: Mark) -> None:
        """Sets until when the owner of a scratch is believed to be at work."""

    def drop_scratch(self, database: str, scratch_id: str) -> None:
        """Drops what create_scratch made, by the id it returned; a scratch that is gone already is fine."""

    def close(self) -> None:
        """Ends the connections."""


__all__ = [
    "LEASE",
    "Conflict",
    "Dialect",
    "FieldCount",
    "Mark",
    "MarkedDatabase",
    "NewShards",
    "PointWriter",
    "PolicySchema",
    "ReadOptions",
    "Server",
    "ServerSettings",
    "ShardCopy",
    "ShardReport",
    "Table",
    "Unrepresentable",
    "WriteOptions",
    "WriteResult",
    "has_form",
    "new_marked_name",
]
