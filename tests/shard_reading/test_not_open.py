"""Shards that a server lists and has not open: empty ones that it made in advance, and those it could not open."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.errors import ConfigError, SourceError
from influxdb_backup.influx.metadata1 import described_shards
from influxdb_backup.jobs.scrub import scrub
from influxdb_backup.model import MAX_END, MIN_TIME, RetentionPolicy, Window
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    WEEK,
    back_up,
    create_policy,
    local_repository,
    memory_repository,
    new_database,
    opened,
    plan,
    rows_of,
    window,
)
from tests.servers import (
    DEBIANS,
    NEWER,
    TWO,
    RunningServer,
    daemon,
    start_influxdb1,
    start_influxdb2,
)
from tests.shard_reading.meta_data import metadata
from tests.shard_reading.test_export import readers_of

pytestmark = pytest.mark.usefixtures("compiled")
Start = Callable[[str], AbstractContextManager[RunningServer]]
IN_ADVANCE = '[shard-precreation]\n  enabled = true\n  check-interval = "1s"\n  advance-period = "3h"\n'


def starter(kind: str, folder: Path) -> Start:
    """Starts the server of a kind in a folder of its own, with sections of configuration on 1.x."""
    binary = daemon(kind)
    if kind == TWO:
        return lambda extra: start_influxdb2(folder, binary)
    return lambda extra: start_influxdb1(folder, binary, extra)


def listed(running: RunningServer) -> int:
    """The number of shards that a 1.x server lists."""
    return len(rows_of(running, "SHOW SHARDS", "")) if running.generation == 1 else 0


@pytest.mark.parametrize("kind", [DEBIANS, NEWER])
def test_groups_that_were_made_in_advance_are_empty(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server lists the next group before anything is written to it: exports go on, and shards are still copied."""
    with (
        starter(kind, tmp_path / "server")(IN_ADVANCE) as running,
        opened(running, snapshot_address=running.backup_address) as server,
    ):
        database = new_database(running)
        create_policy(running, database, "hours", "DURATION INF REPLICATION 1 SHARD DURATION 1h DEFAULT")
        this_hour = server.now() // HOUR * HOUR
        running.write(f"m v=1 {this_hour - 5 * HOUR}\nm v=2 {this_hour}", database, "hours")
        deadline = time.monotonic() + 30
        while listed(running) < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert listed(running) > 2
        running.wait_until_cold()
        past = window(this_hour - 6 * HOUR, this_hour - 4 * HOUR)
        back_up(memory_repository(), server, plan(database, reader="shard"), past)
        repository = memory_repository()
        result = back_up(repository, server, plan(database), window(past.start, this_hour + 2 * HOUR), force=True)
        assert result.rows == 2
        assert readers_of(repository, result.ref) == {"shard", "query"}
        assert "has it not open" in caplog.text
        assert [found.rows for found in scrub(server, [database])] == [0, 2]


@pytest.mark.parametrize("kind", [DEBIANS, NEWER, TWO])
def test_a_shard_that_cannot_be_opened_is_told(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its points are in no answer: an error when a backup has some of them, and a warning when nobody knows."""
    repository = local_repository(tmp_path)
    start = starter(kind, tmp_path / "server")
    tomorrow = window(DAY.end, DAY.end + DAY_NS)
    with start("") as running, opened(running, snapshot_address=running.backup_address) as server:
        database = new_database(running, "closed")
        running.write("\n".join(f"m v={n}i {DAY.start + n * 10**12}" for n in range(170)), database)
        running.write(f"m v=1i {WEEK.end}", database)
        running.wait_until_cold()
        good = back_up(repository, server, plan(database, reader="shard"))
        back_up(memory_repository(), server, plan(database, reader="shard"), window(WEEK.end, WEEK.end + 7 * DAY_NS))
    for file in (tmp_path / "server").rglob("*/1/*.tsm"):
        file.write_bytes(b"\0" + file.read_bytes()[1:])
    with (
        start("") as running,
        opened(running, snapshot_address=running.backup_address) as server,
        caplog.at_level(logging.WARNING),
    ):
        with pytest.raises(SourceError, match=r"shard 1 .* has it not open") as caught:
            back_up(repository, server, plan(database), tomorrow)
        assert caught.value.kind == "source-damaged"
        assert good.ref in caught.value.message
        assert "Failed to open shard" in caught.value.hint
        caplog.clear()
        unknown = memory_repository()
        result = back_up(unknown, server, plan(database), tomorrow)
        assert (result.rows, readers_of(unknown, result.ref)) == (0, {"query"})
        assert "has it not open" in caplog.text
        caplog.clear()
        (found,) = scrub(server, [database])
        assert (found.rows, found.shard_groups) == (1, 1)
        assert "has it not open" in caplog.text


def test_the_same_database_of_another_server_is_refused(tmp_path: Path) -> None:
    """Equal names and numbers are not enough: the groups behind the port must have the same times."""
    start, other = starter(DEBIANS, tmp_path / "one"), starter(DEBIANS, tmp_path / "other")
    with start("") as running, other("") as stranger:
        for each, moment in ((running, DAY.start), (stranger, WEEK.end)):
            each.create_database("telegraf")
            each.write(f"m v=1 {moment}", "telegraf")
        with (
            opened(running, snapshot_address=stranger.backup_address) as server,
            pytest.raises(ConfigError, match="another server"),
        ):
            back_up(memory_repository(), server, plan("telegraf"))


GROUPS = st.lists(st.tuples(st.integers(MIN_TIME, MAX_END - 1), st.integers(1, 2**40)), max_size=4)


def reply(content: bytes) -> bytes:
    """As a server gives its metadata, with that of its node behind it."""
    return (0x59590101).to_bytes(8, "big") + len(content).to_bytes(8, "big") + content + bytes(7) + b"\5null\n"


def replies() -> Iterator[bytes]:
    """Metadata with two policies."""
    policies = [RetentionPolicy(name=name, duration=0, shard_duration=HOUR, default=False) for name in ("a", "é")]
    yield reply(metadata("db", policies, {"a": [(WEEK, 7)], "é": [(Window(start=-5, end=3), 2**40)]}))


@given(groups=GROUPS)
def test_described_shards_are_told_by_database(groups: list[tuple[int, int]]) -> None:
    """Policy, number and first instant of each, also before 1970; and databases without shards."""
    policies = [RetentionPolicy(name=name, duration=0, shard_duration=HOUR, default=False) for name in ("a", "é")]
    windows = [(Window(start=start, end=start + 1), number) for start, number in groups]
    content = metadata("db", policies, {"é": windows}) + metadata("other", policies, {"a": [(WEEK, 1)]})
    assert described_shards(reply(content + metadata("none", policies, {}))) == {
        "db": {("é", number): found.start for found, number in windows},
        "other": {("a", 1): WEEK.start},
        "none": {},
    }


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_metadata_is_refused_or_read(place: float, byte: int, cut: bool) -> None:
    """Any bytes end in numbers or in ValueError."""
    for sound in replies():
        raw = bytearray(sound)
        at = int(place * len(raw))
        raw[at] = byte
        try:
            found = described_shards(bytes(raw[:at] if cut else raw))
        except ValueError:
            continue
        starts = [start for shards in found.values() for start in shards.values()]
        assert all(-(2**63) <= start < 2**63 for start in starts)
