"""InfluxDB 1.x (1.6 to 1.12): how this generation lists, reads, writes, creates and drops."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from unicodedata import category

import pyarrow as pa

from influxdb_backup.errors import (
    AccessError,
    InfluxdbBackupError,
    NotVisibleError,
    QueryError,
    ServerError,
    TargetError,
    UsageError,
)
from influxdb_backup.influx.dialect import dialect_1x
from influxdb_backup.influx.http import Http
from influxdb_backup.influx.influxql import quote_ident
from influxdb_backup.influx.line_protocol import unrepresentable
from influxdb_backup.influx.marks import (
    Mark,
    MarkedDatabase,
    has_form,
    is_mark,
    mark_policy,
    policies_mark,
    restoring_policy,
)
from influxdb_backup.influx.pieces import explained_boundaries, listed_groups, listed_shards, named, overlaps
from influxdb_backup.influx.protocol import (
    Dialect,
    NewShards,
    PointWriter,
    PolicySchema,
    ReadOptions,
    ServerSettings,
    ShardCopy,
    Unrepresentable,
    WriteOptions,
)
from influxdb_backup.influx.query import QueryApi, entries
from influxdb_backup.influx.reader import Reader
from influxdb_backup.influx.schema import SchemaReader, names
from influxdb_backup.influx.selects import select_rows
from influxdb_backup.influx.sending import compresses, http_sender
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.influx.snapshot1 import SnapshotDoor
from influxdb_backup.influx.snapshot_port1 import SnapshotPort
from influxdb_backup.influx.writer import LineProtocolWriter, Send
from influxdb_backup.model import (
    Column,
    RetentionPolicy,
    ServerInfo,
    Table,
    TableSchema,
    Window,
    decode_name,
    printable,
)
from influxdb_backup.shard_groups import shard_duration
from influxdb_backup.windows import parse_duration, tile

_AUTOGEN = RetentionPolicy(name="autogen", duration=0, shard_duration=0)
_SYSTEM_DATABASES = frozenset({"_internal"})


class Server1:
    """The Server of InfluxDB 1.x; see ``protocol.Server``. Every query of it also runs with read rights only."""

    def __init__(self, http: Http, info: ServerInfo, settings: ServerSettings) -> None:
        self._http = http
        self._url = settings.url
        self._info = info
        self._dialect = dialect_1x(info.version)
        self._api = QueryApi(http)
        self._reader = Reader(self._api, self._shared_shards)
        self._schema = SchemaReader(self._api)
        self._groups: dict[tuple[str, str], tuple[Window, ...]] = {}
        address = settings.snapshot_address
        port = SnapshotPort(address, settings.timeout, http.name) if address else None
        self._door = SnapshotDoor(self._api, port, http.name)

    @property
    def info(self) -> ServerInfo:
        """Product, version and generation; 1.x has no instance id."""
        return self._info

    @property
    def dialect(self) -> Dialect:
        """Line protocol as this version takes it."""
        return self._dialect

    @property
    def name(self) -> str:
        """The connection's id or the URL."""
        return self._http.name

    def now(self) -> int:
        """The server's clock, ns."""
        return self._http.now()

    def at_most(self, queries: int) -> AbstractContextManager[None]:
        """Bounds the queries that run at a time; see ``protocol.Server.at_most``."""
        return self._api.at_most(queries)

    def databases(self) -> tuple[str, ...]:
        """Databases that these credentials see, sorted."""
        answer = self._api.rows("SHOW DATABASES")
        found = {name for series in answer for name in names(series.values)}
        return tuple(sorted(found - _SYSTEM_DATABASES))

    def retention_policies(self, database: str) -> tuple[RetentionPolicy, ...]:
        """Policies of a database but for our own marks, sorted by name. Raises NotVisibleError for an unknown one."""
        return tuple(policy for policy in self._all_policies(database) if not is_mark(policy.name, database))

    def _all_policies(self, database: str) -> tuple[RetentionPolicy, ...]:
        answer = self._api.rows(
            f"SHOW RETENTION POLICIES ON {quote_ident(database)}", subject=f"policies of {printable(database)}"
        )
        policies = [_policy(entry) for entry in entries(answer, b"name", b"duration", b"shardGroupDuration")]
        return tuple(sorted(policies, key=lambda policy: policy.name))

    def schema(self, database: str, retention_policy: str) -> PolicySchema:
        """Measurements with all tags and fields, and those that cannot be read. Raises NotVisibleError."""
        policies = self.retention_policies(database)
        self._named(policies, database, retention_policy)
        return self._schema.read(
            database,
            retention_policy,
            listing=f"SHOW MEASUREMENTS ON {quote_ident(database)}",
            other_policies=[policy.name for policy in policies if policy.name != retention_policy],
        )

    def pieces(self, database: str, retention_policy: str, window: Window) -> tuple[Window, ...]:
        """Tiles the window at shard groups: by SHOW SHARDS, without administrator rights by EXPLAIN."""
        self._policy(database, retention_policy)
        self._groups.pop((database, retention_policy), None)
        try:
            groups = listed_groups(self._api, database, retention_policy)
            self._groups[database, retention_policy] = tuple(groups)
            return tile(window, groups)
        except AccessError:
            edges = explained_boundaries(self._api, database, retention_policy, window)
        inner = [edge for edge in edges if window.start < edge < window.end]
        return tile(window, [Window(start=edge, end=window.end) for edge in inner])

    def listed_groups(self, database: str, retention_policy: str) -> tuple[Window, ...] | None:
        """See ``protocol.Server.listed_groups``."""
        return self._groups.get((database, retention_policy))

    def overlaps(self, database: str, retention_policy: str, window: Window) -> Mapping[Window, str]:
        """By SHOW SHARDS; see ``protocol.Server.overlaps``."""
        return {piece: named(shards) for piece, shards in self._overlaps(database, retention_policy, window).items()}

    def _overlaps(self, database: str, retention_policy: str, window: Window) -> Mapping[Window, tuple[ShardInfo, ...]]:
        try:
            shards = listed_shards(self._api).get(database, {}).get(retention_policy, ())
        except AccessError:
            return {}
        return overlaps(shards, window)

    def _shared_shards(self, database: str, retention_policy: str, window: Window) -> tuple[ShardInfo, ...]:
        found = self._overlaps(database, retention_policy, window).values()
        return tuple(dict.fromkeys(shard for shards in found for shard in shards))

    def counts(
        self,
        database: str,
        retention_policy: str,
        measurement: str,
        window: Window,
        fields: Sequence[str],  # noqa: ARG002 - the server counts all fields, so that a new one shows
    ) -> Mapping[str, int]:
        """``count(*)`` by field; a field with points that is not in ``fields`` is in the answer as well."""
        return self._reader.counts(database, Table(retention_policy=retention_policy, measurement=measurement), window)

    def count(self, database: str, table: Table, window: Window, field: str) -> int:
        """The values of one field; see ``protocol.Server.count``."""
        return self._reader.count(database, table, window, field)

    def has_fields(self, database: str, table: Table, window: Window, fields: Collection[Column]) -> bool:
        """Whether the shards of the window list them; see ``protocol.Server.has_fields``."""
        return self._reader.has_fields(database, table, window, fields)

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """The points of one table in one piece; see ``protocol.Server.read``."""
        return self._reader.read(database, schema, piece, options)

    def shard_door_closed(self) -> str | None:
        """Why the backup port cannot be used; None when it can."""
        return self._door.closed()

    def copy_shard(
        self, database: str, retention_policy: str, piece: Window, least_share: float, allow_hot: bool = False
    ) -> AbstractContextManager[ShardCopy | None]:
        """A copy through the backup port; see ``protocol.Server.copy_shard``."""
        from influxdb_backup.influx.shard_copy import copied

        return copied(self, self._door, database, retention_policy, piece, least_share, allow_hot)

    def select(self, database: str, retention_policy: str | None, query: str) -> list[dict[str, object]]:
        """Rows of one SELECT or SHOW. Raises UsageError for a statement that could write."""
        return select_rows(self._api, database, retention_policy, query)

    def writer(self, database: str, retention_policy: str, options: WriteOptions) -> PointWriter:
        """A writer into an existing policy."""
        policy = self._policy(database, retention_policy)
        send = self._sender(database, retention_policy, compress=compresses(self._url, options.compress))
        duration = shard_duration(policy.shard_duration, policy.duration)
        return LineProtocolWriter(send, self._dialect, options, shard_duration=duration, name=self.name)

    def _sender(self, database: str, retention_policy: str, *, compress: bool = False) -> Send:
        parameters = {"db": database, "rp": retention_policy, "precision": "ns"}
        return http_sender(self._http, "/write", parameters, compress=compress)

    def unrepresentable(
        self, measurement: str, columns: Sequence[Column], batch: pa.RecordBatch | None, options: WriteOptions
    ) -> list[Unrepresentable]:
        """What of these names and values line protocol of 1.x cannot carry."""
        return unrepresentable(measurement, columns, batch, self._dialect, options)

    def create_database(self, database: str, policies: Sequence[RetentionPolicy]) -> tuple[str, ...]:
        """
        Creates the database and those of the policies that are missing, and never changes one that exists.

        Of a policy its duration, replication, shard duration and, in a new database, whether it is the default are
        kept; write limits are not, since they would refuse what a restore writes.
        """
        created = []
        if database not in self.databases():
            self._statement(_create_database(database, _default_of(policies)))
            created.append(database)
        present = {policy.name for policy in self.retention_policies(database)}
        if created:
            created += [policy.name for policy in policies if policy.name in present]
        for policy in policies:
            if policy.name not in present:
                self._statement(
                    f"CREATE RETENTION POLICY {quote_ident(policy.name)} ON {quote_ident(database)} {_terms(policy)}"
                )
                created.append(policy.name)
        self._prove_policies(database, [policy for policy in policies if policy.name in created])
        return tuple(created)

    def name_until_published(self, database: str, until_published: str | None) -> str:  # noqa: ARG002
        """Its own: 1.x cannot rename a database."""
        return database

    def create_with_shards(
        self,
        database: str,
        policies: Sequence[RetentionPolicy],
        *,
        until_published: str | None = None,
        mark: Mark | None = None,
    ) -> NewShards:
        """Creates the database by queries; see ``protocol.Server.create_with_shards``."""
        from influxdb_backup.influx.new_shards1 import NewShards1

        if database in self.databases():
            raise TargetError(
                f"{self.name}: the database {printable(database)} exists already.",
                hint="Choose another target database (--target-database), or writer lines.",
            )
        self.check_names(database, policies)
        try:
            if mark is not None and until_published is None:
                self._create_marked(database, policies, mark)
            else:
                self.create_database(database, policies)
        except BaseException as error:
            self._drop_empty(database, error)
            raise
        return NewShards1(self._door, database, partial(self._sender, database), self.name)

    def _drop_empty(self, database: str, error: BaseException) -> None:
        """Drops a new database unless somebody has written into it; an ``error`` of ours says what may be left."""
        try:
            if database in self.databases():
                policies = self.retention_policies(database)
                if not any(self._schema.holds_any(database, policy.name) for policy in policies):
                    self.drop_scratch(database, database)
        except InfluxdbBackupError:
            if isinstance(error, InfluxdbBackupError):
                left = f"The new database {printable(database)} may be left on {self.name}, without points."
                error.hint = f"{error.hint} {left}".strip()

    def database_named(self, text: str) -> tuple[str, str | None]:
        """The name itself."""
        return text, None

    def check_names(self, database: str, policies: Sequence[RetentionPolicy]) -> None:
        """Raises TargetError for a name that 1.x refuses."""
        for name in (database, *(policy.name for policy in policies)):
            if name in {"", ".", ".."} or any(c in "/\\" or category(c) == "Cc" for c in name):
                raise TargetError(
                    f"{self.name}: {printable(name)!r} cannot be a name of 1.x.",
                    hint="Choose another target database or policy (--target-database, --target-retention-policy).",
                )

    def mark_restore(self, database: str, retention_policies: Collection[str], owner: str) -> None:  # noqa: ARG002
        """Creates a policy without points, which stands for all of the database."""
        policy = restoring_policy(owner)
        if policy.name not in {found.name for found in self._all_policies(database)}:
            self._statement(
                f"CREATE RETENTION POLICY {quote_ident(policy.name)} ON {quote_ident(database)} {_terms(policy)}"
            )

    def marked_for_restore(self, database: str, owner: str) -> frozenset[str]:
        """All policies of a database that has the one which marks it."""
        found = self._all_policies(database)
        if restoring_policy(owner).name not in {policy.name for policy in found}:
            return frozenset()
        return frozenset(policy.name for policy in found if not is_mark(policy.name, database))

    def unmark_restore(self, database: str, owner: str) -> None:
        """Drops the policy that marks it."""
        name = restoring_policy(owner).name
        if name in {found.name for found in self._all_policies(database)}:
            self._statement(f"DROP RETENTION POLICY {quote_ident(name)} ON {quote_ident(database)}")

    def drop_unpublished(self, owner: str) -> None:
        """Nothing: on 1.x a database has its own name from the beginning."""

    def alter_retention(self, database: str, retention_policy: str, duration: int) -> None:
        """Sets how long the policy keeps points, and proves it."""
        self._policy(database, retention_policy)
        self._statement(
            f"ALTER RETENTION POLICY {quote_ident(retention_policy)} ON {quote_ident(database)} "
            f"DURATION {_duration(duration)}"
        )
        found = self._policy(database, retention_policy).duration
        if found != duration:
            raise ServerError(
                f"{self.name}: the policy {printable(retention_policy)} keeps points for {found} ns "
                f"after it was set to {duration} ns."
            )

    def create_scratch(self, database: str, policies: Sequence[RetentionPolicy], mark: Mark) -> str:
        """A new database with these policies, all of infinite duration, and the mark, proved to be new and empty."""
        if database in self.databases():
            raise TargetError(
                f"{self.name}: the scratch database {printable(database)} exists already.",
                hint="A scratch needs a name that nobody uses.",
            )
        self._create_marked(database, policies, mark)
        names_found = {policy.name for policy in self.retention_policies(database)}
        if any(self._schema.holds_any(database, name) for name in names_found):
            raise self._not_new(database)
        return database

    def _create_marked(self, database: str, policies: Sequence[RetentionPolicy], mark: Mark) -> None:
        """
        Creates a scratch whose policies keep points for ever.

        The server refuses to give an existing database the mark as the first of its policies.
        """
        marked = mark_policy(mark)
        wanted = [policy.model_copy(update={"duration": 0}) for policy in policies] or [_AUTOGEN]
        default = _default_of(wanted)
        try:
            self._statement(_create_database(database, marked))
        except QueryError as error:
            raise self._not_new(database) from error
        for policy in wanted:
            first = " DEFAULT" if policy == default else ""
            self._statement(
                f"CREATE RETENTION POLICY {quote_ident(policy.name)} ON {quote_ident(database)} {_terms(policy)}{first}"
            )
        self._prove_policies(database, [*wanted, marked])
        if {policy.name for policy in self._all_policies(database)} != {p.name for p in [*wanted, marked]}:
            raise self._not_new(database)

    def _not_new(self, database: str) -> TargetError:
        return TargetError(f"{self.name}: the scratch database {printable(database)} is not new and empty.")

    def scratches(self) -> tuple[MarkedDatabase, ...]:
        """Those of a scratch's name that have the policy which marks it; see ``protocol.Server.scratches``."""
        found = []
        for name in self.databases():
            if has_form(name, "drill"):
                with suppress(NotVisibleError):  # dropped by its drill since it was listed
                    if mark := policies_mark(self._all_policies(name)):
                        found.append(MarkedDatabase(name, name, mark))
        return tuple(found)

    def renew_scratch(self, database: str, scratch_id: str, mark: Mark) -> None:
        """Sets the duration of the policy that marks it."""
        if scratch_id != database:
            raise UsageError(f"{scratch_id!r} is not the id of the scratch database {printable(database)}.")
        marked = mark_policy(mark)
        self._statement(
            f"ALTER RETENTION POLICY {quote_ident(marked.name)} ON {quote_ident(database)} "
            f"DURATION {_duration(marked.duration)}"
        )

    def drop_scratch(self, database: str, scratch_id: str) -> None:
        """Drops the database, and proves that it is gone; on 1.x a scratch's id is its name."""
        if scratch_id != database:
            raise UsageError(f"{scratch_id!r} is not the id of the scratch database {printable(database)}.")
        if database not in self.databases():
            return
        self._statement(f"DROP DATABASE {quote_ident(database)}")
        if database in self.databases():
            raise ServerError(f"{self.name}: the database {printable(database)} is still there after it was dropped.")

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def _policy(self, database: str, retention_policy: str) -> RetentionPolicy:
        return self._named(self.retention_policies(database), database, retention_policy)

    def _named(self, policies: Sequence[RetentionPolicy], database: str, retention_policy: str) -> RetentionPolicy:
        for policy in policies:
            if policy.name == retention_policy:
                return policy
        raise NotVisibleError(
            f"{self.name}: the retention policy {printable(retention_policy)} of the database {printable(database)} is "
            f"not found.",
            hint="It is unknown, or not visible to these credentials.",
        )

    def _statement(self, statement: str) -> None:
        self._api.rows(statement)

    def _prove_policies(self, database: str, wanted: Sequence[RetentionPolicy]) -> None:
        present = {policy.name: policy for policy in self._all_policies(database)}
        for policy in wanted:
            found = present.get(policy.name)
            if found is None or found.duration != policy.duration:
                raise ServerError(
                    f"{self.name}: the policy {printable(policy.name)} of {printable(database)} is not as created.",
                    hint="Does somebody else create the same database?",
                )


