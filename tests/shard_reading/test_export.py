"""An export from copies of shards holds what an export by queries holds, to the bit, on every server at hand."""

from __future__ import annotations

import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from hypothesis import Phase, assume, given, settings

from influxdb_backup.archive.repository import Repository
from influxdb_backup.cli.main import run
from influxdb_backup.columns import batch_columns
from influxdb_backup.errors import ConfigError, IncompleteReadError, SourceError
from influxdb_backup.influx.protocol import ReadOptions, Server, ShardCopy
from influxdb_backup.jobs.scrub import scrub
from influxdb_backup.model import TableSchema
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    WEEK,
    Wrapped,
    back_up,
    create_hours,
    create_policy,
    fingerprints,
    local_repository,
    manifest_of,
    memory_repository,
    new_database,
    opened,
    plan,
    rows_of,
    window,
)
from tests.jobs.test_round_trip import NAME_SETS, POINTS, expected_and_body
from tests.servers import DEBIANS, TWO, RunningServer, daemon, free_port, start_influxdb1, start_influxdb2

pytestmark = pytest.mark.usefixtures("compiled")


SHARDS = {"reader": "shard", "hot_shards": "allow"}
"""of a plan: copies also while the points are in the server's cache, which is then written to a file"""


def readers_of(repository: Repository, ref: str) -> set[str]:
    """How the pieces of a backup were read."""
    return {count.reader for count in manifest_of(repository, ref).evidence.counts}


def both(repository: Repository, server: Server, database: str, chosen: object = DAY, **more: object) -> None:
    """
    Backs up by shards and by queries, and compares; the second makes no revision since its content is equal.

    A server on a busy machine may refuse a copy, which is then read by queries and proves nothing here: another plan
    tries again.
    """
    for attempt in range(8):
        time.sleep(attempt)
        settings = {"name": f"plan{attempt}", **more}
        by_shard = back_up(repository, server, plan(database, **SHARDS, **settings), chosen)
        if readers_of(repository, by_shard.ref) == {"shard"}:
            break
    by_query = back_up(repository, server, plan(database, reader="query", **settings), chosen)
    assert readers_of(repository, by_shard.ref) == {"shard"}
    assert fingerprints(manifest_of(repository, by_shard.ref))
    assert (by_query.created, by_query.ref) == (False, by_shard.ref)


@settings(max_examples=15, phases=(Phase.generate,))
@given(points=POINTS, names=NAME_SETS)
def test_hostile_points(any_influx: RunningServer, server: Server, points: list, names: dict) -> None:
    """Names, values and times that are easily got wrong, still in the server's cache when it is asked."""
    database = new_database(any_influx)
    expected, body = expected_and_body(points, names, unsigned=any_influx.generation == 2)
    assume(expected)
    any_influx.write(body, database)
    both(memory_repository(), server, database)


