"""Archive, then drop: what the source no longer has on purpose is never taken from its backup; on real servers."""

from __future__ import annotations

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import SourceError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.recheck import Recheck, recheck
from influxdb_backup.jobs.restore_request import RestoreRequest, decide_reads
from influxdb_backup.model import Table
from influxdb_backup.windows import format_instant
from tests.jobs.sources import fill
from tests.jobs.support import DAY, DAY_NS, HOUR, back_up, new_database, plan, window
from tests.servers import RunningServer

BEFORE = format_instant(DAY.end)
NEXT = window(DAY.end, DAY.end + DAY_NS)


def look(repository: Repository, server: Server, database: str, **settings: object) -> Recheck:
    """One recheck of everything."""
    return recheck(plan(database, **settings), repository.refs("telemetry"), repository=repository, server=server)


def test_archived_window_that_was_dropped_is_not_stale_and_keeps_its_backup(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Neither recheck nor an export with every allowance puts an empty read on top of the only copy."""
    database = new_database(influx1)
    for day in (DAY, NEXT):
        fill(influx1, database, start=day.start)
        back_up(repository, server1, plan(database), day)
    influx1.query(f"DELETE FROM cpu WHERE time < {DAY.end}", db=database)
    assert look(repository, server1, database).windows == (DAY,)
    found = look(repository, server1, database, archived_before=BEFORE)
    assert (found.changes, found.unjudged, [one.window for one in found.archived]) == ((), (), [DAY])
    old = look(repository, server1, database, archived_after="30d")
    assert (old.changes, [one.window for one in old.archived]) == ((), [DAY])
    chosen = plan(database, archived_before=BEFORE)
    for span in (DAY, window(DAY.start, DAY.start + HOUR)):
        with pytest.raises(SourceError) as caught:
            back_up(repository, server1, chosen, span, accept_shrink=True, accept_missing=True)
        assert caught.value.kind == "archived-window"
        assert "--accept" not in caught.value.hint
    assert decide_reads(RestoreRequest(plan="telemetry", window=DAY), repository, None).rows == 10


def test_archived_window_to_which_points_came_since_is_stale(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What is more than in the backup is no drop, and of a window that is not archived fewer is a change."""
    database = new_database(influx1)
    for day in (DAY, NEXT):
        fill(influx1, database, start=day.start)
        back_up(repository, server1, plan(database), day)
    influx1.write(f"cpu,host=late v=1 {DAY.start}", database)
    influx1.query(f"DELETE FROM cpu WHERE time >= {NEXT.start}", db=database)
    found = look(repository, server1, database, archived_before=BEFORE)
    assert [(one.window, one.counted) for one in found.changes] == [(DAY, 11), (NEXT, 0)]
    assert back_up(repository, server1, plan(database, archived_before=BEFORE), DAY).revision == 1


def test_measurement_that_was_archived_as_a_whole_stops_no_backup(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A table all of whose points lie in archived windows may be dropped; one with later points may not."""
    database = new_database(influx1)
    fill(influx1, database, "old", start=DAY.start)
    fill(influx1, database, "both", start=DAY.start)
    fill(influx1, database, "both", start=NEXT.start)
    fill(influx1, database, "stays", start=NEXT.start)
    chosen = plan(database, archived_before=BEFORE)
    days = [window(DAY.start + n * DAY_NS, DAY.end + n * DAY_NS) for n in range(-1, 4)]
    for day in days[:3]:
        back_up(repository, server1, chosen, day)
    influx1.query("DROP MEASUREMENT old", db=database)
    assert back_up(repository, server1, chosen, days[3]).ended == (
        Table(retention_policy="autogen", measurement="old"),
    )
    influx1.query("DROP MEASUREMENT both", db=database)
    with pytest.raises(SourceError, match="measurement 'both'"):
        back_up(repository, server1, chosen, days[4])
