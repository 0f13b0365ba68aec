"""A writer with several connections never sends two first writes into one shard group at once."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from influxdb_backup.influx.dialect import DIALECT_1X
from influxdb_backup.influx.first_writes import FirstWrites
from influxdb_backup.influx.lines import Lines
from influxdb_backup.influx.protocol import WriteOptions
from influxdb_backup.influx.writer import LineProtocolWriter, SendResult
from influxdb_backup.model import MAX_END, MIN_TIME
from influxdb_backup.shard_groups import DAY, DEFAULT_DURATION, HOUR, group_number, group_numbers
from tests.influx_write.support import batch_of, field, tag

INSTANTS = st.integers(MIN_TIME, MAX_END - 1)
COLUMNS = [tag("t"), field("v")]


@given(st.lists(INSTANTS, min_size=1), st.sampled_from([HOUR, DAY, DEFAULT_DURATION, 90 * 60 * 10**9, 1000 * DAY]))
@example([MIN_TIME, MIN_TIME + 1, -1, 0, MAX_END - 2, MAX_END - 1], HOUR)
def test_points_share_a_number_as_they_share_a_group(instants: list[int], duration: int) -> None:
    """The numbers of two points are equal exactly when one shard group holds both, up to the limits of time."""
    found = group_numbers(np.array(instants, np.int64), duration).tolist()
    wanted = [group_number(instant, duration) for instant in instants]
    assert [number - found[0] for number in found] == [number - wanted[0] for number in wanted]


class Shards:
    """A server that notes which points arrive while another request makes the same shard."""

    def __init__(self, duration: int, seconds: float) -> None:
        self.duration, self.seconds = duration, seconds
        self.lock = threading.Lock()
        self.made: set[int] = set()
        self.making: list[frozenset[int]] = []
        self.lost: set[int] = set()
        self.taken: list[bytes] = []
        self.sizes: list[int] = []
        self.most_at_once = 0

    def __call__(self, body: memoryview) -> SendResult:
        """Takes everything, after a while."""
        lines = bytes(body).splitlines()
        groups = frozenset(group_number(int(line.rsplit(b" ", 1)[1]), self.duration) for line in lines)
        with self.lock:
            new = groups - self.made
            for other in self.making:
                self.lost |= new & other
            self.making.append(groups)
            self.most_at_once = max(self.most_at_once, len(self.making))
        time.sleep(self.seconds)
        with self.lock:
            self.making.remove(groups)
            self.made |= groups
            self.taken += lines
            self.sizes.append(len(lines))
        return SendResult(204, "")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 30 * DAY), min_size=1, max_size=200, unique=True),
    st.integers(1, 20),
    st.integers(2, 4),
    st.sampled_from([HOUR, DAY, DEFAULT_DURATION]),
)
def test_no_two_requests_make_a_shard(times: list[int], lines: int, connections: int, duration: int) -> None:
    """Whatever the points: while a request begins a group no other has points of it, and each arrives once."""
    shards = Shards(duration, 0.001)
    options = WriteOptions(connections=connections, batch_lines=lines)
    with LineProtocolWriter(shards, DIALECT_1X, options, shard_duration=duration) as writer:
        writer.write("m", batch_of(COLUMNS, [(time, {"t": "a"}, {"v": 1.0}) for time in times]))
    assert not shards.lost
    assert sorted(int(line.rsplit(b" ", 1)[1]) for line in shards.taken) == sorted(times)
    assert writer.result.rows == len(times)


def test_only_what_begins_a_shard_travels_alone() -> None:
    """Of long bodies one line for each new group goes first, and the connections share all the rest."""
    shards = Shards(DAY, 0.02)
    times = [day * DAY + number for number in range(8000) for day in range(2)]
    options = WriteOptions(connections=2, batch_lines=4000)
    with LineProtocolWriter(shards, DIALECT_1X, options, shard_duration=DAY) as writer:
        writer.write("m", batch_of(COLUMNS, [(time, {"t": "a" * 20}, {"v": 1.0}) for time in times]))
    assert not shards.lost
    assert shards.most_at_once == 2
    assert sorted(int(line.rsplit(b" ", 1)[1]) // DAY for line in shards.taken[:2]) == [0, 1]
    assert shards.sizes[0] == 2 and min(shards.sizes[1:]) > 2
    assert len(set(shards.taken)) == len(shards.taken) == len(times)


def test_a_first_write_that_fails_lets_the_others_go_on() -> None:
    """No connection waits for one that has given up."""
    times = np.arange(3, dtype=np.int64)
    lines = Lines(memoryview(b"m v=1 0\nm v=1 1\nm v=1 2\n"), np.array([8, 16, 24]), np.ones(3, np.int64), times)
    first_writes = FirstWrites(HOUR)

    def fails() -> None:
        with first_writes.before(lines, first_writes.first_lines(lines)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with first_writes.before(lines, first_writes.first_lines(lines)) as (beginning, rest):
        assert len(beginning) + len(rest) == 3


@given(st.lists(st.binary(max_size=5).map(lambda text: re.sub(rb"\n", b"x", text) + b"\n"), min_size=1), st.data())
def test_lines_apart_are_all_lines(texts: list[bytes], data: st.DataObject) -> None:
    """Lines that are taken apart keep their bytes, numbers of fields and times."""
    numbers = np.arange(len(texts), dtype=np.int64)
    whole = Lines(memoryview(b"".join(texts)), np.cumsum([len(text) for text in texts]), numbers + 1, numbers)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(texts) - 1))))
    for part, expected in zip(whole.apart(chosen), (chosen, sorted(set(numbers.tolist()) - set(chosen))), strict=True):
        assert [bytes(part.part(at, at + 1).body) for at in range(len(part))] == [texts[at] for at in expected]
        assert part.times.tolist() == expected
        assert part.fields.tolist() == [at + 1 for at in expected]
