"""Server2 against a real 2.x server: buckets as policies, proofs against redirection, pieces, scratches."""

from __future__ import annotations

import itertools
import time
from urllib.error import HTTPError

import pyarrow as pa
import pytest

from influxdb_backup.columns import batch_columns
from influxdb_backup.errors import (
    AccessError,
    ConfigError,
    InfluxdbBackupError,
    NotVisibleError,
    QueryError,
    TargetError,
    UnrepresentableError,
    UsageError,
)
from influxdb_backup.fingerprint import TableFingerprint
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.marks import describe
from influxdb_backup.influx.protocol import Mark, ReadOptions, ServerSettings, WriteOptions, new_marked_name
from influxdb_backup.model import MAX_END, MIN_TIME, InfluxType, RetentionPolicy, Window
from tests.influx2.support import DAY, Preparation, fresh
from tests.influx_write.support import batch_of, field, read_points, tag
from tests.jobs.support import back_up, memory_repository, plan, restore_into, window
from tests.jobs.support import opened as jobs_opened
from tests.servers import RunningServer

HOUR = 3600 * 10**9
SECOND = 10**9
MARK = Mark("somebody-1", 1_796_102_345 * 10**9)
WHOLE = Window(start=0, end=40000 * DAY)


def days(first: int, last: int) -> Window:
    """A window of whole days since 1970."""
    return Window(start=first * DAY, end=last * DAY)


def policy(name: str, duration: int = 0, shard_duration: int = DAY) -> RetentionPolicy:
    """A policy to create."""
    return RetentionPolicy(name=name, duration=duration, shard_duration=shard_duration)


# --- names


def test_buckets_are_databases_and_policies(two: Preparation) -> None:
    """A bucket's name is split at the first slash; durations are ns; system buckets are not listed."""
    name = fresh()
    two.bucket(name, shard_seconds=7200)
    two.bucket(f"{name}/week", seconds=604800)
    two.bucket(f"{name}/a/b")
    with two.opened() as server:
        assert name in server.databases()
        assert not [database for database in server.databases() if database.startswith("_") or "/" in database]
        found = {p.name: (p.duration, p.shard_duration, p.default) for p in server.retention_policies(name)}
    assert found == {"autogen": (0, 2 * HOUR, True), "week": (7 * DAY, DAY, False), "a/b": (0, DAY, False)}


def test_all_pages_of_buckets_are_read(two: Preparation) -> None:
    """A listing of more buckets than one page holds is complete (a page is 20 unless asked otherwise)."""
    name = fresh()
    wanted = {f"p{number:03}" for number in range(105)}
    for part in wanted:
        two.bucket(f"{name}/{part}")
    with two.opened() as server:
        assert {p.name for p in server.retention_policies(name)} == wanted


def test_a_token_of_one_bucket_among_many(two: Preparation) -> None:
    """Pages are cut before invisible buckets are left out: one visible bucket is found wherever it stands."""
    name = fresh()
    identity = two.organization(fresh())
    buckets = [two.bucket(f"{name}{number:03}/rp", organization=identity) for number in range(125)]
    for position in (0, 60, 124):
        permission = {"action": "read", "resource": {"type": "buckets", "id": buckets[position], "orgID": identity}}
        with two.opened(two.token([permission], organization=identity), identity) as server:
            assert server.databases() == (f"{name}{position:03}",)
            assert [policy.name for policy in server.retention_policies(f"{name}{position:03}")] == ["rp"]
            assert server.schema(f"{name}{position:03}", "rp").tables == ()


def test_unknown_names_are_not_visible(two: Preparation) -> None:
    """An unknown database or policy is an error in every verb, never an empty answer."""
    name = fresh()
    two.bucket(name)
    with two.opened() as server:
        for verb in (
            lambda: server.retention_policies("nosuch"),
            lambda: server.schema(name, "nosuch"),
            lambda: server.schema("nosuch", "autogen"),
            lambda: server.pieces(name, "nosuch", WHOLE),
            lambda: server.counts(name, "nosuch", "m", WHOLE, []),
            lambda: server.writer(name, "nosuch", WriteOptions()),
            lambda: server.alter_retention(name, "nosuch", 0),
            lambda: server.select("nosuch", None, "SELECT * FROM m"),
        ):
            with pytest.raises(NotVisibleError, match="not found"):
                verb()
        with pytest.raises(NotVisibleError, match="the database"):
            server.schema("a/b", "autogen")


