"""The rules against silent loss, on the side of the backup: each on a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import BackupNotFoundError, FormatError, IncompleteReadError, SourceError, SupersededError
from influxdb_backup.influx.protocol import PolicySchema, ReadOptions, Server
from influxdb_backup.jobs.coverage import coverage
from influxdb_backup.jobs.restore_request import RestoreRequest, decide_reads
from influxdb_backup.model import MAX_END, MIN_TIME, RetentionPolicy, Table, TableSchema, Window
from influxdb_backup.windows import tile
from tests.influx2.support import Preparation
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    MINUTE,
    SECOND,
    WEEK,
    Wrapped,
    archived,
    at,
    back_up,
    create_hours,
    create_policy,
    lines,
    local_repository,
    manifest_of,
    new_database,
    new_name,
    plan,
    rows_of,
    window,
)
from tests.servers import RunningServer


def fill(
    running: RunningServer, database: str, measurement: str = "cpu", start: int = DAY.start, count: int = 10
) -> None:
    """One point a minute of one series."""
    running.write(lines((f"{measurement},host=a", f"v={n}", start + n * MINUTE) for n in range(count)), database)


class Clock(Wrapped):
    """A server whose clock says what the test wants, one instant after the other; the last one stays."""

    def __init__(self, server: Server, *instants: int) -> None:
        super().__init__(server)
        self.instants = list(instants)

    def now(self) -> int:
        """The next instant."""
        return self.instants.pop(0) if len(self.instants) > 1 else self.instants[0]


class Meanwhile(Wrapped):
    """Something happens at the source while a table is being read, once for each of the actions."""

    def __init__(self, server: Server, *actions: Callable[[], None]) -> None:
        super().__init__(server)
        self.actions = list(actions)

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """Reads all, and then lets the next thing happen before the read returns."""
        yield from self.server.read(database, schema, piece, options)
        if self.actions:
            self.actions.pop(0)()


class Watched(Wrapped):
    """A server that writes down which windows are read."""

    def __init__(self, server: Server, reads: list[Window]) -> None:
        super().__init__(server)
        self.reads = reads

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """Reads, and writes it down."""
        self.reads.append(piece)
        return self.server.read(database, schema, piece, options)


# --- 1: expired windows, shrunk windows


def test_expired_window_is_refused(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A window that the source may have begun to drop is not committed as if it were whole."""
    database = new_database(influx1)
    create_policy(influx1, database, "days", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    now = server1.now()
    influx1.write(f"cpu v=1 {now - 10 * HOUR}", database, "days")
    old = window(now - 3 * DAY_NS, now - HOUR)
    with pytest.raises(SourceError, match="'days' keeps 2d") as caught:
        back_up(repository, server1, plan(database), old)
    assert caught.value.kind == "expired-window"
    assert not repository.refs("telemetry")
    kept = back_up(repository, server1, plan(database), window(now - DAY_NS, now - HOUR))
    assert kept.rows == 1
    assert back_up(repository, server1, plan(database), old, accept_expired=True).rows == 1


def test_expired_window_is_judged_at_the_end_of_the_read_as_well(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A window that expires while it is read is refused, since points may have gone in between."""
    database = new_database(influx1)
    create_policy(influx1, database, "days", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    now = server1.now()
    influx1.write(f"cpu v=1 {now - 10 * HOUR}", database, "days")
    edge = now - 2 * DAY_NS
    slow = Clock(server1, now, now, now + 2)
    with pytest.raises(SourceError) as caught:
        back_up(repository, slow, plan(database), window(edge + 1, now - HOUR), now=now)
    assert caught.value.kind == "expired-window"
    assert not repository.refs("telemetry")


def test_expired_window_is_refused_before_anything_is_read(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A window that cannot be whole any more costs the source no read."""
    database = new_database(influx1)
    create_policy(influx1, database, "days", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    now = server1.now()
    influx1.write(f"cpu v=1 {now - 10 * HOUR}", database, "days")
    reads: list[Window] = []
    old = window(now - 3 * DAY_NS, now - HOUR)
    for _ in range(2):
        with pytest.raises(SourceError) as caught:
            back_up(repository, Watched(server1, reads), plan(database), old)
        assert caught.value.kind == "expired-window"
    assert not reads
    back_up(repository, Watched(server1, reads), plan(database), old, accept_expired=True)
    assert reads


def test_expired_window_is_judged_by_the_latest_that_the_server_said(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A server's clock that is set back while a window is read does not make the window whole again."""
    database = new_database(influx1)
    create_policy(influx1, database, "days", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    now = server1.now()
    influx1.write(f"cpu v=1 {now - 10 * HOUR}", database, "days")
    edge = now - 2 * DAY_NS
    with pytest.raises(SourceError) as caught:
        back_up(repository, Clock(server1, now + 2, now), plan(database), window(edge + 1, now - HOUR), now=now)
    assert caught.value.kind == "expired-window"


def test_shrunk_window_is_refused(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A new revision with fewer points than the one before needs a person's word, and keeps the old one readable."""
    database = new_database(influx1)
    fill(influx1, database)
    first = back_up(repository, server1, plan(database))
    influx1.query(f"DELETE FROM cpu WHERE time < {DAY.start + 3 * MINUTE}", db=database)
    with pytest.raises(SourceError, match="now holds 7 rows and held 10") as caught:
        back_up(repository, server1, plan(database))
    assert caught.value.kind == "shrunk-window"
    second = back_up(repository, server1, plan(database), accept_shrink=True)
    assert (second.revision, second.rows) == (1, 7)
    assert len(archived(repository, repository.ref(first.ref))) == 10


def test_shrunk_window_is_refused_table_by_table(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Points that arrived in one table do not hide those that vanished from another."""
    database = new_database(influx1)
    fill(influx1, database, "cpu")
    fill(influx1, database, "mem")
    back_up(repository, server1, plan(database))
    influx1.query(f"DELETE FROM cpu WHERE time < {DAY.start + 3 * MINUTE}", db=database)
    fill(influx1, database, "mem", DAY.start + HOUR, 50)
    with pytest.raises(SourceError, match=r"autogen\.cpu now holds 7 rows"):
        back_up(repository, server1, plan(database))


def test_shrunk_window_is_judged_by_its_latest_revision(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Fewer rows than the revision before is a loss, also when there are more than in an older one."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    fill(influx1, database, count=20)
    assert back_up(repository, server1, plan(database)).rows == 20
    influx1.query(f"DELETE FROM cpu WHERE time < {DAY.start + 5 * MINUTE}", db=database)
    with pytest.raises(SourceError, match=r"revision 1: autogen\.cpu now holds 15 rows and held 20"):
        back_up(repository, server1, plan(database))


def test_shrunk_window_is_refused_when_a_whole_table_is_gone(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """That a measurement may be missing does not say that its points may go from a window that held them."""
    database = new_database(influx1)
    fill(influx1, database, "cpu")
    fill(influx1, database, "mem")
    back_up(repository, server1, plan(database))
    influx1.query("DROP MEASUREMENT mem", db=database)
    with pytest.raises(SourceError, match=r"autogen\.mem now holds 0 rows and held 10") as caught:
        back_up(repository, server1, plan(database), accept_missing=True)
    assert caught.value.kind == "shrunk-window"
    assert back_up(repository, server1, plan(database), accept_missing=True, accept_shrink=True).revision == 1


def test_shrunk_window_is_refused_when_the_last_revision_cannot_be_read(
    influx1: RunningServer, server1: Server, tmp_path: Path
) -> None:
    """With its manifest damaged, the rows in the last revision's ref still say that some are gone."""
    repository = local_repository(tmp_path)
    database = new_database(influx1)
    fill(influx1, database)
    first = back_up(repository, server1, plan(database))
    path = tmp_path / "repository" / "manifests" / (first.manifest.removeprefix("sha256:") + ".json")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-10])
    influx1.query(f"DELETE FROM cpu WHERE time < {DAY.start + 3 * MINUTE}", db=database)
    with pytest.raises(SourceError, match="it now holds 7 rows and held 10") as caught:
        back_up(repository, server1, plan(database))
    assert caught.value.kind == "shrunk-window"
    fill(influx1, database)
    assert back_up(repository, server1, plan(database)).revision == 1


# --- 2: rights that shrink


def test_rights_that_shrink_are_an_error(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """What the plan's last backup held and the server no longer shows, in any window, is not passed over."""
    database = new_database(influx1)
    create_policy(influx1, database, "other", "DURATION INF REPLICATION 1")
    fill(influx1, database, "cpu")
    fill(influx1, database, "mem")
    influx1.write(f"cpu v=1 {DAY.start}", database, "other")
    back_up(repository, server1, plan(database))
    next_day = window(DAY.end, DAY.end + DAY_NS)
    influx1.query(f'DROP MEASUREMENT mem; DROP RETENTION POLICY "other" ON "{database}"', db=database)
    with pytest.raises(SourceError, match="retention policy 'other', measurement 'mem' of 'autogen'") as caught:
        back_up(repository, server1, plan(database), next_day)
    assert caught.value.kind == "missing-at-source"
    assert back_up(repository, server1, plan(database), next_day, accept_missing=True).rows == 0
    assert back_up(repository, server1, plan(database), window(next_day.end, next_day.end + DAY_NS)).rows == 0


def test_rights_that_shrink_on_2x_are_told_from_a_bucket_without_points(
    influx2: RunningServer, repository: Repository
) -> None:
    """A bucket that a token may no longer read looks as if it had never been, and is missed all the same."""
    preparation = Preparation(influx2)
    database = new_name()
    whole, other = preparation.bucket(database), preparation.bucket(f"{database}/other")
    influx2.write(f"cpu v=1 {DAY.start}", database)
    influx2.write(f"cpu v=1 {DAY.start}", database, "other")
    next_day = window(DAY.end, DAY.end + DAY_NS)
    with preparation.opened(preparation.reader(whole, other)) as server:
        assert back_up(repository, server, plan(database)).tables == 2
    with preparation.opened(preparation.reader(whole)) as server:
        with pytest.raises(SourceError, match="no longer shows: retention policy 'other'") as caught:
            back_up(repository, server, plan(database), next_day)
        assert caught.value.kind == "missing-at-source"
        assert len(repository.refs("telemetry")) == 1
        assert back_up(repository, server, plan(database), next_day, accept_missing=True).tables == 1
        assert back_up(repository, server, plan(database), accept_shrink=True).tables == 1
    reads = decide_reads(RestoreRequest(plan="telemetry", window=DAY), repository, None)
    assert [unit.table.retention_policy for unit in reads.units] == ["autogen", "other"]
    with preparation.opened(preparation.reader(other)) as server:
        with pytest.raises(SourceError, match="retention policy 'autogen'"):
            back_up(repository, server, plan(database), window(next_day.end, next_day.end + DAY_NS))
        with pytest.raises(SourceError, match="shows no retention policy 'autogen'"):
            back_up(repository, server, plan(database, retention_policies=["autogen"]), next_day)


def test_rights_that_shrink_are_judged_by_the_backup_that_was_read_last(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A measurement that came after the last window was read, and is in a backup of an older one, is missed too."""
    database = new_database(influx1)
    fill(influx1, database, "cpu")
    later = [window(DAY.end + n * DAY_NS, DAY.end + (n + 1) * DAY_NS) for n in range(3)]
    back_up(repository, Clock(server1, later[2].end), plan(database), later[0])
    fill(influx1, database, "mem")
    back_up(repository, Clock(server1, later[2].end + HOUR), plan(database), DAY)
    influx1.query("DROP MEASUREMENT mem", db=database)
    with pytest.raises(SourceError, match="'mem'"):
        back_up(repository, Clock(server1, later[2].end + 2 * HOUR), plan(database), later[1])


def test_rights_that_shrink_during_the_first_read_are_an_error(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What was there when the read began and is not at its end is not left out without a word."""
    database = new_database(influx1)
    fill(influx1, database, "cpu")
    fill(influx1, database, "mem")
    drop = Meanwhile(server1, lambda: influx1.query("DROP MEASUREMENT mem", db=database))
    with pytest.raises(
        SourceError, match=r"no longer shows what it showed when this read began: autogen\.mem"
    ) as caught:
        back_up(repository, drop, plan(database, concurrency=1))
    assert caught.value.kind == "missing-at-source"
    assert not repository.refs("telemetry")
    fill(influx1, database, "mem")
    drop = Meanwhile(server1, lambda: influx1.query("DROP MEASUREMENT mem", db=database))
    assert back_up(repository, drop, plan(database, concurrency=1), accept_missing=True).tables == 1


def test_rights_that_shrink_are_judged_by_the_last_readable_backup(
    influx1: RunningServer, server1: Server, repository: Repository, tmp_path: Path
) -> None:
    """A damaged manifest of an old backup does not keep new windows from being backed up."""
    database = new_database(influx1)
    fill(influx1, database, "cpu")
    fill(influx1, database, "mem")
    back_up(repository, server1, plan(database))
    later = back_up(repository, server1, plan(database), window(DAY.end, DAY.end + DAY_NS))
    path = tmp_path / "repository" / "manifests" / (later.manifest.removeprefix("sha256:") + ".json")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-10])
    third = window(DAY.end + DAY_NS, DAY.end + 2 * DAY_NS)
    assert back_up(repository, server1, plan(database), third).created
    path.unlink()
    influx1.query("DROP MEASUREMENT mem", db=database)
    with pytest.raises(SourceError, match="'mem'"):
        back_up(repository, server1, plan(database), window(third.end, third.end + DAY_NS))


def test_a_damaged_ref_keeps_no_other_window_from_being_backed_up(
    influx1: RunningServer, server1: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other window is a gap by now and is said to be one; its own export stops and names the file."""
    repository = local_repository(tmp_path)
    database = new_database(influx1)
    fill(influx1, database)
    first = back_up(repository, server1, plan(database))
    path = tmp_path / "repository" / "refs" / f"{first.ref}.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-10])
    later = back_up(repository, server1, plan(database), window(DAY.end, DAY.end + DAY_NS))
    assert later.created
    assert path.name in caplog.text
    since = plan(database, start="2024-03-06T00:00:00Z")
    assert back_up(repository, server1, since, window(DAY.end, DAY.end + DAY_NS)).gaps[0] == DAY
    with pytest.raises(FormatError, match="copy of the repository"):
        back_up(repository, server1, plan(database))


# --- 3: a plan's name is not its identity


def test_plan_identity_that_was_lost_is_known_from_the_last_backup(
    influx1: RunningServer, server1: Server, tmp_path: Path
) -> None:
    """A repository that was copied without its plans still takes no other database into the chain."""
    repository = local_repository(tmp_path)
    first, second = new_database(influx1), new_database(influx1)
    fill(influx1, first)
    fill(influx1, second)
    back_up(repository, server1, plan(first))
    (tmp_path / "repository" / "plans" / "telemetry.json").unlink()
    with pytest.raises(SourceError, match=f"of database '{first}'"):
        back_up(repository, server1, plan(second))
    back_up(repository, server1, plan(first))
    identity = repository.plan_identity("telemetry")
    assert identity is not None
    assert identity.database == first


def test_plan_identity_of_another_database_is_refused(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Backups of two databases never end up in one chain."""
    first, second = new_database(influx1), new_database(influx1)
    fill(influx1, first)
    fill(influx1, second)
    back_up(repository, server1, plan(first))
    with pytest.raises(SourceError, match=f"of database '{first}'") as caught:
        back_up(repository, server1, plan(second))
    assert caught.value.kind == "identity-mismatch"
    with pytest.raises(SourceError, match="of source 'None'"):
        back_up(repository, server1, plan(first, source="rack 7"))


def test_plan_identity_of_another_generation_is_refused(
    influx1: RunningServer, server1: Server, influx2: RunningServer, server2: Server, repository: Repository
) -> None:
    """A database of the same name on a server of the other generation does not go on with the chain."""
    database = new_database(influx1)
    influx2.create_database(database)
    for running in (influx1, influx2):
        fill(running, database)
    back_up(repository, server1, plan(database))
    with pytest.raises(SourceError, match=r"of InfluxDB generation '1'.* now names '2'") as caught:
        back_up(repository, server2, plan(database))
    assert caught.value.kind == "identity-mismatch"


def test_plan_identity_of_another_organization_is_refused(influx2: RunningServer, repository: Repository) -> None:
    """A bucket of the same name in another organisation of a 2.x server does not go on with the chain."""
    preparation = Preparation(influx2)
    database = new_name()
    mine, theirs = preparation.organization_id, preparation.organization(new_name("org"))
    for organization in (mine, theirs):
        preparation.bucket(database, organization=organization)
    influx2.write(f"cpu v=1 {DAY.start}", database)
    with preparation.opened() as server:
        back_up(repository, server, plan(database))
    with preparation.opened(preparation.all_access(theirs)) as server:
        with pytest.raises(SourceError, match=f"of server instance '{mine}'.* now names '{theirs}'") as caught:
            back_up(repository, server, plan(database, allow_empty=True), window(DAY.end, DAY.end + DAY_NS))
        assert caught.value.kind == "identity-mismatch"


def test_plan_identity_is_compared_before_anything_is_read(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A plan that names another database costs that database no read."""
    first, second = new_database(influx1), new_database(influx1)
    fill(influx1, first)
    fill(influx1, second)
    back_up(repository, server1, plan(first))
    reads: list[Window] = []
    with pytest.raises(SourceError, match="of database"):
        back_up(repository, Watched(server1, reads), plan(second))
    assert not reads


def test_plan_identity_that_another_export_took_meanwhile_is_refused(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Of two first backups of one plan from two databases, the one that is ready later commits nothing."""
    first, second = new_database(influx1), new_database(influx1)
    fill(influx1, first)
    fill(influx1, second)
    slow = Meanwhile(server1, lambda: back_up(repository, server1, plan(second), window(DAY.end, DAY.end + DAY_NS)))
    with pytest.raises(SourceError, match=f"of database '{second}'") as caught:
        back_up(repository, slow, plan(first))
    assert caught.value.kind == "identity-mismatch"
    assert [ref.window.start for ref in repository.refs("telemetry")] == [DAY.end]


def test_plan_identity_is_not_taken_by_an_export_that_fails(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A typing mistake in the database's name does not bind the plan to it for ever."""
    database = new_database(influx1)
    fill(influx1, database)
    with pytest.raises(Exception, match="nosuch"):
        back_up(repository, server1, plan("nosuch"))
    with pytest.raises(SourceError):
        back_up(repository, server1, plan(new_database(influx1)))
    assert repository.plan_identity("telemetry") is None
    assert back_up(repository, server1, plan(database)).created


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
    assert slow.said[:3] == slow.said[-3:] == ["policies", "schema", "pieces"]
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


# --- 7: the server's clock decides


def test_server_clock_decides_what_is_open(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """The smaller of the server's and the worker's clock says whether the window has settled."""
    database = new_database(influx1)
    fill(influx1, database)
    settled = DAY.end + 30 * MINUTE
    for server_now, worker_now in ((settled - 1, settled + HOUR), (settled + HOUR, settled - 1)):
        with pytest.raises(SourceError) as caught:
            back_up(repository, Clock(server1, server_now), plan(database), now=worker_now)
        assert caught.value.kind == "open-window"
    assert not back_up(repository, Clock(server1, settled), plan(database), now=settled).open


def test_server_clock_stands_in_the_ref_whatever_the_workers_says(
    any_influx: RunningServer, any_server: Server, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose clock is a day ahead reads no open window, and writes none of its own times down."""
    database = new_database(any_influx)
    fill(any_influx, database)
    before = any_server.now()
    ahead = time.time_ns() + DAY_NS
    monkeypatch.setattr(time, "time_ns", lambda: ahead)
    with pytest.raises(SourceError, match="still open"):
        back_up(repository, any_server, plan(database), window(before - HOUR, before - MINUTE))
    ref = repository.ref(back_up(repository, any_server, plan(database)).ref)
    assert before <= ref.read_start <= ref.read_end < before + HOUR
    evidence = repository.manifest(ref).evidence
    assert (evidence.read_start, evidence.read_end) == (ref.read_start, ref.read_end)


def test_server_clock_decides_the_order_of_reads(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """read_start and read_end of ref and manifest are the server's, and an older read is superseded."""
    database = new_database(influx1)
    fill(influx1, database)
    result = back_up(repository, Clock(server1, DAY.end + HOUR, DAY.end + HOUR, DAY.end + 2 * HOUR), plan(database))
    ref = repository.ref(result.ref)
    assert (ref.read_start, ref.read_end) == (DAY.end + HOUR, DAY.end + 2 * HOUR)
    fill(influx1, database, count=20)
    with pytest.raises(SupersededError):
        back_up(repository, Clock(server1, DAY.end + HOUR - 1), plan(database))
    assert len(repository.refs("telemetry")) == 1
    assert back_up(repository, Clock(server1, DAY.end + HOUR + 1), plan(database)).revision == 1


# --- 8: open windows


def test_open_window_is_refused_and_when_forced_says_so(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A forced backup of an open window is marked, covers what had settled, and is never the latest."""
    database = new_database(influx1)
    now = server1.now()
    span = window(now - 2 * HOUR, now + HOUR)
    influx1.write(f"cpu v=1 {now - HOUR}", database)
    with pytest.raises(SourceError, match="still open") as caught:
        back_up(repository, server1, plan(database), span)
    assert caught.value.kind == "open-window"
    forced = back_up(repository, server1, plan(database), span, force=True)
    assert forced.open
    ref = repository.ref(forced.ref)
    assert ref.open
    covered = coverage(plan(database), [ref], range=span, now=now + DAY_NS).covered
    assert covered == (window(span.start, ref.read_start - 30 * MINUTE),)
    with pytest.raises(BackupNotFoundError):
        repository.ref("telemetry@latest")


def test_open_window_that_closed_without_a_change_gets_a_closed_revision(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Equal content is no reason to leave the only backup of a window marked as open."""
    database = new_database(influx1)
    fill(influx1, database)
    early, late = DAY.end - HOUR, DAY.end + DAY_NS
    assert back_up(repository, Clock(server1, early), plan(database), force=True).open
    closed = back_up(repository, Clock(server1, late), plan(database))
    assert (closed.open, closed.created, closed.revision) == (False, True, 1)


# --- 14: lost runs


def test_gaps_listed_after_export(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """Every export ends with the stretches of the plan since its start that have no backup."""
    database = new_database(influx1)
    fill(influx1, database)
    chosen = plan(database, start="2024-03-04T00:00:00Z")
    now = at("2024-03-08T00:45:00Z")
    result = back_up(repository, Clock(server1, now), chosen, now=now)
    assert result.gaps == (
        window(at("2024-03-04T00:00:00Z"), DAY.start),
        window(DAY.end, at("2024-03-08T00:00:00Z")),
    )


# --- identical content, late data


def test_export_is_idempotent_and_late_data_makes_a_revision(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Equal content is the same revision; a late point makes the next one, and the old one stays readable."""
    database = new_database(influx1)
    fill(influx1, database)
    first = back_up(repository, server1, plan(database))
    again = back_up(repository, server1, plan(database))
    assert (first.created, again.created) == (True, False)
    assert again.ref == first.ref
    assert len(list(repository.store.list("data/"))) == 1
    influx1.write(f"cpu,host=late v=1 {DAY.start}", database)
    second = back_up(repository, server1, plan(database))
    assert (second.created, second.revision, second.rows) == (True, 1, 11)
    assert manifest_of(repository, second.ref).previous_revision == 0
    old = archived(repository, repository.ref(first.ref))
    new = archived(repository, repository.ref(second.ref))
    assert len(old) == 10
    assert old.items() <= new.items()


def test_a_changed_value_makes_a_revision(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """An overwritten point changes no count, and is seen all the same."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    influx1.write(f"cpu,host=a v=77 {DAY.start}", database)
    second = back_up(repository, server1, plan(database))
    assert (second.created, second.revision, second.rows) == (True, 1, 10)


# --- 30: unreadable measurements


def test_unreadable_measurements_are_reported_by_name(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What is stored and cannot be selected stands in result, manifest and ref, or fails when the plan says so."""
    database = new_database(influx1)
    fill(influx1, database)
    influx1.write(f"_series v=1 {DAY.start}", database)
    result = back_up(repository, server1, plan(database))
    assert [entry.table for entry in result.unreadable] == [Table(retention_policy="autogen", measurement="_series")]
    assert repository.ref(result.ref).unreadable == 1
    assert manifest_of(repository, result.ref).evidence.unreadable == result.unreadable
    with pytest.raises(SourceError, match="_series") as caught:
        back_up(repository, server1, plan(database, name="strict", unreadable="fail"))
    assert caught.value.kind == "unreadable"


# --- empty


def test_empty_window_is_a_backup_of_zero_rows(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A window without points is committed, with its tables listed; so is the fact that it was looked at."""
    database = new_database(any_influx)
    fill(any_influx, database, start=DAY.end)
    result = back_up(repository, any_server, plan(database))
    assert (result.created, result.rows, result.tables) == (True, 0, 1)
    assert [entry.parts for entry in manifest_of(repository, result.ref).tables] == [()]
    assert coverage(plan(database), repository.refs("telemetry"), range=DAY, now=DAY.end * 2).ok


def test_empty_database_is_an_error_unless_the_plan_allows_it(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A database without any measurement is backed up only when the plan says that it may be empty."""
    database = new_database(any_influx)
    with pytest.raises(SourceError) as caught:
        back_up(repository, any_server, plan(database))
    assert caught.value.kind == "empty-selection"
    result = back_up(repository, any_server, plan(database, allow_empty=True))
    assert (result.created, result.tables, result.rows) == (True, 0, 0)


def test_empty_selection_is_an_error(any_influx: RunningServer, any_server: Server, repository: Repository) -> None:
    """An unknown database, policy or measurement fails and names what is wrong, and nothing is committed."""
    database = new_database(any_influx)
    fill(any_influx, database)
    for wrong, word in (
        (plan("nosuchdb"), "nosuchdb"),
        (plan(database, retention_policies=["nosuchrp"]), "nosuchrp"),
        (plan(database, measurements=["cpu", "nosuchm"]), "nosuchm"),
        (plan(database, exclude_measurements=["*"]), "Nothing is selected"),
    ):
        with pytest.raises(Exception, match=word):
            back_up(repository, any_server, wrong)
    assert not repository.refs("telemetry")


def test_a_named_measurement_that_vanished_is_recorded_as_empty(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Dropped on purpose and accepted once, it stays in the manifests without points and is no error any more."""
    database = new_database(influx1)
    fill(influx1, database, "cpu")
    fill(influx1, database, "mem")
    chosen = plan(database, measurements=["cpu", "mem"])
    back_up(repository, server1, chosen)
    influx1.query("DROP MEASUREMENT mem", db=database)
    days = [window(DAY.end + n * DAY_NS, DAY.end + (n + 1) * DAY_NS) for n in range(3)]
    with pytest.raises(SourceError, match="'mem'"):
        back_up(repository, server1, chosen, days[0])
    back_up(repository, server1, chosen, days[1], accept_missing=True)
    last = back_up(repository, server1, chosen, days[2])
    assert [entry.table.measurement for entry in manifest_of(repository, last.ref).tables] == ["cpu", "mem"]


# --- what is recorded


def test_the_manifest_says_how_it_was_read(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """Source, policies, counts, predicate, pieces and the run stand in the manifest; no address and no secret."""
    database = new_database(influx1)
    create_policy(influx1, database, "days", "DURATION 520w REPLICATION 1 SHARD DURATION 1d")
    fill(influx1, database)
    result = back_up(
        repository, server1, plan(database, source="rack 7"), dag_id="influxdb_backup__telemetry", run_id="manual__1"
    )
    manifest = manifest_of(repository, result.ref)
    assert (manifest.source.database, manifest.source.generation, manifest.source.name) == (database, 1, "rack 7")
    shapes = {policy.name: (policy.duration, policy.shard_duration) for policy in manifest.source.retention_policies}
    assert shapes == {"autogen": (0, 7 * DAY_NS), "days": (520 * 7 * DAY_NS, DAY_NS)}
    assert (manifest.tool.dag_id, manifest.tool.run_id) == ("influxdb_backup__telemetry", "manual__1")
    assert str(DAY.start) in manifest.evidence.predicate
    assert [dict(count.counts) for count in manifest.evidence.counts] == [{"v": 10}]
    text = json.dumps(manifest.model_dump(mode="json"))
    assert influx1.url not in text
    assert "127.0.0.1" not in text


def test_progress_tells_rows_and_ends_with_all_pieces(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """The callback hears of every table, and its last word is the whole."""
    from influxdb_backup.jobs.export import export
    from influxdb_backup.jobs.progress import Progress

    database = new_database(influx1)
    fill(influx1, database, "cpu")
    fill(influx1, database, "mem")
    heard: list[Progress] = []
    export(plan(database), DAY, server=server1, repository=repository, progress=heard.append)
    assert {event.table for event in heard} == {"autogen.cpu", "autogen.mem"}
    assert max(event.rows for event in heard) == 20
    assert (heard[-1].done, heard[-1].total) == (2, 2)


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
