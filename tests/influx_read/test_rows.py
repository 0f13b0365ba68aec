"""Rows of an answer become Arrow arrays exactly, however they are decoded."""

from __future__ import annotations

import struct

import msgpack
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.influx import fast_rows
from influxdb_backup.influx import rows as plain_rows
from influxdb_backup.influx.reader import Walk
from influxdb_backup.influx.rows import NotUtf8Error, OtherTypeError, Rows, join, value_array
from influxdb_backup.model import InfluxType

both_ways = pytest.mark.parametrize("walk", [plain_rows.walk, fast_rows.walk], ids=["numpy", "compiled"])
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    InfluxType.FLOAT: st.floats(allow_nan=False, allow_infinity=False),
    InfluxType.INTEGER: st.one_of(st.integers(-200, 300), INT64),
    InfluxType.UNSIGNED: st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)),
    InfluxType.STRING: st.one_of(
        st.text(max_size=40).map(str.encode),
        st.sampled_from([b"\x9b\xd3" * 40, b"\x92\xd3", b"\x93\xd3\x00", b"", b"x" * 70_000]),
    ),
    InfluxType.BOOLEAN: st.booleans(),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[InfluxType], list[tuple[object, ...]]]:
    """Types of the fields, and rows of a time and one value or None for each."""
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=18))
    row = st.tuples(st.one_of(st.just(1_700_000_000_000_000_000), INT64), *(st.none() | VALUES[kind] for kind in kinds))
    return kinds, draw(st.lists(row, min_size=1, max_size=12))


def packed(rows: list[tuple[object, ...]]) -> bytes:
    """Rows as they follow each other in a document."""
    return b"".join(msgpack.packb(row, use_bin_type=False) for row in rows)


def bits(values: list[object]) -> list[object]:
    """Values that compare as their bits do: -0.0 is not 0.0."""
    return [struct.pack("<d", value) if isinstance(value, float) else value for value in values]


@both_ways
@given(table=tables(), garbage=st.binary(max_size=30))
def test_walked_rows_equal_the_rows_that_msgpack_decodes(
    walk: Walk, table: tuple[list[InfluxType], list[tuple[object, ...]]], garbage: bytes
) -> None:
    """Whatever stands in the values and behind the rows, the walk gives the same times and values, or none."""
    kinds, rows = table
    data = packed(rows) + garbage
    start = 0
    while start < len(rows):
        walked = walk(data, len(kinds) + 1, len(rows) - start)
        if walked is None:
            # Only too many candidates may refuse a whole row; such rows are decoded one by one.
            assert walk is plain_rows.walk
            assert data.count(data[:2]) > 4
            return
        assert walked.count >= 1
        part = rows[start : start + walked.count]
        assert walked.array(0, InfluxType.INTEGER).to_pylist() == [row[0] for row in part]
        for column, kind in enumerate(kinds, start=1):
            expected = [row[column] for row in part]
            assert bits(walked.array(column, kind, binary=True).to_pylist()) == bits(expected)
            assert walked.array(column, kind, binary=True).equals(value_array(expected, column, kind, binary=True))
        data = data[walked.end :]
        start += walked.count
    assert data == garbage


@both_ways
@given(table=tables(), data=st.data())
def test_a_row_that_is_cut_off_is_not_given(
    walk: Walk, table: tuple[list[InfluxType], list[tuple[object, ...]]], data: st.DataObject
) -> None:
    """Bytes that end inside of a row give only the whole rows before it."""
    kinds, rows = table
    whole = packed(rows)
    size = data.draw(st.integers(0, len(whole) - 1))
    walked = walk(whole[:size], len(kinds) + 1, len(rows))
    if walked is not None:
        assert walked.end <= size
        assert walked.count < len(rows)
        assert packed(rows[: walked.count]) == whole[: walked.end]


