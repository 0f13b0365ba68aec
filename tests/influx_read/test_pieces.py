"""Shard boundaries are found from what a server says, exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.errors import QueryError
from influxdb_backup.influx.pieces import bound_of, group_window, steps
from influxdb_backup.model import MAX_END, MIN_TIME

SECOND = 1_000_000_000


@given(
    st.lists(st.tuples(st.integers(-1000, 1000), st.integers(1, 5)), max_size=8, unique_by=lambda item: item[0]),
    st.integers(-1100 * SECOND, 1000 * SECOND),
    st.integers(1, 2000 * SECOND),
)
def test_every_start_of_a_group_is_found(groups: list[tuple[int, int]], start: int, length: int) -> None:
    """The search names each group that starts inside of the window, whatever weight it has in the plan."""
    end = start + length

    def shards(last: int) -> int:
        starts = sorted(groups)
        total = 0
        for position, (begin, weight) in enumerate(starts):
            ends = starts[position + 1][0] * SECOND if position + 1 < len(starts) else 2**62
            total += weight if begin * SECOND < last and ends > start else 0
        return total

    expected = [begin * SECOND for begin, _ in sorted(groups) if start < begin * SECOND < end]
    assert list(steps(shards, start + 1, end)) == expected


def test_a_start_between_seconds_is_refused() -> None:
    """A boundary that is no whole second is an error and no guess."""
    with pytest.raises(QueryError, match="whole seconds"):
        list(steps(lambda end: int(end > SECOND // 2), 1, SECOND - 1))


def test_bounds_are_clamped_to_what_a_server_holds() -> None:
    """The first group starts before int64, the last one ends after the whole second that the server prints."""
    assert bound_of("1677-09-20T00:00:00Z") == MIN_TIME
    assert bound_of("2262-04-11T23:47:16Z") == MAX_END
    assert bound_of("2262-04-11T23:47:16.854775807Z") == MAX_END
    assert bound_of("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert group_window("1677-09-19T00:00:00Z", "1677-09-20T00:00:00Z") is None


def test_a_bound_that_is_no_time_is_refused() -> None:
    """What is no stamp raises; it is not left out."""
    with pytest.raises(QueryError):
        bound_of("yesterday")
