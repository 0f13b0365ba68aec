"""
What is whole of a damaged part: its pages are checked one by one, and those that are not whole are read as nulls.

A part's digest says that a byte of it is wrong, not which. Each page of a Parquet file has a checksum of its own, and
the page index says which rows it holds (Apache Parquet format: PageHeader, OffsetIndex). Nothing here is used while
digests hold.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from influxdb_backup.archive.compact_thrift import Struct, ThriftError, encode_struct, encode_varint, read_struct
from influxdb_backup.archive.parquet import SLICE_BYTES, encoded_texts, sliced, with_texts
from influxdb_backup.columns import TIME, arrow_schema, batch_columns, binary_columns
from influxdb_backup.errors import FormatError, IntegrityError
from influxdb_backup.fingerprint import TableFingerprint
from influxdb_backup.model import Int64, Part, Role, Value, printable
from influxdb_backup.windows import format_instant

_MAGIC = b"PAR1"
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_PLAIN, _RLE, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 3, 2, 8
_TOLD = 3
"""stretches of lost rows that a message names"""


class LostRows(Value):
    """A stretch of rows of a damaged part that cannot be read, or not whole."""

    path: str
    """of the part"""
    first_row: Int64
    """counted from 0 in the part"""
    rows: Int64
    min_time: Int64
    """ns; of the row group, or of the part, where the times themselves are lost"""
    max_time: Int64
    column: str | None
    """the field whose values are lost; None where the rows are lost, since their times or tags are, or everything is"""
    reason: str

    def __str__(self) -> str:
        rows = f"row {self.first_row:,}"
        if self.rows > 1:
            rows = f"rows {self.first_row:,} to {self.first_row + self.rows - 1:,}"
        what = f"field {printable(self.column)!r} of {rows}" if self.column is not None else rows
        return f"{what} ({format_instant(self.min_time)} to {format_instant(self.max_time)}): {self.reason}"


@dataclass(frozen=True)
class _Page:
    """A data page as the page index places it."""

    offset: int
    size: int
    """bytes with its header"""
    first_row: int
    """in its row group"""
    rows: int


@dataclass(frozen=True)
class _Chunk:
    """The pages of one column in one row group."""

    group: int
    column: int
    name: str
    start: int
    size: int
    rows: int
    nullable: bool
    dictionary: _Page | None
    pages: tuple[_Page, ...]
    encodings: dict[int, int]
    """data pages by their encoding, as the footer counts them"""


@dataclass(frozen=True)
class _BadPage:
    page: _Page
    reason: str


def find_lost_rows(path: Path, part: Part) -> tuple[LostRows, ...]:
    """
    The stretches of rows whose pages are not whole, in file order; none when every page has its checksum.

    Raises IntegrityError when the footer cannot be read, or says something else than the manifest: then nothing in
    the file can be trusted to be what it seems.
    """
    chunks = _chunks(path, part)
    bad = _bad_pages(path, chunks)
    return tuple(_lost(path, part, chunks, bad))


def describe_damage(path: Path, part: Part) -> str:
    """A sentence that names the damaged rows and their times, as far as that can be told."""
    try:
        lost = find_lost_rows(path, part)
    except (IntegrityError, FormatError) as error:
        return f"No row of it can be told to be whole: {error.message}"
    if not lost:
        return "Every page of it has its checksum: what changed lies between them."
    shown = "; ".join(str(entry) for entry in lost[:_TOLD])
    more = f"; and {len(lost) - _TOLD} more stretches" if len(lost) > _TOLD else ""
    return f"Damaged: {shown}{more}."


def read_salvaged(
    path: Path, part: Part, measurement: str, scratch: Path, on_lost: Callable[[LostRows], None]
) -> Iterator[pa.RecordBatch]:
    """
    The rows of a damaged part that are whole, in file order, in batches as ``read_batches`` makes them.

    Values of a field whose page is damaged are null; rows whose times or tags are, and rows that have no value left,
    are left out. ``on_lost`` is told of each stretch before the first batch. ``scratch`` is a file that does not
    exist, to which the part is copied. Everything is decoded once before the first batch; where no page is damaged,
    the fingerprint proves it. Raises IntegrityError, before the first batch, when it cannot be told what is whole.
    """
    chunks = _chunks(path, part)
    bad = _bad_pages(path, chunks)
    lost = _lost(path, part, chunks, bad)
    for entry in lost:
        on_lost(entry)
    shutil.copyfile(path, scratch)
    with scratch.open("r+b") as file:
        for number, pages in bad.items():
            file.seek(chunks[number].start)
            file.write(_mended(path, chunks[number], pages))
    seen = TableFingerprint(measurement)
    try:
        for batch in _rows_left(scratch, part, chunks, bad):
            if not bad:
                seen.add(batch)
    except (pa.ArrowException, FormatError, UnicodeError, ValueError) as error:
        raise _untold(part) from error
    if not bad and seen.hexadecimal != part.fingerprint:
        raise _untold(part)
    yield from _rows_left(scratch, part, chunks, bad)


def _untold(part: Part) -> IntegrityError:
    return IntegrityError(
        f"{part.path} is damaged between its pages, and its points are not those that were written.", kind="digest"
    )


def _chunks(path: Path, part: Part) -> list[_Chunk]:
    """All column chunks, by row group and column. Raises IntegrityError for a footer that is not the part's."""
    try:
        footer = _footer(path)
        groups = footer.structs(4)
        chunks = [
            _chunk(path, footer, number, column, chunk, group.integer(3))
            for number, group in enumerate(groups)
            for column, chunk in enumerate(group.structs(1))
        ]
        schema = pq.read_schema(path).remove_metadata()
        columns = batch_columns(schema)
        sound = columns == part.columns and schema.equals(
            arrow_schema(columns, binary_columns(schema)), check_metadata=True
        )
    except (ThriftError, pa.ArrowException, OSError, FormatError, ValueError) as error:
        raise IntegrityError(f"the footer of {part.path} cannot be read: {error}", kind="digest") from None
    rows = sum(group.integer(3) for group in groups)
    width = len(part.columns) + 1
    if not sound or rows != part.rows or len(chunks) != width * len(groups):
        raise IntegrityError(f"the footer of {part.path} says something else than the manifest.", kind="digest")
    return chunks


