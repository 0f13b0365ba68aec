"""What a real server holds is read exactly, whatever its names and values."""

from __future__ import annotations

import math
import re
import struct
import tracemalloc

import pyarrow as pa
import pytest

from influxdb_backup.errors import IncompleteReadError, NotVisibleError, QueryError
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.model import (
    MAX_END,
    MIN_TIME,
    Column,
    InfluxType,
    Role,
    Table,
    TableSchema,
    Window,
    decode_name,
    encode_name,
)
from tests.influx_read.support import MONDAY, WEEK, WINDOW, opened, read_rows, rows_of, table_of
from tests.servers import RunningServer

FLOATS = [0.0, -0.0, 5e-324, -5e-324, 2.2250738585072009e-308, 1.7976931348623157e308, 0.1 + 0.2, 3.0, 1e15]
INTEGERS = [0, 1, -1, 127, 128, -32, -33, 255, 256, -129, 32768, -32769, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)]
TEXTS = [
    b"",
    b"a\nb",
    b"\r\n",
    b"a\x00b",
    b"#no remark",
    b"\\",
    b'say "x"',
    "😀é".encode(),
    b"\x9b\xd3" * 9,
    b"x" * 65535,
    b"\xff\xfe",
]
NAMES = [
    b"plain",
    b"with space",
    b"com,ma",
    b'quo"te',
    b"sin'gle",
    b"back\\slash",
    b"eq=ual",
    b"inv\xffalid",
    b"nul\x00x",
    b"cr\rx",
    "😀".encode(),
    b"_x",
    b"count_x",
    b"dot.x",
    b"sla/sh",
    b"\xef\xbb\xbfbom",
    b"new\\nline",
    b"SELECT",
    b"\xef\xbf\xbd",
]


def key(name: bytes, special: bytes) -> bytes:
    """A name as line protocol spells it."""
    return re.sub(b"([" + special + b"])", rb"\\\1", name)


def text(value: bytes) -> bytes:
    """A string value as line protocol spells it."""
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def test_numbers_and_times_are_exact_to_the_bit(any_influx: RunningServer, database: str) -> None:
    """Signs of zero, denormals, limits of int64 and whole floats come back with the bits that were written."""
    any_influx.create_database(database)
    lines = [f"n f={value!r} {MONDAY + k}" for k, value in enumerate(FLOATS)]
    lines += [f"n i={value}i {MONDAY + 100 + k}" for k, value in enumerate(INTEGERS)]
    lines += [f"n b={value} {MONDAY + 200 + k}" for k, value in enumerate(["true", "false"])]
    any_influx.write("\n".join(lines), database)
    rows = read_rows(opened(any_influx), database, "n")
    assert [struct.pack("<d", row["f"]) for row in rows if "f" in row] == [struct.pack("<d", f) for f in FLOATS]
    assert [row["i"] for row in rows if "i" in row] == INTEGERS
    assert [row["b"] for row in rows if "b" in row] == [True, False]
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    assert math.copysign(1, next(row["f"] for row in rows if row.get("f") == 0 and row["time"] == MONDAY + 1)) == -1


def test_unsigned_numbers_are_exact(influx2: RunningServer, database: str) -> None:
    """uint64 to its limit is read as such; small ones are told from integers where a field has both types."""
    influx2.create_database(database)
    week = MONDAY + WEEK
    influx2.write(f"u a=1u,big={2**64 - 1}u {MONDAY}\nu a=1i {week}\nu a=-3i {week + 1}", database)
    server = opened(influx2)
    assert read_rows(server, database, "u") == [{"time": MONDAY, "a": 1, "big": 2**64 - 1}]
    batch = next(iter(server.read(database, table_of(server, database, "u"), WINDOW, ReadOptions())))
    assert batch.schema.field("a").type == pa.uint64()
    after = Window(start=week, end=week + WEEK)
    assert [row["a"] for row in read_rows(server, database, "u", after)] == [1, -3]
    batch = next(iter(server.read(database, table_of(server, database, "u"), after, ReadOptions())))
    assert batch.schema.field("a").type == pa.int64()