def test_a_redirected_bucket_is_refused(two: Preparation) -> None:
    """An explicit mapping that leads a bucket's name to other data is named, and nothing is read by it."""
    right, wrong = fresh(), fresh()
    identity = two.bucket(right, mapped=False)
    other = two.bucket(wrong)
    two.server.write("m v=1 1", right)
    two.server.write("m v=2 1", wrong)
    with two.opened() as server:
        mapping = two.mapping(right, "autogen", other)
        try:
            assert two.server.query("SELECT v FROM m", db=right)["results"][0]["series"][0]["values"] == [[1, 2]]
            for verb in (
                lambda: server.schema(right, "autogen"),
                lambda: server.pieces(right, "autogen", WHOLE),
                lambda: server.counts(right, "autogen", "m", WHOLE, ["v"]),
                lambda: server.select(right, None, "SELECT * FROM m"),
                lambda: server.writer(right, "autogen", WriteOptions()),
            ):
                with pytest.raises(NotVisibleError) as caught:
                    verb()
                assert caught.value.kind == "redirected-bucket"
                assert identity in str(caught.value)
                assert other in str(caught.value)
                assert mapping in str(caught.value)
            assert right in server.databases()
            with pytest.raises(TargetError, match="DBRP mapping"):
                two.call("DELETE", f"/api/v2/buckets/{identity}")
                server.create_database(right, [policy("autogen")])
        finally:
            two.call("DELETE", f"/api/v2/dbrps/{mapping}?orgID={two.organization_id}")


def test_a_bucket_that_shares_its_name_is_refused(two: Preparation) -> None:
    """Beside bucket x the bucket x/autogen cannot be reached: neither is taken for the other."""
    name = fresh()
    two.bucket(name)
    two.bucket(f"{name}/autogen")
    with two.opened() as server, pytest.raises(NotVisibleError, match="Rename") as caught:
        server.schema(name, "autogen")
    assert caught.value.kind == "ambiguous-bucket"


def test_a_bucket_without_a_mapping_on_2_4(two: Preparation) -> None:
    """2.4 selects by explicit mappings only: a bucket without one is refused, with the command that makes it."""
    name = fresh()
    identity = two.bucket(name, mapped=False)
    with two.opened(version="2.4.0") as server:
        for verb in (
            lambda: server.schema(name, "autogen"),
            lambda: server.counts(name, "autogen", "m", WHOLE, ["v"]),
            lambda: server.writer(name, "autogen", WriteOptions()),
        ):
            with pytest.raises(
                NotVisibleError, match=f"dbrp create --bucket-id {identity} --db {name} --rp autogen"
            ) as caught:
                verb()
            assert caught.value.kind == "unmapped-bucket"
        two.mapping(name, "autogen", identity)
        assert server.schema(name, "autogen").tables == ()


def test_created_buckets_have_mappings_on_2_4(two: Preparation) -> None:
    """What the product creates on 2.4 can be read, nothing of a scratch is left, and whole shards are not used."""
    kept, scratch = fresh(), fresh()
    with two.opened(version="2.4.0") as server:
        assert "2.4" in str(server.shard_door_closed())
        server.create_database(kept, [policy("autogen"), policy("week")])
        identity = server.create_scratch(scratch, [policy("week")], MARK)
        for database, name in ((kept, "autogen"), (kept, "week"), (scratch, "week")):
            assert server.schema(database, name).tables == ()
        server.drop_scratch(scratch, identity)
    listed = two.call("GET", f"/api/v2/dbrps?orgID={two.organization_id}")["content"]
    left = {(entry["database"], entry["retention_policy"]) for entry in listed if not entry.get("virtual")}
    assert {pair for pair in left if pair[0] in (kept, scratch)} == {(kept, "autogen"), (kept, "week")}


# --- organisations and tokens


def test_the_organization_is_the_instance_id(two: Preparation) -> None:
    """The organisation is found by name, by id, and from the token alone."""
    for organization in (two.server.organization, two.organization_id, None):
        with two.opened(organization=organization) as server:
            assert server.info.instance_id == two.organization_id
            assert (server.info.generation, server.name) == (2, "influx_two")