def _footer(path: Path) -> Struct:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < 12:
            raise ThriftError("the file is too short")
        file.seek(size - 8)
        tail = file.read(8)
        length = struct.unpack("<I", tail[:4])[0]
        if tail[4:] != _MAGIC or length > size - 12:
            raise ThriftError("the file has no end")
        file.seek(size - 8 - length)
        return read_struct(file.read(length))[0]


def _chunk(path: Path, footer: Struct, group: int, column: int, chunk: Struct, rows: int) -> _Chunk:
    data = chunk.struct(3)
    first_page = data.integer(9)
    if not 0 < data.integer(7) <= path.stat().st_size or not 0 <= first_page < path.stat().st_size:
        raise ThriftError(f"row group {group} lies outside of the file")
    dictionary_offset = data.optional(11)
    start = first_page if not dictionary_offset else min(first_page, dictionary_offset)
    size = data.integer(7)
    elements = footer.structs(2)[1:]
    if column >= len(elements) or data.integer(5) != rows:
        raise ThriftError(f"row group {group} has other columns or rows than the footer says")
    pages = _locate(path, chunk, first_page, start + size, rows)
    dictionary = _Page(start, pages[0].offset - start, 0, 0) if start < pages[0].offset else None
    counts: dict[int, int] = {}
    for entry in data.structs(13):
        if entry.integer(1) == _DATA_PAGE:
            counts[entry.integer(2)] = counts.get(entry.integer(2), 0) + entry.integer(3)
    return _Chunk(
        group=group,
        column=column,
        name=elements[column].text(4),
        start=start,
        size=size,
        rows=rows,
        nullable=elements[column].integer(3) == 1,
        dictionary=dictionary,
        pages=pages,
        encodings=counts,
    )


def _locate(path: Path, chunk: Struct, first_page: int, end: int, rows: int) -> tuple[_Page, ...]:
    """
    Where the chunk's data pages are, by the page index; the chunk as one page when that does not tile it.

    A part without a page index, as older releases wrote it, has one page for each chunk here as well.
    """
    whole = (_Page(first_page, end - first_page, 0, rows),)
    offset, length = chunk.optional(4), chunk.optional(5)
    if not offset or not length:
        return whole
    with path.open("rb") as file:
        try:
            file.seek(offset)
            places = read_struct(file.read(max(length, 0)))[0].structs(1)
            found = [(place.integer(1), place.integer(2), place.optional(3) or 0) for place in places]
        except (ThriftError, OSError, ValueError):
            return whole
    bounds = [*(first for _, _, first in found), rows]
    place = first_page
    pages = []
    for (offset, size, first), following in zip(found, bounds[1:], strict=True):
        if offset != place or size <= 0 or following <= first:
            return whole
        pages.append(_Page(offset, size, first, following - first))
        place += size
    if not pages or place != end or pages[0].first_row:
        return whole
    return tuple(pages)


