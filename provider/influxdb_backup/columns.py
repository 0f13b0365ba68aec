"""
The seam between the server's side and the archive: how a record batch says what its columns are.

A batch has the column ``time`` (``timestamp[ns, tz=UTC]``, not null), tags as
``dictionary<int32, string>`` (null = the point has no such tag), and fields as ``float64``, ``int64``,
``uint64``, ``string`` (``large_string`` is accepted) or ``bool``, null = the point has no such field.
Text that is not UTF-8 makes the column ``binary`` (``dictionary<int32, binary>`` for a tag).
Every column's Arrow metadata holds its role, its InfluxDB name in bytes and its InfluxDB type, and these are
the authority; the Arrow name is InfluxDB's own, or ``tag:<name>`` / ``field:<name>`` where a tag and a field
(or two fields) have the same name in lower case, or the name is ``time``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import pyarrow as pa

from influxdb_backup.errors import FormatError
from influxdb_backup.model import Column, InfluxType, Role, decode_name, encode_name, is_utf8, printable

TIME = "time"
TIME_TYPE = pa.timestamp("ns", tz="UTC")
ROLE_KEY = b"influxdb:role"
NAME_KEY = b"influxdb:name"
TYPE_KEY = b"influxdb:type"
IOX_KEY = b"iox::column::type"

ARROW_TYPES: dict[InfluxType, pa.DataType] = {
    InfluxType.TIMESTAMP: TIME_TYPE,
    InfluxType.TAG: pa.dictionary(pa.int32(), pa.string()),
    InfluxType.FLOAT: pa.float64(),
    InfluxType.INTEGER: pa.int64(),
    InfluxType.UNSIGNED: pa.uint64(),
    InfluxType.STRING: pa.string(),
    InfluxType.BOOLEAN: pa.bool_(),
}
BINARY_TAG = pa.dictionary(pa.int32(), pa.binary())

_IOX_TYPES = {
    InfluxType.TIMESTAMP: b"iox::column_type::timestamp",
    InfluxType.TAG: b"iox::column_type::tag",
    InfluxType.FLOAT: b"iox::column_type::field::float",
    InfluxType.INTEGER: b"iox::column_type::field::integer",
    InfluxType.UNSIGNED: b"iox::column_type::field::uinteger",
    InfluxType.STRING: b"iox::column_type::field::string",
    InfluxType.BOOLEAN: b"iox::column_type::field::boolean",
}


def arrow_names(columns: Sequence[Column]) -> list[str]:
    """The Arrow (and Parquet) names of tag and field columns, distinct also without regard to case."""
    lowered = Counter([TIME, *(column.name.lower() for column in columns)])
    names = []
    for column in columns:
        readable = is_utf8(column.name) and "\x00" not in column.name
        if readable and lowered[column.name.lower()] == 1:
            names.append(column.name)
        else:
            names.append(f"{column.role.value}:{column.name if readable else printable(column.name)}")
    taken = {TIME}
    for position, name in enumerate(names):
        distinct, number = name, 2
        while distinct.lower() in taken:
            distinct, number = f"{name}#{number}", number + 1
        taken.add(distinct.lower())
        names[position] = distinct
    return names


def _metadata(role: Role, name: str, kind: InfluxType) -> dict[bytes | str, bytes | str]:
    return {
        ROLE_KEY: role.value.encode(),
        NAME_KEY: encode_name(name),
        TYPE_KEY: kind.value.encode(),
        IOX_KEY: _IOX_TYPES[kind],
    }


_REMEMBERED = 4096
"""fields and columns made before: every batch of every table asks for them again"""


@lru_cache(_REMEMBERED)
def _arrow_field(column: Column, name: str, *, binary: bool) -> pa.Field:
    kind = ARROW_TYPES[column.type]
    if binary:
        kind = BINARY_TAG if column.role is Role.TAG else pa.binary()
    return pa.field(name, kind, metadata=_metadata(column.role, column.name, column.type))


@lru_cache(_REMEMBERED)
def _column(role: bytes, name: bytes, kind: bytes) -> Column:
    return Column(role=Role(role.decode()), name=decode_name(name), type=InfluxType(kind.decode()))


def arrow_schema(columns: Sequence[Column], binary: frozenset[Column] = frozenset()) -> pa.Schema:
    """The schema of a batch with these tags and fields; those in ``binary`` hold bytes that are not UTF-8."""
    return _schema_of(tuple(columns), binary)


@lru_cache(64)
def _schema_of(columns: tuple[Column, ...], binary: frozenset[Column]) -> pa.Schema:
    fields = [pa.field(TIME, TIME_TYPE, nullable=False, metadata=_metadata(Role.TIME, TIME, InfluxType.TIMESTAMP))]
    for column, name in zip(columns, arrow_names(columns), strict=True):
        fields.append(_arrow_field(column, name, binary=column in binary))
    return pa.schema(fields)


def batch_columns(schema: pa.Schema) -> tuple[Column, ...]:
    """
    The tags and fields of a batch's or Parquet file's schema, in order, ``time`` left out.

    Raises FormatError when the first column is not ``time`` or a column lacks its metadata.
    """
    if not schema.names or schema.names[0] != TIME:
        raise FormatError("The first column is not time.")
    columns = []
    for field in list(schema)[1:]:
        metadata = field.metadata or {}
        try:
            columns.append(_column(metadata[ROLE_KEY], metadata[NAME_KEY], metadata[TYPE_KEY]))
        except (KeyError, ValueError) as error:
            raise FormatError(f"The column {field.name!r} does not say what it is: {error}.") from None
    return tuple(columns)


def binary_columns(schema: pa.Schema) -> frozenset[Column]:
    """The columns of a batch that hold bytes which are not UTF-8."""
    return frozenset(
        column for column, field in zip(batch_columns(schema), list(schema)[1:], strict=True) if _is_binary(field.type)
    )


def _is_binary(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(value) or pa.types.is_large_binary(value))