def test_another_organization_than_the_tokens_is_refused(two: Preparation) -> None:
    """An operator token sees other organisations, but its queries would read its own: configuring them is refused."""
    other = fresh()
    identity = two.organization(other)
    two.bucket(fresh(), organization=identity)
    for configured in (other, identity):
        with pytest.raises(AccessError, match=other):
            connect(two.settings(organization=configured))
    blind = two.reader(two.bucket(fresh()))
    for token in (None, blind):
        with pytest.raises(AccessError, match="nosuch"):
            connect(two.settings(token, "nosuch"))
        with pytest.raises(AccessError, match="0123456789abcdef"):
            connect(two.settings(token, "0123456789abcdef"))
    with pytest.raises(AccessError, match=other):
        connect(two.settings(blind, other))


def test_organizations_with_equal_bucket_names_are_told_apart(two: Preparation) -> None:
    """Where two organisations have the same bucket names, the other one is still refused, and the own one opens."""
    pair = [(name, two.organization(name)) for name in (fresh(), fresh())]
    for _, identity in pair:
        two.bucket("the_same", organization=identity)
    kinds = ("buckets", "orgs", "authorizations", "users")
    token = two.token([{"action": "read", "resource": {"type": kind}} for kind in kinds], organization=pair[0][1])
    with pytest.raises(AccessError, match=pair[1][0]):
        connect(two.settings(token, pair[1][0]))
    with two.opened(token, pair[0][0]) as server:
        assert server.info.instance_id == pair[0][1]
    blind = two.token([{"action": "read", "resource": {"type": "buckets"}}], organization=pair[0][1])
    for configured in (pair[0][0], pair[1][0], None):
        with pytest.raises((AccessError, ConfigError), match="token"):
            connect(two.settings(blind, configured))
    for name, identity in pair:
        with two.opened(two.all_access(identity), name) as server:
            assert server.info.instance_id == identity


def test_a_token_of_one_bucket_is_enough_to_read(two: Preparation) -> None:
    """Reading, counting and cutting need a token that reads the bucket and nothing else; the rest is not visible."""
    name, hidden = fresh(), fresh()
    bucket = two.bucket(name)
    two.bucket(hidden)
    for day in (19000, 19001, 19003):
        two.server.write(f"m,t=a v={day} {day * DAY}", name)
    with two.opened(two.reader(bucket), two.server.organization) as server:
        assert server.databases() == (name,)
        assert server.info.instance_id == two.organization_id
        (table,) = server.schema(name, "autogen").tables
        assert server.pieces(name, "autogen", days(19000, 19004)) == (
            days(19000, 19001),
            days(19001, 19003),
            days(19003, 19004),
        )
        assert server.counts(name, "autogen", "m", days(19001, 19002), ["v"]) == {"v": 1}
        (batch,) = server.read(name, table, days(19003, 19004), ReadOptions())
        assert batch.num_rows == 1
        with pytest.raises(NotVisibleError):
            server.schema(hidden, "autogen")
        with pytest.raises(AccessError):
            server.create_database(fresh(), [policy("autogen")])
        with pytest.raises(AccessError), server.writer(name, "autogen", WriteOptions()) as writer:
            writer.write("m", batch)


def test_a_wrong_or_missing_token(two: Preparation) -> None:
    """A token that is not known, and none at all, are said as such."""
    with pytest.raises(AccessError, match="influx_two"):
        connect(two.settings("nosuch"))
    with pytest.raises(ConfigError, match="token"):
        connect(ServerSettings(url=two.server.url, name="influx_two"))


def test_a_server_that_went_away(two: Preparation) -> None:
    """A control plane that cannot be reached is a retryable error of ours, not the library's."""
    settings = two.settings()
    with pytest.raises(InfluxdbBackupError) as caught:
        connect(ServerSettings(url="http://127.0.0.1:9", token=settings.token, version="2.9.1", timeout=1))
    assert caught.value.retryable


# --- pieces


