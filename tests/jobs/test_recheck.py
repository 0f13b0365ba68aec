"""Whether backed-up windows have changed at the source since: each case on real servers."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import SourceError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.recheck import Recheck, recheck
from influxdb_backup.model import Table, Window
from tests.influx2.support import Preparation
from tests.jobs.sources import Clock, Meanwhile, fill
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    MINUTE,
    WEEK,
    back_up,
    create_hours,
    create_policy,
    lines,
    new_database,
    opened,
    plan,
    window,
)
from tests.servers import RunningServer, find_influxd1, start_influxdb1


def look(
    repository: Repository, server: Server, database: str, within: Window | None = None, **settings: object
) -> Recheck:
    """One recheck of the plan of a database."""
    chosen = plan(database, **settings)
    return recheck(chosen, repository.refs("telemetry"), repository=repository, server=server, range=within)


def told(found: Recheck) -> list[tuple[str, str, int, int]]:
    """Table, field, counted and backed up of every change."""
    return [(str(one.table), one.field, one.counted, one.backed_up) for one in found.changes]


def delete(running: RunningServer, database: str, measurement: str, tag: str, value: str, span: Window) -> None:
    """Deletes a series' points of a stretch, with the server's own means."""
    if running.generation == 1:
        times = f"time >= {span.start} AND time < {span.end}"
        answer = running.query(f"DELETE FROM \"{measurement}\" WHERE {tag} = '{value}' AND {times}", db=database)
        assert "error" not in str(answer), answer
        return
    Preparation(running).call(
        "POST",
        f"/api/v2/delete?org={running.organization}&bucket={database}",
        {
            "start": "2024-03-06T00:00:00Z",
            "stop": "2024-03-06T23:59:59.999999999Z",
            "predicate": f'_measurement="{measurement}" AND {tag}="{value}"',
        },
    )


def as_owner(running: RunningServer, path: str, body: str) -> str:
    """The reply to a raw POST with the administrator's rights."""
    login = base64.b64encode(b"owner:secret").decode()
    request = Request(running.url + path, body.encode(), {"Authorization": f"Basic {login}"})
    with urlopen(request) as reply:
        return str(reply.read(), "utf-8")