def test_the_extremes_of_time_are_read(any_influx: RunningServer, database: str) -> None:
    """The first and the last instant, and those around 1970, are in the pieces of the widest window."""
    any_influx.create_database(database)
    times = [MIN_TIME, -1, 0, 1, 127, 128, MAX_END - 1]
    any_influx.write("\n".join(f"t v={k} {time}" for k, time in enumerate(times)), database)
    server = opened(any_influx)
    pieces = server.pieces(database, "autogen", Window(start=MIN_TIME, end=MAX_END))
    assert pieces[0].start == MIN_TIME
    assert pieces[-1].end == MAX_END
    found = [row["time"] for piece in pieces for row in read_rows(server, database, "t", piece)]
    assert found == times


def test_series_that_a_query_takes_for_one(any_influx: RunningServer, database: str) -> None:
    """Where a NUL in tag values makes one group of two series, the error names both; elsewhere it is a value."""
    any_influx.create_database(database)
    any_influx.write(
        f"m,a=\0,c=x v=1 {MONDAY}\nm,a=\0,c=\0 v=2 {MONDAY}\nn,a=\0 v=1 {MONDAY}\nn,b=\0 v=2 {MONDAY + 1}", database
    )
    server = opened(any_influx)
    rows = read_rows(server, database, "m")
    assert [(row["@a"], row["@c"], row["v"]) for row in rows] == [("\0", "\0", 2), ("\0", "x", 1)]
    with pytest.raises(QueryError, match=r"the series n,a=\S+ from n,b="):
        read_rows(server, database, "n")


def test_texts_are_exact(any_influx: RunningServer, database: str) -> None:
    """Line ends, NUL, quotes, emoji, 64 KB and bytes that are not UTF-8 come back byte for byte."""
    any_influx.create_database(database)
    for k, value in enumerate(TEXTS):
        any_influx.write(b"s,k=%d v=%s %d" % (k, text(value), MONDAY), database)
        any_influx.write(b"s%d v=%s %d" % (k, text(value), MONDAY), database)
    server = opened(any_influx)
    found = {row["@k"]: row["v"] for row in read_rows(server, database, "s")}
    assert {int(str(k)): v for k, v in found.items()} == dict(enumerate(TEXTS))
    for k, value in enumerate(TEXTS):
        one = read_rows(server, database, f"s{k}")[0]["v"]
        assert (one if isinstance(one, bytes) else str(one).encode()) == value


def test_bytes_that_are_not_utf8_are_announced_before_they_are_read(any_influx: RunningServer, database: str) -> None:
    """The first read says that the schema is another; the next one gives a binary column, tags too."""
    any_influx.create_database(database)
    any_influx.write(b'x,t=a\xff v="b\xfe" %d' % MONDAY, database)
    server = opened(any_influx)
    table = table_of(server, database, "x")
    for _ in range(2):
        with pytest.raises(IncompleteReadError) as caught:
            list(server.read(database, table, WINDOW, ReadOptions()))
        assert caught.value.kind == "schema-changed"
    (batch,) = server.read(database, table, WINDOW, ReadOptions())
    assert batch.schema.types[1:] == [pa.dictionary(pa.int32(), pa.binary()), pa.binary()]
    assert rows_of(batch) == [{"time": MONDAY, "@t": b"a\xff", "v": b"b\xfe"}]


@pytest.mark.parametrize("kind", ["measurement", "tag key", "tag value", "field key"])
def test_hostile_names_are_read(any_influx: RunningServer, database: str, kind: str) -> None:
    """Every name that the server stores is read and counted under its own bytes."""
    any_influx.create_database(database)
    for k, name in enumerate(NAMES):
        measurement = key(name, b", ") if kind == "measurement" else b"m%d" % k
        tag = key(name, b",= ") if kind == "tag key" else b"t"
        value = key(name, b",= ") if kind == "tag value" else b"a"
        field = key(name, b',= "') if kind == "field key" else b"v"
        any_influx.write(b"%s,%s=%s %s=%di %d" % (measurement, tag, value, field, k, MONDAY + k), database)
    server = opened(any_influx)
    schema = server.schema(database, "autogen")
    assert [u.table.measurement for u in schema.unreadable] == []
    assert len(schema.tables) == len(NAMES)
    for k, name in enumerate(NAMES):
        shown = decode_name(name)
        measurement = shown if kind == "measurement" else f"m{k}"
        field = shown if kind == "field key" else "v"
        (row,) = read_rows(server, database, measurement)
        tag = row.pop(f"@{shown if kind == 'tag key' else 't'}")
        assert (tag if isinstance(tag, bytes) else encode_name(str(tag))) == (name if kind == "tag value" else b"a")
        assert row == {"time": MONDAY + k, field: k}
        assert dict(server.counts(database, "autogen", measurement, WINDOW, [field])) == {field: 1}