def _bad_pages(path: Path, chunks: Sequence[_Chunk]) -> dict[int, list[_BadPage]]:
    """By the chunk's place in the list; chunks without a bad page are left out."""
    found: dict[int, list[_BadPage]] = {}
    with path.open("rb") as file:
        for number, chunk in enumerate(chunks):
            bad: list[_BadPage] = []
            encodings: dict[int, int] = {}
            file.seek(chunk.start)
            content = file.read(chunk.size)

            def bytes_of(page: _Page, content: bytes = content, start: int = chunk.start) -> bytes:
                return content[page.offset - start : page.offset - start + page.size]

            dictionary = "" if chunk.dictionary is None else _why_bad(bytes_of(chunk.dictionary), None)[0]
            for page in chunk.pages:
                reason, encoding = _why_bad(bytes_of(page), page.rows)
                encodings[encoding] = encodings.get(encoding, 0) + 1
                if not reason and dictionary and encoding in {_PLAIN_DICTIONARY, _RLE_DICTIONARY}:
                    reason = f"the column's dictionary {dictionary}"
                elif reason:
                    reason = f"its page {reason}"
                if reason:
                    bad.append(_BadPage(page, reason))
            if not bad and encodings != chunk.encodings:
                bad = [_BadPage(page, "its pages are not encoded as the footer says") for page in chunk.pages]
            if bad:
                found[number] = bad
    return found


def _why_bad(content: bytes, rows: int | None) -> tuple[str, int]:
    """
    Why a page is not whole, empty when it is; and the encoding that it names, or -1.

    Without ``rows`` it is a dictionary.
    """
    try:
        header, length = read_struct(content)
        kind, compressed = header.integer(1), header.integer(3)
        crc = header.optional(4)
        detail = header.struct(7 if rows is None else 5)
        values, encoding = detail.integer(1), detail.integer(2)
        levels = (_RLE, _RLE) if rows is None else (detail.integer(3), detail.integer(4))
    except ThriftError as error:
        return f"has no readable header ({error})", -1
    if kind != (_DICTIONARY_PAGE if rows is None else _DATA_PAGE) or length + compressed != len(content):
        return "has another header than the index says", -1
    if rows is not None and values != rows:
        return "has another number of values than the index says", -1
    if levels != (_RLE, _RLE):
        return "has another header than this format's", -1
    if crc is None:
        return "has no checksum", encoding
    if zlib.crc32(content[length:]) != crc & 0xFFFFFFFF:
        return "fails its checksum", encoding
    return "", encoding


def _lost(path: Path, part: Part, chunks: Sequence[_Chunk], bad: dict[int, list[_BadPage]]) -> list[LostRows]:
    """The bad pages as stretches of rows with their times, in file order."""
    kinds = dict(zip(pq.read_schema(path).names, [None, *part.columns], strict=True))
    starts: dict[int, int] = {}
    total = 0
    for chunk in chunks:
        if chunk.column == 0:
            starts[chunk.group] = total
            total += chunk.rows
    times = _Times(path, part, chunks, bad)
    lost = []
    for number, pages in bad.items():
        chunk = chunks[number]
        column = kinds.get(chunk.name)
        field = column.name if column is not None and column.role is Role.FIELD else None
        for entry in pages:
            first, last = times.of(chunk.group, entry.page)
            lost.append(
                LostRows(
                    path=part.path,
                    first_row=starts[chunk.group] + entry.page.first_row,
                    rows=entry.page.rows,
                    min_time=first,
                    max_time=last,
                    column=field,
                    reason=entry.reason,
                )
            )
    return sorted(lost, key=lambda entry: (entry.first_row, entry.column or ""))


class _Times:
    """The times of rows whose own page of times is whole, else the bounds that the footer notes."""

    def __init__(self, path: Path, part: Part, chunks: Sequence[_Chunk], bad: dict[int, list[_BadPage]]) -> None:
        self._part = part
        self._path = path
        self._damaged = {chunks[number].group for number in bad if chunks[number].column == 0}
        self._read: dict[int, pa.Array] = {}

    def of(self, group: int, page: _Page) -> tuple[int, int]:
        """The least and the greatest time of a page's rows."""
        if group in self._damaged:
            return self._noted(group)
        times = self._read.get(group)
        if times is None:
            try:
                with pq.ParquetFile(self._path) as file:
                    column = file.read_row_group(group, columns=[TIME]).column(0)
            except (pa.ArrowException, OSError):
                return self._noted(group)
            times = self._read.setdefault(group, pa.chunked_array(column).combine_chunks().cast(pa.int64()))
        bounds = pc.min_max(times.slice(page.first_row, page.rows)).as_py()
        return int(bounds["min"]), int(bounds["max"])

    def _noted(self, group: int) -> tuple[int, int]:
        try:
            noted = pq.read_metadata(self._path).row_group(group).column(0).statistics
            first, last = noted.min_raw, noted.max_raw
        except (pa.ArrowException, OSError, AttributeError):
            return self._part.min_time, self._part.max_time
        if not self._part.min_time <= first <= last <= self._part.max_time:
            return self._part.min_time, self._part.max_time
        return int(first), int(last)


