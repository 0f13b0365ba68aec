"""What the repository says of a restore's progress is proved at the target, or counts for nothing."""

from __future__ import annotations

import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import AccessError, TargetError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs import standing_points
from influxdb_backup.jobs.objections import Objections
from influxdb_backup.jobs.restore import _aimed
from influxdb_backup.jobs.restore_documents import RestoreProgress
from influxdb_backup.jobs.restore_progress import claim
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.jobs.restore_run import RestoreRun
from influxdb_backup.model import Value
from tests.jobs.support import (
    DAY,
    MINUTE,
    Wrapped,
    back_up,
    lines,
    new_database,
    new_name,
    plan,
    restore_into,
    rows_of,
)
from tests.servers import RunningServer

ID = "run 1"
Asked = dict[str, object]


def run_of(repository: Repository, server: Server, target: str | None, asked: Asked) -> RestoreRun:
    """The restore as the product aims it."""
    request = RestoreRequest.model_validate({"target_database": target, **asked})
    return _aimed(request, repository, server, None, None, Objections(collects=True))


class Writing(Value):
    """A document that once said that points of the restore may be in the target."""

    media_type: str = "application/vnd.influxdb-backup.restore-writing.v1+json"
    scratch_id: str | None = None


def forge(run: RestoreRun, *, progress: bool = True) -> None:
    """What somebody can write into the repository who knows a restore's id: that it began, and that all is written."""
    claim(run)
    run.repository.put_document(layout.restore_progress_key(run.restore_id, "writing-0"), Writing())
    if progress:
        step = RestoreProgress(
            units=tuple(unit.key for unit in run.reads.units), rows=run.reads.rows, values=run.reads.rows, rejects=0
        )
        run.repository.put_document(layout.restore_progress_key(run.restore_id, "000000-forged"), step)


@pytest.fixture
def asked(any_influx: RunningServer, any_server: Server, repository: Repository) -> Asked:
    """A restore of a hundred points of two tables."""
    database = new_database(any_influx, "source")
    for measurement in ("cpu", "mem"):
        any_influx.write(
            lines((f"{measurement},host=a", f"v={n},w=1i", DAY.start + n * MINUTE) for n in range(50)), database
        )
    ref = back_up(repository, any_server, plan(database)).ref
    return {"refs": (ref,), "restore_id": ID, "writer": "lines"}


def held(running: RunningServer, database: str) -> list[list[object]]:
    """Time and value of each point of the first table."""
    return rows_of(running, "SELECT v FROM cpu", database)


@pytest.mark.parametrize("exists", [True, False], ids=["empty database", "no database"])
def test_forged_progress_does_not_stand_for_points(
    any_influx: RunningServer, any_server: Server, repository: Repository, asked: Asked, exists: bool
) -> None:
    """A document that says that all is written is believed of nothing: every point is written."""
    target = new_database(any_influx) if exists else new_name()
    forge(run_of(repository, any_server, target, asked))
    report = restore_into(repository, any_server, target, **asked)
    assert (report.rows, report.continued_units) == (100, 0)
    assert len(held(any_influx, target)) == 50


@pytest.mark.parametrize("on_conflict", ["fail", "merge"])
def test_forged_progress_does_not_make_other_values_of_the_same_points_good(
    any_influx: RunningServer, any_server: Server, repository: Repository, asked: Asked, on_conflict: str
) -> None:
    """A target that has as many points of the same times, but other values, is refused or written over; never 'restored'."""
    target = new_database(any_influx)
    for measurement in ("cpu", "mem"):
        any_influx.write(
            lines((f"{measurement},host=a", "v=-1,w=9i", DAY.start + n * MINUTE) for n in range(50)), target
        )
    asked = {**asked, "on_conflict": on_conflict}
    forge(run_of(repository, any_server, target, asked))
    if on_conflict == "fail":
        with pytest.raises(TargetError) as caught:
            restore_into(repository, any_server, target, **asked)
        assert caught.value.kind == "target-not-empty"
        assert {row[1] for row in held(any_influx, target)} == {-1}
        return
    assert restore_into(repository, any_server, target, **asked).continued_units == 0
    assert [row[1] for row in held(any_influx, target)] == list(range(50))


