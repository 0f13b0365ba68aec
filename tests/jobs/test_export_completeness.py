"""An export reads everything, also of a source that changes meanwhile, or fails; on real servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.protocol import PolicySchema, ReadOptions, Server
from influxdb_backup.jobs.coverage import coverage
from influxdb_backup.model import MAX_END, MIN_TIME, RetentionPolicy, TableSchema, Window
from influxdb_backup.windows import tile
from tests.jobs.sources import Meanwhile, fill
from tests.jobs.support import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    WEEK,
    Wrapped,
    archived,
    back_up,
    create_hours,
    create_policy,
    lines,
    manifest_of,
    new_database,
    plan,
    rows_of,
    window,
)
from tests.servers import RunningServer

# --- 4: coverage knows scope


def test_scope_partial_after_the_plan_was_widened(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """After the plan asks for more, its old backups cover their windows only in part, until they are made again."""
    database = new_database(influx1)
    fill(influx1, database, "cpu")
    fill(influx1, database, "mem")
    back_up(repository, server1, plan(database, measurements=["cpu"]))
    wide = plan(database, measurements=["cpu", "mem"])
    assert coverage(wide, repository.refs("telemetry"), range=DAY, now=DAY.end * 2).partial == (DAY,)
    assert back_up(repository, server1, wide).revision == 1
    assert coverage(wide, repository.refs("telemetry"), range=DAY, now=DAY.end * 2).covered == (DAY,)


# --- 6: pieces tile the whole window


def test_pieces_tile_the_window_also_where_no_shard_group_is(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """The pieces of the evidence tile the window without gap or overlap, and no part crosses a shard group."""
    database = new_database(any_influx)
    create_hours(any_influx, database)
    for hour in (1, 2, 7):
        any_influx.write(f"cpu v={hour} {DAY.start + hour * HOUR + 1}", database, "hours")
    result = back_up(repository, any_server, plan(database))
    manifest = manifest_of(repository, result.ref)
    for policy in ("autogen", "hours"):
        pieces = [piece.window for piece in manifest.evidence.pieces if piece.retention_policy == policy]
        assert tuple(pieces) == tile(DAY, pieces)
    groups = [window(DAY.start + hour * HOUR, DAY.start + (hour + 1) * HOUR) for hour in (1, 2, 7)]
    assert [part.piece for entry in manifest.tables for part in entry.parts] == groups


def test_new_shard_groups_tables_tags_and_fields_during_the_read_are_not_left_out(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Whatever appears at the source while the window is read is in the backup, or the export fails."""
    database = new_database(any_influx)
    create_hours(any_influx, database)

    def write(line: str) -> Callable[[], None]:
        return lambda: any_influx.write(line, database, "hours")

    any_influx.write(f"cpu,host=a v=1 {DAY.start}", database, "hours")
    busy = Meanwhile(
        any_server,
        write(f"cpu,host=a v=2 {DAY.start + 5 * HOUR}"),
        write(f"cpu,host=a,rack=r v=3 {DAY.start + 1}"),
        write(f"cpu,host=a v=4,w=5i {DAY.start + 2}"),
        write(f"mem,host=a v=6 {DAY.start + 7 * HOUR}"),
    )
    result = back_up(repository, busy, plan(database, concurrency=1, reader="query"))
    assert not busy.actions
    found = archived(repository, repository.ref(result.ref))
    assert {(key[1], key[3] - DAY.start, key[4]) for key in found} == {  # type: ignore[operator]
        ("cpu", 0, "v"),
        ("cpu", 1, "v"),
        ("cpu", 2, "v"),
        ("cpu", 2, "w"),
        ("cpu", 5 * HOUR, "v"),
        ("mem", 7 * HOUR, "v"),
    }


