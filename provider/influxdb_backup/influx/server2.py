"""
InfluxDB 2.x (2.4 to 2.9): how this generation lists, reads, writes, creates and drops.

A (database, policy) pair stands for the bucket ``database/policy``, ``autogen`` for the bare name. Points are read
through /query, which finds a bucket by its DBRP mapping; an explicit mapping can lead a bucket's name to another
bucket's data without a word, so the mappings are compared with the bucket's id before anything is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import product

import pyarrow as pa

from influxdb_backup.errors import AccessError, ServerError, TargetError, UsageError
from influxdb_backup.influx import new_shards2
from influxdb_backup.influx.buckets2 import Buckets
from influxdb_backup.influx.control2 import AUTOGEN, Bucket, ControlPlane
from influxdb_backup.influx.dialect import DIALECT_2X
from influxdb_backup.influx.http import Http
from influxdb_backup.influx.influxql import between, quote_ident, source
from influxdb_backup.influx.line_protocol import unrepresentable
from influxdb_backup.influx.marks import Mark, MarkedDatabase, Purpose, describe
from influxdb_backup.influx.metadata2 import metadata_groups, metadata_shards
from influxdb_backup.influx.new_shards2 import Naming
from influxdb_backup.influx.organization2 import own_organization
from influxdb_backup.influx.pieces import explained_boundaries, named, overlaps
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
from influxdb_backup.influx.query import QueryApi
from influxdb_backup.influx.reader import Reader
from influxdb_backup.influx.schema import SchemaReader, names
from influxdb_backup.influx.selects import select_rows
from influxdb_backup.influx.sending import compresses, http_sender
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.influx.shards2 import BackupApiDoor
from influxdb_backup.influx.writer import LineProtocolWriter, Send
from influxdb_backup.model import (
    MAX_END,
    MIN_TIME,
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
from influxdb_backup.windows import tile

_WITHOUT_VIRTUAL_MAPPINGS = "2.4"
"""lists the mappings that follow from the buckets' names, and answers no SELECT through one (run on 2.4.0)"""
_UNRELIABLE_DOOR = "the backup API of InfluxDB 2.4 cannot be relied on (2.5 or later is needed for whole shards)"
"""run on 2.4.0: copies refused with 500, shards that read back empty, one that stayed closed after a cut restore"""
_EVER = Window(start=MIN_TIME, end=MAX_END)
_ONE_OF_SERIES = "LIMIT 1 SLIMIT 1", "LIMIT 1 SLIMIT 10000", "LIMIT 1"
"""asked one after the other for a point of any series"""


