"""What time arithmetic promises."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.errors import UsageError
from influxdb_backup.model import MAX_END, MIN_TIME, Window
from influxdb_backup.windows import (
    format_duration,
    format_instant,
    format_key,
    halve,
    merge,
    overlay,
    parse_duration,
    parse_instant,
    parse_key,
    parse_window,
    say_wait,
    subtract,
    tile,
)

instants = st.integers(MIN_TIME, MAX_END)
small = st.integers(0, 60)
windows = st.tuples(small, small).filter(lambda p: p[0] != p[1]).map(lambda p: Window(start=min(p), end=max(p)))


def moments(items: object) -> set[int]:
    """Every instant of all windows."""
    return {n for w in items for n in range(w.start, w.end)}  # type: ignore[attr-defined]


@given(instants)
def test_instants_round_trip(instant: int) -> None:
    """Every instant InfluxDB can hold survives both written forms."""
    assert parse_instant(format_instant(instant)) == instant
    assert parse_key(format_key(instant)) == instant


@given(instants, instants)
def test_keys_sort_as_time(a: int, b: int) -> None:
    """The order of keys is the order of time."""
    assert (a < b) == (format_key(a) < format_key(b))


@pytest.mark.parametrize(
    "text", ["2026-01-01T00:00:00", "2026-01-01", "yesterday", "", "2026-13-01T00:00:00Z", "1600-01-01T00:00:00Z"]
)
def test_bad_times_are_refused(text: str) -> None:
    """Naive, impossible and unrepresentable times raise with the text in the message."""
    with pytest.raises(UsageError):
        parse_instant(text)


def test_offsets_and_datetimes() -> None:
    """An offset is subtracted, and an aware datetime is exact."""
    assert parse_instant("2026-01-01T01:30:00+01:30") == parse_instant("2026-01-01T00:00:00Z")
    assert parse_instant(datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)) == parse_instant("2026-01-01T00:00:00.000001Z")
    with pytest.raises(UsageError, match="time zone"):
        parse_instant(datetime(2026, 1, 1))  # noqa: DTZ001


def test_empty_windows_are_refused() -> None:
    """A window needs its start before its end."""
    with pytest.raises(UsageError, match="empty"):
        parse_window("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")


@given(st.integers(0, 2**62))
def test_durations_round_trip(duration: int) -> None:
    """Every duration survives being written."""
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize("text", ["", "5", "m", "1x", "1h 30m", "-1h"])
def test_bad_durations_are_refused(text: str) -> None:
    """What is no duration raises."""
    with pytest.raises(UsageError):
        parse_duration(text)


@given(windows, st.lists(windows, max_size=8))
def test_subtract_leaves_exactly_the_gaps(whole: Window, covered: list[Window]) -> None:
    """A moment is in a gap if and only if it is in the whole and in no covered window."""
    gaps = subtract(whole, covered)
    assert moments(gaps) == moments([whole]) - moments(covered)
    assert list(gaps) == list(merge(gaps))


@given(windows, st.lists(windows, max_size=8))
def test_tiles_cover_and_never_cross(whole: Window, groups: list[Window]) -> None:
    """Pieces tile the whole and none crosses a group's boundary."""
    pieces = tile(whole, groups)
    assert pieces[0].start == whole.start
    assert pieces[-1].end == whole.end
    assert all(a.end == b.start for a, b in itertools.pairwise(pieces))
    edges = {edge for group in groups for edge in (group.start, group.end)}
    assert not any(piece.start < edge < piece.end for piece in pieces for edge in edges)


@given(st.lists(windows, max_size=6), windows)
def test_overlay_picks_the_last_layer(layers: list[Window], whole: Window) -> None:
    """Every moment comes from the last layer that contains it, once."""
    result = overlay([(layer, 0) for layer in layers], whole)
    seen: dict[int, int] = {}
    for stretch, position in result:
        for moment in range(stretch.start, stretch.end):
            assert moment not in seen
            seen[moment] = position
    for moment in range(whole.start, whole.end):
        holders = [n for n, layer in enumerate(layers) if layer.start <= moment < layer.end]
        assert seen.get(moment) == (holders[-1] if holders else None)


@given(st.integers(0, 10**13), st.integers(1, 10**13))
def test_halves_join_to_the_whole(start: int, length: int) -> None:
    """Two halves make the whole, and a window shorter than two seconds has none."""
    window = Window(start=start, end=start + length)
    halves = halve(window)
    if length < 2 * 10**9:
        assert halves is None
    else:
        assert halves is not None
        assert (halves[0].start, halves[0].end, halves[1].end) == (window.start, halves[1].start, window.end)
        assert all(half.end - half.start >= 10**9 // 2 for half in halves)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"), (30, "30 s"), (89, "89 s"), (90, "2 min"), (3599, "60 min"), (3600, "1 hour"),
        (2 * 3600, "2 hours"), (86_400, "1 day"), (3 * 86_400, "3 days"), (2_306_443_933, "73 years"),
    ],
)  # fmt: skip
def test_say_wait(seconds: int, words: str) -> None:
    """A wait is said in people's words, not in seconds."""
    assert say_wait(seconds * 10**9) == words
