"""What the writer writes, a real server gives back, to the bit; what it would not, is refused by name before."""

from __future__ import annotations

import math
import struct
import urllib.request
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from influxdb_backup.influx.dialect import (
    DIALECT_1X,
    DIALECT_2X,
    dialect_1x,
    escape_field_key,
    escape_measurement,
    escape_tag,
)
from influxdb_backup.influx.line_protocol import unrepresentable
from influxdb_backup.influx.protocol import Dialect, WriteOptions
from influxdb_backup.influx.writer import LineProtocolWriter
from influxdb_backup.model import Column, InfluxType, Role, encode_name
from influxdb_backup.shard_groups import DEFAULT_DURATION
from tests.influx_write.support import batch_of, field, read_points, sender, tag
from tests.servers import RunningServer

ALPHABET = "\\,= \"#\t\x00\n'a_é😀\r\udcff"
NAMES = st.text(st.sampled_from(ALPHABET), max_size=6) | st.text(max_size=4).filter(
    lambda text: all(not "\ud800" <= c <= "\udfff" for c in text)
)
STRINGS = st.text(st.sampled_from(ALPHABET), max_size=8).map(encode_name)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
TIMES = st.integers(-(2**63) + 2, 2**63 - 2)
OPTIONS = WriteOptions(retry_seconds=5)


def dialect_of(server: RunningServer) -> Dialect:
    """The dialect of the server's generation."""
    if server.generation == 2:
        return DIALECT_2X
    with urllib.request.urlopen(server.url + "/ping") as reply:
        return dialect_1x(reply.headers["X-Influxdb-Version"])


def new_database(server: RunningServer) -> str:
    """A database of its own for an example."""
    name = f"w{uuid4().hex[:12]}"
    server.create_database(name)
    return name


def bits(value: object) -> object:
    """Floats by their bits, so that -0.0 is not 0.0 and 1.0 is not 1."""
    return ("float", struct.pack(">d", value)) if isinstance(value, float) else (type(value).__name__, value)


@pytest.fixture
def any_database(any_influx: RunningServer) -> tuple[RunningServer, str]:
    """A server and an empty database on it."""
    return any_influx, new_database(any_influx)


@settings(max_examples=12)
@given(st.lists(NAMES, min_size=1, max_size=25, unique=True))
@example(["#lost", "a\\", "a\\,b", "a\\ b", "a\\=b", 'a\\"b', "a=b", 'a"b', " lead", "trail ", "\tx", "\x00x", "x\x00"])
@example(["_series", "_fieldKeys", "_tagKeys", "_tagKey", "_measurements", "_tags", "_name", "time", "_field", "_x"])
def test_measurement_names_round_trip(any_influx: RunningServer, names: list[str]) -> None:
    """Every measurement name that is not refused comes back as the same bytes."""
    dialect = dialect_of(any_influx)
    database = new_database(any_influx)
    expected = set()
    with LineProtocolWriter(sender(any_influx, database), dialect, OPTIONS, shard_duration=DEFAULT_DURATION) as writer:
        for number, name in enumerate(names):
            batch = batch_of([field("v")], [(number, {}, {"v": 1.5})])
            if not unrepresentable(name, [field("v")], batch, dialect, OPTIONS):
                writer.write(name, batch)
                expected.add((encode_name(name), frozenset(), number))
    assert set(read_points(any_influx, database)) == expected


@settings(max_examples=25)
@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=12))
@example([("k", "v\\", "f"), ("a\\,b", "a\\=b", "a\\,b"), ('a"b', 'a\\"b', 'a\\"b'), ("a\\\\", "\\\\ ", "a\\\\,b")])
@example([("_field", "x", "_field"), ("_measurement", "x", "y"), ("time", "x", "time"), ("\x00", "y", "\x00")])
@example([("\udcff", "\udcff", "\udcff"), (" k", " v", " f"), ("\tk", "\tv", "\tf"), ("#k", "#v", "#f")])
@example([("\x00k", "\x00", "a\x00b"), ("k\x00", "\x00v", "v\x00"), ("_time", "", "_value"), ("\r", "\r", "\r")])
def test_tags_and_field_keys_round_trip(any_influx: RunningServer, names: list[tuple[str, str, str]]) -> None:
    """Every tag key, tag value and field key that is not refused comes back as the same bytes."""
    dialect = dialect_of(any_influx)
    database = new_database(any_influx)
    expected = {}
    with LineProtocolWriter(sender(any_influx, database), dialect, OPTIONS, shard_duration=DEFAULT_DURATION) as writer:
        for number, (key, value, field_key) in enumerate(names):
            columns = [tag(key), field(field_key, InfluxType.INTEGER)]
            batch = batch_of(columns, [(number, {key: encode_name(value)}, {field_key: number})])
            if not unrepresentable(f"m{number}", columns, batch, dialect, OPTIONS):
                writer.write(f"m{number}", batch)
                tags = frozenset({(encode_name(key), encode_name(value))} if value else ())
                expected[f"m{number}".encode(), tags, number] = {encode_name(field_key): number}
    found = {}
    for number in range(len(names)):
        found.update(read_points(any_influx, database, f'"m{number}"'))
    assert found == expected


