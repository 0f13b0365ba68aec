"""The vectorised encoder against a plain one, and the bounds of its stretches."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influxdb_backup.columns import arrow_schema
from influxdb_backup.errors import UnrepresentableError
from influxdb_backup.fast import is_installed
from influxdb_backup.influx import arrow_lines
from influxdb_backup.influx.dialect import DIALECT_1X, DIALECT_2X
from influxdb_backup.influx.line_protocol import Renderer, encode, unrepresentable
from influxdb_backup.influx.lines import Lines, join_lines
from influxdb_backup.influx.protocol import Conflict, WriteOptions
from influxdb_backup.model import InfluxType
from tests.influx_write.support import Rows, batch_of, field, tag

RENDERERS: list[Renderer] = [arrow_lines.renderer]
if is_installed():
    from influxdb_backup.influx import fast_lines, line_kernels

    RENDERERS.append(fast_lines.renderer)
both_ways = pytest.mark.parametrize("make", RENDERERS, ids=["arrow", "compiled"][: len(RENDERERS)])

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


@both_ways
@given(POINTS, st.integers(0, 5), st.integers(1, 9), st.integers(1, 400))
def test_the_encoder_writes_what_a_plain_one_writes(
    make: Renderer, points: list, skip: int, lines: int, size: int
) -> None:
    """Whatever the nulls, the slice and the bounds: the same lines in the same order, in stretches within bounds."""
    batch = batch_of(COLUMNS, points).slice(skip)
    options = WriteOptions(batch_lines=lines, batch_bytes=size)
    parts = list(encode("m 1", batch, DIALECT_2X, options, make=make))
    wanted = plain(points[skip:])
    assert split(parts) == [normal(line) for line in wanted]
    assert all(0 < len(part) <= lines for part in parts)
    counts = [sum(value is not None for value in fields.values()) for _, _, fields in points[skip:]]
    assert sum(part.values for part in parts) == sum(counts)
    if parts:
        whole = join_lines(parts)
        assert whole.body == b"".join(part.body for part in parts)
        assert split([whole.part(0, 1), whole.part(1, len(whole))]) == split(parts)


@both_ways
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.integers(100, 5000))
def test_stretches_are_bounded_in_bytes(make: Renderer, lengths: list[int], size: int) -> None:
    """A stretch exceeds the bound in bytes only when it is a single line."""
    columns = [field("s", InfluxType.STRING)]
    batch = batch_of(columns, [(time, {}, {"s": 'x"'[time % 2] * length}) for time, length in enumerate(lengths)])
    parts = list(encode("m", batch, DIALECT_1X, WriteOptions(batch_bytes=size), make=make))
    assert sum(map(len, parts)) == len(lengths)
    assert all(len(part.body) <= size or len(part) == 1 for part in parts)


DECIMALS = st.builds(
    lambda digits, ten, sign: float(f"{sign}{digits}e{ten}"),
    st.integers(0, 10**17),
    st.integers(-330, 290),
    st.sampled_from(["", "-"]),
)
SHORT = st.builds(
    lambda digits, places: digits / 10.0**places,
    st.integers(-(10**16), 10**16) | st.integers(-9999, 9999),
    st.integers(0, 16),
)
BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", bits.to_bytes(8, "little"))[0])
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | DECIMALS | SHORT | BITS.filter(math.isfinite)


def float_texts(values: Sequence[float] | np.ndarray, make: Renderer) -> list[bytes]:
    """The decimal form of each float, in the lines of one batch."""
    schema = arrow_schema([field("f")])
    arrays = [pa.array(np.arange(len(values))).cast(schema.field(0).type), pa.array(values, pa.float64())]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    options = WriteOptions(batch_lines=10**7, batch_bytes=2**30)
    (lines,) = encode("m", batch, DIALECT_1X, options, make=make)
    return [line.split(b"=")[1].split(b" ")[0] for line in bytes(lines.body).splitlines()]


@both_ways
@settings(max_examples=300)
@given(st.lists(FLOATS, min_size=1))
def test_floats_are_exact(make: Renderer, values: list[float]) -> None:
    """The decimal form of a float reads back to the same bits and has no more digits than Python's."""
    texts = float_texts(values, make)
    assert [struct.pack("<d", float(text)) for text in texts] == [struct.pack("<d", value) for value in values]
    for text, value in zip(texts, values, strict=True):
        digits = [str(form).lower().partition("e")[0].replace(".", "").strip("-0") for form in (text.decode(), value)]
        assert len(digits[0]) <= len(digits[1])


def hostile_floats() -> Iterator[np.ndarray]:
    """Powers of two and ten with their neighbours, subnormal, long, short and huge ones."""
    random = np.random.default_rng(1)
    twos, tens = np.ldexp(1.0, np.arange(-1074, 1024)), np.array([float(f"1e{power}") for power in range(-323, 309)])
    for edges in (twos, tens):
        yield from (edges, -edges, np.nextafter(edges, 0), np.nextafter(edges[:-1], np.inf))
    yield np.array([0.0, -0.0, 2.0**53 - 1, 2.0**53, 1e15 - 0.125, 1e8, 99999999.99999999, 1e-6, 9.999999999999999e-7])
    yield random.integers(1, 2**52, 50_000).view(np.float64)
    yield np.arange(1, 20_000).view(np.float64)
    bits = random.integers(0, 2**64, 500_000, np.uint64).view(np.float64)
    yield bits[np.isfinite(bits)]
    for places in range(17):
        yield np.round(random.normal(0, 10.0 ** random.uniform(-3, 12, 20_000)), places)
        yield random.integers(-(10**15), 10**15, 20_000) / 10.0**places
    yield np.tile([-1.5, 0.0, -0.0, 0.25, 99999999.5, -99999999.0, 100000000.0, 12345678.0, 0.0000125], 200)
    yield np.where(random.random(50_000) < 0.5, random.random(50_000), np.round(random.random(50_000), 3))


