"""
What is done with a 2.x server and what must come of it: once while it is recorded, and ever after on the recording.

Tokens are named by labels; the recorder knows the real ones. Every scenario has a server's buckets prepared for it
beforehand, on a server that nothing else uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from influxdb_backup.columns import batch_columns
from influxdb_backup.errors import AccessError, NotVisibleError, QueryError, RejectedPointsError, TargetError
from influxdb_backup.influx.protocol import Mark, ReadOptions, Server, WriteOptions
from influxdb_backup.influx.rejects import read_reject_file
from influxdb_backup.model import InfluxType, RetentionPolicy, Window
from tests.influx2.support import DAY, Preparation
from tests.influx_write.support import batch_of, field, tag

Open = Callable[[str, str | None], Server]
"""(token's label, organisation) -> the product's server"""


@dataclass(frozen=True)
class Scenario:
    """One story: what a real server is given, and what is done with it."""

    name: str
    prepare: Callable[[Preparation], dict[str, str]]
    """fills a server; the tokens of the labels that the story uses besides ``operator``"""
    play: Callable[[Open], None]


def _days(first: int, last: int) -> Window:
    return Window(start=first * DAY, end=last * DAY)


TYPES = [
    (19000, "1.5", "float", 1.5),
    (19001, "-9223372036854775808i", "integer", -(2**63)),
    (19002, "18446744073709551615u", "unsigned", 2**64 - 1),
    (19003, '"a\\"\n\\\\ \U0001f600"', "string", 'a"\n\\ \U0001f600'),
    (19004, "true", "boolean", True),
]


def _prepare_types(two: Preparation) -> dict[str, str]:
    bucket = two.bucket("types")
    two.bucket("types/rp", seconds=0, shard_seconds=7200)
    for day, value, _, _ in TYPES:
        two.server.write(f"m,host=a\\ b v={value} {day * DAY}\nm v={value} {day * DAY + 1}", "types")
    two.server.write("gh\\\\,ost v=1 1\n_series v=1 1", "types")
    two.server.write("other,only=here f=-0.0,i=1i 1", "types", "rp")
    return {"reader": two.reader(bucket)}


def _play_types(server: Server) -> None:
    window = _days(19000, 19005)
    schema = server.schema("types", "autogen")
    assert {table.table.measurement for table in schema.unreadable} == {"gh\\,ost", "_series"}
    (table,) = schema.tables
    assert table.tags == ("host",)
    pieces = server.pieces("types", "autogen", window)
    assert pieces == tuple(_days(day, day + 1) for day in range(19000, 19005))
    for piece, (_, _, kind, value) in zip(pieces, TYPES, strict=True):
        assert server.counts("types", "autogen", "m", piece, ["v"]) == {"v": 2}
        (batch,) = server.read("types", table, piece, ReadOptions())
        columns = {column.name: column.type.value for column in batch_columns(batch.schema)}
        assert columns == {"host": "tag", "v": kind}
        assert batch.column("v").to_pylist() == [value, value]
        assert set(batch.column("host").to_pylist()) == {"a b", None}


def _play_operator(connect: Open) -> None:
    server = connect("operator", "tests")
    assert (server.info.product, server.info.version, server.info.generation) == ("influxdb", "2.9.1", 2)
    assert "types" in server.databases()
    assert [(policy.name, policy.shard_duration) for policy in server.retention_policies("types")] == [
        ("autogen", DAY),
        ("rp", 7200 * 10**9),
    ]
    _play_types(server)
    (table,) = server.schema("types", "rp").tables
    assert (table.table.measurement, table.tags) == ("other", ("only",))
    assert server.select("types", "rp", "SELECT f, i FROM other") == [{"time": 1, "f": 0.0, "i": 1}]


def _play_reader(connect: Open) -> None:
    for organization in ("tests", None):
        server = connect("reader", organization)
        assert server.databases() == ("types",)
        _play_types(server)
        with pytest.raises(NotVisibleError):
            server.schema("types", "rp")
        with pytest.raises(AccessError):
            server.create_database("mine", [RetentionPolicy(name="autogen", duration=0, shard_duration=0)])
        server.close()


def _prepare_redirected(two: Preparation) -> dict[str, str]:
    bucket = two.bucket("right")
    two.bucket("twin")
    two.bucket("twin/autogen")
    two.server.write("m v=1 1", "right")
    wrong = two.bucket("wrong")
    two.mapping("right", "autogen", wrong)
    return {"reader": two.reader(bucket, wrong)}


def _play_redirected(connect: Open) -> None:
    for label in ("operator", "reader"):
        server = connect(label, "tests")
        with pytest.raises(NotVisibleError, match="DBRP mapping") as caught:
            server.schema("right", "autogen")
        assert caught.value.kind == "redirected-bucket"
        server.close()
    server = connect("operator", None)
    with pytest.raises(NotVisibleError, match="Rename"):
        server.schema("twin", "autogen")


def _prepare_refusals(two: Preparation) -> dict[str, str]:
    bucket = two.bucket("refusals")
    two.bucket("elsewhere", organization=two.organization("another"))
    return {"reader": two.reader(bucket)}


def _play_refusals(connect: Open) -> None:
    for token, organization in (
        ("nosuch", "tests"),
        ("operator", "another"),
        ("operator", "nosuch"),
        ("reader", "another"),
    ):
        with pytest.raises(AccessError):
            connect(token, organization)
    server = connect("operator", "tests")
    with pytest.raises(NotVisibleError):
        server.schema("nosuch", "autogen")
    with pytest.raises(QueryError, match="parse"):
        server.select("refusals", None, "SELECT FROM")
    with pytest.raises(TargetError, match="underscore"):
        server.create_database("_no", [RetentionPolicy(name="autogen", duration=0, shard_duration=0)])


def _prepare_writing(two: Preparation) -> dict[str, str]:
    two.bucket("conflict")
    two.server.write('m,t=a v="text" 5', "conflict")
    return {}


def _play_writing(connect: Open) -> None:
    server = connect("operator", "tests")
    created = server.create_database("new", [RetentionPolicy(name="rp", duration=7 * DAY, shard_duration=DAY)])
    assert [name.split("#")[0] for name in created] == ["new/rp"]
    server.alter_retention("new", "rp", 0)
    assert [(policy.name, policy.duration) for policy in server.retention_policies("new")] == [("rp", 0)]
    columns = [tag("t"), field("v"), field("i", InfluxType.INTEGER), field("s", InfluxType.STRING)]
    rows = [(time, {"t": "a,b"}, {"v": time / 8, "i": -time, "s": f'"{time}"\n'}) for time in range(20)]
    with server.writer("new", "rp", WriteOptions(batch_lines=7)) as writer:
        writer.write("m", batch_of(columns, rows))
    assert (writer.result.rows, writer.result.values, writer.result.rejects) == (20, 60, 0)
    assert server.counts("new", "rp", "m", _days(0, 1), []) == {"v": 20, "i": 20, "s": 20}
    writer = server.writer("conflict", "autogen", WriteOptions(connections=1))
    with pytest.raises(RejectedPointsError, match="field type conflict"), writer:
        writer.write("m", batch_of([tag("t"), field("v"), field("w")], _mixed()))
    assert (writer.result.rows, writer.result.rejects, writer.result.late_visibility) == (6, 2, True)
    assert writer.result.reject_file is not None
    refused = b"".join(read_reject_file(writer.result.reject_file))
    writer.result.reject_file.unlink()
    assert [line for line in refused.splitlines() if not line.startswith(b"#")] == [b"m v=1 1", b"m v=1 6"]


def _mixed() -> list[tuple[int, dict[str, str], dict[str, float]]]:
    return [(time, {}, {"v" if time in (1, 6) else "w": 1.0}) for time in range(8)]


def _play_scratch(connect: Open) -> None:
    server = connect("operator", "tests")
    policies = [RetentionPolicy(name="autogen", duration=DAY, shard_duration=DAY)]
    identity = server.create_scratch("scratch_1", policies, Mark("recorded", DAY))
    assert [policy.duration for policy in server.retention_policies("scratch_1")] == [0]
    with pytest.raises(TargetError, match="exists"):
        server.create_scratch("scratch_1", policies, Mark("recorded", DAY))
    server.drop_scratch("scratch_1", identity)
    with pytest.raises(NotVisibleError):
        server.retention_policies("scratch_1")


SCENARIOS = [
    Scenario("operator", _prepare_types, _play_operator),
    Scenario("reader", _prepare_types, _play_reader),
    Scenario("redirected", _prepare_redirected, _play_redirected),
    Scenario("refusals", _prepare_refusals, _play_refusals),
    Scenario("writing", _prepare_writing, _play_writing),
    Scenario("scratch", lambda two: {}, _play_scratch),
]
