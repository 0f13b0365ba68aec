"""Keeps first writes into a shard group apart, since of two that arrive at once a server can lose one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Condition

import numpy as np

from influxdb_backup.influx.lines import Lines
from influxdb_backup.shard_groups import group_numbers

_SHORT_BYTES = 64 << 10
"""lines that travel as fast in one piece as in two"""


FirstLines = Mapping[int, int]


class FirstWrites:
    """
    Into which shard groups of ``duration`` ns several threads have written, and which of them is the first to.

    The first write into a shard makes its cache. One that comes in the same moment can find the cache promised but
    not there, and its points go nowhere: the server answers 204, has them in its log, and shows them after a restart
    only (run on 1.6.7; ``init`` and ``WriteMulti`` of tsdb/engine/tsm1/cache.go are the same in 1.12.4 and 2.9.1).
    Groups that the target made with another duration than its policy has now are not told apart here.
    """

    def __init__(self, duration: int) -> None:
        self._duration = duration
        self._changed = Condition()
        self._begun: set[int] = set()
        self._beginning: set[int] = set()

    @contextmanager
    def before(self, lines: Lines, first_lines: FirstLines) -> Iterator[tuple[Lines, Lines]]:
        """
        Waits for the first writes of others into the groups of these lines, whose ``first_lines`` are given.

        Gives the lines that are to be written inside of the block, since they begin groups, and those for after it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._beginning.isdisjoint(first_lines))
            new = first_lines.keys() - self._begun
            self._beginning |= new
        try:
            if new and len(lines.body) <= _SHORT_BYTES:
                yield lines, lines.part(0, 0)
            else:
                yield lines.apart(sorted(first_lines[group] for group in new))
        finally:
            with self._changed:
                self._beginning -= new
                self._begun |= new
                self._changed.notify_all()

    def first_lines(self, lines: Lines) -> FirstLines:
        """By the number of each group the number of its first line. Not for a thread whose connection would wait."""
        numbers = group_numbers(np.array([lines.times.min(), lines.times.max()]), self._duration)
        if numbers[0] != numbers[1]:
            numbers = group_numbers(lines.times, self._duration)
        starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))  # the points of a series come in runs
        groups, firsts = np.unique(numbers[starts], return_index=True)
        return dict(zip(groups.tolist(), starts[firsts].tolist(), strict=True))
