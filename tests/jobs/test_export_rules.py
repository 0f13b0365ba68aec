"""The rules against silent loss, on the side of the backup: each on a real server."""

from __future__ import annotations

import json
import time

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import BackupNotFoundError, SourceError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.coverage import coverage
from influxdb_backup.jobs.restore_request import RestoreRequest, decide_reads
from influxdb_backup.model import Table
from tests.jobs.sources import Clock, fill
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    MINUTE,
    archived,
    at,
    back_up,
    create_policy,
    manifest_of,
    new_database,
    plan,
    window,
)
from tests.servers import RunningServer

# --- 7: the server's clock decides


def test_server_clock_decides_what_is_open(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """The smaller of the server's and the worker's clock says whether the window has settled."""
    database = new_database(influx1)
    fill(influx1, database)
    settled = DAY.end + 30 * MINUTE
    for server_now, worker_now in ((settled - 1, settled + MINUTE), (settled + MINUTE, settled - 1)):
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


def test_server_clock_stands_in_the_ref_and_does_not_decide_the_order_of_reads(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """read_start and read_end of ref and manifest are the server's; a read that began later is on top of it anyway."""
    database = new_database(influx1)
    fill(influx1, database)
    ahead = Clock(server1, DAY.end + HOUR, DAY.end + HOUR, DAY.end + 2 * HOUR)
    result = back_up(repository, ahead, plan(database), accept_clock=True)
    ref = repository.ref(result.ref)
    assert (ref.read_start, ref.read_end, ref.sequence) == (DAY.end + HOUR, DAY.end + 2 * HOUR, 1)
    fill(influx1, database, count=20)
    set_back = Clock(server1, DAY.end + HOUR - 1)
    second = back_up(repository, set_back, plan(database), accept_clock=True)
    assert (second.revision, repository.ref(second.ref).sequence) == (1, 2)
    reads = decide_reads(RestoreRequest(plan="telemetry", window=DAY), repository, None)
    assert (reads.rows, [one.revision for one in reads.refs]) == (20, [1])


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
    assert back_up(repository, Clock(server1, early), plan(database), force=True, accept_clock=True).open
    closed = back_up(repository, Clock(server1, late), plan(database), accept_clock=True)
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


def test_a_new_measurement_without_points_in_the_window_is_no_new_content(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """No new revision, so that what was verified and drilled stays so; unchanged tables are never stored twice."""
    database = new_database(any_influx)
    fill(any_influx, database)
    first = back_up(repository, any_server, plan(database))
    stored = repository.store.list("data/")
    any_influx.write(f"later,host=a v=1 {DAY.end}", database)
    again = back_up(repository, any_server, plan(database))
    assert (again.created, again.ref) == (False, first.ref)
    any_influx.write(f"later,host=a v=1 {DAY.start}", database)
    second = back_up(repository, any_server, plan(database))
    assert (second.created, second.revision, second.rows) == (True, 1, 11)
    assert set(stored) < set(repository.store.list("data/"))
    assert len(repository.store.list("data/")) == len(stored) + 1


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
