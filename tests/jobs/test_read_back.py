"""What a restore proves of its target after the last point, on real servers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import TargetError, UsageError
from influxdb_backup.influx.protocol import PointWriter, ReadOptions, Server, WriteOptions
from influxdb_backup.jobs import read_back
from influxdb_backup.jobs.restore import plan_restore
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.model import TableSchema, Window
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    MINUTE,
    WEEK,
    Wrapped,
    back_up,
    lines,
    new_database,
    new_name,
    plan,
    restore_into,
    rows_of,
    window,
)
from tests.jobs.test_restore_rules import BadWriter, backed_up, fill, values
from tests.servers import RunningServer


def test_restore_reads_back_every_table(influx1: RunningServer, server1: Server, repository: Repository) -> None:
    """Points of one table that are not there are found, although those of all other tables are."""
    database = new_database(influx1)
    for measurement in ("aaa", "mmm", "zzz"):
        fill(influx1, database, measurement)
    back_up(repository, server1, plan(database))

    class LosingOne(Wrapped):
        def __init__(self, server: Server, lost: str) -> None:
            super().__init__(server)
            self.lost = lost

        def writer(self, name: str, retention_policy: str, options: WriteOptions) -> PointWriter:
            return OneTable(self.server.writer(name, retention_policy, options), self.lost)  # type: ignore[return-value]

    class OneTable(BadWriter):
        def __init__(self, writer: PointWriter, lost: str) -> None:
            super().__init__(writer)
            self.lost = lost

        def __enter__(self) -> OneTable:
            super().__enter__()
            return self

        def write(self, measurement: str, batch: pa.RecordBatch) -> None:
            (super().write if measurement == self.lost else self.writer.write)(measurement, batch)

    for lost in ("aaa", "mmm", "zzz"):
        with pytest.raises(TargetError, match=rf"written: autogen\.{lost}, field 'v': 10 written, 9 there\.") as caught:
            restore_into(repository, LosingOne(server1, lost), new_name(), plan="telemetry", window=DAY, writer="lines")
        assert caught.value.kind == "read-back-differs"


class LosingOnce(Wrapped):
    """A server on which points of the first write into it, which it confirmed, are not there."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.writers = 0

    def writer(self, database: str, retention_policy: str, options: WriteOptions) -> PointWriter | BadWriter:
        """A writer that loses, and then good ones."""
        self.writers += 1
        writer = self.server.writer(database, retention_policy, options)
        return BadWriter(writer) if self.writers == 1 else writer


@pytest.mark.parametrize("on_conflict", ["fail", "merge"])
def test_confirmed_points_that_are_missing_are_written_once_more(
    any_influx: RunningServer,
    any_server: Server,
    repository: Repository,
    caplog: pytest.LogCaptureFixture,
    on_conflict: str,
) -> None:
    """A restore writes all again, says so, and has every point; run again with its id it finds nothing to do."""
    database = new_database(any_influx)
    for measurement in ("cpu", "mem"):
        fill(any_influx, database, measurement)
    back_up(repository, any_server, plan(database))
    target, losing = new_database(any_influx), LosingOnce(any_server)
    asked = {"plan": "telemetry", "window": DAY, "writer": "lines", "restore_id": new_name("once-more")}
    report = restore_into(repository, losing, target, on_conflict=on_conflict, **asked)
    assert (report.written_again, losing.writers, report.rows, report.values) == (True, 2, 20, 20)
    assert "autogen.cpu, field 'v': 10 written, 9 there" in caplog.text
    for measurement in ("cpu", "mem"):
        assert values(any_influx, target, measurement) == values(any_influx, database, measurement)
    again = restore_into(repository, losing, target, on_conflict=on_conflict, **asked)
    assert (again.written_again, again.rows, again.continued_units) == (False, 20, 2)


