"""Keys: built and parsed by one module, and inverse to each other."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.archive import layout
from influxdb_backup.errors import UsageError
from influxdb_backup.model import MAX_END, MIN_TIME, Window

plans = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
times = st.integers(MIN_TIME, MAX_END)
windows = st.tuples(times, times).filter(lambda t: t[0] != t[1]).map(lambda t: Window(start=min(t), end=max(t)))
revisions = st.integers(0, layout.MAX_REVISION)
names = st.text(st.characters(), max_size=200) | st.binary(max_size=200).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)
PLAIN = re.compile(r"[0-9A-Za-z._=/+:-]+\Z")


@given(plans, windows, revisions)
def test_ref_keys_round_trip(plan: str, window: Window, revision: int) -> None:
    """A ref's key says plan, window and revision, and tells a tombstone from a ref."""
    key = layout.ref_key(plan, window, revision)
    assert layout.parse_ref_key(key) == layout.RefName(plan, window, revision)
    assert layout.check_key(key) == key
    grave = layout.tombstone_key(plan, window, revision)
    assert layout.parse_ref_key(grave) == layout.RefName(plan, window, revision, tombstone=True)
    assert key.startswith(layout.refs_prefix(plan, window)) and key.startswith(layout.refs_prefix(plan))


@given(plans, windows, st.integers(0, 2**20), names, st.integers(0, 2**20))
def test_part_keys_round_trip(plan: str, window: Window, table: int, measurement: str, number: int) -> None:
    """Whatever the measurement's name is, the key is plain, short and says plan, window, attempt and numbers."""
    attempt = "0123456789abcdef"
    key = layout.part_key(layout.attempt_prefix(plan, window, attempt), table, measurement, number)
    parsed = layout.parse_part_key(key)
    assert parsed is not None
    assert (parsed.plan, parsed.window, parsed.attempt) == (plan, window, attempt)
    assert (parsed.table, parsed.number, parsed.slug) == (table, number, layout.slug(measurement))
    assert PLAIN.match(key) and layout.check_key(key) == key
    assert len(parsed.slug) <= layout.SLUG_LENGTH
    assert all(len(segment) <= 255 for segment in key.split("/"))


@given(names.filter(bool))
def test_escaped_segments_round_trip(text: str) -> None:
    """Any id becomes one plain key segment and comes back."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return  # lone surrogates that are no escaped bytes
    try:
        segment = layout.escape_segment(text)
    except UsageError:
        assert len(raw) > 60
        return
    assert PLAIN.match(segment) and "/" not in segment and segment not in {".", ".."}
    assert layout.unescape_segment(segment) == text
    assert layout.check_key(layout.restore_key(text)) == layout.restore_key(text)


@given(windows, windows)
def test_window_keys_sort_as_time(first: Window, second: Window) -> None:
    """Fixed width: a listing is in order of time."""
    by_key = layout.format_window_key(first) < layout.format_window_key(second)
    assert by_key == ((first.start, first.end) < (second.start, second.end))
    assert layout.parse_window_key(layout.format_window_key(first)) == first


@pytest.mark.parametrize(
    "key",
    [
        "refs/p/20260101T000000.000000000Z_20260102T000000.000000000Z/0.json",
        "refs/p/20260101T000000.000000000Z_20260102T000000.000000000Z/000000.json.bak",
        "refs/P/20260101T000000.000000000Z_20260102T000000.000000000Z/000000.json",
        "refs/p/20260102T000000.000000000Z_20260101T000000.000000000Z/000000.json",
        "refs/p/20261301T000000.000000000Z_20270101T000000.000000000Z/000000.json",
        "refs/p/x/000000.json",
        "refs/000000.json",
        "",
    ],
)
def test_what_is_no_ref_is_not_taken_for_one(key: str) -> None:
    """Strange names below refs/ are no backups."""
    assert layout.parse_ref_key(key) is None


@pytest.mark.parametrize("plan", ["", "A", "-a", "a/b", "a b", "a" * 65, "é", "a\n", "..", "a.b"])
def test_plan_names_are_plain(plan: str) -> None:
    """Anything else is refused before a key is built of it."""
    for build in (layout.plan_key, layout.refs_prefix, lambda name: layout.report_prefix(layout.DRILLS, name)):
        with pytest.raises(UsageError, match="plan's name"):
            build(plan)


def test_manifest_and_plan_keys_round_trip() -> None:
    """And refuse what is no digest."""
    digest = "sha256:" + "0a" * 32
    assert layout.parse_manifest_key(layout.manifest_key(digest)) == digest
    assert layout.parse_plan_key(layout.plan_key("telemetry")) == "telemetry"
    assert layout.parse_manifest_key("manifests/x.json") is None
    assert layout.parse_plan_key("plans/a/b.json") is None
    with pytest.raises(UsageError):
        layout.manifest_key("sha256:../../x")


def test_report_keys_stand_below_their_revision() -> None:
    """Drills, their scratch records and checks are found by listing plan, window or revision."""
    window = Window(start=0, end=86_400 * 10**9)
    prefix = layout.report_prefix(layout.DRILLS, "p", window, 3)
    assert layout.drill_key("p", window, 3, 7, "ab").startswith(prefix)
    assert layout.drill_stage_key("p", window, 3, "ab", "started") == f"{prefix}ab.started.json"
    assert layout.check_report_key("p", window, 3, 7, "ab").startswith(
        layout.report_prefix(layout.CHECKS, "p", window, 3)
    )
    assert layout.restore_progress_key("manual__2026-01-01T00:00:00+00:00", "1").startswith(
        layout.restore_prefix("manual__2026-01-01T00:00:00+00:00")
    )
