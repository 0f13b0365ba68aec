"""
Reads the points of one table in one piece of a window, exactly, in bounded memory.

Fields that the piece's shard does not have are not in the batches; a field with several types in the schema is
asked for its type in the piece first (``first(*)``), and left out when it has no value there; another field without
a value in the piece stays as a column of nulls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.errors import IncompleteReadError, InfluxdbBackupError, QueryError
from influxdb_backup.fast import pays, why_not_fast
from influxdb_backup.influx import rows as plain_rows
from influxdb_backup.influx.batches import MOST_CELLS, BatchBuilder, NotAscendingError
from influxdb_backup.influx.dialect import escape_tag
from influxdb_backup.influx.influxql import (
    INDEX_FIELDS,
    between,
    call_all,
    call_one,
    explain_fields,
    quote_ident,
    select_all,
    source,
)
from influxdb_backup.influx.merged_series import may_be_merged, merged
from influxdb_backup.influx.overlap import doubled_points, mixed_types
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.query import QueryApi, ResultStream, Rows, Series
from influxdb_backup.influx.rows import NotUtf8Error, OtherTypeError
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.messages import logger_of
from influxdb_backup.model import (
    Column,
    InfluxType,
    Role,
    Table,
    TableSchema,
    Window,
    decode_name,
    encode_name,
    printable,
)
from influxdb_backup.windows import format_instant, format_window

logger = logger_of(__name__)

Walk = Callable[[bytes, int, int], plain_rows.Rows | None]
"""finds whole rows: ``rows.walk`` or ``fast_rows.walk``"""

NUMERIC_CHUNK = 10_000
TEXT_CHUNK = 1024
"""Rows of a document when a table has one text field: 64 KB texts make 64 MB on the server"""
SAMPLE_ROWS = 32_768
"""Rows after which a table of short texts is asked for again in documents of NUMERIC_CHUNK rows: half the work"""
_SHORT_ROW = 400
"""bytes of a row with short texts, on average: 4 MB in a document"""
_LONG_DOCUMENT = 16 * 2**20
"""bytes of a document after which the texts of a table count as long"""
_WALKED_BYTES = 4 * 2**20
_FEW_ROWS = 64
_VALUE_BYTES = 9
"""of a number in an answer"""
_FEW_VALUES = 4096
"""of a stretch of few rows that are decoded one by one: finding them costs as much"""
_MISSES = 8
_FIELDS = b"AUXILIARY FIELDS: "
_SHARDS = b"NUMBER OF SHARDS: "


@dataclass
class _Shape:
    """What every series of one answer must look like."""

    name: bytes
    tags: tuple[bytes, ...]
    """sorted; the server sends them in any order"""
    tag_set: frozenset[bytes]
    columns: tuple[bytes, ...]


class _ShortTextsError(Exception):
    """The texts of a table are short, and nothing of it was handed on yet."""


class _Walker:
    """Takes rows out of a stream by ``walk``, a few megabytes at a time, as long as that pays."""

    def __init__(self, columns: int, walk: Walk) -> None:
        self._walk = walk
        self._columns = columns
        self._width = 3.0 + 9.0 * columns
        self._misses = 0

    def read(self, stream: ResultStream, builder: BatchBuilder, wanted: int) -> int:
        """Adds up to ``wanted`` rows to the builder; 0 when they must be decoded one by one."""
        if self._are_few(wanted) or self._misses >= _MISSES:
            return 0
        data = stream.take_bytes(min(int(wanted * self._width), _WALKED_BYTES) + 1)
        rows = self._walk(data, self._columns, wanted)
        if rows is None:
            self._misses += 1
            stream.took(0, data)
            return 0
        if self._are_few(rows.count):
            self._misses += 1
        self._width = rows.end / rows.count
        stream.took(rows.count, data[rows.end :])
        builder.add_walked(rows)
        return rows.count

    def _are_few(self, rows: int) -> bool:
        return rows < _FEW_ROWS and rows * self._columns < _FEW_VALUES


class Reader:
    """Reads and counts points through a QueryApi; the same for every generation that speaks InfluxQL."""

    def __init__(
        self, api: QueryApi, shards: Callable[[str, str, Window], Sequence[ShardInfo]] = lambda *_: ()
    ) -> None:
        """``shards`` lists those of a database and policy that overlap in a window, as far as that may be listed."""
        self._api = api
        self._shards = shards
        self._binary: set[tuple[str, Table, Column]] = set()
        self._walked_bytes = 0
        self._has_short_texts: dict[tuple[str, Table], bool] = {}
        """what reads have found; those of other tables are not known yet"""

    def _walk(self, data: bytes, columns: int, wanted: int) -> plain_rows.Rows | None:
        self._walked_bytes += len(data)
        walk = self._best_walk if pays(self._walked_bytes // _VALUE_BYTES) else plain_rows.walk
        return walk(data, columns, wanted)

    @cached_property
    def _best_walk(self) -> Walk:
        reason = why_not_fast()
        if reason:
            logger.info("Answers are decoded without compiled loops: %s", reason)
            return plain_rows.walk
        from influxdb_backup.influx import fast_rows

        fast_rows.exercise()  # loads the loops now, while no points are in memory beside the compiler
        return fast_rows.walk

    def counts(self, database: str, table: Table, window: Window) -> Mapping[str, int]:
        """
        ``count(*)`` by field, also of fields that a caller did not ask for; fields without points are left out.

        The window must not cross a shard group: the server counts only the points of one type. Fields that a query
        answers from the index are left out.
        """
        statement = call_all("count", table.retention_policy, table.measurement, window)
        row = self._one_row(database, table, window, statement, b"count_")
        counts = {}
        for name, value in row.items():
            if value is None or name in INDEX_FIELDS:
                continue
            if type(value) is not int:
                raise QueryError(f"{self._about(table, window)}: the count of {printable(name)} is no number.")
            if value:
                counts[name] = value
        return counts

    def count(self, database: str, table: Table, window: Window, field: str) -> int:
        """See ``Server.count``."""
        statement = call_one("count", table.retention_policy, table.measurement, window, field)
        value = self._one_row(database, table, window, statement, b"count").get("", 0)
        if type(value) is not int:
            raise QueryError(f"{self._about(table, window)}: the count of {printable(field)} is no number.")
        return value

    def has_fields(self, database: str, table: Table, window: Window, fields: Collection[Column]) -> bool:
        """See ``Server.has_fields``."""
        lines = self._explained(database, table, window)
        listed = next((line[len(_FIELDS) :] for line in lines if line.startswith(_FIELDS)), b"")
        among = f", {decode_name(listed)}, "
        return all(
            field.name in INDEX_FIELDS
            or any(f", {name}::{field.type.value}, " in among for name in (field.name, quote_ident(field.name)))
            for field in fields
        )

    def _explained(self, database: str, table: Table, window: Window) -> list[bytes]:
        answer = self._api.rows(
            explain_fields(table.retention_policy, table.measurement, window),
            database=database,
            retention_policy=table.retention_policy,
            subject=self._about(table, window),
        )
        return [value for series in answer for row in series.values for value in row if isinstance(value, bytes)]

    def _is_shared(self, database: str, table: Table, window: Window) -> bool:
        """Whether more than one shard that has the table holds times of the window."""
        counts = [line[len(_SHARDS) :] for line in self._explained(database, table, window) if line.startswith(_SHARDS)]
        if not all(count.isdigit() for count in counts):
            raise QueryError(f"{self._about(table, window)}: the number of shards is no number.")
        return sum(map(int, counts)) > 1

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """The batches of one table in one piece; see ``Server.read``."""
        table = schema.table
        about = self._about(table, piece)
        fields = sorted({column.name for column in schema.fields} - INDEX_FIELDS)
        by_name = len(fields) < len({column.name for column in schema.fields})
        if by_name and not fields:
            return
        types = self._types(database, schema, piece)
        texts = sum(1 for column in schema.fields if column.type is InfluxType.STRING)
        doubtful: list[_Shape] = []
        statement = select_all(table.retention_policy, table.measurement, piece, fields if by_name else None)

        def stream(rows: int) -> Iterator[pa.RecordBatch]:
            with self._api.stream(
                statement,
                database=database,
                retention_policy=table.retention_policy,
                chunk_size=rows,
                subject=about,
            ) as answer:
                yield from self._batches(answer, database, schema, types, piece, options, texts, doubtful)

        if not texts or self._has_short_texts.get((database, table)):
            yield from stream(NUMERIC_CHUNK)
        else:
            try:
                yield from stream(max(16, TEXT_CHUNK // texts))
            except _ShortTextsError:
                self._has_short_texts[database, table] = True
                yield from stream(NUMERIC_CHUNK)
        for shape in doubtful:  # once the answer is read to its end: no query is sent while another one is running
            self._refuse_merged(database, table, piece, shape)

    def _judge_texts(
        self, about: str, database: str, table: Table, stream: ResultStream, before: int, rows: int | None
    ) -> None:
        """
        Learns from a document whether a table's texts are short; ``rows`` were read when nothing was handed on yet.

        Raises _ShortTextsError when that is found, IncompleteReadError when it no longer holds: then the piece is read
        again in halves, and in small documents.
        """
        key = database, table
        known = self._has_short_texts.get(key)
        if known and stream.consumed - before > _LONG_DOCUMENT:
            self._has_short_texts[key] = False
            raise IncompleteReadError(
                f"{about}: its texts are longer further on than at its beginning, and it is read in smaller documents.",
                kind="read-limit",
            )
        if known is None and rows is not None and rows >= SAMPLE_ROWS and stream.consumed <= rows * _SHORT_ROW:
            raise _ShortTextsError

    def _batches(
        self,
        stream: ResultStream,
        database: str,
        schema: TableSchema,
        types: Mapping[str, InfluxType | None],
        piece: Window,
        options: ReadOptions,
        texts: int,
        doubtful: list[_Shape],
    ) -> Iterator[pa.RecordBatch]:
        """The batches; a shape whose series may be two that came as one is added to ``doubtful``."""
        about = self._about(schema.table, piece)
        step = max(1, _FEW_ROWS // max(1, texts))
        shape: _Shape | None = None
        builder: BatchBuilder | None = None
        walker: _Walker | None = None
        began, most = 0, options.batch_rows
        for series in stream.series():
            if shape is None or builder is None or walker is None:
                shape = _shape(about, schema, series)
                builder = self._builder(about, database, schema, types, shape)
                walker = _Walker(len(shape.columns), self._walk)
                most = max(1, min(options.batch_rows, MOST_CELLS // len(shape.columns)))
            _check_shape(about, shape, series)
            if not doubtful and may_be_merged(series.tags):
                doubtful.append(shape)
            builder.start_series([series.tags[tag] for tag in shape.tags])
            left, before = series.count, stream.consumed
            while left:
                wanted = min(left, most - builder.rows)
                try:
                    done = walker.read(stream, builder, wanted)
                    if not done:
                        done = min(wanted, step)
                        builder.add_rows(stream.take(done))
                    left -= done
                    if builder.rows >= most or stream.consumed - began >= options.batch_bytes:
                        yield _in_piece(about, builder.finish(), piece)
                        began = stream.consumed
                except (OtherTypeError, NotUtf8Error) as error:
                    raise self._changed(about, database, schema, shape, error) from error
                except NotAscendingError as error:
                    raise self._doubled(about, database, schema.table, piece, error) from error
            if texts:
                rows = builder.rows if began == 0 else None
                self._judge_texts(about, database, schema.table, stream, before, rows)
        if shape is not None and builder is not None and builder.rows:
            try:
                yield _in_piece(about, builder.finish(), piece)
            except (OtherTypeError, NotUtf8Error) as error:
                raise self._changed(about, database, schema, shape, error) from error
            except NotAscendingError as error:
                raise self._doubled(about, database, schema.table, piece, error) from error

    def _doubled(
        self, about: str, database: str, table: Table, piece: Window, error: NotAscendingError
    ) -> InfluxdbBackupError:
        instant = format_instant(error.time)
        if self._is_shared(database, table, piece):
            shards = self._shards(database, table.retention_policy, piece)
            return doubled_points(table, piece, shards, f"a query gives a point of {instant} twice")
        return QueryError(
            f"{about}: the server gives a point of {instant} twice, or behind a later one of its series.",
            hint="No backup of it could be restored. Look for what wrote files into the server's folder; deleting "
            "that time of the measurement and writing it again makes it right.",
        )

    def _refuse_merged(self, database: str, table: Table, piece: Window, shape: _Shape) -> None:
        """Raises QueryError when the answer's tags may be those of another series."""
        statement = f"SHOW SERIES FROM {source(table.retention_policy, table.measurement)}"
        answer = self._rows(database, table, piece, statement)
        keys = [key for series in answer for row in series.values for key in row if isinstance(key, bytes)]
        found = merged(keys, [escape_tag(decode_name(tag)) for tag in shape.tags])
        if found:
            one, other = (printable(decode_name(key))[:200] for key in found)
            raise QueryError(
                f"{self._about(table, piece)}: a query does not tell the series {one} from {other}: a NUL in their tag "
                "values reads like the border between two of them.",
                hint="reader: shard in the plan reads them as they are; or leave the measurement out "
                "(exclude_measurements).",
            )

    def _builder(
        self,
        about: str,
        database: str,
        schema: TableSchema,
        types: Mapping[str, InfluxType | None],
        shape: _Shape,
    ) -> BatchBuilder:
        fields, positions, empty = [], [], []
        for position, raw in enumerate(shape.columns[1:], start=1):
            name = decode_name(raw)
            if name not in types:
                raise _schema_changed(about, f"the field {printable(name)} is not in the schema that was read")
            kind = types[name]
            if kind is None:
                empty.append(position)
            else:
                fields.append(Column(role=Role.FIELD, name=name, type=kind))
                positions.append(position)
        tags = [Column(role=Role.TAG, name=decode_name(tag), type=InfluxType.TAG) for tag in shape.tags]
        binary = frozenset(c for c in [*tags, *fields] if (database, schema.table, c) in self._binary)
        return BatchBuilder(tags, fields, positions, empty, binary)

    def _types(self, database: str, schema: TableSchema, piece: Window) -> dict[str, InfluxType | None]:
        """The type of every field in the piece; None for one of several types that has no value there."""
        known: dict[str, list[InfluxType]] = {}
        for column in schema.fields:
            known.setdefault(column.name, []).append(column.type)
        types: dict[str, InfluxType | None] = {name: kinds[0] for name, kinds in known.items()}
        mixed = {name: kinds for name, kinds in known.items() if len(kinds) > 1 and name not in INDEX_FIELDS}
        if not mixed:
            return types
        table = schema.table
        if self._is_shared(database, table, piece):
            name = printable(next(iter(mixed)))
            raise mixed_types(
                table,
                piece,
                self._shards(database, table.retention_policy, piece),
                f"its field {name} has several types, of which a query gives one and hides the others",
            )
        statement = call_all("first", table.retention_policy, table.measurement, piece)
        row = self._one_row(database, table, piece, statement, b"first_")
        for name, kinds in mixed.items():
            types[name] = self._type_of(database, table, piece, name, row.get(name), kinds)
        return types

    def _type_of(
        self, database: str, table: Table, piece: Window, name: str, value: object, kinds: Sequence[InfluxType]
    ) -> InfluxType | None:
        if value is None:
            return None
        simple = {float: InfluxType.FLOAT, bool: InfluxType.BOOLEAN, bytes: InfluxType.STRING}
        kind = simple.get(type(value))
        if kind is None and isinstance(value, int):
            whole = {InfluxType.INTEGER, InfluxType.UNSIGNED} & set(kinds)
            kind = next(iter(whole)) if len(whole) == 1 else self._signedness(database, table, piece, name)
        if kind not in kinds:
            raise _schema_changed(
                self._about(table, piece), f"the field {printable(name)} has a type that is not in the schema"
            )
        return kind

    def _signedness(self, database: str, table: Table, piece: Window, name: str) -> InfluxType:
        """Integer or unsigned: ``x - x - 1`` is -1 or wraps to 2^64-1 (run on 2.9.1)."""
        call = f"first({quote_ident(name)}::field)"
        statement = (
            f"SELECT {call} - {call} - 1 FROM {source(table.retention_policy, table.measurement)} "
            f"WHERE {between(piece)}"
        )
        rows = self._rows(database, table, piece, statement)
        value = rows[0].values[0][-1] if rows and rows[0].values and len(rows[0].columns) == 2 else None
        if value == -1:
            return InfluxType.INTEGER
        if value == 2**64 - 1:
            return InfluxType.UNSIGNED
        raise QueryError(
            f"{self._about(table, piece)}: the server does not tell whether the field {printable(name)} is integer or "
            f"unsigned there."
        )

    def _rows(self, database: str, table: Table, piece: Window, statement: str) -> list[Rows]:
        return self._api.rows(
            statement,
            database=database,
            retention_policy=table.retention_policy,
            subject=self._about(table, piece, with_server=False),
        )

    def _one_row(self, database: str, table: Table, piece: Window, statement: str, prefix: bytes) -> dict[str, object]:
        """The one row of a ``function(*)`` by field name; empty when nothing is there."""
        answer = self._rows(database, table, piece, statement)
        about = self._about(table, piece)
        row: dict[str, object] = {}
        for series in answer:
            if series.name != encode_name(table.measurement) or len(series.values) != 1 or len(answer) != 1:
                raise QueryError(f"{about}: the answer holds another measurement or more than one row.")
            for column, value in list(zip(series.columns, series.values[0], strict=True))[1:]:
                if not column.startswith(prefix):
                    raise QueryError(f"{about}: the answer has the unexpected column {printable(decode_name(column))}.")
                row[decode_name(column.removeprefix(prefix))] = value
        return row

    def _about(self, table: Table, piece: Window, *, with_server: bool = False) -> str:
        head = f"{self._api.http.name}: " if with_server else ""
        return f"{head}{table} from {format_window(piece)}"

    def _changed(
        self,
        about: str,
        database: str,
        schema: TableSchema,
        shape: _Shape,
        error: OtherTypeError | NotUtf8Error,
    ) -> IncompleteReadError:
        if isinstance(error, OtherTypeError):
            name = printable(decode_name(shape.columns[error.column]))
            return _schema_changed(about, f"the field {name} has another type than in the schema: {error.found}")
        if error.column < 0:
            raw, role, kind = shape.tags[-1 - error.column], Role.TAG, InfluxType.TAG
        else:
            raw, role, kind = shape.columns[error.column], Role.FIELD, InfluxType.STRING
        column = Column(role=role, name=decode_name(raw), type=kind)
        self._binary.add((database, schema.table, column))
        return _schema_changed(about, f"the {role.value} {printable(column.name)} holds bytes that are not UTF-8")


