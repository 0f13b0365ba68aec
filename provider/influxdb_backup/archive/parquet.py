"""
One part as a local Parquet file: how it is encoded, and how it is read back in batches of bounded size.

``encoding`` chooses how values are encoded. Row groups are bounded by rows and by bytes, so that reading one never
needs much memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from influxdb_backup.archive.compact_thrift import ThriftError, read_struct
from influxdb_backup.archive.encoding import Encodings, choose_encodings, writer_options
from influxdb_backup.archive.order import OrderProof
from influxdb_backup.columns import (
    TIME,
    RowSizes,
    arrow_schema,
    batch_columns,
    binary_columns,
    is_text,
    null_column,
    row_bytes,
)
from influxdb_backup.errors import FormatError, IntegrityError
from influxdb_backup.model import Column, InfluxType, Role, Table, Window, printable

ROW_GROUP_ROWS = 131_072
"""at most; the first of a file has an eighth of them, so that encoding begins soon"""
ROW_GROUP_BYTES = 16 << 20
_MOST_GROUP_BYTES = 512 << 20
"""uncompressed, of a row group of several rows that is read: far beyond what the writer makes, and no bomb"""
_HEADER_BYTES, _PAGE_SIZE = 4096, 2
"""of a page: more than its header has, and the number of the field of the uncompressed size (parquet.thrift)"""
SLICE_BYTES = 4 << 20
"""rows are hashed and handed on in slices of about this size: hashing text needs several copies of it"""
_MOST_DECODED = 16 << 20
_FEWEST_DECODED = 256
_MANY_COLUMNS = 512
_FEW_ROWS = 4096
_SPARE_ENTRIES = 1024
PART_KEY = b"influxdb-backup:part"
ORDER_KEY = b"influxdb-backup:order"


class Normaliser:
    """
    Gives batches exactly the seam's names and types, so that equal column sets have equal schemas.

    ``large_string`` becomes ``string``, plain strings of a tag become a dictionary, and a column that was ``binary``
    once stays ``binary``.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Raises FormatError for columns that do not say what they are, as the call does."""
        self._binary: frozenset[Column] = frozenset()
        self._learn(schema)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same points. Raises FormatError for a time that is missing, or columns that do not say what they are."""
        if batch.column(0).null_count:
            raise FormatError("A point has no time.")
        if not self._seen.equals(batch.schema, check_metadata=True):
            self._learn(batch.schema)
        arrays = [_cast(array, field.type) for array, field in zip(batch.columns, self._wanted, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._wanted)

    def _learn(self, schema: pa.Schema) -> None:
        columns = batch_columns(schema)
        self._binary |= binary_columns(schema)
        self._seen, self._wanted = schema, arrow_schema(columns, self._binary & frozenset(columns))


def _cast(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(wanted):
        return array if array.type == wanted else array.cast(wanted)
    if pa.types.is_dictionary(array.type) and len(array.dictionary) > len(array) + _SPARE_ENTRIES:
        array = array.dictionary_decode()  # the encoder would store the entries that no row uses
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    if array.type == wanted:
        return array
    return pa.DictionaryArray.from_arrays(
        array.indices.cast(wanted.index_type), array.dictionary.cast(wanted.value_type)
    )


def _file_metadata(plan: str, window: Window, table: Table, piece: Window, schema: pa.Schema) -> dict[str, str]:
    columns = [{"column": TIME, "role": "time", "name": TIME, "type": "timestamp"}]
    for column, field in zip(batch_columns(schema), list(schema)[1:], strict=True):
        columns.append({"column": field.name, **column.model_dump(mode="json")})
    document = {
        "format_version": 1,
        "plan": plan,
        "window": window.model_dump(mode="json"),
        "piece": piece.model_dump(mode="json"),
        "table": table.model_dump(mode="json"),
        "columns": columns,
    }
    return {PART_KEY.decode(): json.dumps(document, sort_keys=True)}


class ParquetFile:
    """
    Writes batches of one schema to one local file, a row group at a time.

    A thread of its own encodes a row group while the next one is gathered, so that at most two row groups and one batch
    are in memory; its errors are raised by the next call. ``close`` finishes the file; ``abandon`` gives up on it.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        *,
        plan: str,
        window: Window,
        table: Table,
        piece: Window,
        beside: ParquetFile | None = None,
    ) -> None:
        """``beside`` is a file of the same table that is being written, whose encodings this one takes."""
        self.path = path
        self._encodings: Future[Encodings] = beside._encodings if beside else Future()
        self._chooses = beside is None
        self._group_rows = ROW_GROUP_ROWS // 8
        self.schema = schema
        self._size = 0
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        columns = batch_columns(schema)
        self.columns = columns
        self._order = OrderProof([n for n, column in enumerate(columns, start=1) if column.role is Role.TAG])
        self._metadata = _file_metadata(plan, window, table, piece, schema)
        self._sink = pa.OSFile(str(path), "wb")
        self._writer: pq.ParquetWriter | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._encoding: Future[pq.ParquetWriter] | None = None

    @property
    def size(self) -> int:
        """Bytes in the file so far, without the last row group that was passed on and what waits for the next."""
        return self._size

    def write(self, batch: pa.RecordBatch) -> int:
        """
        Adds rows, at least one; how many rows are being encoded since then.

        The batch must have the file's schema and come from ``sliced``.
        """
        self._order.add(batch)
        room = self._group_rows - self._pending_rows
        passed_on = 0
        if batch.num_rows > room:
            passed_on = self._hold(batch.slice(0, room))
            batch = batch.slice(room)
        return passed_on + self._hold(batch)

    def _hold(self, rows: pa.RecordBatch) -> int:
        if not rows.num_rows:
            return 0
        passed_on = 0
        size = row_bytes(rows) + _dictionary_bytes(rows, self._pending[-1] if self._pending else None)
        if self._pending and self._pending_bytes + size > ROW_GROUP_BYTES:
            passed_on += self._pass_on()
        self._pending.append(rows)
        self._pending_rows += rows.num_rows
        self._pending_bytes += size
        if self._pending_rows >= self._group_rows:
            passed_on += self._pass_on()
        return passed_on

    def _taken(self) -> list[pa.RecordBatch]:
        pending, self._pending, self._pending_rows, self._pending_bytes = self._pending, [], 0, 0
        return pending

    def _pass_on(self) -> int:
        """Has what waits encoded by the thread, once it is done with the row group before; how many rows that is."""
        self._settle()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        rows = self._pending_rows
        self._group_rows = ROW_GROUP_ROWS
        self._encoding = self._thread.submit(self._write_row_group, self._taken())
        return rows

    def _settle(self) -> None:
        encoding, self._encoding = self._encoding, None
        if encoding is not None:
            encoding.result()
            self._size = int(self._sink.tell())  # here, so that where parts end does not depend on the thread's luck

    def _write_row_group(self, batches: list[pa.RecordBatch]) -> pq.ParquetWriter:
        # one dictionary for each tag, or the encoder falls back to plain values in mid-column
        try:
            table = pa.Table.from_batches(batches, schema=self.schema).unify_dictionaries()
            batches.clear()
            if self._chooses and not self._encodings.done():
                self._encodings.set_result(choose_encodings(table))
        except BaseException as error:
            if self._chooses and not self._encodings.done():
                self._encodings.set_exception(error)  # or the file beside waits for ever
            raise
        writer = self._writer = self._writer or self._new_writer(table)
        writer.write_table(table, row_group_size=max(table.num_rows, 1))
        long = _is_long(table) or table.num_columns >= _MANY_COLUMNS
        del table
        _give_back(long)
        return writer

    def _new_writer(self, first: pa.Table) -> pq.ParquetWriter:
        """A writer whose encodings fit the first row group, of this file or of the one beside it."""
        names = [field.name for field in list(first.schema)[1:]]
        columns = zip(batch_columns(first.schema), names, strict=True)
        statistics = [TIME, *(name for column, name in columns if column.role is Role.TAG)]
        options = writer_options(self._encodings.result(), statistics)
        return pq.ParquetWriter(self._sink, first.schema, store_schema=True, **options)

    def close(self) -> None:
        """Writes what waits, and the footer."""
        self._settle()
        writer = self._writer
        if self._pending or writer is None:
            writer = self._write_row_group(self._taken())
        if self._order.holds:
            self._metadata[ORDER_KEY.decode()] = "series-contiguous,time-ascending"
        writer.add_key_value_metadata(self._metadata)
        writer.close()
        self._sink.close()
        self._end_thread()

    def abandon(self) -> None:
        """Closes the file without finishing it."""
        self._pending = []
        self._end_thread()
        if self._writer is not None:
            self._writer.is_open = False  # or its finaliser writes a footer into the closed file
        self._sink.close()

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def _dictionary_bytes(batch: pa.RecordBatch, before: pa.RecordBatch | None) -> int:
    """Bytes of the dictionaries that a batch brings along, those left out that it shares with the one before."""
    total = 0
    for position, array in enumerate(batch.columns):
        if not pa.types.is_dictionary(array.type):
            continue
        dictionary = array.dictionary
        if before is None or _address(before.column(position).dictionary) != _address(dictionary):
            total += dictionary.nbytes
    return total


def _address(array: pa.Array) -> tuple[int, ...]:
    return (array.offset, len(array), *(buffer.address for buffer in array.buffers() if buffer is not None))


def sliced(batch: pa.RecordBatch, most: int = SLICE_BYTES) -> Iterator[pa.RecordBatch]:
    """The batch in slices of about ``most`` bytes of rows, unless a single row is larger; none when it is empty."""
    if batch.num_rows:
        sizes = RowSizes(batch)
        for first, last in _cut(sizes, 0, batch.num_rows, most):
            yield batch if last - first == batch.num_rows else batch.slice(first, last - first)


def _cut(sizes: RowSizes, first: int, last: int, most: int) -> Iterator[tuple[int, int]]:
    rows = last - first
    if rows <= ROW_GROUP_ROWS and (rows == 1 or sizes.between(first, last) <= most):
        yield first, last
        return
    middle = first + (ROW_GROUP_ROWS if rows > ROW_GROUP_ROWS else rows // 2)
    yield from _cut(sizes, first, middle, most)
    yield from _cut(sizes, middle, last, most)


def _is_long(table: pa.Table) -> bool:
    """Whether a row group is one of few rows with long texts."""
    if table.num_rows >= _FEW_ROWS:
        return False
    texts = [
        column
        for column in table.columns
        if is_text(column.type.value_type if pa.types.is_dictionary(column.type) else column.type)
    ]
    return bool(sum(column.nbytes for column in texts) >= SLICE_BYTES)


def _give_back(long: bool) -> None:
    """After a row group of long texts or many columns: they leave holes behind, which grow. It costs milliseconds."""
    if long:
        pa.default_memory_pool().release_unused()


def read_batches(path: Path, key: str, *, large: bool = False, rows: int | None = None) -> Iterator[pa.RecordBatch]:
    """
    All rows of a part, in file order, a row group at a time, in batches of at most 131,072 rows and about 4 MB.

    With ``large`` those without texts have 16 MB, for a taker whom each batch costs several hundred calls. The schema
    is the one that was written. Raises FormatError naming ``key`` when this is no such Parquet file, and IntegrityError
    (``rows``) before anything is decoded when it says that it has another number of rows than ``rows``.
    """
    try:
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema().remove_metadata()
        _refuse_other_sizes(metadata, key, rows)
        with pq.ParquetFile(path, metadata=metadata, read_dictionary=encoded_texts(path, metadata)) as file:
            texts = any(column.type is InfluxType.STRING for column in batch_columns(schema))
            most = ROW_GROUP_BYTES if large and not texts else SLICE_BYTES
            for group in range(metadata.num_row_groups):
                if (stretch := _stretch_of(schema)) < metadata.row_group(group).num_rows:
                    for batch in file.iter_batches(stretch, row_groups=[group]):
                        for stretched in with_texts(batch, schema, key):
                            yield from sliced(_without_nulls(stretched), most)
                    continue
                table = file.read_row_group(group)
                long = _is_long(table)
                for batch in table.to_batches():
                    for stretched in with_texts(batch, schema, key):
                        yield from sliced(stretched, most)
                del table
                _give_back(long)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{key} cannot be decoded: {error}.") from error


def encoded_texts(path: Path, metadata: pq.FileMetaData) -> list[str]:
    """
    The text columns whose dictionary could make more texts of a row group than one can have.

    They are to be read as dictionaries: a file of a few kilobytes can say a text of megabytes a hundred thousand times.
    """
    with path.open("rb") as file:
        return [
            field.name
            for position, field in enumerate(metadata.schema.to_arrow_schema())
            if is_text(field.type)
            and any(
                _most_texts_bytes(file, metadata.row_group(group).column(position)) > _MOST_GROUP_BYTES
                for group in range(metadata.num_row_groups)
            )
        ]


def _most_texts_bytes(file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> int:
    """As if each value were the whole dictionary, whose size its page's header says."""
    if not chunk.has_dictionary_page:
        return 0
    file.seek(chunk.dictionary_page_offset)
    try:
        return int(chunk.num_values * read_struct(file.read(_HEADER_BYTES))[0].integer(_PAGE_SIZE))
    except ThriftError:
        return _MOST_GROUP_BYTES + 1


def with_texts(batch: pa.RecordBatch, schema: pa.Schema, key: str) -> Iterator[pa.RecordBatch]:
    """
    The batch with the columns of ``schema``, some of which were read as dictionaries: then in stretches of some 4 MB.

    Raises FormatError before it makes more texts of them than a row group can have.
    """
    encoded = [
        position
        for position, field in enumerate(schema)
        if is_text(field.type) and batch.column(position).type != field.type
    ]
    size = sum(_texts_bytes(batch.column(position)) for position in encoded)
    if size > _MOST_GROUP_BYTES and batch.num_rows > 1:
        raise FormatError(f"{key} has a row group of more texts than format version 1 allows.")
    step = max(1, batch.num_rows * SLICE_BYTES // max(SLICE_BYTES, size))
    for first in range(0, batch.num_rows, step):
        stretch = batch.slice(first, step)
        arrays = [
            array.cast(schema.field(position).type) if position in encoded else array
            for position, array in enumerate(stretch.columns)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _texts_bytes(array: pa.DictionaryArray) -> int:
    lengths = pc.cast(pc.binary_length(array.dictionary), pa.int64())
    return int(pc.sum(pc.take(lengths, array.indices)).as_py() or 0)


def _without_nulls(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows, whose fields without any value take no memory of their own."""
    arrays = [
        null_column(array.type, len(array))
        if array.null_count == len(array) and not pa.types.is_dictionary(array.type)
        else array
        for array in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _stretch_of(schema: pa.Schema) -> int:
    """
    Rows that are decoded at a time: a row group of many columns that are mostly null is far larger decoded than stored.

    Texts are counted at their shortest.
    """
    bits = 0
    for field in schema:
        kind = field.type.index_type if pa.types.is_dictionary(field.type) else field.type
        bits += 33 if is_text(kind) else kind.bit_width + 1
    return max(_FEWEST_DECODED, _MOST_DECODED * 8 // bits)


def _refuse_other_sizes(metadata: pq.FileMetaData, key: str, rows: int | None) -> None:
    """What a row group takes in memory is bounded by what its writer may put into one."""
    if rows is not None and metadata.num_rows != rows:
        raise IntegrityError(f"{key} has {metadata.num_rows:,} rows, the manifest says {rows:,}.", kind="rows")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.num_rows for group in groups), default=0)
    if sum(group.num_rows for group in groups) != metadata.num_rows or largest > ROW_GROUP_ROWS:
        raise FormatError(f"{key} has row groups of up to {largest:,} rows, more than format version 1 allows.")
    size = max((group.total_byte_size for group in groups if group.num_rows > 1), default=0)
    if size > _MOST_GROUP_BYTES:
        raise FormatError(f"{key} has a row group of {size:,} bytes, more than format version 1 allows.")


def in_window(batch: pa.RecordBatch, window: Window) -> pa.Array:
    """A mask of the rows whose time is in the half-open window."""
    times = batch.column(0).cast(pa.int64())
    return pc.and_(
        pc.greater_equal(times, pa.scalar(window.start, pa.int64())), pc.less(times, pa.scalar(window.end, pa.int64()))
    )


def has_tag(batch: pa.RecordBatch, name: str, value: str) -> pa.Array:
    """A mask of the rows that have this tag value; the empty value means that the point has no such tag."""
    for position, column in enumerate(batch_columns(batch.schema), start=1):
        if column.role is Role.TAG and column.name == name:
            array = batch.column(position)
            if not value:
                return pc.fill_null(pc.equal(pc.binary_length(array.cast(array.type.value_type)), 0), True)
            return _equals(array, value.encode("utf-8", "surrogateescape"))
    return pa.array([not value], pa.bool_()).take(pa.array([0] * batch.num_rows, pa.int32()))


def _equals(array: pa.Array, value: bytes) -> pa.Array:
    if not pa.types.is_dictionary(array.type):
        return pc.fill_null(pc.equal(array.cast(pa.binary()), pa.scalar(value, pa.binary())), False)
    matching = pc.equal(array.dictionary.cast(pa.binary()), pa.scalar(value, pa.binary()))
    return pc.fill_null(pc.take(matching, array.indices), False)


def described(path: Path, key: str) -> dict[str, object]:
    """What the file says of itself: plan, window, piece, table, columns. Raises FormatError."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return dict(json.loads(metadata[PART_KEY]))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise FormatError(f"{printable(key)} does not say what it is: {error}.") from error
