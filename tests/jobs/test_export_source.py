"""What an export does not take from its source in silence: less than there was, or another source; on real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import IntegrityError, SourceError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.coverage import coverage
from influxdb_backup.jobs.restore_request import RestoreRequest, decide_reads
from influxdb_backup.model import Window
from tests.influx2.support import Preparation
from tests.jobs.sources import Clock, Meanwhile, Watched, fill
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    MINUTE,
    archived,
    back_up,
    create_policy,
    local_repository,
    new_database,
    new_name,
    plan,
    window,
)
from tests.servers import RunningServer


def keeping_two_days(running: RunningServer, server: Server) -> tuple[str, int]:
    """A database whose policy ``days`` keeps two days and has a point of ten hours ago; and the server's clock."""
    database = new_database(running)
    create_policy(running, database, "days", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    now = server.now()
    running.write(f"cpu v=1 {now - 10 * HOUR}", database, "days")
    return database, now


# --- 1: expired windows, shrunk windows


def test_expired_window_is_refused(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A window that the source may have begun to drop is not committed as if it were whole."""
    database, now = keeping_two_days(influx1, server1)
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
    database, now = keeping_two_days(influx1, server1)
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
    database, now = keeping_two_days(influx1, server1)
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
    database, now = keeping_two_days(influx1, server1)
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
    back_up(repository, Clock(server1, later[2].end), plan(database), later[0], accept_clock=True)
    fill(influx1, database, "mem")
    back_up(repository, Clock(server1, later[2].end + HOUR), plan(database), DAY, accept_clock=True)
    influx1.query("DROP MEASUREMENT mem", db=database)
    with pytest.raises(SourceError, match="'mem'"):
        back_up(repository, Clock(server1, later[2].end + 2 * HOUR), plan(database), later[1], accept_clock=True)


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
    """The other window is a gap to whoever reads its ref; its own export stops and names the file."""
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
    damaged: list[str] = []
    refs = repository.refs("telemetry", on_damage=lambda name, _: damaged.append(name.id))
    since = plan(database, start="2024-03-06T00:00:00Z")
    assert (damaged, coverage(since, refs, now=DAY.end + DAY_NS).gaps) == ([first.ref], (DAY,))
    with pytest.raises(IntegrityError, match="copy of the repository"):
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