@pytest.mark.parametrize("operator", [True, False])
def test_pieces_follow_real_shard_groups(two: Preparation, operator: bool) -> None:
    """After the shard duration was altered twice the cuts are the real boundaries, by metadata and by EXPLAIN."""
    name = fresh()
    bucket = two.bucket(name, shard_seconds=86400)
    wanted = set()
    for shard_seconds, stamps in (
        (86400, [19000, 19001]),
        (604800, [19004, 19010, 19100]),
        (7200, [19005.5, 19120]),
    ):
        rule = {"type": "expire", "everySeconds": 0, "shardGroupDurationSeconds": shard_seconds}
        two.call("PATCH", f"/api/v2/buckets/{bucket}", {"retentionRules": [rule]})
        for day in stamps:
            two.server.write(f'm v=1 {int(day * DAY)}\nn s="x" {int(day * DAY) + 1}', name)
            wanted.add(int(day * DAY))
    window = Window(start=18990 * DAY + 17, end=19130 * DAY)
    with two.opened() as server:
        listed = server.pieces(name, "autogen", window)
    with two.opened(None if operator else two.reader(bucket), two.server.organization) as server:
        pieces = server.pieces(name, "autogen", window)
        counted = [
            piece
            for piece in pieces
            if two.server.query(_explain(piece), db=name)["results"][0]["series"][0]["values"][0][0]
        ]
    assert pieces[0].start == window.start
    assert pieces[-1].end == window.end
    assert all(a.end == b.start for a, b in itertools.pairwise(pieces))
    for piece in counted:
        assert "NUMBER OF SHARDS: 1" in str(two.server.query(_explain(piece), db=name))
    starts = {piece.start for piece in pieces[1:]}
    ends = {piece.start for piece in listed}
    assert starts <= ends
    if operator:
        assert pieces == listed
    assert len(counted) == 6


def _explain(piece: Window) -> str:
    return f"EXPLAIN SELECT v FROM m WHERE time >= {piece.start} AND time < {piece.end}"


@pytest.mark.parametrize("operator", [True, False])
def test_pieces_over_all_of_time(two: Preparation, operator: bool) -> None:
    """The first and the last shard group that can be are cut as every other, without leaving int64."""
    name = fresh()
    bucket = two.bucket(name)
    two.server.write(f"m v=1 {MIN_TIME}\nm v=1 {MAX_END - 1}\nm v=1 0", name)
    whole = Window(start=MIN_TIME, end=MAX_END)
    with two.opened(None if operator else two.reader(bucket), two.server.organization) as server:
        pieces = server.pieces(name, "autogen", whole)
        schema = server.schema(name, "autogen").tables[0]
        rows = sum(batch.num_rows for piece in pieces for batch in server.read(name, schema, piece, ReadOptions()))
    assert (pieces[0].start, pieces[-1].end) == (MIN_TIME, MAX_END)
    assert 0 in {piece.start for piece in pieces}
    assert rows == 3


def test_expired_groups_do_not_matter(two: Preparation) -> None:
    """A bucket without any shard group is one piece."""
    name = fresh()
    two.bucket(name)
    with two.opened() as server:
        assert server.pieces(name, "autogen", days(1, 3)) == (days(1, 3),)


# --- points


def test_every_type_goes_in_and_out(two: Preparation) -> None:
    """What the writer writes, schema, counts and reader give back with types and values; also into db/rp."""
    name = fresh()
    with two.opened() as server:
        assert [part.split("#")[0] for part in server.create_database(name, [policy("rp")])] == [f"{name}/rp"]
        columns = [
            tag("host"),
            field("f"),
            field("i", InfluxType.INTEGER),
            field("u", InfluxType.UNSIGNED),
            field("s", InfluxType.STRING),
            field("b", InfluxType.BOOLEAN),
        ]
        rows = [
            (1, {"host": "a"}, {"f": -0.0, "i": -(2**63), "u": 2**64 - 1, "s": 'x"\n\\', "b": True}),
            (2, {"host": "a"}, {"f": 5e-324, "i": 2**63 - 1, "u": 0, "s": "", "b": False}),
            (3, {}, {"u": 7}),
        ]
        batch = batch_of(columns, rows)
        with server.writer(name, "rp", WriteOptions()) as writer:
            writer.write("m", batch)
        assert (writer.result.rows, writer.result.values) == (3, 11)
        (table,) = server.schema(name, "rp").tables
        assert set(table.columns) == set(columns)
        assert server.counts(name, "rp", "m", days(0, 1), []) == {"f": 2, "i": 2, "u": 3, "s": 2, "b": 2}
        batches = list(server.read(name, table, days(0, 1), ReadOptions()))
        assert set(batch_columns(batches[0].schema)) == set(columns)
        written, found = TableFingerprint("m"), TableFingerprint("m")
        written.add(batch)
        for part in batches:
            found.add(part)
        assert found.hexadecimal == written.hexadecimal