def _mended(path: Path, chunk: _Chunk, bad: Sequence[_BadPage]) -> bytes:
    """The chunk's bytes with each bad page replaced by one of nulls, and what is then left over at its end."""
    broken = {entry.page.offset: entry.page for entry in bad}
    uses_dictionary = len(broken) < len(chunk.pages)
    with path.open("rb") as file:
        pieces: list[bytes] = []
        if chunk.dictionary is not None and uses_dictionary:
            file.seek(chunk.dictionary.offset)
            pieces.append(file.read(chunk.dictionary.size))
        for page in chunk.pages:
            file.seek(page.offset)
            pieces.append(_null_page(page.rows, chunk.nullable) if page.offset in broken else file.read(page.size))
    mended = b"".join(pieces)
    if len(mended) > chunk.size:  # pages of a few values: a page of nulls takes more than they did
        mended = _null_page(chunk.rows, chunk.nullable)
    if len(mended) > chunk.size:
        raise IntegrityError(f"the column {chunk.name!r} has no room for the mark that it is lost.", kind="digest")
    return mended.ljust(chunk.size, b"\0")


def _null_page(rows: int, nullable: bool) -> bytes:
    """A data page of nulls; of zeros where the column cannot be null."""
    if nullable:
        run = encode_varint(rows << 1) + b"\0"
        payload = struct.pack("<I", len(run)) + run
    else:
        payload = bytes(8 * rows)
    packed = zstandard.ZstdCompressor(level=1).compress(payload)
    detail = {1: rows, 2: _PLAIN, 3: _RLE, 4: _RLE}
    return encode_struct({1: _DATA_PAGE, 2: len(payload), 3: len(packed), 5: detail}) + packed


def _rows_left(
    scratch: Path, part: Part, chunks: Sequence[_Chunk], bad: dict[int, list[_BadPage]]
) -> Iterator[pa.RecordBatch]:
    keys = {0, *(n for n, column in enumerate(part.columns, start=1) if column.role is Role.TAG)}
    fields = [n for n, column in enumerate(part.columns, start=1) if column.role is Role.FIELD]
    touched = {chunks[number].column for number in bad}
    counted = dict.fromkeys(range(1, len(part.columns) + 1), 0)
    try:
        metadata = pq.read_metadata(scratch)
        schema = metadata.schema.to_arrow_schema().remove_metadata()
        with pq.ParquetFile(scratch, metadata=metadata, read_dictionary=encoded_texts(scratch, metadata)) as file:
            for group in range(metadata.num_row_groups):
                read = file.read_row_group(group).to_batches()
                texts = [stretch for batch in read for stretch in with_texts(batch, schema, part.path)]
                table = pa.Table.from_batches(texts, schema)
                for n in fields:
                    counted[n] += len(table) - table.column(n).null_count
                gone = [
                    entry.page
                    for number, pages in bad.items()
                    if chunks[number].group == group and chunks[number].column in keys
                    for entry in pages
                ]
                left = _without(table, gone, fields)
                for batch in left.combine_chunks().to_batches():
                    yield from sliced(batch.replace_schema_metadata(None), SLICE_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(
            f"{part.path} has pages that are whole and cannot be decoded: {error}", kind="digest"
        ) from error
    said = {(count.name, count.type): count.count for count in part.counts}
    for n in fields:
        column = part.columns[n - 1]
        if n not in touched and counted[n] != said.get((column.name, column.type), 0):
            raise IntegrityError(
                f"{part.path} gives {counted[n]} values of {printable(column.name)!r}, the manifest says "
                f"{said.get((column.name, column.type), 0)}.",
                kind="digest",
            )


def _without(table: pa.Table, gone: Sequence[_Page], fields: Sequence[int]) -> pa.Table:
    """The table without the rows of these pages, and without rows that have no value."""
    has_value = None
    for n in fields:
        valid = pc.is_valid(table.column(n))
        has_value = valid if has_value is None else pc.or_(has_value, valid)
    mask = has_value if has_value is not None else pa.chunked_array([pa.array([True] * len(table))])
    for page in gone:
        rows = pa.array(range(len(table)), pa.int64())
        outside = pc.or_(pc.less(rows, page.first_row), pc.greater_equal(rows, page.first_row + page.rows))
        mask = pc.and_(mask, outside)
    return table.filter(mask)