FIELDS = [
    field("f"),
    field("i", InfluxType.INTEGER),
    field("b", InfluxType.BOOLEAN),
    field("s", InfluxType.STRING),
]
POINTS = st.lists(
    st.tuples(
        TIMES,
        st.fixed_dictionaries({"host": st.sampled_from(["a", "b c", None]), "site": st.sampled_from(["x", None])}),
        st.fixed_dictionaries(
            {
                "f": st.none() | FLOATS,
                "i": st.none() | INTEGERS,
                "b": st.none() | st.booleans(),
                "s": st.none() | STRINGS,
            }
        ),
    ),
    max_size=40,
    unique_by=lambda point: (point[0], frozenset(point[1].items())),
)


@settings(max_examples=25)
@given(POINTS, st.integers(1, 7))
@example(
    [
        (-(2**63) + 2, {}, {"f": -0.0, "i": -(2**63), "b": False, "s": b""}),
        (2**63 - 2, {}, {"f": 5e-324, "i": 2**63 - 1, "b": True, "s": b"a\nb\r\n# c\x00\xff\\"}),
        (0, {}, {"f": math.nextafter(math.inf, 0)}),
        (1, {}, {"f": 1e16}),
        (2, {}, {"f": -2.2250738585072014e-308}),
        (3, {}, {}),
    ],
    2,
)
def test_values_round_trip(any_influx: RunningServer, points: list, lines: int) -> None:
    """Values, absent fields, absent tags and extreme times come back to the bit; a row without fields is no point."""
    database = new_database(any_influx)
    options = WriteOptions(retry_seconds=5, batch_lines=lines)
    columns = [tag("host"), tag("site"), *FIELDS]
    with LineProtocolWriter(
        sender(any_influx, database), dialect_of(any_influx), options, shard_duration=DEFAULT_DURATION
    ) as writer:
        writer.write("m", batch_of(columns, points))
    expected = {
        (b"m", frozenset((k.encode(), v.encode()) for k, v in tags.items() if v), time): {
            name.encode(): bits(value) for name, value in fields.items() if value is not None
        }
        for time, tags, fields in points
        if any(value is not None for value in fields.values())
    }
    found = {
        key: {name: bits(value) for name, value in fields.items()}
        for key, fields in read_points(any_influx, database, '"m"').items()
    }
    assert found == expected
    assert writer.result.rows == len(expected)
    assert writer.result.values == sum(map(len, expected.values()))


REFUSED_MEASUREMENTS = [
    *("#x", "a\\", "a\\,b", "a\\ b", "a\\=b", 'a\\"b', "\tx", "\x00x", "a\nb", "", "_series", "_fieldKeys", "_tagKeys")
]
REFUSED_TAG_KEYS = ["k\\", "a\nb", "", "time"]
REFUSED_FIELD_KEYS = ["a\\", "a\\,b", "a\\ b", "a\\=b", "a\\\\\\,b", "\tx", "\x00x", "\x00", "time", "a\nb", ""]


def test_what_is_refused_would_be_lost(any_influx: RunningServer) -> None:
    """No name is refused for nothing: sent all the same, none of these comes back as it was on any server."""
    dialect = dialect_of(any_influx)
    tag_keys = [*REFUSED_TAG_KEYS, *(dialect.reserved_tag_keys - {"time"})]
    cases = [
        *((name, [field("v")], escape_measurement(name) + b" v=1 1") for name in REFUSED_MEASUREMENTS),
        *(("m", [tag(name), field("v")], b"m," + escape_tag(name) + b"=x v=1 1") for name in tag_keys),
        *(("m", [field(name)], b"m " + escape_field_key(name) + b"=1 1") for name in REFUSED_FIELD_KEYS),
    ]
    for measurement, columns, line in cases:
        assert unrepresentable(measurement, columns, None, dialect, OPTIONS), (measurement, columns)
        database = new_database(any_influx)
        sender(any_influx, database)(line)
        tags = frozenset((encode_name(column.name), b"x") for column in columns[:-1])
        expected = {(encode_name(measurement), tags, 1): {encode_name(columns[-1].name): 1.0}}
        assert read_points(any_influx, database) != expected, line


