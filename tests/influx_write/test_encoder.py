"""The vectorised encoder against a plain one, and the bounds of its stretches."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.columns import arrow_schema
from influxdb_backup.errors import UnrepresentableError
from influxdb_backup.influx.dialect import DIALECT_1X, DIALECT_2X
from influxdb_backup.influx.line_protocol import Lines, encode, join_lines, unrepresentable
from influxdb_backup.influx.protocol import Conflict, WriteOptions
from influxdb_backup.model import InfluxType
from tests.influx_write.support import Rows, batch_of, field, tag

COLUMNS = [
    tag("z tag"),
    tag("a,=tag"),
    field("f"),
    field("i", InfluxType.INTEGER),
    field("u", InfluxType.UNSIGNED),
    field("b", InfluxType.BOOLEAN),
    field('s" s', InfluxType.STRING),
]
TEXT = st.text(st.sampled_from('ab ,="\\\né'), max_size=5)
TAGS = TEXT.filter(lambda text: "\n" not in text and not text.endswith("\\"))
POINTS = st.lists(
    st.tuples(
        st.integers(-(2**63) + 2, 2**63 - 2),
        st.fixed_dictionaries({"z tag": st.none() | TAGS, "a,=tag": st.sampled_from([None, "one", "two"])}),
        st.fixed_dictionaries(
            {
                "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "i": st.none() | st.integers(-(2**63), 2**63 - 1),
                "u": st.none() | st.integers(0, 2**64 - 1),
                "b": st.none() | st.booleans(),
                's" s': st.none() | TEXT,
            }
        ),
    ),
    max_size=30,
)


def plain(points: Rows) -> list[bytes]:
    """The lines, written one value at a time; floats by their exact value."""
    lines = []
    for time, tags, fields in points:
        key = "m\\ 1"
        for name in sorted(tags):
            if tags[name]:
                key += "," + re.sub("([,= ])", r"\\\1", name) + "=" + re.sub("([,= ])", r"\\\1", str(tags[name]))
        values = []
        for name, value in fields.items():
            if value is None:
                continue
            text = f"{value!r}"
            if isinstance(value, bool):
                text = str(value).lower()
            elif isinstance(value, int):
                text += name
            elif isinstance(value, str):
                text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
            values.append(re.sub('([,= "])', r"\\\1", name) + "=" + text)
        if values:
            lines.append(f"{key} {','.join(sorted(values))} {time}\n".encode())
    return lines


def split(parts: list[Lines]) -> list[bytes]:
    """The lines of all stretches, with their fields in order of name and floats as Python writes them."""
    lines = []
    for part in parts:
        start = 0
        for end in part.ends.tolist():
            lines.append(normal(part.body[start:end]))
            start = end
        assert start == len(part.body)
    return lines


def normal(line: bytes) -> bytes:
    """One line with its fields sorted and its float rewritten."""
    key, fields, time = re.fullmatch(rb"((?:\\[,= ]|[^ ])+) (.*) (-?\d+\n)", line, re.DOTALL).groups()
    parts = re.findall(rb'(?:\\.|[^\\=,])+=(?:"(?:\\.|[^\\"])*"|[^,]*)', fields, re.DOTALL)
    assert b",".join(parts) == fields
    parts = [b"f=" + repr(float(part[2:])).encode() if part.startswith(b"f=") else part for part in parts]
    return key + b" " + b",".join(sorted(parts)) + b" " + time


@given(POINTS, st.integers(0, 5), st.integers(1, 9), st.integers(1, 400))
def test_the_encoder_writes_what_a_plain_one_writes(points: list, skip: int, lines: int, size: int) -> None:
    """Whatever the nulls, the slice and the bounds: the same lines in the same order, in stretches within bounds."""
    batch = batch_of(COLUMNS, points).slice(skip)
    options = WriteOptions(batch_lines=lines, batch_bytes=size)
    parts = list(encode("m 1", batch, DIALECT_2X, options))
    wanted = plain(points[skip:])
    assert split(parts) == [normal(line) for line in wanted]
    assert all(0 < len(part) <= lines for part in parts)
    counts = [sum(value is not None for value in fields.values()) for _, _, fields in points[skip:]]
    assert sum(part.values for part in parts) == sum(counts)
    if parts:
        whole = join_lines(parts)
        assert whole.body == b"".join(part.body for part in parts)
        assert split([whole.part(0, 1), whole.part(1, len(whole))]) == split(parts)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.integers(100, 5000))
def test_stretches_are_bounded_in_bytes(lengths: list[int], size: int) -> None:
    """A stretch exceeds the bound in bytes only when it is a single line."""
    columns = [field("s", InfluxType.STRING)]
    batch = batch_of(columns, [(time, {}, {"s": 'x"'[time % 2] * length}) for time, length in enumerate(lengths)])
    parts = list(encode("m", batch, DIALECT_1X, WriteOptions(batch_bytes=size)))
    assert sum(map(len, parts)) == len(lengths)
    assert all(len(part.body) <= size or len(part) == 1 for part in parts)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_are_exact(values: list[float]) -> None:
    """The decimal form of a float reads back to the same bits."""
    batch = batch_of([field("f")], [(time, {}, {"f": value}) for time, value in enumerate(values)])
    (lines,) = encode("m", batch, DIALECT_1X, WriteOptions(batch_lines=10**6))
    found = [float(line.split(b"=")[1].split(b" ")[0]) for line in lines.body.splitlines()]
    assert [math.copysign(1, value) for value in found] == [math.copysign(1, value) for value in values]
    assert found == values


def test_tags_need_not_be_dictionaries_of_what_occurs() -> None:
    """Unused and null entries of a dictionary, plain columns and large strings are the same to the encoder."""
    columns = [tag("t"), tag("p"), field("s", InfluxType.STRING)]
    schema = arrow_schema(columns)
    dictionary = pa.DictionaryArray.from_arrays(pa.array([1, 0, 3, None], pa.int32()), ["a", "b", "never\n\\", None])
    arrays = [
        pa.array([1, 2, 3, 4], pa.int64()).cast(schema.field(0).type),
        dictionary,
        pa.array(["x", None, "", "y y"]),
        pa.array(["1", "2", "3", "4"], pa.large_string()),
    ]
    fields = [f.with_type(array.type) for f, array in zip(schema, arrays, strict=True)]
    batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    (lines,) = encode("m", batch, DIALECT_1X, WriteOptions())
    assert lines.body.splitlines() == [b'm,p=x,t=b s="1" 1', b'm,t=a s="2" 2', b'm s="3" 3', b'm,p=y\\ y s="4" 4']


@pytest.mark.parametrize(
    ("columns", "rows", "conflict"),
    [
        ([tag("t"), field("v")], [(1, {"t": "a\nb"}, {"v": 1.0})], Conflict.TAG_VALUE),
        ([tag("t"), field("v")], [(1, {"t": b"\xff\\"}, {"v": 1.0})], Conflict.TAG_VALUE),
        ([field("v")], [(1, {}, {"v": math.nan})], Conflict.FIELD_VALUE),
        ([field("v")], [(1, {}, {"v": -math.inf})], Conflict.FIELD_VALUE),
        ([field("v"), field("v", InfluxType.INTEGER)], [(1, {}, {"v": 1})], Conflict.FIELD_TYPE),
        ([tag("time"), field("v")], [(1, {"time": "x"}, {"v": 1.0})], Conflict.TAG_KEY),
        ([field("time")], [(1, {}, {"time": 1.0})], Conflict.FIELD_KEY),
        ([field("u", InfluxType.UNSIGNED)], [(1, {}, {"u": 1})], Conflict.FIELD_TYPE),
    ],
)
def test_what_cannot_be_carried_is_named(columns: list, rows: list, conflict: Conflict) -> None:
    """Names, types and values that would be altered or lost are found in a batch, and encode refuses them."""
    batch = batch_of(columns, rows)
    (found,) = unrepresentable("m", columns, batch, DIALECT_1X, WriteOptions())
    assert (found.conflict, found.name) == (conflict, columns[-1 if conflict.value.startswith("field") else 0].name)
    with pytest.raises(UnrepresentableError, match=re.escape(found.reason[:20])):
        list(encode("m", batch, DIALECT_1X, WriteOptions()))


def test_two_types_of_a_field_in_different_rows_are_fine() -> None:
    """Only a point that has a field in two types cannot be carried."""
    columns = [field("v"), field("v", InfluxType.INTEGER)]
    schema = arrow_schema(columns)
    arrays = [pa.array([1, 2]).cast(schema.field(0).type), pa.array([1.5, None]), pa.array([None, 2], pa.int64())]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    (lines,) = encode("m", batch, DIALECT_1X, WriteOptions())
    assert lines.body == b"m v=1.5 1\nm v=2i 2\n"


def test_names_of_columns_without_values_do_not_matter_when_writing() -> None:
    """A column that holds nothing in a batch is not written and so cannot stop the batch."""
    columns = [tag("time"), field("v"), field("w\\")]
    batch = batch_of(columns, [(1, {}, {"v": 1.0})])
    (lines,) = encode("m", batch, DIALECT_1X, WriteOptions())
    assert lines.body == b"m v=1 1\n"


def test_a_point_without_a_time_is_refused() -> None:
    """A null time would be written as the server's own clock."""
    schema = pa.schema([f.with_nullable(True) for f in arrow_schema([field("v")])])
    arrays = [pa.array([None], pa.int64()).cast(schema.field(0).type), pa.array([1.0])]
    with pytest.raises(UnrepresentableError, match="time"):
        list(encode("m", pa.RecordBatch.from_arrays(arrays, schema=schema), DIALECT_1X, WriteOptions()))


def test_an_empty_batch_gives_nothing() -> None:
    """No rows and rows without fields give no lines."""
    assert list(encode("m", batch_of(COLUMNS, []), DIALECT_2X, WriteOptions())) == []
    assert list(encode("m", batch_of(COLUMNS, [(1, {"z tag": "x"}, {})]), DIALECT_2X, WriteOptions())) == []


def test_a_high_number_of_series_is_encoded_in_columns() -> None:
    """A series a row costs no Python per row: 200,000 rows in a few seconds at most."""
    rows = 200_000
    names = pa.array([f"host,{number}" for number in range(rows)])
    schema = arrow_schema([tag("t"), field("v")])
    order = np.random.default_rng(1).permutation(rows).astype(np.int32)
    arrays = [
        pa.array(np.arange(rows)).cast(schema.field(0).type),
        pa.DictionaryArray.from_arrays(pa.array(order), names),
        pa.array(np.arange(rows) / 2),
    ]
    parts = list(encode("m", pa.RecordBatch.from_arrays(arrays, schema=schema), DIALECT_1X, WriteOptions()))
    assert sum(map(len, parts)) == rows
    first = parts[0].body[: parts[0].ends[0]]
    assert first == f"m,t=host\\,{order[0]} v=0 0\n".encode()
