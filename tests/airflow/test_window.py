"""Which window a run is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.utils.types import DagRunType

from influxdb_backup.errors import UsageError
from influxdb_backup.operators.window import notes, resolve_window
from influxdb_backup.windows import format_window

DAILY = "0 0 * * *"


def day(number: int, hour: int = 0) -> datetime:
    """An instant of January 2026."""
    return datetime(2026, 1, number, hour, tzinfo=UTC)


INTERVAL = {"data_interval_start": day(1), "data_interval_end": day(2)}


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        pytest.param(INTERVAL, "2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z", id="data interval"),
        pytest.param(
            {**INTERVAL, "partition_key": None, "partition_date": None, "params": {"window_start": None}},
            "2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z",
            id="empty params and partition are none",
        ),
        pytest.param(
            {**INTERVAL, "partition_date": day(5)},
            "2026-01-05T00:00:00Z to 2026-01-06T00:00:00Z",
            id="a partition wins over the interval",
        ),
        pytest.param(
            {"partition_key": "2026-01-07T00:00:00Z"},
            "2026-01-07T00:00:00Z to 2026-01-08T00:00:00Z",
            id="a partition's key with a zone",
        ),
        pytest.param(
            {
                **INTERVAL,
                "partition_date": day(5),
                "params": {"window_start": "2026-01-09T00:00:00.5Z", "window_end": "2026-01-09T02:00:00+01:00"},
            },
            "2026-01-09T00:00:00.500Z to 2026-01-09T01:00:00Z",
            id="params win over everything",
        ),
        pytest.param(
            {
                "data_interval_start": datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
                "data_interval_end": day(1, 6),
            },
            "2026-01-01T00:00:00Z to 2026-01-01T06:00:00Z",
            id="other zones are converted",
        ),
    ],
)
def test_window(context: dict[str, Any], expected: str) -> None:
    """Params, then the partition, then the data interval."""
    assert format_window(resolve_window(context, schedule=DAILY)) == expected


@pytest.mark.parametrize(
    ("context", "message"),
    [
        pytest.param({}, "no window", id="nothing"),
        pytest.param(
            {"run_id": "scheduled__2026-01-02T00:00:00+00:00", "logical_date": None}, "backfill", id="never the run id"
        ),
        pytest.param(
            {"data_interval_start": day(1), "data_interval_end": day(1)},
            "CronDataIntervalTimetable",
            id="an interval without length",
        ),
        pytest.param({"data_interval_start": day(2), "data_interval_end": day(1)}, "empty", id="reversed"),
        pytest.param(
            {**INTERVAL, "params": {"window_start": "2026-01-01T00:00:00Z"}}, "window_end", id="half a window"
        ),
        pytest.param({**INTERVAL, "params": {"window_end": "2026-01-01T00:00:00Z"}}, "window_start", id="other half"),
        pytest.param(
            {"params": {"window_start": "2026-01-01T00:00:00", "window_end": "2026-01-02T00:00:00Z"}},
            "no time zone",
            id="a naive param",
        ),
        pytest.param({"partition_key": "2026-01-07"}, "key_format", id="a key without a zone"),
        pytest.param({"partition_key": "berlin"}, "key_format", id="a key that is no time"),
    ],
)
def test_no_window(context: dict[str, Any], message: str) -> None:
    """A run without a clear window fails and says what to do; nothing is guessed."""
    with pytest.raises(UsageError, match=message):
        resolve_window(context, schedule=DAILY)


def test_partition_is_one_period_of_the_schedule() -> None:
    """A partition is as long as the plan's schedule says."""
    window = resolve_window({"partition_date": day(5, 3)}, schedule="0 */6 * * *")

    assert format_window(window) == "2026-01-05T03:00:00Z to 2026-01-05T06:00:00Z"


def test_a_backfill_is_not_one_window() -> None:
    """A window given to a backfill would be that of all its runs, and leave theirs without a backup under green."""
    form = {"window_start": "2026-01-09T00:00:00Z", "window_end": "2026-01-10T00:00:00Z"}
    with pytest.raises(UsageError, match=r"one of a backfill.*trigger a single run"):
        resolve_window(
            {**INTERVAL, "params": form, "dag_run": SimpleNamespace(run_type=DagRunType.BACKFILL_JOB)}, schedule=DAILY
        )
    manual = {**INTERVAL, "params": form, "dag_run": SimpleNamespace(run_type=DagRunType.MANUAL)}
    assert format_window(resolve_window(manual, schedule=DAILY)) == "2026-01-09T00:00:00Z to 2026-01-10T00:00:00Z"


def test_a_window_that_was_given_is_told_beside_the_interval() -> None:
    """Airflow's page shows the data interval of such a run; a run of its own interval says nothing."""
    given = {**INTERVAL, "params": {"window_start": "2026-01-09T00:00:00Z", "window_end": "2026-01-10T00:00:00Z"}}
    assert list(notes(given, DAILY, resolve_window(given, schedule=DAILY))) == [
        "The window of this run is 2026-01-09, 1 day, as it was given; Airflow shows another interval."
    ]
    assert list(notes(INTERVAL, DAILY, resolve_window(INTERVAL, schedule=DAILY))) == []