def test_a_tag_and_a_field_of_one_name_are_both_read(any_influx: RunningServer, database: str) -> None:
    """GROUP BY * keeps a tag and a field with the same key apart, and so does the batch."""
    any_influx.create_database(database)
    any_influx.write(f"m,host=a host=1,Host=2 {MONDAY}\nm host=3 {MONDAY}", database)
    server = opened(any_influx)
    (batch,) = server.read(database, table_of(server, database, "m"), WINDOW, ReadOptions())
    assert sorted(map(str, rows_of(batch))) == sorted(
        map(str, [{"time": MONDAY, "host": 3.0}, {"time": MONDAY, "@host": "a", "Host": 2.0, "host": 1.0}])
    )
    assert len(set(batch.schema.names)) == 4


def test_a_field_of_another_type_in_each_shard_is_read_whole(any_influx: RunningServer, database: str) -> None:
    """Piece by piece every type is right; a query over all shards would lose the strings and booleans."""
    any_influx.create_database(database)
    values: list[object] = [1.5, 2, "s", True]
    for k, value in enumerate(["1.5", "2i", '"s"', "true"]):
        any_influx.write(f"m v={value} {MONDAY + k * WEEK}", database)
    server = opened(any_influx)
    whole = Window(start=MONDAY, end=MONDAY + 4 * WEEK)
    pieces = server.pieces(database, "autogen", whole)
    assert len(pieces) == 4
    found = [read_rows(server, database, "m", piece) for piece in pieces]
    assert [row["v"] for (row,) in found] == values
    assert [type(row["v"]) for (row,) in found] == [float, int, str, bool]
    assert [dict(server.counts(database, "autogen", "m", piece, ["v"])) for piece in pieces] == [{"v": 1}] * 4


def test_counts_name_every_field_and_leave_out_those_without_points(any_influx: RunningServer, database: str) -> None:
    """Fields whose names begin with count_ are no trap, and a field without points is not in the answer."""
    any_influx.create_database(database)
    any_influx.write(f"m x=1,count_x=2,count_count_x=3 {MONDAY}\nm x=1 {MONDAY + 1}\nm old=1 {MONDAY - 1}", database)
    server = opened(any_influx)
    counts = dict(server.counts(database, "autogen", "m", WINDOW, ["x"]))
    assert counts == {"x": 2, "count_x": 1, "count_count_x": 1}
    assert dict(server.counts(database, "autogen", "m", Window(start=0, end=1), ["x"])) == {}


def test_windows_are_half_open(any_influx: RunningServer, database: str) -> None:
    """The start belongs to a piece and the end does not, to the nanosecond."""
    any_influx.create_database(database)
    any_influx.write("\n".join(f"m v={k} {MONDAY + k}" for k in range(5)), database)
    rows = read_rows(opened(any_influx), database, "m", Window(start=MONDAY + 1, end=MONDAY + 3))
    assert [row["time"] - MONDAY for row in rows] == [1, 2]


def test_deleted_points_are_not_read(any_influx: RunningServer, database: str) -> None:
    """What was deleted before the read stays deleted, in the rows and in the counts."""
    any_influx.create_database(database)
    any_influx.write("\n".join(f"m,t={k % 2} v={k} {MONDAY + k}" for k in range(10)), database)
    any_influx.query("DELETE FROM m WHERE t = '1'", db=database)
    server = opened(any_influx)
    assert [row["v"] for row in read_rows(server, database, "m")] == [0, 2, 4, 6, 8]
    assert dict(server.counts(database, "autogen", "m", WINDOW, ["v"])) == {"v": 5}


@pytest.mark.parametrize("change", ["tag", "field", "type"])
def test_what_the_schema_does_not_know_is_never_dropped(any_influx: RunningServer, database: str, change: str) -> None:
    """A tag, field or type that appeared after the schema was read ends the read with schema-changed."""
    any_influx.create_database(database)
    any_influx.write(f"m,t=a v=1,w=2 {MONDAY}", database)
    server = opened(any_influx)
    known = [
        Column(role=Role.TAG, name="t", type=InfluxType.TAG),
        Column(role=Role.FIELD, name="v", type=InfluxType.INTEGER if change == "type" else InfluxType.FLOAT),
        Column(role=Role.FIELD, name="w", type=InfluxType.FLOAT),
    ]
    known = [c for c in known if c.name != {"tag": "t", "field": "w"}.get(change)]
    schema = TableSchema(table=Table(retention_policy="autogen", measurement="m"), columns=tuple(known))
    with pytest.raises(IncompleteReadError) as caught:
        list(server.read(database, schema, WINDOW, ReadOptions()))
    assert caught.value.kind == "schema-changed"