@both_ways
@pytest.mark.parametrize("last", [0, -33, 300, 2**63 - 1, -(2**63), 0.5, None, True, b"text", b"x" * 300])
def test_no_place_of_a_cut_is_overlooked(walk: Walk, last: object) -> None:
    """Rows of one to twelve fields, cut at every byte of the second one: only the first one is given."""
    for fields in range(1, 13):
        rows = [(1_700_000_000_000_000_000, *[value] * fields) for value in (None, last)]
        first, whole = len(packed(rows[:1])), packed(rows)
        for size in range(first + 1, len(whole)):
            walked = walk(whole[:size], fields + 1, 2)
            assert walked is None or (walked.count, walked.end) == (1, first), (fields, size)


def one(walk: Walk, value: object, kind: InfluxType) -> pa.Array:
    """A value alone in its row, as a column of this type."""
    rows = walk(msgpack.packb([1_700_000_000_000_000_000, value], use_bin_type=False), 2, 1)
    assert isinstance(rows, Rows)
    return rows.array(1, kind)


@both_ways
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, InfluxType.FLOAT),
        (1.0, InfluxType.INTEGER),
        (True, InfluxType.INTEGER),
        (1, InfluxType.BOOLEAN),
        (2**63, InfluxType.INTEGER),
        (-1, InfluxType.UNSIGNED),
        (-1000, InfluxType.UNSIGNED),
        (b"1", InfluxType.FLOAT),
        (1.0, InfluxType.STRING),
        (None, InfluxType.STRING),
    ],
)
def test_a_value_of_another_type_is_never_converted(walk: Walk, value: object, kind: InfluxType) -> None:
    """A marker of another type is an error in both ways of decoding; only nil fits every type."""
    if value is None:
        assert one(walk, value, kind).null_count == 1
        return
    with pytest.raises(OtherTypeError):
        one(walk, value, kind)
    with pytest.raises(OtherTypeError):
        value_array([value], 1, kind, binary=False)


@both_ways
def test_text_that_is_not_utf8_is_refused_unless_binary(walk: Walk) -> None:
    """Bytes are never replaced: a string column raises, a binary column keeps them."""
    rows = walk(msgpack.packb([1_700_000_000_000_000_000, b"\xff"], use_bin_type=False), 2, 1)
    assert rows is not None
    with pytest.raises(NotUtf8Error):
        rows.array(1, InfluxType.STRING)
    assert rows.array(1, InfluxType.STRING, binary=True).to_pylist() == [b"\xff"]
    with pytest.raises(NotUtf8Error):
        value_array([b"\xff"], 1, InfluxType.STRING, binary=False)


@both_ways
@given(table=tables(), cut=st.integers(0, 12))
def test_joined_rows_are_the_rows_of_the_pieces(
    walk: Walk, table: tuple[list[InfluxType], list[tuple[object, ...]]], cut: int
) -> None:
    """Pieces that are converted together give what each would give by itself."""
    kinds, rows = table
    pieces = [walk(packed(part), len(kinds) + 1, len(part)) for part in (rows[:cut], rows[cut:]) if part]
    found = [piece for piece in pieces if piece is not None]
    if [piece.count for piece in found] != [len(part) for part in (rows[:cut], rows[cut:]) if part]:
        assert walk is plain_rows.walk
        return
    joined = join(found)
    assert joined.count == len(rows)
    for column, kind in enumerate(kinds, start=1):
        assert joined.array(column, kind, binary=True).equals(
            value_array([row[column] for row in rows], column, kind, binary=True)
        )


@given(st.binary(max_size=300), st.integers(1, 20))
def test_no_bytes_lead_the_compiled_walk_astray(data: bytes, columns: int) -> None:
    """Whatever the bytes are, every row that is found lies within them and is what msgpack decodes there."""
    header = bytes([0x90 | columns]) if columns < 16 else b"\xdc" + columns.to_bytes(2, "big")
    found = fast_rows.walk(header + data, columns, 1000)
    if found is None:
        return
    assert found.end <= len(header + data)
    unpacker = msgpack.Unpacker(raw=True, use_list=False)
    unpacker.feed((header + data)[: found.end])
    assert [len(row) for row in unpacker] == [columns] * found.count