@pytest.mark.parametrize("there", ["one point of others", "some of the archive's points"])
@pytest.mark.parametrize("progress", [True, False])
def test_a_forged_record_does_not_lift_on_conflict_fail(
    any_influx: RunningServer, any_server: Server, repository: Repository, asked: Asked, there: str, progress: bool
) -> None:
    """Points in the range are a conflict unless the target itself shows that this very restore wrote them."""
    target = new_database(any_influx)
    if there == "one point of others":
        any_influx.write(f"cpu,host=theirs v=7 {DAY.start}", target)
    else:
        any_influx.write(lines(("cpu,host=a", f"v={n},w=1i", DAY.start + n * MINUTE) for n in range(7)), target)
    before = held(any_influx, target)
    forge(run_of(repository, any_server, target, asked), progress=progress)
    with pytest.raises(TargetError) as caught:
        restore_into(repository, any_server, target, **asked)
    assert caught.value.kind == "target-not-empty"
    assert held(any_influx, target) == before


class Dying(Wrapped):
    """A server whose writer of the second table never comes: the process is killed."""

    def writer(self, *arguments: object) -> object:
        """The real one, which ends after the first table."""
        real = self.server.writer(*arguments)  # type: ignore[arg-type]

        class Writer(Wrapped):
            def __enter__(self) -> Writer:
                real.__enter__()
                return self

            def __exit__(self, *ended: object) -> None:
                real.__exit__(None, None, None)
                raise KeyboardInterrupt

        return Writer(real)  # type: ignore[arg-type]


@pytest.mark.parametrize("exists", [True, False], ids=["empty database", "no database"])
def test_a_restore_that_ended_early_goes_on_because_the_server_shows_it(
    any_influx: RunningServer, any_server: Server, repository: Repository, asked: Asked, exists: bool
) -> None:
    """The same id goes on in what it wrote, another one is refused; at the end nothing is left of the mark."""
    target = new_database(any_influx) if exists else new_name()
    with pytest.raises(KeyboardInterrupt):
        restore_into(repository, Dying(any_server), target, **asked)
    assert held(any_influx, target)
    run = run_of(repository, any_server, target, asked)
    assert any_server.marked_for_restore(target, run.owner) == {"autogen"}
    assert [policy.name for policy in any_server.retention_policies(target)] == ["autogen"]
    with pytest.raises(TargetError) as caught:
        restore_into(repository, any_server, target, **{**asked, "restore_id": "another"})
    assert caught.value.kind == "target-not-empty"
    assert restore_into(repository, any_server, target, **asked).rows == 100
    assert any_server.marked_for_restore(target, run.owner) == frozenset()
    again = restore_into(repository, any_server, target, **asked)
    assert (again.rows, again.continued_units) == (100, 2)


def test_credentials_that_cannot_mark_restore_and_meet_their_own_points(
    any_influx: RunningServer, any_server: Server, repository: Repository, asked: Asked
) -> None:
    """Without the right to mark a restore works; one that ended early is refused, and merge goes on."""
    target = new_database(any_influx)

    class Poor(Wrapped):
        def mark_restore(self, *_: object) -> None:
            raise AccessError("only an administrator may")

    class PoorAndDying(Dying, Poor):
        pass

    with pytest.raises(KeyboardInterrupt):
        restore_into(repository, PoorAndDying(any_server), target, **asked)
    with pytest.raises(TargetError, match="already has points"):
        restore_into(repository, Poor(any_server), target, **asked)
    merged = {**asked, "on_conflict": "merge", "restore_id": "merged"}
    assert restore_into(repository, Poor(any_server), target, **merged).rows == 100


@pytest.mark.parametrize("share", [1, 7, 4_000_000])
def test_one_value_that_is_not_there_is_found(
    any_influx: RunningServer,
    any_server: Server,
    repository: Repository,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    share: int,
) -> None:
    """Values are compared by series, time, type and bits, in shares of any size; others in the target are seen."""
    monkeypatch.setattr(standing_points, "_AT_ONCE", share)
    target = new_database(any_influx)
    restore_into(repository, any_server, target, **asked)
    run = run_of(repository, any_server, target, asked)
    steps = [step for _, step in repository.read_documents(layout.restore_prefix(ID), RestoreProgress)]
    proved = standing_points.standing(run, steps)
    assert (len(proved.steps), proved.others) == (1, False)
    any_influx.write(f"cpu,host=a v=7.25 {DAY.start}", target)
    proved = standing_points.standing(run, steps)
    assert (len(proved.steps), proved.others) == (0, True)
    steps = [replace_units(step, run, "mem") for step in steps]
    assert len(standing_points.standing(run, steps).steps) == 1


def replace_units(step: RestoreProgress, run: RestoreRun, measurement: str) -> RestoreProgress:
    """The step with the units of one table only."""
    units = tuple(unit.key for unit in run.reads.units if unit.table.measurement == measurement)
    return step.model_copy(update={"units": units})
