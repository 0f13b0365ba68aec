"""Cron expressions: what is accepted means the same to the library that Airflow uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.config.cron import check_cron, longest_window, previous_tick, shortest_window
from influxdb_backup.errors import UsageError

croniter = pytest.importorskip("croniter")


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    pairs = st.tuples(number, number).filter(lambda pair: pair[0] != pair[1])
    ranged = pairs.map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), ranged), st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    item = st.one_of(number.map(str), ranged, stepped)
    return st.one_of(st.just("*"), st.lists(item, min_size=1, max_size=3).map(",".join))


EXPRESSIONS = (
    st.tuples(_field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), _field(0, 7))
    .filter(lambda fields: "*" in (fields[2], fields[4]) or "*" not in fields[2] + fields[4])
    .map(" ".join)
)


@given(EXPRESSIONS)
def test_accepted_expressions_are_known_to_the_scheduler(expression: str) -> None:
    """Whatever a person may write here, the scheduler's library reads as well."""
    assert croniter.croniter.is_valid(check_cron(expression))


@given(EXPRESSIONS, st.integers(946_684_800, 2_524_608_000))
def test_previous_tick_is_the_scheduler_s(expression: str, second: int) -> None:
    """The last tick is the one that the scheduler's library finds, also when both day fields are restricted."""
    moment = datetime.fromtimestamp(second, UTC)
    just_after = moment + timedelta(microseconds=1)  # the library's previous tick is strictly before
    expected = croniter.croniter(expression, just_after).get_prev(datetime)
    assert previous_tick(check_cron(expression), second * 10**9) == int(expected.timestamp()) * 10**9


@given(EXPRESSIONS, st.integers(1_704_067_200, 1_830_000_000))
def test_no_window_is_shorter_than_the_shortest(expression: str, second: int) -> None:
    """The scheduler's ticks are never closer to each other than the shortest window says."""
    clock = croniter.croniter(expression, datetime.fromtimestamp(second, UTC))
    ticks = [clock.get_next(float) for _ in range(20)]
    shortest = shortest_window(check_cron(expression)) // 10**9
    assert all(after - before >= shortest for before, after in pairwise(ticks))


@pytest.mark.parametrize(
    ("expression", "minutes"),
    [
        ("* * * * *", 1),
        ("*/25 * * * *", 10),
        ("0 * * * *", 60),
        ("0 0,23 * * *", 60),
        ("0 0 * * *", 1440),
        ("30 6 * * 1,4", 3 * 1440),
        ("0 0 1 * *", 28 * 1440),
    ],
)
def test_shortest_window(expression: str, minutes: int) -> None:
    """The least time between two ticks: within an hour, over a day's end, between days, between months."""
    assert shortest_window(expression) == minutes * 60 * 10**9


@given(st.text("0123456789*/-,LW#? monjan", max_size=20))
def test_nothing_else_escapes(text: str) -> None:
    """Any text is either accepted here and by the scheduler's library, or refused with a UsageError."""
    try:
        expression = check_cron(text)
    except UsageError:
        return
    assert croniter.croniter.is_valid(expression)


def test_presets_and_names() -> None:
    """Presets are written out; names of days and months are known."""
    assert check_cron("@daily") == "0 0 * * *"
    assert check_cron(" 0  6 * JAN-mar Sun ") == "0 6 * JAN-mar Sun"


@pytest.mark.parametrize(
    "text",
    [
        "* * * * * *",
        "60 * * * *",
        "5-1 * * * *",
        "0 0 * * 0-0",
        "0 0 2 * */2",
        "*,5 * * * *",
        "*/0 * * * *",
        "5/10 * * * *",
        "0 0 L * *",
        "0 0 30 feb *",
        "0 0 * * 8",
        "",
    ],
)
def test_refused(text: str) -> None:
    """Six fields, numbers out of range, empty ranges, days that never come, and what schedulers read differently."""
    with pytest.raises(UsageError):
        check_cron(text)


@pytest.mark.parametrize(
    ("expression", "hours"),
    [("0 0 * * *", 24), ("0 * * * *", 1), ("0 0,6 * * *", 18), ("0 0 1 * *", 31 * 24), ("0 0 * * 1-5", 72)],
)
def test_longest_window(expression: str, hours: int) -> None:
    """The longest time that two ticks are apart: a window that is later than that is a mistake."""
    assert longest_window(expression) == hours * 3600 * 10**9