class Server2:
    """The Server of InfluxDB 2.x; see ``protocol.Server``. Reading needs a token that reads the bucket, no more."""

    def __init__(self, http: Http, info: ServerInfo, settings: ServerSettings) -> None:
        """Finds out the token's organisation; raises AccessError when it is not the configured one."""
        self._http = http
        self._api = QueryApi(http)
        self._reader = Reader(self._api, self._shared_shards)
        self._schema = SchemaReader(self._api)
        self._groups: dict[tuple[str, str], tuple[Window, ...]] = {}
        self._url = settings.url
        self._control = ControlPlane(settings)
        self._reads_metadata = True
        try:
            organization = own_organization(
                self._control,
                self._shown_databases,
                configured=settings.organization,
                token=settings.token or "",
                name=http.name,
            )
        except BaseException:
            self._control.close()
            raise
        self._buckets = Buckets(
            self._control, organization.id, http.name, needs_mappings=info.version.startswith(_WITHOUT_VIRTUAL_MAPPINGS)
        )
        self._door = BackupApiDoor(http, self._bucket_id)
        self._info = info.model_copy(update={"instance_id": organization.id})

    @property
    def info(self) -> ServerInfo:
        """Product, version and generation; the instance id is the organisation's."""
        return self._info

    @property
    def dialect(self) -> Dialect:
        """Line protocol of 2.x."""
        return DIALECT_2X

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

    # --- what is there

    def databases(self) -> tuple[str, ...]:
        """The part before the slash of every bucket that the token sees, without system buckets; sorted."""
        return tuple(sorted({bucket.database for bucket in self._buckets.listed()}))

    def retention_policies(self, database: str) -> tuple[RetentionPolicy, ...]:
        """The buckets of a database as policies, sorted by name. Raises NotVisibleError when there is none."""
        return self._buckets.policies(database)

    def schema(self, database: str, retention_policy: str) -> PolicySchema:
        """Measurements with all tags and fields, and those that cannot be read. Raises NotVisibleError."""
        is_default = self._buckets.proved_default(database, retention_policy)
        return self._schema.read(database, retention_policy, None if is_default else self._tag_keys)

    def pieces(self, database: str, retention_policy: str, window: Window) -> tuple[Window, ...]:
        """Tiles the window at shard groups: by the backup metadata, without an operator token by EXPLAIN."""
        bucket = self._buckets.proved_before(database, retention_policy)
        self._groups.pop((database, retention_policy), None)
        if self._reads_metadata:
            try:
                groups = metadata_groups(self._http, bucket.id)
            except AccessError:
                self._reads_metadata = False
            else:
                if groups is not None:
                    self._groups[database, retention_policy] = tuple(groups)
                    return tile(window, groups)
        edges = explained_boundaries(self._api, database, retention_policy, window)
        return tile(window, [Window(start=edge, end=window.end) for edge in edges if window.start < edge < window.end])

    def listed_groups(self, database: str, retention_policy: str) -> tuple[Window, ...] | None:
        """See ``protocol.Server.listed_groups``."""
        return self._groups.get((database, retention_policy))

    def overlaps(self, database: str, retention_policy: str, window: Window) -> Mapping[Window, str]:
        """By the backup metadata; see ``protocol.Server.overlaps``."""
        return {piece: named(shards) for piece, shards in self._overlaps(database, retention_policy, window).items()}

    def _overlaps(self, database: str, retention_policy: str, window: Window) -> Mapping[Window, tuple[ShardInfo, ...]]:
        bucket = self._buckets.proved_before(database, retention_policy)
        if not self._reads_metadata:
            return {}
        try:
            shards = metadata_shards(self._http).get(bucket.id, ())
        except AccessError:
            self._reads_metadata = False
            return {}
        return overlaps(shards, window)

    def _shared_shards(self, database: str, retention_policy: str, window: Window) -> tuple[ShardInfo, ...]:
        found = self._overlaps(database, retention_policy, window).values()
        return tuple(dict.fromkeys(shard for shards in found for shard in shards))

    # --- points out

    def counts(
        self,
        database: str,
        retention_policy: str,
        measurement: str,
        window: Window,
        fields: Sequence[str],  # noqa: ARG002 - the server counts all fields, so that a new one shows
    ) -> Mapping[str, int]:
        """``count(*)`` by field; a field with points that is not in ``fields`` is in the answer as well."""
        self._buckets.proved_before(database, retention_policy)
        return self._reader.counts(database, Table(retention_policy=retention_policy, measurement=measurement), window)

    def count(self, database: str, table: Table, window: Window, field: str) -> int:
        """The values of one field; see ``protocol.Server.count``."""
        self._buckets.proved_before(database, table.retention_policy)
        return self._reader.count(database, table, window, field)

    def has_fields(self, database: str, table: Table, window: Window, fields: Collection[Column]) -> bool:
        """Whether the shards of the window list them; see ``protocol.Server.has_fields``."""
        self._buckets.proved_before(database, table.retention_policy)
        return self._reader.has_fields(database, table, window, fields)

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """The points of one table in one piece; see ``protocol.Server.read``."""
        self._buckets.proved_before(database, schema.table.retention_policy)
        return self._reader.read(database, schema, piece, options)

    def shard_door_closed(self) -> str | None:
        """Why the backup API cannot be used; None when it can."""
        reason = self._door.closed()
        self._control.sees_all = reason is None
        if self._info.version.startswith(_WITHOUT_VIRTUAL_MAPPINGS):
            return _UNRELIABLE_DOOR
        return reason

    def copy_shard(
        self, database: str, retention_policy: str, piece: Window, least_share: float, allow_hot: bool = False
    ) -> AbstractContextManager[ShardCopy | None]:
        """A copy by the backup API; see ``protocol.Server.copy_shard``."""
        from influxdb_backup.influx.shard_copy import copied

        return copied(self, self._door, database, retention_policy, piece, least_share, allow_hot)

    def select(self, database: str, retention_policy: str | None, query: str) -> list[dict[str, object]]:
        """
        Rows of one SELECT or SHOW. Without a policy it runs in ``autogen``, or in the only one there is.

        Raises UsageError for a statement that could write, and when the policy is not clear.
        """
        policy = retention_policy or self._usual_policy(database)
        self._buckets.proved(database, policy)
        return select_rows(self._api, database, policy, query)

    # --- points in

    def writer(self, database: str, retention_policy: str, options: WriteOptions) -> PointWriter:
        """A writer into an existing bucket, by its id."""
        bucket = self._buckets.proved(database, retention_policy)
        send = self._sender(bucket, compress=compresses(self._url, options.compress))
        duration = shard_duration(bucket.shard_duration, bucket.duration)
        return LineProtocolWriter(send, DIALECT_2X, options, shard_duration=duration, name=self.name)

    def _sender(self, bucket: Bucket, *, compress: bool = False) -> Send:
        parameters = {"orgID": bucket.organization_id, "bucket": bucket.id, "precision": "ns"}
        return http_sender(self._http, "/api/v2/write", parameters, compress=compress)

    def unrepresentable(
        self, measurement: str, columns: Sequence[Column], batch: pa.RecordBatch | None, options: WriteOptions
    ) -> list[Unrepresentable]:
        """What of these names and values line protocol of 2.x cannot carry."""
        return unrepresentable(measurement, columns, batch, DIALECT_2X, options)

    # --- creating and dropping

    def create_database(self, database: str, policies: Sequence[RetentionPolicy]) -> tuple[str, ...]:
        """
        Creates the buckets that are missing, and never changes one that exists; ``name#id`` of each created one.

        Durations are rounded up to whole seconds. Raises TargetError when a name is not possible on 2.x.
        """
        self._buckets.check_names(database, policies)
        missing = [policy for policy in policies if not self._buckets.find(database, policy.name)]
        self._buckets.refuse_taken(database, missing)
        return tuple(f"{bucket.name}#{bucket.id}" for bucket in self._buckets.create(database, missing))

    def name_until_published(self, database: str, until_published: str | None) -> str:
        """The other one, where one is given."""
        return until_published or database

    def create_with_shards(
        self,
        database: str,
        policies: Sequence[RetentionPolicy],
        *,
        until_published: str | None = None,
        mark: Mark | None = None,
    ) -> NewShards:
        """Creates the buckets; see ``protocol.Server.create_with_shards``."""
        naming = Naming(database, self.name_until_published(database, until_published))
        self.check_names(database, policies)
        purpose: Purpose = "restore" if until_published else "drill"
        if until_published and mark is not None:
            self._refuse_other_restore(mark.owner)
        taken = self._buckets.taken(naming.until_published, database)
        if taken:
            raise TargetError(
                f"{self.name}: the database {printable(taken)} exists already, as a bucket or a DBRP mapping.",
                hint="Choose another target database, or delete the mapping (influx v1 dbrp delete).",
            )
        naming = replace(naming, description=describe(purpose, mark) if mark else None)
        made = new_shards2.create(self._http, self._door, self._buckets, naming, policies, self._sender)
        if until_published and mark is not None:
            self._give_way(made, mark.owner)
        found = {policy.name: policy.shard_duration for policy in self.retention_policies(made.database)}
        wanted = {policy.name: policy.shard_duration for policy in policies}
        if found != wanted:
            self.drop_scratch(made.database, made.scratch_id)
            raise ServerError(f"{self.name}: the database {printable(database)} is not as it was to be created.")
        return made

    def _refuse_other_restore(self, owner: str, but: str = "") -> None:
        other = next((found for found in self._restores(owner) if found.name != but), None)
        if other is not None:
            raise TargetError(
                f"{self.name}: the database {other.name} exists: another call with this restore id has just begun.",
                kind="restore-in-progress",
                hint="Let it finish, or repeat it with the same --restore-id once it has ended.",
            )

    def _give_way(self, made: NewShards, owner: str) -> None:
        """Of two calls with one id at the same moment none goes on that has seen the other."""
        try:
            self._refuse_other_restore(owner, but=made.database)
        except BaseException:
            self.drop_scratch(made.database, made.scratch_id)
            raise

    def _restores(self, owner: str) -> list[MarkedDatabase]:
        return [found for found in self._buckets.marked("restore") if found.mark.owner == owner]

    def database_named(self, text: str) -> tuple[str, str | None]:
        """``db/autogen`` is ``db``, with a bucket of that name."""
        database, slash, policy = text.partition("/")
        return (database, text) if slash and policy == AUTOGEN else (text, None)

    def check_names(self, database: str, policies: Sequence[RetentionPolicy]) -> None:
        """Raises TargetError for what no bucket can be."""
        self._buckets.check_names(database, policies)

    def mark_restore(self, database: str, retention_policies: Collection[str], owner: str) -> None:
        """Adds to the descriptions of the buckets."""
        self._buckets.add_words(database, retention_policies, describe("restore", Mark(owner)))

    def marked_for_restore(self, database: str, owner: str) -> frozenset[str]:
        """The policies whose buckets say so."""
        words = describe("restore", Mark(owner))
        return frozenset(bucket.policy for bucket in self._buckets.described(database, words))

    def unmark_restore(self, database: str, owner: str) -> None:
        """Takes the words out of the buckets' descriptions."""
        self._buckets.take_words(database, describe("restore", Mark(owner)))

    def drop_unpublished(self, owner: str) -> None:
        """Deletes the buckets whose name and description say that they were made for this restore, by their ids."""
        for found in self._restores(owner):
            self.drop_scratch(found.name, found.scratch_id)

    def alter_retention(self, database: str, retention_policy: str, duration: int) -> None:
        """Sets how long the bucket keeps points, and proves it."""
        self._buckets.keep(database, retention_policy, duration)

    def create_scratch(self, database: str, policies: Sequence[RetentionPolicy], mark: Mark) -> str:
        """New buckets with these shard durations, infinite retention and the mark; the id is those of the buckets."""
        infinite = [policy.model_copy(update={"duration": 0}) for policy in policies] or [
            RetentionPolicy(name=AUTOGEN, duration=0, shard_duration=0)
        ]
        self._buckets.check_names(database, infinite)
        if self._buckets.taken(database):
            raise TargetError(
                f"{self.name}: the scratch database {printable(database)} exists already.",
                hint="A scratch needs a name that nobody uses.",
            )
        created = self._buckets.create(database, infinite, describe("drill", mark))
        try:
            held = [bucket.name for bucket in created if self._holds_any(bucket)]
            kept = [bucket.name for bucket in created if bucket.duration]
        except BaseException:
            self._buckets.delete(created)
            raise
        if held or kept:
            self._buckets.delete(created)
            raise TargetError(f"{self.name}: the scratch database {printable(database)} is not new and empty.")
        return ",".join(bucket.id for bucket in created)

    def scratches(self) -> tuple[MarkedDatabase, ...]:
        """Those of a scratch's name all of whose buckets are described so; see ``protocol.Server.scratches``."""
        return self._buckets.marked("drill")

    def renew_scratch(self, database: str, scratch_id: str, mark: Mark) -> None:
        """Describes its buckets anew."""
        self._buckets.describe(database, scratch_id.split(","), describe("drill", mark))

    def drop_scratch(self, database: str, scratch_id: str) -> None:
        """Deletes the buckets by their ids, and proves that they are gone; never one of another database."""
        self._buckets.drop(database, scratch_id.split(","))

    def close(self) -> None:
        """Ends the connections."""
        self._control.close()
        self._http.close()

    # --- asked from /query

    def _shown_databases(self) -> list[str]:
        return [name for series in self._api.rows("SHOW DATABASES") for name in names(series.values)]

    def _tag_keys(self, database: str, schema: TableSchema) -> list[str]:
        """
        The tag keys of one table by a first series: ``GROUP BY *`` names all keys of all shards in each series.

        SHOW TAG KEYS (run on 2.9.1) takes the database's default bucket whatever policy it is given. A SELECT of
        several types of a field gives points of one type only, so that, where it gives none, each type is asked. And
        SLIMIT takes its series from the index, also those without points (a line that is refused for its field's type
        leaves one), so that more of them are asked, and at last all.
        """
        table = schema.table
        wanted = ["*", *(f"{quote_ident(column.name)}::{column.type.value}" for column in schema.fields)]
        for limits, what in product(_ONE_OF_SERIES, wanted):
            statement = (
                f"SELECT {what} FROM {source(table.retention_policy, table.measurement)} "
                f"WHERE {between(_EVER)} GROUP BY * {limits}"
            )
            answer = self._api.rows(
                statement,
                database=database,
                retention_policy=table.retention_policy,
                subject=f"tag keys of {table}",
                listing=True,
            )
            if answer:
                return sorted(decode_name(key) for key in answer[0].tags)
        return []

    def _bucket_id(self, database: str, retention_policy: str) -> str:
        return self._buckets.proved_before(database, retention_policy).id  # the door takes no name

    def _usual_policy(self, database: str) -> str:
        policies = [policy.name for policy in self.retention_policies(database)]
        if AUTOGEN in policies:
            return AUTOGEN
        if len(policies) == 1:
            return policies[0]
        raise UsageError(
            f"{self.name}: the database {printable(database)} has {len(policies)} buckets and none of its bare name.",
            hint="Name the retention policy (the bucket's part after the slash).",
        )

    def _holds_any(self, bucket: Bucket) -> bool:
        self._buckets.proved(bucket.database, bucket.policy)
        return self._schema.holds_any(bucket.database, bucket.policy)