def _policy(entry: Mapping[bytes, object]) -> RetentionPolicy:
    def text(key: bytes) -> str:
        value = entry.get(key, b"")
        return decode_name(value) if isinstance(value, bytes) else str(value)

    def limit(key: bytes) -> int | None:
        return (parse_duration(text(key)) or None) if entry.get(key) else None

    replication = entry.get(b"replicaN", 1)
    if not entry.get(b"name"):
        raise QueryError("The server lists a retention policy without a name.")
    try:
        return RetentionPolicy(
            name=text(b"name"),
            duration=parse_duration(text(b"duration")),
            shard_duration=parse_duration(text(b"shardGroupDuration")),
            default=entry.get(b"default") is True,
            replication=replication if isinstance(replication, int) else 1,
            past_write_limit=limit(b"pastWriteLimit"),
            future_write_limit=limit(b"futureWriteLimit"),
        )
    except ValueError as error:
        raise QueryError(
            f"The server lists the retention policy {printable(text(b'name'))} in a form that is not known."
        ) from error


def _duration(nanoseconds: int) -> str:
    return f"{nanoseconds}ns" if nanoseconds else "INF"


def _terms(policy: RetentionPolicy) -> str:
    shard = f" SHARD DURATION {policy.shard_duration}ns" if policy.shard_duration else ""
    return f"DURATION {_duration(policy.duration)} REPLICATION {policy.replication}{shard}"


def _default_of(policies: Sequence[RetentionPolicy]) -> RetentionPolicy | None:
    return next((policy for policy in policies if policy.default), policies[0] if policies else None)


def _create_database(database: str, policy: RetentionPolicy | None) -> str:
    if policy is None:
        return f"CREATE DATABASE {quote_ident(database)}"
    return f"CREATE DATABASE {quote_ident(database)} WITH {_terms(policy)} NAME {quote_ident(policy.name)}"