def test_overwritten_deleted_and_unflushed_points(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """Points of three writes between which the cache was written to files; the last one wins, deleted ones are gone."""
    database = new_database(any_influx)
    for turn in range(3):
        lines = [f"m,host=h{n % 3} a={turn}.5,b={n}i {DAY.start + n * 10**9}" for n in range(turn * 100, 600)]
        any_influx.write("\n".join(lines), database)
        back_up(memory_repository(), server, plan(database, **SHARDS))  # has the cache written to a file
    if any_influx.generation == 1:
        low, high = DAY.start + 10 * 10**9, DAY.start + 20 * 10**9
        any_influx.query(f"DELETE FROM m WHERE time >= {low} AND time < {high}", db=database)
        any_influx.query("DROP SERIES FROM m WHERE host = 'h1'", db=database)
    any_influx.write(f"m,host=h2 a=9,b=1i {DAY.start + 15 * 10**9}", database)
    both(repository, server, database)


def test_windows_are_cut_exactly(any_influx: RunningServer, server: Server, repository: Repository) -> None:
    """A window of half a day, of several shard groups and with bounds between two points."""
    database = new_database(any_influx)
    times = range(WEEK.start - 8 * DAY_NS, WEEK.end, HOUR)
    any_influx.write("\n".join(f"m v={n}i {time}" for n, time in enumerate(times)), database)
    both(repository, server, database, window(DAY.start + 1, DAY.start + 12 * HOUR + 1))
    both(repository, server, database, window(WEEK.start - 7 * DAY_NS, WEEK.end))


def test_types_per_shard_and_several_policies(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """A field that is a float in one shard and a string in the next, and a second policy with its own shards."""
    database = new_database(any_influx)
    any_influx.write(f"m v=1.5 {DAY.start}", database)
    any_influx.write(f'm v="text" {WEEK.end}', database)
    if any_influx.generation == 1:
        create_policy(any_influx, database, "long", "DURATION INF REPLICATION 1 SHARD DURATION 1d")
        any_influx.write(f"m v=2i,w=true {DAY.start}", database, "long")
    both(repository, server, database, window(WEEK.start, WEEK.end + 7 * DAY_NS))


def test_a_column_that_the_schema_does_not_know_is_never_dropped(any_influx: RunningServer, server: Server) -> None:
    """A tag or field that appeared after the schema was read ends the read with schema-changed, as a query's does."""
    database = new_database(any_influx)
    any_influx.write(f"m,t=a v=1,w=2i {WEEK.start}", database)
    [whole] = server.schema(database, "autogen").tables
    with server.copy_shard(database, "autogen", WEEK, 0.0, True) as copy:
        assert copy
        assert sum(batch.num_rows for batch in copy.read(whole, WEEK, ReadOptions())) == 1
        for left_out in whole.columns:
            known = tuple(column for column in whole.columns if column != left_out)
            with pytest.raises(IncompleteReadError) as caught:
                list(copy.read(TableSchema(table=whole.table, columns=known), WEEK, ReadOptions()))
            assert caught.value.kind == "schema-changed"


def drop(running: RunningServer, database: str, measurement: str, tags: dict[str, str]) -> None:
    """All series of a measurement with these tags, in the server's own words; without tags the measurement."""
    if running.generation == 1:
        chosen = " AND ".join(f"{name} = '{value}'" for name, value in tags.items())
        words = f"DROP SERIES FROM {measurement} WHERE {chosen}" if tags else f"DROP MEASUREMENT {measurement}"
        assert "error" not in str(running.query(words, db=database))
        return
    chosen = " AND ".join(f'{name}="{value}"' for name, value in {"_measurement": measurement, **tags}.items())
    body = json.dumps({"start": "1970-01-01T00:00:00Z", "stop": "2100-01-01T00:00:00Z", "predicate": chosen}).encode()
    target = f"/api/v2/delete?org={running.organization}&bucket={database}"
    running._post(target, body, "application/json")


def test_columns_of_dropped_series_are_no_columns(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """
    A tag that only dropped series had, and a field that was dropped and has another type now: the files still have both.
    """
    database = new_database(any_influx)
    any_influx.write(f"m,t=a v=1 {DAY.start}\nm,u=b v=2 {DAY.start}\nn,t=a v=1.5,w=2i {DAY.start}", database)
    back_up(memory_repository(), server, plan(database, **SHARDS))  # has the cache written to a file
    drop(any_influx, database, "m", {"t": "a"})
    drop(any_influx, database, "n", {})
    any_influx.write(b'n,t=a v="\xff" %d' % DAY.start, database)
    with server.copy_shard(database, "autogen", WEEK, 0.0, True) as copy:
        assert copy
        for schema in server.schema(database, "autogen").tables:
            (batch,) = copy.read(schema, WEEK, ReadOptions())
            assert set(batch_columns(batch.schema)) <= set(schema.columns)
            assert batch.num_rows == 1
    both(repository, server, database)


def test_a_field_named_time_stops_no_backup(
    any_influx: RunningServer, server: Server, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """What one client wrote into a field named time no query returns; the copy is backed up without it, and says so."""
    database = new_database(any_influx)
    any_influx.write(f"m v=1 {DAY.start}", database)
    for line in (f"m time=5,v=2 {DAY.start + 1}", f"m time=7 {DAY.start + 2}"):
        with suppress(HTTPError):  # a status of 400 or 422 that says what was stripped
            any_influx.write(line, database)
    both(repository, server, database)
    assert server.info.version.startswith("1.6") or "of a field named time" in caplog.text
    (table,) = manifest_of(repository, back_up(repository, server, plan(database, **SHARDS)).ref).tables
    assert table.rows == 2


class Unwritable(logging.Handler):
    """A shard folder in which the server can write no cache, until a copy of it was asked for again three times."""

    def __init__(self, shard: Path) -> None:
        super().__init__()
        self.obstacles = [shard / f"{number:09d}-000000001.tsm.tmp" for number in range(1, 100)]
        self.refusals = 0
        for path in self.obstacles:
            path.mkdir()

    def emit(self, record: logging.LogRecord) -> None:
        """Counts what the log of the copies tells."""
        self.refusals += "asked for again" in record.getMessage()
        if self.refusals == 3:
            self.lift()

    def lift(self) -> None:
        """Lets the server write again."""
        while self.obstacles:
            self.obstacles.pop().rmdir()


def test_deletions_after_a_refused_copy_are_done(
    any_influx: RunningServer, server: Server, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A server that could not write its cache keeps a half of it where deletions do not reach, until it is copied again.

    So a refused copy is asked for until the server can: no export leaves that half behind.
    """
    if any_influx.folder is None:
        pytest.skip("lacks the folder of the server at INFLUXDB_URL or INFLUXDB2_URL")
    pattern = "data/*/autogen/*" if any_influx.generation == 1 else "engine/data/*/autogen/*"
    known = set(any_influx.folder.glob(pattern))
    database = new_database(any_influx)
    any_influx.write("\n".join(f"m,t={'ab'[n % 2]} v={n} {DAY.start + n}" for n in range(10)), database)
    (shard,) = set(any_influx.folder.glob(pattern)) - known
    unwritable = Unwritable(shard)
    copies = logging.getLogger("influxdb_backup.influx.shard_copy")
    copies.addHandler(unwritable)
    try:
        with caplog.at_level(logging.INFO, copies.name):
            result = back_up(repository, server, plan(database, **SHARDS))
    finally:
        copies.removeHandler(unwritable)
        unwritable.lift()
    assert unwritable.refusals >= 3
    assert (readers_of(repository, result.ref), result.rows) == ({"shard"}, 10)
    drop(any_influx, database, "m", {"t": "a"})
    assert rows_of(any_influx, "SELECT count(v) FROM m", database) == [[0, 5]]


class Afterwards(Wrapped):
    """Something happens at the source once a shard's copy was read, for each of the actions."""

    def __init__(self, server: Server, *actions: Callable[[], None]) -> None:
        super().__init__(server)
        self.actions = list(actions)

    @contextmanager
    def copy_shard(self, *arguments: Any) -> Iterator[ShardCopy | None]:
        """The copy, and then the next thing."""
        with self.server.copy_shard(*arguments) as copy:
            yield copy
        if self.actions:
            self.actions.pop(0)()


def test_what_appears_after_its_shard_was_copied_is_not_left_out(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """A new shard group, tag and field that come when all shards were copied are in the backup."""
    database = new_database(any_influx)
    create_hours(any_influx, database)
    any_influx.write(f"m v=1 {DAY.start + HOUR}\nm v=2 {DAY.start + 7 * HOUR}", database, "hours")
    copies = len(server.pieces(database, "hours", DAY))

    def grow() -> None:
        any_influx.write(f"m v=3 {DAY.start + 4 * HOUR}\nm,t=a w=4i {DAY.start + 7 * HOUR}", database, "hours")

    busy = Afterwards(server, *[lambda: None] * (copies - 1), grow)
    result = back_up(repository, busy, plan(database, **SHARDS))
    assert not busy.actions
    assert (result.rows, result.values) == (4, 4)
    assert "shard" in readers_of(repository, result.ref)


class Meanwhile(Wrapped):
    """Something happens at the source between the copy of a shard and its reading."""

    def __init__(self, server: Server, action: Callable[[], None]) -> None:
        super().__init__(server)
        self.action = action

    @contextmanager
    def copy_shard(self, *arguments: Any) -> Iterator[ShardCopy | None]:
        """The copy, which is older than what happened."""
        with self.server.copy_shard(*arguments) as copy:
            self.action()
            yield copy


def test_a_copy_whose_counts_differ_is_left_for_queries(
    any_influx: RunningServer, server: Server, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """A point that came after the copy is in the backup, and a warning tells what differed."""
    database = new_database(any_influx)
    any_influx.write(f"m v=1 {DAY.start}", database)
    any_influx.wait_until_cold()
    busy = Meanwhile(server, lambda: any_influx.write(f"m v=2 {DAY.start + HOUR}", database))
    result = back_up(repository, busy, plan(database, reader="shard"))
    assert (result.rows, readers_of(repository, result.ref)) == (2, {"query"})
    (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "field 'v': 1 read, 2 counted" in said.getMessage()


def test_a_small_part_of_a_shard_is_read_by_queries(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """A window of an hour does not copy the shard of a week; the manifest says by what it was read."""
    database = new_database(any_influx)
    any_influx.write(f"m v=1 {DAY.start}", database)
    result = back_up(repository, server, plan(database), window(DAY.start, DAY.start + HOUR))
    assert readers_of(repository, result.ref) == {"query"}


class NeverCopied(Wrapped):
    """A server of which no shard is copied."""

    def copy_shard(self, *arguments: Any) -> AbstractContextManager[ShardCopy | None]:
        """A failure of the test."""
        raise AssertionError(f"a copy was asked for: {arguments}")


def test_what_copies_shards_is_not_needed_for_a_small_part(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """What the server lists tells that a window is too small a part of its shard: no compiled loop is loaded for it."""
    database = new_database(any_influx)
    any_influx.write(f"m v=1 {DAY.start + 5}\nm v=2 {DAY.start + HOUR}", database)
    result = back_up(repository, NeverCopied(server), plan(database), window(DAY.start, DAY.start + HOUR))  # type: ignore[arg-type]
    assert (readers_of(repository, result.ref), result.rows) == ({"query"}, 1)
    with pytest.raises(AssertionError, match="a copy was asked for"):
        back_up(repository, NeverCopied(server), plan(database), DAY)  # type: ignore[arg-type]


def test_a_closed_door_is_told_and_left_alone(
    any_influx: RunningServer, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """`auto` reads by queries and says why; `shard` fails and names the next step."""
    database = new_database(any_influx)
    any_influx.write(f"m v=1 {DAY.start}", database)
    token = any_influx.token and limited_token(any_influx)
    with opened(any_influx, token=token) as server, caplog.at_level(logging.INFO):
        result = back_up(repository, server, plan(database))
        assert readers_of(repository, result.ref) == {"query"}
        reason = "operator token" if any_influx.token else "snapshot_address"
        assert reason in caplog.text
        with pytest.raises(SourceError, match=reason) as caught:
            back_up(repository, server, plan(database, reader="shard"))
    assert "reader: auto" in caught.value.hint


def limited_token(running: RunningServer) -> str:
    """A token that may read all buckets, without the operator's rights."""
    import json

    organization = json.loads(running.get(f"/api/v2/orgs?org={running.organization}"))["orgs"][0]["id"]
    rights = [{"action": "read", "resource": {"type": kind}} for kind in ("buckets", "orgs", "dbrp")]
    body = json.dumps({"orgID": organization, "permissions": rights}).encode()
    return str(json.loads(running._post("/api/v2/authorizations", body, "application/json"))["token"])


def test_a_wrong_backup_port_is_told(influx1: RunningServer, repository: Repository) -> None:
    """Nothing listens there: `auto` goes on by queries, `shard` says what to do."""
    database = new_database(influx1)
    influx1.write(f"m v=1 {DAY.start}", database)
    with opened(influx1, snapshot_address=f"127.0.0.1:{free_port()}") as server:
        assert readers_of(repository, back_up(repository, server, plan(database)).ref) == {"query"}
        with pytest.raises(SourceError, match="cannot be reached"):
            back_up(repository, server, plan(database, reader="shard"))


def test_what_is_no_backup_port_is_a_closed_door(influx1: RunningServer, repository: Repository) -> None:
    """Another service answers there, such as the server's own HTTP: as if nothing listened."""
    database = new_database(influx1)
    influx1.write(f"m v=1 {DAY.start}", database)
    with opened(influx1, snapshot_address=influx1.url.removeprefix("http://")) as server:
        assert readers_of(repository, back_up(repository, server, plan(database)).ref) == {"query"}
        with pytest.raises(SourceError, match="does not answer as a backup port"):
            back_up(repository, server, plan(database, reader="shard"))


def test_the_backup_port_of_another_server_is_refused(
    influx1: RunningServer, newer_influx1: RunningServer, repository: Repository
) -> None:
    """A tunnel that leads to another host never becomes a backup of it."""
    database = new_database(influx1)
    influx1.write(f"m v=1 {DAY.start}", database)
    with (
        opened(influx1, snapshot_address=newer_influx1.backup_address) as server,
        pytest.raises(ConfigError, match="another server"),
    ):
        back_up(repository, server, plan(database))


@contextmanager
def changing(address: str, change: Callable[[bytes, int], bytes]) -> Iterator[str]:
    """A relay to a backup port that changes each copy of a shard; the copies are numbered from 0 on."""
    host, _, port = address.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    copies = itertools.count()

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as upstream:
            client.settimeout(5)
            upstream.settimeout(5)
            request = client.recv(65536)
            if request:
                upstream.sendall(request)
                reply = b""
                while block := upstream.recv(65536):
                    reply += block
                client.sendall(change(reply, next(copies)) if request[1] == 0 else reply)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with closing(listener):
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("most", [200, 700, 2000])
def test_a_cut_copy_is_left_for_queries(
    influx1: RunningServer, repository: Repository, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that ends in the middle: the points are read by queries, and the log says why."""
    database = new_database(influx1)
    influx1.write("\n".join(f"m,n={n} v={n * 0.37} {DAY.start + n}" for n in range(2000)), database)
    influx1.wait_until_cold()
    assert influx1.backup_address
    with (
        changing(influx1.backup_address, lambda reply, number: reply[:most]) as address,
        opened(influx1, snapshot_address=address) as server,
    ):
        result = back_up(repository, server, plan(database))
    assert readers_of(repository, result.ref) == {"query"}
    assert result.rows == 2000
    assert "not whole" in caplog.text


@pytest.mark.parametrize("where", ["block", "index"])
def test_a_copy_that_was_damaged_on_its_way_is_fetched_again(
    influx1: RunningServer, repository: Repository, where: str
) -> None:
    """A bit that turned in the copy alone is no damage of the server."""
    database = new_database(influx1)
    influx1.write("\n".join(f"m v={n * 0.37} {DAY.start + n}" for n in range(2000)), database)
    flips = []

    def flip(reply: bytes, number: int) -> bytes:
        key = reply.rfind(b"m#!~#v")
        if number > 1 or key < 0:  # two replies make one copy, and the second one brings young files again
            return reply
        flips.append(number)
        place = reply.rfind(b"\x16\xd1\x16\xd1", 0, key) + 40 if where == "block" else key + 32
        return reply[:place] + bytes([reply[place] ^ 4]) + reply[place + 1 :]

    assert influx1.backup_address
    with changing(influx1.backup_address, flip) as address, opened(influx1, snapshot_address=address) as server:
        result = back_up(repository, server, plan(database, **SHARDS))
    assert flips
    assert readers_of(repository, result.ref) == {"shard"}
    assert result.rows == 2000


def flipped(path: Path, place: int) -> None:
    """One bit of a file turned."""
    raw = bytearray(path.read_bytes())
    raw[place] ^= 4
    path.write_bytes(raw)


@pytest.mark.parametrize("generation", [1, 2])
def test_damage_on_the_server_is_found_and_told(
    generation: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flipped bit of a block: the export names file, series and times, and the last backup; others go on."""
    binary = daemon(DEBIANS if generation == 1 else TWO)

    def started() -> object:
        start = start_influxdb1 if generation == 1 else start_influxdb2
        return start(tmp_path / "server", binary)

    repository = local_repository(tmp_path)
    with started() as running, opened(running, snapshot_address=running.backup_address) as server:
        database = new_database(running, "damaged")
        lines = [f"m,host=a v={n * 0.1} {DAY.start + n * 10**9}" for n in range(3000)]
        lines += [f"other v={n}i {DAY.start + DAY_NS + n * 10**9}" for n in range(3000)]
        running.write("\n".join(lines), database)
        running.wait_until_cold()
        good = back_up(repository, server, plan(database, reader="shard"))
    (file,) = [path for path in (tmp_path / "server").rglob("*.tsm") if database in str(path) or generation == 2]
    flipped(file, 2000)
    with started() as running, opened(running, snapshot_address=running.backup_address) as server:
        with pytest.raises(SourceError) as caught:
            back_up(repository, server, plan(database))
        assert caught.value.kind == "source-damaged"
        for told in (file.name, "m,host=a", "times", good.ref):
            assert told in caught.value.message, told
        assert "reader: query" in caught.value.hint
        tomorrow = window(DAY.end, DAY.end + DAY_NS)
        result = back_up(repository, server, plan(database), tomorrow)
        assert readers_of(repository, result.ref) == {"shard"}
        assert result.rows == 3000
        assert "m,host=a" in caplog.text
        everything = {policy.database: policy for policy in scrub(server)}
        assert "m,host=a" in everything[database].damages[0]
        assert everything[database].rows == 3000
        extra = {"snapshot_address": running.backup_address, "token": running.token}
        place = {"conn_type": "influxdb_backup", "host": running.url, "extra": {k: v for k, v in extra.items() if v}}
        monkeypatch.setenv("INFLUXDB_BACKUP_CONN_DAMAGED", json.dumps(place))
        for arguments in ([], ["--json"]):
            capsys.readouterr()
            assert run(["scrub-server", "damaged", "--database", database, *arguments]) == 1
            assert "m,host=a" in capsys.readouterr().out


def test_a_sound_server_has_no_damages(any_influx: RunningServer, server: Server) -> None:
    """A scrub reads every row of every shard group of a database, and names those whose caches have writes."""
    database = new_database(any_influx)
    any_influx.write("\n".join(f"m,n={n} v={n} {DAY.start + n * DAY_NS}" for n in range(30)), database)
    (hot,) = scrub(server, [database])
    assert (hot.rows, hot.shard_groups, len(hot.hot)) == (0, 0, 5)
    assert "writes in its cache" in hot.hot[0]
    any_influx.wait_until_cold()
    (found,) = scrub(server, [database])
    assert (found.rows, found.shard_groups, found.damages, found.hot) == (30, 5, (), ())