def test_a_shard_group_that_appears_after_its_stretch_was_read_is_not_left_out(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """The groups are listed again when all of them were read: the stretch of a new one is read once more."""
    database = new_database(any_influx)
    create_hours(any_influx, database)
    any_influx.write(f"cpu v=1 {DAY.start + HOUR}\ncpu v=2 {DAY.start + 7 * HOUR}", database, "hours")
    others = len(any_server.pieces(database, "hours", DAY)) - 1
    late = [lambda: None] * others + [lambda: any_influx.write(f"cpu v=3 {DAY.start + 4 * HOUR}", database, "hours")]
    busy = Meanwhile(any_server, *late)
    result = back_up(repository, busy, plan(database, concurrency=1, reader="query"))
    assert not busy.actions
    assert result.rows == 3
    pieces = [piece.window for piece in manifest_of(repository, result.ref).evidence.pieces]
    assert window(DAY.start + 4 * HOUR, DAY.start + 5 * HOUR) in pieces


class Slow(Wrapped):
    """A server whose reads and counts end late; it writes down when they end and when something is listed."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.said: list[str] = []

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """Ends late."""
        yield from self.server.read(database, schema, piece, options)
        time.sleep(0.1)
        self.said.append("read")

    def counts(self, *arguments: Any) -> Mapping[str, int]:
        """Ends late."""
        counts = self.server.counts(*arguments)
        time.sleep(0.1)
        self.said.append("counts")
        return counts

    def retention_policies(self, database: str) -> tuple[RetentionPolicy, ...]:
        """As the server."""
        self.said.append("policies")
        return self.server.retention_policies(database)

    def schema(self, database: str, retention_policy: str) -> PolicySchema:
        """As the server."""
        self.said.append("schema")
        return self.server.schema(database, retention_policy)

    def pieces(self, database: str, retention_policy: str, span: Window) -> tuple[Window, ...]:
        """As the server."""
        self.said.append("pieces")
        return self.server.pieces(database, retention_policy, span)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_last_listing_begins_after_the_last_read_and_count(
    influx1: RunningServer, server1: Server, repository: Repository, concurrency: int
) -> None:
    """Policies, tables and shard groups are listed, and expiry is judged, when nothing is left to be read."""
    database = new_database(influx1)
    for measurement in ("cpu", "disk", "mem"):
        fill(influx1, database, measurement)
    slow = Slow(server1)
    assert back_up(repository, slow, plan(database, concurrency=concurrency, reader="query")).rows == 30
    for listing in (slow.said[:3], slow.said[-3:]):
        assert (listing[0], sorted(listing[1:])) == ("policies", ["pieces", "schema"])
    assert sorted(slow.said[3:-3]) == ["counts"] * 3 + ["read"] * 3


def test_a_field_of_another_type_in_a_new_shard_group_during_the_read_keeps_its_type(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A type that the schema did not list when the read began is read again, never cast or dropped."""
    database = new_database(any_influx)
    create_hours(any_influx, database)
    any_influx.write(f"cpu v=1 {DAY.start}", database, "hours")
    busy = Meanwhile(any_server, lambda: any_influx.write(f'cpu v="text" {DAY.start + HOUR}', database, "hours"))
    result = back_up(repository, busy, plan(database, reader="query"))
    values = set(archived(repository, repository.ref(result.ref)).values())
    assert values == {("float", (1.0).hex()), ("str", "text")}


def test_a_source_that_never_stops_changing_its_shape_fails(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Endless new shard groups end in a retryable error, and nothing is committed."""
    database = new_database(influx1)
    create_policy(influx1, database, "hours", "DURATION INF REPLICATION 1 SHARD DURATION 1h DEFAULT")
    influx1.write(f"cpu v=1 {DAY.start}", database, "hours")
    hours = iter(range(1, 24))

    def grow() -> None:
        influx1.write(f"cpu v=1 {DAY.start + next(hours) * HOUR}", database, "hours")

    with pytest.raises(IncompleteReadError, match="changed during each") as caught:
        back_up(repository, Meanwhile(server1, *[grow] * 20), plan(database, concurrency=1))
    assert caught.value.retryable
    assert not repository.refs("telemetry")


# --- completeness: counts


class Hiding(Wrapped):
    """A server whose reads leave the last point out, or whose counts are wrong."""

    def __init__(self, server: Server, *, hide: int, lie: int = 0) -> None:
        super().__init__(server)
        self.hide, self.lie = hide, lie

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """As often as told, without the last point of each batch."""
        hidden, self.hide = self.hide > 0, self.hide - 1
        for batch in self.server.read(database, schema, piece, options):
            yield batch.slice(0, batch.num_rows - 1) if hidden else batch

    def counts(
        self, database: str, retention_policy: str, measurement: str, span: Window, fields: Sequence[str]
    ) -> Mapping[str, int]:
        """Off by ``lie``."""
        counts = self.server.counts(database, retention_policy, measurement, span, fields)
        return {name: count + self.lie for name, count in counts.items()}


def test_counts_that_differ_fail_the_export(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A read that keeps missing a point, or a count that keeps differing, is never committed."""
    database = new_database(influx1)
    fill(influx1, database)
    for wrong in (Hiding(server1, hide=1000), Hiding(server1, hide=0, lie=1), Hiding(server1, hide=0, lie=-1)):
        with pytest.raises(IncompleteReadError, match="field 'v'") as caught:
            back_up(repository, wrong, plan(database))
        assert caught.value.retryable
    assert not repository.refs("telemetry")
    assert not [key for key, _ in repository.store.list("data/")]


def test_counts_that_differ_once_are_read_again(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A point that one read missed is in the backup after the next one."""
    database = new_database(influx1)
    fill(influx1, database)
    result = back_up(repository, Hiding(server1, hide=1), plan(database))
    assert result.rows == 10
    counts = manifest_of(repository, result.ref).evidence.counts
    assert [(dict(count.counts), count.moved) for count in counts] == [({"v": 10}, False)]


def test_points_that_keep_arriving_are_told_from_points_that_were_missed(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """With a point arriving after every read the export succeeds, and its evidence says that the table moved."""
    database = new_database(influx1)
    fill(influx1, database)
    moments = iter(range(100, 200))

    def arrive() -> None:
        influx1.write(f"cpu,host=a v=1 {DAY.start + next(moments) * MINUTE}", database)

    result = back_up(repository, Meanwhile(server1, *[arrive] * 10), plan(database, concurrency=1))
    moved = [count.moved for count in manifest_of(repository, result.ref).evidence.counts]
    assert moved == [True]
    assert result.rows >= 11
    missing = Hiding(server1, hide=1000)
    with pytest.raises(IncompleteReadError):
        back_up(repository, missing, plan(database), accept_shrink=True)


# --- limits of a server


def test_the_whole_of_time_can_be_one_window(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """From the first to the last instant that a server holds, each in a shard group of its own."""
    database = new_database(influx1)
    instants = (MIN_TIME, -1, 0, WEEK.start, MAX_END - 1)
    influx1.write(lines(("cpu", f"v={n}i", instant) for n, instant in enumerate(instants)), database)
    whole = window(MIN_TIME, MAX_END)
    result = back_up(repository, server1, plan(database), whole, force=True)
    assert {key[3] for key in archived(repository, repository.ref(result.ref))} == set(instants)


def test_a_slow_server_is_asked_for_its_clock_not_ours(influx1: RunningServer, server1: Server) -> None:
    """The server's clock is within seconds of the machine's, in ns, and whole seconds."""
    assert abs(server1.now() - time.time_ns()) < 10 * SECOND
    assert server1.now() % SECOND == 0
    assert rows_of(influx1, "SHOW DATABASES", "") is not None


def test_the_schema_of_a_policy_is_its_own(influx1: RunningServer, server1: Server) -> None:
    """A measurement of one policy is not listed in another."""
    database = new_database(influx1)
    create_policy(influx1, database, "other", "DURATION INF REPLICATION 1")
    influx1.write(f"only_here v=1 {DAY.start}", database, "other")
    listed: PolicySchema = server1.schema(database, "autogen")
    assert listed.tables == ()
    assert [schema.table.measurement for schema in server1.schema(database, "other").tables] == ["only_here"]
