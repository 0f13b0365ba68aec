"""Pure choices of a drill: which window, which shard duration, and whether a check holds."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.config.model import Check
from influxdb_backup.errors import BackupNotFoundError, QueryError, ServerUnavailableError
from influxdb_backup.jobs.drill_checks import judge, run_check
from influxdb_backup.jobs.drills import DrillReport, Pick, pick_ref
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.jobs.type_changes import Stretch, meetings, separating_duration, stretches_of
from influxdb_backup.model import Column, InfluxType, Part, Ref, Role, Table
from tests.influx_write.support import batch_of
from tests.jobs.support import DAY_NS, HOUR, SECOND, WEEK, window
from tests.jobs.test_coverage import day, ref


def numbered(number: int, revision: int = 0, **changes: object) -> Ref:
    """A ref of a day with a manifest of its own."""
    return ref(day(number), revision=revision, manifest=f"sha256:{number * 10 + revision:064d}", **changes)


def report(of: Ref, started_at: int) -> DrillReport:
    """What a drill of this ref left behind."""
    return DrillReport(
        drill_id="d",
        ref=of.id,
        manifest=of.manifest,
        window=of.window,
        server="tests",
        ok=True,
        problems=(),
        tables=(),
        checks=(),
        rows=0,
        values=0,
        bytes=0,
        seconds_restore=0,
        seconds_read_back=0,
        seconds_total=0,
        scratch="s",
        scratch_dropped=True,
        started_at=started_at,
    )


def test_latest_is_the_newest_revision_of_the_last_closed_window() -> None:
    """An open window is never drilled, and of a window only its newest revision."""
    refs = [numbered(0), numbered(2), numbered(2, 1), numbered(1), numbered(3, open=True)]
    assert pick_ref("telemetry", refs, [], "latest", 0) == numbered(2, 1)


def test_a_plan_without_a_closed_window_cannot_be_drilled() -> None:
    """Nothing to drill is an error, since a drill that proves nothing must not pass."""
    with pytest.raises(BackupNotFoundError):
        pick_ref("telemetry", [numbered(3, open=True)], [], "least_recently_drilled", 0)


@pytest.mark.parametrize("how", ["latest", "random", "least_recently_drilled"])
def test_a_window_without_points_is_never_picked(how: Pick) -> None:
    """Whatever is picked has points in its newest revision; without any such window that is what is said."""
    refs = [numbered(0), numbered(1), numbered(1, 1, rows=0), numbered(2, rows=0)]
    assert all(pick_ref("telemetry", refs, [report(refs[0], 7)], how, seed) == refs[0] for seed in range(9))
    with pytest.raises(BackupNotFoundError, match="no backup with points to drill: the 2 closed windows"):
        pick_ref("telemetry", refs[1:], [], how, 0)


@given(st.integers(1, 7))
def test_least_recently_drilled_comes_round_to_every_window(count: int) -> None:
    """As many drills as there are windows drill each of them once, newest first; then the first one comes again."""
    refs = [numbered(n) for n in range(count)]
    done: list[DrillReport] = []
    for turn in range(count + 1):
        done.append(report(pick_ref("telemetry", refs, done, "least_recently_drilled", 0), 1000 + turn))
    picked = [one.ref for one in done]
    assert picked[:count] == [one.id for one in reversed(refs)]
    assert picked[count] == refs[-1].id


def test_a_new_revision_was_never_drilled() -> None:
    """A drill binds to a manifest: after late data made a new revision, its window is due again."""
    refs = [numbered(0), numbered(1), numbered(1, 1)]
    done = [report(numbered(0), 10), report(numbered(1), 20)]
    assert pick_ref("telemetry", refs, done, "least_recently_drilled", 0) == numbered(1, 1)


@given(st.integers(0, 2**32))
def test_random_picks_one_of_the_windows(seed: int) -> None:
    """Any seed picks a newest revision of a closed window, and the same seed the same one."""
    refs = [numbered(0), numbered(1), numbered(1, 1), numbered(2, open=True)]
    picked = pick_ref("telemetry", refs, [], "random", seed)
    assert picked in (numbered(0), numbered(1, 1))
    assert picked == pick_ref("telemetry", list(reversed(refs)), [], "random", seed)


# --- type changes

TYPES = st.sampled_from([InfluxType.FLOAT, InfluxType.STRING])


def changes(*parts: tuple[InfluxType, int, int]) -> list[Stretch]:
    """A field of these types from a first to a last instant, each a part of its own that has values at both."""
    table = Table(retention_policy="autogen", measurement="m")
    units = []
    for number, (kind, first, last) in enumerate(parts):
        piece = window(first, last + 1)
        part = Part(
            path=f"data/{number}.parquet",
            size=1,
            sha256="sha256:" + "0" * 64,
            rows=1,
            min_time=first,
            max_time=last,
            piece=piece,
            columns=(Column(role=Role.FIELD, name="v", type=kind),),
            counts=(),
            fingerprint="0" * 32,
        )
        units.append(Unit(table=table, part=part, window=piece, whole=True))
    return stretches_of(units, lambda unit: unit.table, lambda kind: kind)


def two_values(unit: Unit) -> list[pa.RecordBatch]:
    """A value at the first and at the last instant of the part."""
    (column,) = unit.part.columns
    value = 1.5 if column.type is InfluxType.FLOAT else "text"
    times = sorted({unit.part.min_time, unit.part.max_time})
    return [batch_of([column], [(time, {}, {"v": value}) for time in times])]


def separated(stretches: list[Stretch], preferred: int) -> tuple[int, list[str]]:
    """The duration, and what meets in words."""
    duration, left = separating_duration(stretches, preferred, two_values, lambda kind: kind)
    return duration, [meeting.what for meeting in left]


@given(
    st.lists(st.tuples(TYPES, st.integers(0, 5 * HOUR), st.integers(0, 5 * HOUR)), min_size=1, max_size=6),
    st.sampled_from([HOUR, DAY_NS, 7 * DAY_NS]),
)
def test_mixed_types_conflict_exactly_when_they_share_a_group(
    steps: list[tuple[InfluxType, int, int]], duration: int
) -> None:
    """Two types are told to meet if and only if some group of that duration would hold both."""
    parts, clock = [], WEEK.start
    for kind, wait, length in steps:
        first = clock + wait + 1
        clock = first + length
        parts.append((kind, first, clock))
    groups: dict[int, set[InfluxType]] = {}
    for kind, first, last in parts:
        low, high = (first - WEEK.start) // duration, (last - WEEK.start) // duration
        for group in range(low, high + 1):
            groups.setdefault(group, set()).add(kind)
    assert bool(meetings(changes(*parts), duration)) == any(len(kinds) > 1 for kinds in groups.values())


def test_mixed_types_get_a_duration_that_separates_them() -> None:
    """A week's group that would hold two types is cut into days, or hours; what an hour cannot separate is named."""
    start = WEEK.start
    plain = changes((InfluxType.FLOAT, start, start + HOUR))
    assert separated(plain, 7 * DAY_NS) == (7 * DAY_NS, [])
    days = changes((InfluxType.FLOAT, start, start + HOUR), (InfluxType.STRING, start + DAY_NS, start + DAY_NS + HOUR))
    assert separated([*plain, *days], 7 * DAY_NS) == (DAY_NS, [])
    hours = changes((InfluxType.FLOAT, start, start + SECOND), (InfluxType.STRING, start + HOUR, start + HOUR))
    assert separated(hours, 7 * DAY_NS) == (HOUR, [])
    close = changes((InfluxType.FLOAT, start, start + SECOND), (InfluxType.STRING, start + 2 * SECOND, start + HOUR))
    duration, left = separated(close, 7 * DAY_NS)
    assert duration == HOUR
    assert len(left) == 1
    assert "field 'v': float from 2024-03-04T00:00:00Z" in left[0]