def test_compressed_bodies(two: Preparation) -> None:
    """Bodies may travel compressed; the counted bytes are those of the line protocol."""
    name = fresh()
    two.bucket(name)
    batch = batch_of([tag("t"), field("v")], [(time, {"t": "a"}, {"v": 1.0}) for time in range(1000)])
    results = []
    with two.opened() as server:
        for compress in (True, False):
            with server.writer(name, "autogen", WriteOptions(compress=compress)) as writer:
                writer.write(f"m{compress}", batch)
            results.append(writer.result)
    assert [len(read_points(two.server, name, f'"m{flag}"')) for flag in (True, False)] == [1000, 1000]
    assert results[0].bytes + 1000 == results[1].bytes


def test_bytes_that_are_not_utf8_go_in_and_out(two: Preparation) -> None:
    """Tag values and strings that are not UTF-8 survive a write and a read to the byte."""
    name = fresh()
    two.bucket(name)
    columns = [tag("t"), field("s", InfluxType.STRING)]
    batch = batch_of(columns, [(1, {"t": b"\xff,= "}, {"s": b"\xfe\x00\n"})])
    with two.opened() as server, server.writer(name, "autogen", WriteOptions()) as writer:
        writer.write("m", batch)
    assert read_points(two.server, name) == {(b"m", frozenset({(b"t", b"\xff,= ")}), 1): {b"s": b"\xfe\x00\n"}}


def test_types_that_differ_between_shards(two: Preparation) -> None:
    """One piece at a time, a field has the type it has there; nothing vanishes."""
    name = fresh()
    two.bucket(name)
    for day, value in enumerate(("1.5", "2i", "3u", '"four"', "true"), start=19000):
        two.server.write(f"m v={value} {day * DAY}", name)
    with two.opened() as server:
        (table,) = server.schema(name, "autogen").tables
        found = []
        for piece in server.pieces(name, "autogen", days(19000, 19005)):
            for batch in server.read(name, table, piece, ReadOptions()):
                (column,) = batch_columns(batch.schema)
                found.append((column.type.value, batch.column(1).to_pylist()))
    assert found == [
        ("float", [1.5]),
        ("integer", [2]),
        ("unsigned", [3]),
        ("string", ["four"]),
        ("boolean", [True]),
    ]


def test_measurements_of_a_policy_stay_in_it(two: Preparation) -> None:
    """SHOW MEASUREMENTS ignores the policy on 2.x; the schema does not."""
    name = fresh()
    two.bucket(name)
    two.bucket(f"{name}/rp")
    two.server.write("here v=1 1", name)
    two.server.write("there v=1 1", name, "rp")
    with two.opened() as server:
        assert [t.table.measurement for t in server.schema(name, "autogen").tables] == ["here"]
        assert [t.table.measurement for t in server.schema(name, "rp").tables] == ["there"]


def test_tag_keys_of_a_policy_stay_in_it(two: Preparation) -> None:
    """SHOW TAG KEYS ignores the policy on 2.x (or fails without a bucket of the bare name); the schema does not."""
    name, single = fresh(), fresh()
    two.bucket(name)
    two.bucket(f"{name}/rp")
    two.bucket(f"{single}/rp")
    two.server.write("m,bare=a v=1 1", name)
    for database in (name, single):
        two.server.write(f'm,one=a v=1 1\nm,two=b v="x" {30000 * DAY}\nm v=1 2\nn v=true 1', database, "rp")
    with two.opened() as server:
        assert [table.tags for table in server.schema(name, "autogen").tables] == [("bare",)]
        for database in (name, single):
            tables = server.schema(database, "rp").tables
            assert [(table.table.measurement, table.tags) for table in tables] == [("m", ("one", "two")), ("n", ())]


def test_tag_keys_where_one_type_hides_the_others(two: Preparation) -> None:
    """When the points of the type that SELECT * prefers are deleted, the other type's points still show their tags."""
    name = fresh()
    two.bucket(f"{name}/rp")
    two.server.write(f'm,a=1 v=1 1\nm,a=1 w=1 2\nm,b=2 v="x" {30000 * DAY}', name, "rp")
    two.server.query(f'DELETE FROM "m" WHERE time < {DAY}', db=name, rp="rp")
    with two.opened() as server:
        (table,) = server.schema(name, "rp").tables
        assert "b" in table.tags
        (batch,) = server.read(name, table, days(30000, 30001), ReadOptions())
    assert batch.num_rows == 1