def test_unknown_names_are_not_visible(any_influx: RunningServer, database: str) -> None:
    """An unknown database or policy is an error that also speaks of rights, never an empty answer."""
    server = opened(any_influx)
    with pytest.raises(NotVisibleError, match="not visible"):
        server.schema(database, "autogen")
    with pytest.raises(NotVisibleError):
        server.pieces(database, "autogen", WINDOW)
    any_influx.create_database(database)
    with pytest.raises(NotVisibleError, match="not visible"):
        server.schema(database, "nosuch")


def test_batches_are_bounded_and_hold_several_series(any_influx: RunningServer, database: str) -> None:
    """Batches end at batch_rows, small series share one, and all batches have one schema."""
    any_influx.create_database(database)
    any_influx.write(
        "\n".join(f"m,s={series} v={k},i={k * 1000}i {MONDAY + k}" for series in range(40) for k in range(100)),
        database,
    )
    server = opened(any_influx)
    batches = list(server.read(database, table_of(server, database, "m"), WINDOW, ReadOptions(batch_rows=300)))
    assert [batch.num_rows for batch in batches] == [300] * 13 + [100]
    assert len({str(batch.schema) for batch in batches}) == 1
    rows = [row for batch in batches for row in rows_of(batch)]
    assert len({(row["@s"], row["time"]) for row in rows}) == 4000
    assert all(row["i"] == row["v"] * 1000 for row in rows)


def test_long_texts_stay_within_memory(any_influx: RunningServer, database: str) -> None:
    """60 MB of 64 KB texts are read in batches near batch_bytes, far from holding all of them."""
    any_influx.create_database(database)
    value = "y" * 65_000
    for part in range(10):
        any_influx.write("\n".join(f'm v="{value}" {MONDAY + part * 100 + k}' for k in range(100)), database)
    server = opened(any_influx)
    table = table_of(server, database, "m")
    allocated = pa.total_allocated_bytes()
    tracemalloc.start()
    total = largest = arrow = 0
    for batch in server.read(database, table, WINDOW, ReadOptions(batch_bytes=4 * 2**20)):
        total += batch.num_rows
        largest = max(largest, batch.nbytes)
        arrow = max(arrow, pa.total_allocated_bytes() - allocated)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 1000
    assert largest < 12 * 2**20
    assert peak + arrow < 60 * 2**20


def test_short_texts_are_read_in_large_documents_until_long_ones_come(any_influx: RunningServer, database: str) -> None:
    """Every row comes once and exactly; long texts behind many short ones end the read, which in halves gives all of them."""
    any_influx.create_database(database)
    short = {MONDAY + n * 1_000_000: f"state {n % 7}" for n in range(40_000)}
    any_influx.write("".join(f'log,k=a s="{value}",n={n}i {n}\n' for n, value in short.items()), database)
    server = opened(any_influx)
    schema = table_of(server, database, "log")
    rows = [row for batch in server.read(database, schema, WINDOW, ReadOptions()) for row in rows_of(batch)]
    assert {row["time"]: row["s"] for row in rows} == short and len(rows) == len(short)
    assert all(row["n"] == row["time"] for row in rows)

    later = MONDAY + 100_000_000_000
    long = {later + n: f"{n}" + "x" * 60_000 for n in range(300)}
    for first in range(0, 300, 50):
        times = [later + n for n in range(first, first + 50)]
        any_influx.write("".join(f'log,k=b s="{long[n]}",n={n}i {n}\n' for n in times), database)
    with pytest.raises(IncompleteReadError, match="longer further on") as caught:
        list(server.read(database, schema, WINDOW, ReadOptions()))
    assert caught.value.kind == "read-limit"
    rows = [row for batch in server.read(database, schema, WINDOW, ReadOptions()) for row in rows_of(batch)]
    assert {row["time"]: row["s"] for row in rows} == short | long and len(rows) == len(short) + len(long)
