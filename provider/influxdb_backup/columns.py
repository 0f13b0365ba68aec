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

import numpy as np
import numpy.typing as npt
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


@lru_cache(64)
def null_column(kind: pa.DataType, rows: int) -> pa.Array:
    """
    A column of nothing but nulls; all of one length share their memory.

    ``kind`` is any type of ARROW_TYPES but that of tags, or binary.
    """
    zeros = _zeros(8 * (rows + 1))
    texts = pa.types.is_string(kind) or pa.types.is_binary(kind)
    return pa.Array.from_buffers(kind, rows, [zeros, zeros, zeros] if texts else [zeros, zeros], null_count=rows)


@lru_cache(4)
def _zeros(size: int) -> pa.Buffer:
    return pa.py_buffer(bytes(size))


def row_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of the rows themselves; of a dictionary only the indices, of a column without any value none."""
    return RowSizes(batch).between(0, batch.num_rows)


class RowSizes:
    """
    What rows of a batch take, told without a look at each column for each stretch of them.

    A column of nothing but nulls counts nothing: the readers of servers make all such columns of one memory, and in a
    table of thousands of fields, of which each series has a few, they are nearly all.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._bits = 0
        self._offsets: list[npt.NDArray[np.integer]] = []
        for array in batch.columns:
            nulls = array.null_count
            if nulls == len(array):
                continue
            kind = array.type.index_type if pa.types.is_dictionary(array.type) else array.type
            self._bits += 1 if nulls else 0
            if is_text(kind):
                wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
                form = np.dtype(np.int64 if wide else np.int32)
                self._bits += 8 * form.itemsize
                self._offsets.append(
                    np.frombuffer(array.buffers()[1], form, len(array) + 1, array.offset * form.itemsize)
                )
            else:
                self._bits += kind.bit_width

    def between(self, first: int, last: int) -> int:
        """Bytes of the rows from ``first`` to before ``last``."""
        texts = sum(int(offsets[last]) - int(offsets[first]) for offsets in self._offsets)
        return -(-(last - first) * self._bits // 8) + texts


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type have lengths of their own."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    )