def test_tag_keys_where_the_first_series_has_no_points(two: Preparation) -> None:
    """A point that is refused for its field's type leaves a series in the index, which hides no tags of the others."""
    name = fresh()
    two.bucket(f"{name}/rp")
    two.server.write("m,b=2 v=1 1", name, "rp")
    for line in ('m v="x" 1', *(f'm,a={number:03} v="x" 1' for number in range(150))):
        with pytest.raises(HTTPError):
            two.server.write(line, name, "rp")
    with two.opened() as server:
        (table,) = server.schema(name, "rp").tables
        assert "b" in table.tags
        (batch,) = server.read(name, table, days(0, 1), ReadOptions())
    assert batch.num_rows == 1


def test_measurements_that_cannot_be_read_are_named(two: Preparation) -> None:
    """Ghosts and reserved names are listed as unreadable, not left out."""
    name = fresh()
    two.bucket(name)
    two.server.write("gh\\\\,ost v=1 1\n_series v=1 1\nok v=1 1", name)
    with two.opened() as server:
        schema = server.schema(name, "autogen")
    assert [t.table.measurement for t in schema.tables] == ["ok"]
    assert {t.table.measurement for t in schema.unreadable} == {"gh\\,ost", "_series"}


def test_select_for_checks(two: Preparation) -> None:
    """A user's own SELECT runs in the bare name, in the only policy, or where it is told; INTO and DELETE do not."""
    name, single = fresh(), fresh()
    two.bucket(name)
    two.bucket(f"{name}/rp")
    two.bucket(f"{single}/only")
    two.server.write("m v=1 1", name)
    two.server.write("m v=2 1", name, "rp")
    two.server.write("m v=3 1", single, "only")
    with two.opened() as server:
        query = "SELECT v FROM m"
        assert server.select(name, None, query) == [{"time": 1, "v": 1.0}]
        assert server.select(name, "rp", query) == [{"time": 1, "v": 2.0}]
        assert server.select(single, None, query) == [{"time": 1, "v": 3.0}]
        with pytest.raises(UsageError):
            server.select(name, None, "DELETE FROM m")
        with pytest.raises(QueryError, match="parse"):
            server.select(name, None, "SELECT FROM")
        two.bucket(f"{single}/second")
        with pytest.raises(UsageError, match="policy"):
            server.select(single, None, query)


def test_names_that_2x_refuses(two: Preparation) -> None:
    """Tag keys that only 2.x reserves are found before the first write."""
    with two.opened() as server:
        columns = [tag("_field"), field("v")]
        assert [item.name for item in server.unrepresentable("m", columns, None, WriteOptions())] == ["_field"]
        name = fresh()
        two.bucket(name)
        with pytest.raises(UnrepresentableError), server.writer(name, "autogen", WriteOptions()) as writer:
            writer.write("m", batch_of(columns, [(1, {"_field": "x"}, {"v": 1.0})]))
        assert server.schema(name, "autogen").tables == ()


def test_the_clock(two: Preparation) -> None:
    """now() is the server's clock in whole seconds."""
    with two.opened() as server:
        assert abs(server.now() - time.time_ns()) < 5 * 10**9


# --- creating and dropping


def test_creating_what_is_missing(two: Preparation) -> None:
    """Missing buckets are created with their durations, present ones are never changed."""
    name = fresh()
    identity = two.bucket(f"{name}/kept", seconds=7200, shard_seconds=3600)
    wanted = [policy("autogen"), policy("short", 90 * 60 * 10**9 + 1, HOUR), policy("kept", DAY, DAY)]
    with two.opened() as server:
        created = server.create_database(name, wanted)
        assert [part.split("#")[0] for part in created] == [name, f"{name}/short"]
        found = {p.name: (p.duration, p.shard_duration) for p in server.retention_policies(name)}
        assert server.create_database(name, wanted) == ()
    assert found == {"autogen": (0, DAY), "short": (90 * 60 * 10**9 + 10**9, HOUR), "kept": (2 * HOUR, HOUR)}
    assert two.call("GET", f"/api/v2/buckets/{identity}")["name"] == f"{name}/kept"


