"""Stretches of line protocol, and the points that they are rendered from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.model import InfluxType

_NUMBER_BYTES = 28
"""The longest float, integer, boolean or time with its suffix and separators."""
_TEXT_BYTES = 4
"""Quotes, comma and equals sign."""


@dataclass(frozen=True)
class Lines:
    """A stretch of line protocol, every line with its newline."""

    body: memoryview
    ends: npt.NDArray[np.int64]
    """where each line ends in ``body``; string values may hold newlines, so that lines cannot be found by them"""
    fields: npt.NDArray[np.int64]
    """the number of field values of each line"""
    times: npt.NDArray[np.int64]
    """the time of each, in ns"""

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def values(self) -> int:
        """Field values of all lines."""
        return int(self.fields.sum())

    def part(self, start: int, stop: int) -> Lines:
        """The lines from ``start`` to before ``stop``."""
        first = int(self.ends[start - 1]) if start else 0
        last = int(self.ends[stop - 1]) if stop else 0
        return Lines(
            self.body[first:last], self.ends[start:stop] - first, self.fields[start:stop], self.times[start:stop]
        )

    def apart(self, numbers: Sequence[int]) -> tuple[Lines, Lines]:
        """The lines of these numbers, which ascend, and all others."""
        if not numbers:
            return self.part(0, 0), self
        chosen = [self.part(number, number + 1) for number in numbers]
        others = [self.part(before + 1, number) for before, number in pairwise([-1, *numbers, len(self)])]
        return join_lines(chosen), join_lines(others)


def join_lines(parts: Sequence[Lines]) -> Lines:
    """All lines in order as one stretch."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(len(part.body) for part in parts)])
    ends = [part.ends + offset for part, offset in zip(parts, offsets, strict=False)]
    body = memoryview(b"".join(part.body for part in parts))
    fields, times = (
        np.concatenate(arrays) for arrays in zip(*((part.fields, part.times) for part in parts), strict=True)
    )
    return Lines(body, np.concatenate(ends), fields, times)


@dataclass(frozen=True)
class Runs:
    """Stretches of consecutive rows with equal tags."""

    starts: npt.NDArray[np.int64]
    escaped: Any
    """``measurement,tag=value`` of each; binary"""
    rows: int

    def lengths(self) -> npt.NDArray[np.int64]:
        """The rows of each."""
        return np.diff(self.starts, append=self.rows)

    def of(self, row: int) -> int:
        """The number of the stretch that the row is in."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def keys(self, start: int, stop: int) -> Any:
        """The key of every row from ``start`` to before ``stop``."""
        first = self.of(start)
        last = int(np.searchsorted(self.starts, stop, side="left"))
        edges = np.clip(np.append(self.starts[first:last], stop), start, stop)
        return self.escaped.take(pa.array(np.repeat(np.arange(first, last), np.diff(edges))))


@dataclass(frozen=True)
class FieldValues:
    """One field of some points, and how line protocol spells it."""

    type: InfluxType
    opening: bytes
    """``key=`` and the quote of a text"""
    suffix: bytes
    array: Any
    """the values, null where a point has none; texts are binary and escaped already"""


@dataclass(frozen=True)
class Points:
    """The points of a batch that line protocol can carry, each with at least one field."""

    runs: Runs
    fields: tuple[FieldValues, ...]
    times: Any
    """nanoseconds; int64"""
    filled: npt.NDArray[np.int64]
    """the number of field values of each"""

    @property
    def instants(self) -> npt.NDArray[np.int64]:
        """The times, in place."""
        instants: npt.NDArray[np.int64] = self.times.to_numpy()
        return instants

    @cached_property
    def bounds(self) -> npt.NDArray[np.int64]:
        """For each point a size in bytes that its line cannot exceed."""
        lengths = pc.binary_length(self.runs.escaped).cast(pa.int64()).to_numpy(zero_copy_only=False)
        texts = [field.array for field in self.fields if field.type is InfluxType.STRING]
        always = _NUMBER_BYTES + sum(len(field.opening) for field in self.fields)
        always += _TEXT_BYTES * len(texts) + _NUMBER_BYTES * (len(self.fields) - len(texts))
        sizes: npt.NDArray[np.int64] = np.repeat(lengths + always, self.runs.lengths())
        assert len(sizes) == len(self.times)
        for text in texts:
            sizes += pc.binary_length(text).cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return sizes

    def in_order(self) -> tuple[FieldValues, ...]:
        """The fields as all lines have them: first those that no point lacks."""
        return tuple(sorted(self.fields, key=lambda field: field.array.null_count > 0))


Render = Callable[[int, int], Lines]
"""The lines of the points from a first to before a last."""