def test_mixed_types_are_judged_by_the_values_where_the_bounds_of_parts_leave_a_doubt() -> None:
    """Parts that reach into each other's groups are no conflict when the values of the field do not."""
    start = WEEK.start
    crossing = changes(
        (InfluxType.FLOAT, start, start + 3 * DAY_NS), (InfluxType.STRING, start + DAY_NS, start + DAY_NS + HOUR)
    )
    assert meetings(crossing, DAY_NS)
    assert separated(crossing, 7 * DAY_NS) == (DAY_NS, [])


# --- checks


def check(**expectation: object) -> Check:
    """A check of the user."""
    return Check.model_validate({"query": "SELECT count(v) FROM m", **expectation})


@pytest.mark.parametrize(
    ("expectation", "rows", "holds"),
    [
        ({"min": 1}, [{"time": 0, "count": 1}], True),
        ({"min": 2}, [{"time": 0, "count": 1}], False),
        ({"max": 1.5}, [{"time": 0, "count": 1}], True),
        ({"max": 0}, [{"time": 0, "count": 1}], False),
        ({"min": 0, "max": 2}, [{"count": 3}], False),
        ({"equals": 1}, [{"count": 1.0}], True),
        ({"equals": 1}, [{"count": True}], False),
        ({"equals": True}, [{"last": 1}], False),
        ({"equals": "a"}, [{"last": "a"}], True),
        ({"equals": "1"}, [{"last": 1}], False),
        ({"min": 0}, [{"last": "text"}], False),
        ({"min": 0}, [{"last": None}], False),
        ({"min": 0}, [{"last": True}], False),
        ({"min": 0}, [{"last": float("nan")}], False),
        ({"max": 0}, [{"last": float("nan")}], False),
        ({"non_empty": True}, [{"time": 5}], True),
        ({"non_empty": True}, [], False),
        ({"min": 0}, [], False),
    ],
)
def test_a_check_holds_only_for_what_it_expects(
    expectation: dict[str, object], rows: list[dict[str, object]], holds: bool
) -> None:
    """Bounds take numbers, equality distinguishes booleans and text from numbers, and no row holds nothing."""
    result = judge(check(**expectation), rows)
    assert result.ok is holds
    assert holds == (result.message == "as expected")


def test_a_query_that_the_server_refuses_does_not_hold() -> None:
    """A wrong query fails the drill with the server's words; a lost server does not."""

    def refuse(_: str) -> list[dict[str, object]]:
        raise QueryError("error parsing query")

    def lose(_: str) -> list[dict[str, object]]:
        raise ServerUnavailableError("gone")

    result = run_check(check(min=1), refuse)
    assert not result.ok
    assert "error parsing query" in result.message
    with pytest.raises(ServerUnavailableError):
        run_check(check(min=1), lose)