def _shape(about: str, schema: TableSchema, series: Series) -> _Shape:
    name = encode_name(schema.table.measurement)
    known = {encode_name(tag) for tag in schema.tags}
    for tag in series.tags:
        if tag not in known:
            raise _schema_changed(about, f"the tag {printable(decode_name(tag))} is not in the schema that was read")
    if not series.columns or series.columns[0] != b"time" or len(set(series.columns)) != len(series.columns):
        raise QueryError(f"{about}: the answer's columns are not time and one for each field.")
    return _Shape(name, tuple(sorted(series.tags)), frozenset(series.tags), series.columns)


def _check_shape(about: str, shape: _Shape, series: Series) -> None:
    if series.name != shape.name:
        raise QueryError(f"{about}: the server answers with the measurement {printable(decode_name(series.name))}.")
    if series.columns != shape.columns or series.tags.keys() != shape.tag_set:
        raise _schema_changed(about, "the tags or fields differ between series of one answer")


def _in_piece(about: str, batch: pa.RecordBatch, piece: Window) -> pa.RecordBatch:
    """The batch, after its times were compared with the piece."""
    bounds = pc.min_max(batch.column(0).cast(pa.int64()))
    if bounds["min"].as_py() < piece.start or bounds["max"].as_py() >= piece.end:
        raise QueryError(f"{about}: the server answers with points of another time.")
    return batch


def _schema_changed(about: str, what: str) -> IncompleteReadError:
    return IncompleteReadError(
        f"{about}: {what}.", hint="Read the schema and then this piece again.", kind="schema-changed"
    )
