"""Cron expressions: what is accepted means the same to the library that Airflow uses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.config.cron import check_cron
from influxdb_backup.errors import UsageError

croniter = pytest.importorskip("croniter")


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ranged = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), ranged), st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    item = st.one_of(number.map(str), ranged, stepped)
    return st.one_of(st.just("*"), st.lists(item, min_size=1, max_size=3).map(",".join))


EXPRESSIONS = st.tuples(_field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), _field(0, 6)).map(" ".join)


@given(EXPRESSIONS)
def test_accepted_expressions_are_known_to_the_scheduler(expression: str) -> None:
    """Whatever a person may write here, the scheduler's library reads as well."""
    assert croniter.croniter.is_valid(check_cron(expression))


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
        "*/0 * * * *",
        "5/10 * * * *",
        "0 0 L * *",
        "0 0 30 feb *",
        "0 0 * * 8",
        "",
    ],
)
def test_refused(text: str) -> None:
    """Six fields, numbers out of range, reversed or empty ranges, and days that never come are refused."""
    with pytest.raises(UsageError):
        check_cron(text)