def test_refused_points_are_counted_once_when_all_is_written_once_more(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """What the target refuses the first and the second time is one number of points, and still within the limit."""
    database = new_database(influx1)
    for measurement in ("cpu", "mem"):
        fill(influx1, database, measurement)
    back_up(repository, server1, plan(database))
    target = new_database(influx1)
    influx1.write(f'mem v="text" {DAY.start - HOUR}', target)
    report = restore_into(
        repository, LosingOnce(server1), target, plan="telemetry", window=DAY, max_rejects=10, writer="lines"
    )
    assert (report.written_again, report.rejects, report.rows) == (True, 10, 20)
    assert values(influx1, target) == values(influx1, database)


def test_restore_reads_back_a_merge_shard_group_by_shard_group(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Numbers that the target holds in one group do not hide the texts that were restored into another."""
    database = new_database(any_influx)
    any_influx.write(lines(("cpu,host=a", f'v="text {n}"', DAY.start + n * MINUTE) for n in range(10)), database)
    both = window(WEEK.start - 7 * DAY_NS, WEEK.end)
    back_up(repository, any_server, plan(database), both)
    target = new_database(any_influx)
    any_influx.write(f"cpu,host=a v=1.5 {DAY.start - 7 * DAY_NS}", target)
    report = restore_into(repository, any_server, target, plan="telemetry", window=both, on_conflict="merge")
    assert report.rows == 10


class Late(Wrapped):
    """A server on which points that it took beside refused ones can be counted only some seconds later."""

    def __init__(self, server: Server, seconds: float) -> None:
        super().__init__(server)
        self.seconds = seconds
        self.first: float | None = None

    def counts(
        self, database: str, policy: str, measurement: str, span: Window, fields: Sequence[str]
    ) -> Mapping[str, int]:
        """None in the first seconds after the first question."""
        found = self.server.counts(database, policy, measurement, span, fields)
        if not any(found.values()):
            return found  # before the restore
        self.first = self.first or time.monotonic()
        return found if time.monotonic() - self.first > self.seconds else {}


def test_restore_reads_back_points_that_appear_late_after_a_refusal(
    influx2: RunningServer, server2: Server, repository: Repository
) -> None:
    """After a 422 points may take a while to be visible: the restore waits for them, and does not without a refusal."""
    database = new_database(influx2)
    fill(influx2, database, count=20)
    influx2.write(f"mem v=1 {DAY.start}", database)
    back_up(repository, server2, plan(database))
    target = new_database(influx2)
    influx2.write(f'mem v="text" {DAY.start - HOUR}', target)
    slow = Late(server2, 3.5)
    report = restore_into(repository, slow, target, plan="telemetry", window=DAY, max_rejects=1)
    assert (report.rejects, len(values(influx2, target))) == (1, 20)
    with pytest.raises(TargetError, match="20 written, 0 there"):
        restore_into(
            repository,
            Late(server2, 30),
            new_name(),
            plan="telemetry",
            window=DAY,
            measurements=("cpu",),
            writer="lines",
        )


def test_restore_reads_back_that_only_refused_points_are_missing(
    influx1: RunningServer, server1: Server, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points of one table that were refused, and may be, do not excuse what is missing of another; after a retry too."""
    database = new_database(influx1)
    for measurement in ("m", "m,x y", "m x"):
        fill(influx1, database, measurement.replace(",", r"\,").replace(" ", r"\ "))
    back_up(repository, server1, plan(database))
    target = new_database(influx1)
    influx1.write(f'm\\,x\\ y v="text" {DAY.start - HOUR}', target)
    asked = {"plan": "telemetry", "window": DAY, "max_rejects": 10, "writer": "lines", "restore_id": "run 1"}
    report = restore_into(repository, server1, target, **asked)
    assert (report.rejects, report.rows) == (10, 30)
    assert restore_into(repository, server1, target, **asked).continued_units == 3
    monkeypatch.setattr(read_back, "_PATIENCE", 0.5)  # nothing comes late here
    with pytest.raises(TargetError, match=r"autogen\.m, field 'v': 10 written, 9 there\.") as caught:
        restore_into(repository, Short(server1), target, **asked)
    assert caught.value.kind == "read-back-differs"


class Short(Wrapped):
    """A server that counts a point less of the measurement m."""

    def counts(
        self, database: str, policy: str, measurement: str, span: Window, fields: Sequence[str]
    ) -> Mapping[str, int]:
        """One less."""
        found = self.server.counts(database, policy, measurement, span, fields)
        return {name: count - (measurement == "m") for name, count in found.items()}


@pytest.mark.parametrize("what", ['DROP DATABASE "{}"', 'DROP RETENTION POLICY "autogen" ON "{}"', "DELETE FROM cpu"])
def test_what_went_since_is_written_again(
    influx1: RunningServer, server1: Server, repository: Repository, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A retry takes nothing for written that the target has lost meanwhile: it says so and writes all of it again."""
    backed_up(influx1, server1, repository)
    target = new_name()
    asked = {"plan": "telemetry", "window": DAY, "restore_id": "run 1", "writer": "lines"}
    first = restore_into(repository, server1, target, **asked)
    influx1.query(what.format(target), db=target)
    again = restore_into(repository, server1, target, **asked)
    assert (again.rows, again.continued_units) == (first.rows, 0)
    assert len(values(influx1, target)) == first.rows
    assert "is written again" in caplog.text
    assert restore_into(repository, server1, target, **asked).continued_units == 1


# --- fingerprints on request


class Changing(Wrapped):
    """A server on which one value changes after the counts were read back."""

    def __init__(self, server: Server, running: RunningServer) -> None:
        super().__init__(server)
        self.running = running

    def read(self, name: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """The points after the change."""
        self.running.write(f"cpu,host=a v=0.5 {DAY.start}", name)
        return self.server.read(name, schema, piece, options)


def test_restore_compares_fingerprints_when_asked(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Equal counts with another content are found and the table is named; without the request they are not looked for."""
    backed_up(any_influx, any_server, repository)
    changing = Changing(any_server, any_influx)
    asked = {"plan": "telemetry", "window": DAY, "writer": "lines"}
    with pytest.raises(TargetError, match=r"other content than the archive: autogen\.cpu: 10 rows with") as caught:
        restore_into(repository, changing, new_name(), fingerprints=True, **asked)
    assert caught.value.kind == "read-back-differs"
    assert not restore_into(repository, changing, new_name(), **asked).fingerprints
    assert restore_into(repository, any_server, new_name(), fingerprints=True, **asked).fingerprints


def test_restore_compares_fingerprints_of_cut_and_filtered_parts(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A part of the time, some tags, several revisions and another policy: what was asked for is what is compared."""
    database = new_database(any_influx)
    for host in "ab":
        any_influx.write(lines((f"cpu,host={host}", f"v={n}", DAY.start + n * HOUR) for n in range(24)), database)
    fill(any_influx, database, "mem")
    back_up(repository, any_server, plan(database))
    any_influx.write(f"cpu,host=a v=99 {DAY.start + 5 * HOUR}\ncpu,host=b v=-0 {DAY.start + 6 * HOUR}", database)
    back_up(repository, any_server, plan(database), window(DAY.start + 5 * HOUR, DAY.start + 7 * HOUR))
    report = restore_into(repository, any_server, new_name(), plan="telemetry", window=DAY, fingerprints=True)
    assert (report.rows, report.fingerprints) == (58, True)
    target = new_name()
    report = restore_into(
        repository,
        any_server,
        target,
        plan="telemetry",
        window=window(DAY.start + 2 * HOUR, DAY.start + 7 * HOUR),
        tags={"host": "a"},
        measurements=("cpu",),
        target_retention_policy="other",
        fingerprints=True,
    )
    assert (report.rows, report.fingerprints) == (5, True)
    assert len(rows_of(any_influx, 'SELECT v FROM "other"."cpu"', target)) == 5


def test_fingerprints_are_compared_by_a_retry_of_a_finished_restore(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """The same id with fingerprints added writes nothing again and compares; what changed since is found."""
    backed_up(influx1, server1, repository)
    target = new_name()
    asked = {"plan": "telemetry", "window": DAY, "restore_id": "run 1", "writer": "lines"}
    restore_into(repository, server1, target, **asked)
    report = restore_into(repository, server1, target, fingerprints=True, **asked)
    assert (report.continued_units, report.fingerprints) == (1, True)
    influx1.write(f"cpu,host=a v=0.5 {DAY.start}", target)
    with pytest.raises(TargetError, match="already has points"):  # which are not those of this restore any more
        restore_into(repository, server1, target, fingerprints=True, **asked)


@pytest.mark.parametrize(
    "option",
    [{"on_conflict": "merge"}, {"retention": "drop-points"}, {"max_rejects": 1}, {"unsigned_as_integer": True}],
    ids=lambda option: next(iter(option)),
)
def test_fingerprints_of_what_is_not_to_equal_the_archive_are_refused(
    influx1: RunningServer, server1: Server, repository: Repository, option: dict[str, object]
) -> None:
    """Where a difference would say nothing the comparison is refused, by the dry run too, before anything is made."""
    backed_up(influx1, server1, repository)
    target = new_name()
    asked = {"plan": "telemetry", "window": DAY, "fingerprints": True, **option}
    with pytest.raises(UsageError, match="Fingerprints cannot be compared with --"):
        restore_into(repository, server1, target, **asked)
    request = RestoreRequest.model_validate({"target_database": target, **asked})
    with pytest.raises(UsageError, match="Fingerprints"):
        plan_restore(request, repository=repository, target=server1)
    assert target not in server1.databases()