def test_late_point_makes_its_window_stale_until_it_is_backed_up_again(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A point that arrives after the backup of its window is found there, in no other, and not once it is held."""
    database = new_database(any_influx)
    day_before = window(DAY.start - DAY_NS, DAY.start)
    for day in (day_before, DAY):
        fill(any_influx, database, start=day.start)
        back_up(repository, any_server, plan(database), day)
    assert look(repository, any_server, database) == Recheck()
    any_influx.write(f"cpu,host=late v=1 {DAY.end - 1}", database)
    found = look(repository, any_server, database)
    assert (found.windows, told(found)) == ((DAY,), [("autogen.cpu", "v", 11, 10)])
    assert found.changes[0].listed
    assert look(repository, any_server, database, day_before) == Recheck()
    back_up(repository, any_server, plan(database), DAY)
    assert look(repository, any_server, database) == Recheck()


def test_unchanged_windows_of_mixed_types_are_not_stale(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A field that changes its type from shard group to shard group is counted as it was, and a late text is seen."""
    database = new_database(any_influx)
    create_hours(any_influx, database)
    values = ("1", "2i", '"text"', "true", "-3")
    for hour, value in enumerate(values):
        any_influx.write(f"mixed v={value} {DAY.start + hour * HOUR}", database, "hours")
    back_up(repository, any_server, plan(database))
    assert look(repository, any_server, database) == Recheck()
    any_influx.write(f'mixed v="late" {DAY.start + 12 * HOUR}', database, "hours")
    assert told(look(repository, any_server, database)) == [("hours.mixed", "v", 1, 0)]


def test_deleted_points_make_a_window_stale(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Fewer points than were backed up are a change as well, until somebody accepts them."""
    database = new_database(any_influx)
    any_influx.write(lines((f"cpu,host={'ab'[n % 2]}", f"v={n}", DAY.start + n * MINUTE) for n in range(10)), database)
    back_up(repository, any_server, plan(database))
    delete(any_influx, database, "cpu", "host", "a", DAY)
    found = look(repository, any_server, database)
    assert told(found) == [("autogen.cpu", "v", 5, 10)]
    back_up(repository, any_server, plan(database), accept_shrink=True)
    assert look(repository, any_server, database) == Recheck()


def test_measurement_that_is_gone_makes_its_windows_stale(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """All values of a dropped measurement are missing, also when it was the only one of the database."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    influx1.query("DROP MEASUREMENT cpu", db=database)
    found = look(repository, server1, database)
    assert told(found) == [("autogen.cpu", "v", 0, 10)]
    assert not found.changes[0].listed


def test_new_measurement_makes_stale_only_the_windows_that_it_has_points_in(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A measurement that no backup knows is a change where it has points, unless the plan leaves it out."""
    database = new_database(any_influx)
    after = window(DAY.end, DAY.end + DAY_NS)
    for day in (DAY, after):
        fill(any_influx, database, start=day.start)
        back_up(repository, any_server, plan(database), day)
    fill(any_influx, database, "mem", start=after.start, count=3)
    found = look(repository, any_server, database)
    assert (found.windows, told(found)) == ((after,), [("autogen.mem", "v", 3, 0)])
    assert look(repository, any_server, database, exclude_measurements=["m*"]) == Recheck()


def test_new_field_and_new_policy_make_a_window_stale(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A field, and a retention policy, that the backup has not seen are found by their values."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    influx1.write(f"cpu,host=a more=1i {DAY.start}", database)
    create_hours(influx1, database)
    influx1.write(f"cpu,host=a v=1 {DAY.start}", database, "hours")
    found = look(repository, server1, database)
    assert told(found) == [("autogen.cpu", "more", 1, 0), ("hours.cpu", "v", 1, 0)]


def test_policy_that_is_gone_makes_its_windows_stale(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A retention policy that the server no longer shows is missing, until that is accepted or it is there again."""
    database = new_database(influx1)
    fill(influx1, database)
    create_policy(influx1, database, "other", "DURATION INF REPLICATION 1")
    influx1.write(f"cpu v=1 {DAY.start}", database, "other")
    back_up(repository, server1, plan(database))
    influx1.query(f'DROP RETENTION POLICY "other" ON "{database}"')
    assert told(look(repository, server1, database)) == [("other.cpu", "v", 0, 1)]
    back_up(repository, server1, plan(database), accept_missing=True, accept_shrink=True)
    assert look(repository, server1, database) == Recheck()
    create_policy(influx1, database, "other", "DURATION INF REPLICATION 1")
    influx1.write(f"cpu v=1 {DAY.start}", database, "other")
    assert look(repository, server1, database) == Recheck()
    influx1.write(f"cpu v=1 {DAY.start + 1}", database, "other")
    assert told(look(repository, server1, database)) == [("other.cpu", "v", 2, 1)]


def test_overwritten_value_is_not_seen(any_influx: RunningServer, any_server: Server, repository: Repository) -> None:
    """Counts alone are compared, as the documentation says."""
    database = new_database(any_influx)
    fill(any_influx, database)
    back_up(repository, any_server, plan(database))
    any_influx.write(f"cpu,host=a v=99 {DAY.start}", database)
    assert look(repository, any_server, database) == Recheck()


def test_expired_window_is_told_and_not_stale(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """What the source may have begun to drop is archived and not stale; what it still keeps is compared."""
    database = new_database(influx1)
    create_policy(influx1, database, "days", "DURATION 2d REPLICATION 1 SHARD DURATION 1h")
    now = server1.now()
    kept, old = window(now - DAY_NS, now - HOUR), window(now - DAY_NS * 3, now - DAY_NS)
    influx1.write(f"cpu v=1 {now - 10 * HOUR}", database, "days")
    influx1.write(f"cpu v=1 {now - 47 * HOUR}", database, "days")
    fill(influx1, database, start=now - 2 * DAY_NS)
    for span in (old, kept):
        back_up(repository, server1, plan(database), span, accept_expired=True)
    influx1.query("DROP SERIES FROM cpu", db=database)
    found = look(repository, server1, database)
    assert sorted(told(found)) == [
        ("autogen.cpu", "v", 0, 10),
        ("days.cpu", "v", 0, 1),
        ("days.cpu", "v", 0, 1),
    ]
    [rest] = found.archived
    assert (rest.window.start, found.unjudged) == (old.start, ())
    assert abs(rest.window.end - (now - 2 * DAY_NS)) < HOUR
    assert "'days' keeps 2d" in rest.reason
    slow = Clock(server1, now, now + 2 * DAY_NS)
    found = look(repository, slow, database)
    assert told(found) == [("autogen.cpu", "v", 0, 10)]
    assert all(one.window.start < now - 9 * HOUR for one in found.archived)
    assert any(one.window.contains(window(now - 10 * HOUR, now - 10 * HOUR + 1)) for one in found.archived)
    assert any(one.window.start == old.start for one in found.archived)


def test_open_window_is_told_and_not_stale(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A window that was still being written when it was backed up is not called stale for what came after."""
    database = new_database(influx1)
    now = server1.now()
    influx1.write(f"cpu v=1 {now - HOUR}", database)
    span = window(now - 2 * HOUR, now + HOUR)
    back_up(repository, server1, plan(database), span, force=True)
    influx1.write(f"cpu v=1 {now + 1}", database)
    found = look(repository, server1, database)
    assert (found.changes, [rest.window for rest in found.unjudged]) == ((), [span])


def test_newer_backup_of_a_part_of_a_window_is_what_counts_there(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A day that was backed up again does not leave its week stale; a point elsewhere in the week does."""
    database = new_database(influx1)
    for number in range(7):
        fill(influx1, database, start=WEEK.start + number * DAY_NS)
    back_up(repository, server1, plan(database), WEEK)
    influx1.write(f"cpu,host=late v=1 {DAY.start}", database)
    found = look(repository, server1, database)
    assert (found.windows, told(found)) == ((WEEK,), [("autogen.cpu", "v", 71, 70)])
    back_up(repository, server1, plan(database), DAY)
    monday = window(WEEK.start, WEEK.start + DAY_NS)
    assert look(repository, server1, database) == look(repository, server1, database, monday) == Recheck()
    influx1.write(f"cpu,host=later v=1 {DAY.start}", database)
    assert look(repository, server1, database, monday) == Recheck()
    assert look(repository, server1, database).windows == (DAY,)
    back_up(repository, server1, plan(database), DAY)
    influx1.write(f"cpu,host=late v=1 {DAY.end}", database)
    found = look(repository, server1, database)
    assert (found.windows, told(found)) == ((WEEK,), [("autogen.cpu", "v", 41, 40)])
    assert look(repository, server1, database, DAY).windows == (WEEK,)


def test_point_that_came_during_the_read_and_is_in_no_backup_is_found(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What is held counts, and not what the server counted when a read had ended."""
    database = new_database(influx1)
    fill(influx1, database)

    def arrive(number: int) -> None:
        influx1.write(f"cpu,host=a v=1 {DAY.end - number}", database)

    moving = Meanwhile(server1, lambda: arrive(1), lambda: arrive(2))
    assert back_up(repository, moving, plan(database, reader="query")).rows == 11
    assert told(look(repository, server1, database)) == [("autogen.cpu", "v", 12, 11)]


def test_table_that_a_narrower_newer_backup_left_out_is_compared_with_the_older_one(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """For each table the backup counts that a restore would read; what no backup was asked for is not stale."""
    database = new_database(influx1)
    fill(influx1, database)
    fill(influx1, database, "mem")
    back_up(repository, server1, plan(database))
    fill(influx1, database, count=12)
    fill(influx1, database, "mem", count=13)
    back_up(repository, server1, plan(database, measurements=["cpu"]))
    assert told(look(repository, server1, database)) == [("autogen.mem", "v", 13, 10)]
    next_day = window(DAY.end, DAY.end + DAY_NS)
    fill(influx1, database, "mem", start=next_day.start)
    back_up(repository, server1, plan(database, measurements=["cpu"]), next_day)
    assert look(repository, server1, database).windows == (DAY,)


def test_late_text_in_a_new_shard_group_is_seen_without_administrator_rights(
    repository: Repository, tmp_path: Path
) -> None:
    """A piece that was one shard group and has become two is counted group by group."""
    binary = find_influxd1()
    assert binary is not None
    with start_influxdb1(tmp_path / "influxdb", binary, auth=True) as running:
        running.query("CREATE USER owner WITH PASSWORD 'secret' WITH ALL PRIVILEGES")
        for statement in (
            "CREATE DATABASE hourly WITH DURATION INF SHARD DURATION 1h NAME autogen",
            "CREATE USER reader WITH PASSWORD 'secret'",
            "GRANT READ ON hourly TO reader",
        ):
            assert "error" not in as_owner(running, "/query?" + urlencode({"q": statement}), "")
        assert not as_owner(running, "/write?db=hourly", f"mixed v=1 {DAY.start}")
        with opened(running, username="reader", password="secret") as reader:
            back_up(repository, reader, plan("hourly"))
            assert look(repository, reader, "hourly") == Recheck()
            assert not as_owner(running, "/write?db=hourly", f'mixed v="late" {DAY.start + 5 * HOUR}')
            assert told(look(repository, reader, "hourly")) == [("autogen.mixed", "v", 2, 1)]


def test_another_source_is_refused(
    influx1: RunningServer, server1: Server, influx2: RunningServer, server2: Server, repository: Repository
) -> None:
    """Backups are never compared with a server, or under a source's name, that they are not of."""
    database = new_database(influx1)
    influx2.create_database(database)
    fill(influx1, database)
    fill(influx2, database)
    back_up(repository, server1, plan(database))
    with pytest.raises(SourceError, match="InfluxDB generation") as caught:
        look(repository, server2, database)
    assert caught.value.kind == "identity-mismatch"
    with pytest.raises(SourceError, match="source"):
        look(repository, server1, database, source="elsewhere")


def test_table_that_cannot_be_read_is_told(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """A measurement that no query reads is not silently taken for unchanged."""
    database = new_database(influx1)
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    influx1.write(f"_series v=1 {DAY.start}", database)
    found = look(repository, server1, database)
    assert found.changes == ()
    assert [rest.window for rest in found.unjudged] == [DAY]
    assert str(Table(retention_policy="autogen", measurement="_series")) in found.unjudged[0].reason