def test_only_new_1x_versions_limit_strings() -> None:
    """The limit of 1 MiB came with 1.9.4; an unknown version is taken for a new one."""
    assert dialect_1x("1.6.7~rc0").max_string_bytes is None
    assert dialect_1x("1.8.10").max_string_bytes is dialect_1x("1.9.3").max_string_bytes is None
    assert dialect_1x("1.9.4").max_string_bytes == dialect_1x("1.12.4").max_string_bytes == 2**20
    assert dialect_1x("unknown").max_string_bytes == 2**20


def test_only_old_1x_versions_need_utf8_names() -> None:
    """1.6.7 hides a shard with another measurement or field after a restart, 1.12.4 does not."""
    assert dialect_1x("1.6.7~rc0").utf8_names
    assert dialect_1x("1.11.8").utf8_names
    assert not dialect_1x("1.12.4").utf8_names
    assert not dialect_1x("unknown").utf8_names


def test_unsigned_values_round_trip_on_2x(influx2: RunningServer) -> None:
    """2.x takes unsigned values to their limit."""
    database = new_database(influx2)
    batch = batch_of([field("u", InfluxType.UNSIGNED)], [(1, {}, {"u": 2**64 - 1}), (2, {}, {"u": 0})])
    with LineProtocolWriter(sender(influx2, database), DIALECT_2X, OPTIONS, shard_duration=DEFAULT_DURATION) as writer:
        writer.write("m", batch)
    assert [fields[b"u"] for fields in read_points(influx2, database).values()] == [2**64 - 1, 0]


def test_unsigned_values_are_refused_or_converted_on_1x(influx1: RunningServer) -> None:
    """1.x has no unsigned fields: they are named, or written as integers where that is asked for and they fit."""
    column = field("u", InfluxType.UNSIGNED)
    small = batch_of([column], [(1, {}, {"u": 7})])
    large = batch_of([column], [(1, {}, {"u": 2**63})])
    as_integer = WriteOptions(unsigned_as_integer=True)
    assert unrepresentable("m", [column], small, DIALECT_1X, WriteOptions())
    assert unrepresentable("m", [column], large, DIALECT_1X, as_integer)
    assert not unrepresentable("m", [column], small, DIALECT_1X, as_integer)
    database = new_database(influx1)
    with LineProtocolWriter(
        sender(influx1, database), DIALECT_1X, as_integer, shard_duration=DEFAULT_DURATION
    ) as writer:
        writer.write("m", small)
    assert [fields[b"u"] for fields in read_points(influx1, database).values()] == [7]


@pytest.mark.parametrize("size", [2**20, 2**20 + 1])
def test_the_longest_string(any_influx: RunningServer, size: int) -> None:
    """A string of 1 MiB is written; of one byte more is said before what the server then does (1.6 to 1.8 take it)."""
    columns = [field("s", InfluxType.STRING)]
    batch = batch_of(columns, [(1, {}, {"s": "é" * (size // 2) + "x" * (size % 2)})])
    dialect = dialect_of(any_influx)
    fits = not unrepresentable("m", columns, batch, dialect, OPTIONS)
    assert fits == (size == 2**20 or dialect.max_string_bytes is None)
    database = new_database(any_influx)
    line = b'm s="' + ("é" * (size // 2) + "x" * (size % 2)).encode() + b'" 1'
    assert (sender(any_influx, database)(line).status == 204) == fits


@pytest.mark.parametrize("field_key", ["v", "v v"])
@pytest.mark.parametrize("over", [0, 1])
def test_the_longest_key(any_influx: RunningServer, over: int, field_key: str) -> None:
    """The bound on measurement, tags and field key is the server's own, to the byte."""
    dialect = dialect_of(any_influx)
    used = len("m,k=") + 4 + len(field_key.replace(" ", "\\ "))
    value = "a " * 1000
    value += "x" * (65535 + over - used - len(value) - 1000)
    columns = [tag("k"), field(field_key)]
    batch = batch_of(columns, [(1, {"k": value}, {field_key: 1.0})])
    assert bool(unrepresentable("m", columns, batch, dialect, OPTIONS)) == bool(over)
    database = new_database(any_influx)
    escaped = value.replace(" ", "\\ ")
    line = f"m,k={escaped} {field_key.replace(' ', chr(92) + ' ')}=1 1".encode()
    assert (sender(any_influx, database)(line).status == 204) == (not over)


def test_the_columns_role_decides(influx1: RunningServer) -> None:
    """A tag and a field of one name are both written."""
    database = new_database(influx1)
    columns: list[Column] = [tag("host"), field("host", InfluxType.STRING)]
    assert columns[0].role is Role.TAG
    with LineProtocolWriter(sender(influx1, database), DIALECT_1X, OPTIONS, shard_duration=DEFAULT_DURATION) as writer:
        writer.write("m", batch_of(columns, [(1, {"host": "t"}, {"host": "f"})]))
    assert read_points(influx1, database) == {(b"m", frozenset({(b"host", b"t")}), 1): {b"host": b"f"}}