def test_names_and_durations_that_no_bucket_can_have(two: Preparation) -> None:
    """A database with a slash, a leading underscore and a duration below an hour are refused, leaving nothing."""
    name = fresh()
    with two.opened() as server:
        for database, policies in (
            (f"{name}/x", [policy("autogen")]),
            ("", [policy("autogen")]),
            (f"_{name}", [policy("autogen")]),
            (name, [policy("ok"), policy("short", HOUR - 1)]),
            (name, [policy("ok"), policy('quo"te')]),
        ):
            with pytest.raises(TargetError):
                server.create_database(database, policies)
        with pytest.raises(NotVisibleError):
            server.retention_policies(name)


def test_altering_the_retention(two: Preparation) -> None:
    """The duration changes, to for ever as well; the shard duration stays."""
    name = fresh()
    two.bucket(f"{name}/rp", seconds=86400, shard_seconds=7200)
    with two.opened() as server:
        for duration in (10 * DAY, 0, DAY):
            server.alter_retention(name, "rp", duration)
            (found,) = server.retention_policies(name)
            assert (found.duration, found.shard_duration) == (duration, 2 * HOUR)
        with pytest.raises(TargetError, match="1h"):
            server.alter_retention(name, "rp", 1)


def test_scratches_show_themselves(two: Preparation) -> None:
    """A scratch is listed with whom it was made for, until when; a bucket of that name without the words is not."""
    name, plain = new_marked_name("drill"), new_marked_name("drill")
    two.bucket(plain)
    with two.opened() as server:
        identity = server.create_scratch(name, [policy("autogen"), policy("rp")], Mark("me", server.now()))
        assert [(s.name, set(s.scratch_id.split(","))) for s in server.scratches()] == [
            (name, set(identity.split(",")))
        ]
        later = Mark("me", (server.now() + DAY) // SECOND * SECOND)
        server.renew_scratch(name, identity, later)
        assert [scratch.mark for scratch in server.scratches()] == [later]
        stranger = two.bucket(f"{name}/theirs")
        assert server.scratches() == ()
        two.call("DELETE", f"/api/v2/buckets/{stranger}")
        server.drop_scratch(name, identity)
        assert server.scratches() == ()


def test_an_unpublished_database_is_dropped_for_its_own_restore_only(two: Preparation) -> None:
    """Buckets of a restore that ended early are found by what the server says of them, never by a name alone."""
    left, plain = new_marked_name("restore"), new_marked_name("restore")
    two.bucket(plain)
    with two.opened() as server:
        server._buckets.create(left, [policy("autogen"), policy("rp")], describe("restore", Mark("a")))
        for owner in ("b", plain, left):
            server.drop_unpublished(owner)
        assert {left, plain} <= set(server.databases())
        server.drop_unpublished("a")
        assert left not in server.databases()
        assert plain in server.databases()


@pytest.mark.parametrize("writer", ["lines", "auto"])
def test_a_bucket_with_a_long_name_gets_it_back(two: Preparation, writer: str) -> None:
    """``db/autogen`` is backed up with its name and restored in place as it; elsewhere only when it is asked for."""
    name = fresh()
    bucket = two.bucket(f"{name}/autogen")
    start = 1_709_683_200 * SECOND
    with two.opened() as server:
        with server.writer(name, "autogen", WriteOptions()) as points:
            points.write("m", batch_of([field("v")], [(start, {}, {"v": 1.0})]))
        repository = memory_repository()
        ref = back_up(repository, server, plan(name)).ref
        (kept,) = repository.manifest(repository.ref(ref)).source.retention_policies
        assert kept.bucket == f"{name}/autogen"
        two.call("DELETE", f"/api/v2/buckets/{bucket}")
        for target, expected in ((None, f"{name}/autogen"), (f"{name}x", f"{name}x"), (f"{name}y/autogen",) * 2):
            report = restore_into(repository, server, target, refs=(ref,), writer=writer)
            assert [created.split("#")[0] for created in report.created] == [expected]
            assert expected in {found.name for found in server._buckets.listed()}
            assert report.rows == 1


def test_scratch_databases(two: Preparation) -> None:
    """A scratch is new, infinite and empty, has the shard durations, and is dropped by its ids alone."""
    name = fresh()
    with two.opened() as server:
        identity = server.create_scratch(name, [policy("autogen", 2 * HOUR, HOUR), policy("rp", DAY, DAY)], MARK)
        found = {p.name: (p.duration, p.shard_duration) for p in server.retention_policies(name)}
        assert found == {"autogen": (0, HOUR), "rp": (0, DAY)}
        with pytest.raises(TargetError, match="exists"):
            server.create_scratch(name, [policy("other")], MARK)
        keep = fresh()
        kept = two.bucket(keep)
        with pytest.raises(UsageError, match="nothing was dropped"):
            server.drop_scratch(name, f"{identity},{kept}")
        assert len(server.retention_policies(name)) == 2
        with server.writer(name, "rp", WriteOptions()) as writer:
            writer.write("m", batch_of([field("v")], [(1, {}, {"v": 1.0})]))
        server.drop_scratch(name, identity)
        with pytest.raises(NotVisibleError):
            server.retention_policies(name)
        assert keep in server.databases()
        server.drop_scratch(name, identity)


def test_a_scratch_is_dropped_by_its_id_and_not_by_its_name(two: Preparation) -> None:
    """A bucket that somebody else made under the name of a scratch that is gone stays, and so do its points."""
    name = fresh()
    with two.opened() as server:
        identity = server.create_scratch(name, [], MARK)
        two.call("DELETE", f"/api/v2/buckets/{identity}")
        two.bucket(name)
        two.server.write("precious v=1 1", name)
        server.drop_scratch(name, identity)
        assert [row["v"] for row in server.select(name, "autogen", "SELECT v FROM precious")] == [1]


def test_a_scratch_that_is_not_empty_is_refused(two: Preparation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of somebody who writes to the very name end the drill before its own points are mixed with them."""
    name = fresh()
    with two.opened() as server:
        create = server._buckets.create

        def create_and_write(database: str, policies: list[RetentionPolicy], description: str) -> object:
            created = create(database, policies, description)
            two.server.write("theirs v=1 1", name)
            return created

        monkeypatch.setattr(server._buckets, "create", create_and_write)
        with pytest.raises(TargetError, match="not new and empty"):
            server.create_scratch(name, [], MARK)
        assert name not in server.databases()


def test_a_scratch_that_fails_leaves_nothing(two: Preparation) -> None:
    """When one of several buckets cannot be made, those that were made are deleted."""
    name = fresh()
    with two.opened() as server:
        with pytest.raises(TargetError):
            server.create_scratch(name, [policy("fine"), policy('quo"te')], MARK)
        assert name not in server.databases()


def test_a_scratch_name_that_a_mapping_takes(two: Preparation) -> None:
    """A name that leads to a bucket by a mapping is not free."""
    name, other = fresh(), fresh()
    mapping = two.mapping(name, "autogen", two.bucket(other))
    try:
        with two.opened() as server, pytest.raises(TargetError, match="exists"):
            server.create_scratch(name, [], MARK)
    finally:
        two.call("DELETE", f"/api/v2/dbrps/{mapping}?orgID={two.organization_id}")


def test_reading_is_bounded(two: Preparation) -> None:
    """A read is cut into batches of the asked size, complete and in order of time."""
    name = fresh()
    two.bucket(name)
    two.server.write("\n".join(f"m,t=a v={n} {n}" for n in range(5000)), name)
    with two.opened() as server:
        (table,) = server.schema(name, "autogen").tables
        batches = list(server.read(name, table, days(0, 1), ReadOptions(batch_rows=700)))
    assert max(batch.num_rows for batch in batches) <= 700
    times = pa.concat_arrays([batch.column(0) for batch in batches]).cast(pa.int64()).to_pylist()
    assert times == list(range(5000))


def test_system_buckets_can_be_planned_by_name(influx2: RunningServer) -> None:
    """`_monitoring` and `_tasks` are in no list of databases, and are read when a plan names them."""
    with jobs_opened(influx2) as server:
        assert not {"_monitoring", "_tasks"} & set(server.databases())
        for database in ("_monitoring", "_tasks"):
            (policy,) = server.retention_policies(database)
            assert policy.name == "autogen"
            assert policy.duration > 0
            influx2.write(f"own v=1 {server.now()}", database)
            chosen = plan(database, name="own", settle="0s")
            end = server.now() + 10**9
            result = back_up(memory_repository(), server, chosen, window(end - 60 * 10**9, end), force=True)
            assert result.rows >= 1