@pytest.mark.skipif(len(RENDERERS) < 2, reason="lacks compiled loops")
def test_compiled_floats_are_those_of_arrow() -> None:
    """A million floats of every kind have the same bytes, whichever way they are written."""
    for values in hostile_floats():
        arrow, compiled = (float_texts(values, make) for make in RENDERERS)
        assert arrow == compiled
        assert np.array_equal(np.array([float(text) for text in compiled]).view(np.uint64), values.view(np.uint64))


def hostile_integers() -> np.ndarray:
    """Powers of ten with their neighbours, both signs, the ends of the range, and random ones of every length."""
    random = np.random.default_rng(1)
    edges = [10**power + step for power in range(19) for step in (-1, 0, 1)] + [0, 2**63 - 1, 2**63 - 2]
    many = [random.integers(0, 10**power, 5_000) for power in range(1, 19)]
    values = np.concatenate([np.array(edges), *many])
    return random.permutation(np.concatenate([values, -values, [-(2**63)]]))


@both_ways
@pytest.mark.parametrize("kind", [InfluxType.INTEGER, InfluxType.UNSIGNED])
@pytest.mark.parametrize("nulls", [False, True])
def test_integers_are_exact(make: Renderer, kind: InfluxType, nulls: bool) -> None:
    """Two hundred thousand integers are what Python writes, whatever lies under those that are null."""
    values = hostile_integers()
    if kind is InfluxType.UNSIGNED:
        values = values.view(np.uint64)
    left_out = np.random.default_rng(2).random(len(values)) < 0.3 * nulls
    rest = np.where(left_out, np.nan, 0.5)
    columns = [field("n", kind), field("x"), field("z", InfluxType.BOOLEAN)]
    schema = arrow_schema(columns)
    arrays = [
        pa.array(np.arange(len(values))).cast(schema.field(0).type),
        pa.array(values, mask=left_out),
        pa.array(rest, mask=left_out),
        pa.array(np.ones(len(values), np.bool_)),
    ]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    options = WriteOptions(batch_lines=10**7, batch_bytes=2**30)
    (lines,) = encode("m", batch, DIALECT_2X, options, make=make)
    suffix = "i" if kind is InfluxType.INTEGER else "u"
    form = "m z=true,n={},x=0.5 {}" if nulls else "m n={},x=0.5,z=true {}"  # what no point lacks comes first
    assert bytes(lines.body).decode().splitlines() == [
        f"m z=true {row}" if null else form.format(f"{value}{suffix}", row)
        for row, (value, null) in enumerate(zip(values.tolist(), left_out.tolist(), strict=True))
    ]


@pytest.mark.skipif(len(RENDERERS) < 2, reason="lacks compiled loops")
@settings(max_examples=200)
@given(POINTS, st.integers(0, 5), st.integers(1, 9), st.integers(1, 400))
def test_both_ways_write_the_same_bytes(points: list, skip: int, lines: int, size: int) -> None:
    """Bodies, ends and numbers of fields do not depend on whether loops are compiled."""
    batch, options = batch_of(COLUMNS, points).slice(skip), WriteOptions(batch_lines=lines, batch_bytes=size)
    found = [
        [
            (part.body, part.ends.tolist(), part.fields.tolist())
            for part in encode("m", batch, DIALECT_2X, options, make=make)
        ]
        for make in RENDERERS
    ]
    assert found[0] == found[1]


@both_ways
def test_the_longest_lines_fit_their_bounds(make: Renderer) -> None:
    """Numbers of the greatest length in many fields do not outgrow the room that is kept for them."""
    longest = {
        InfluxType.FLOAT: [-1.2345678901234567e-06, -2.2250738585072014e-308],
        InfluxType.INTEGER: [-(2**63), -(2**63)],
        InfluxType.UNSIGNED: [2**64 - 1, 2**64 - 1],
        InfluxType.BOOLEAN: [False, False],
        InfluxType.STRING: ["", '"' * 9],
    }
    kinds = list(longest) * 40
    columns = [field(f"f{number}", kind) for number, kind in enumerate(kinds)]
    rows = [
        (-(2**63) + 2 + row, {}, {column.name: longest[kind][row] for column, kind in zip(columns, kinds, strict=True)})
        for row in range(2)
    ]
    (lines,) = encode("m", batch_of(columns, rows), DIALECT_2X, WriteOptions(), make=make)
    first, second, last = bytes(lines.body).split(b"\n")
    assert not last
    assert first.startswith(b"m f0=-0.0000012345678901234567,f1=-9223372036854775808i,")
    assert first.count(b"=") == second.count(b"=") == len(columns)
    assert second.endswith(b" -9223372036854775805")


@pytest.mark.skipif(len(RENDERERS) < 2, reason="lacks compiled loops")
def test_the_loop_is_compiled_once() -> None:
    """Whatever the columns are: what ``warm`` compiled is enough."""
    fast_lines.exercise()
    batch = batch_of(COLUMNS, [(time, {"z tag": "x"}, {"f": 0.5, "b": True, "u": 1, 's" s': "y"}) for time in range(9)])
    for part in (batch, batch.slice(3), batch.select([0, 3]), batch.select([0, 1, 6, 7])):
        assert list(encode("m", part, DIALECT_2X, WriteOptions(), make=fast_lines.renderer))
    assert len(line_kernels.put_lines.signatures) == 1


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
    assert bytes(lines.body).splitlines() == [
        b'm,p=x,t=b s="1" 1',
        b'm,t=a s="2" 2',
        b'm s="3" 3',
        b'm,p=y\\ y s="4" 4',
    ]


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
