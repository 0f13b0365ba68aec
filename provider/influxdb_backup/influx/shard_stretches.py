"""Which blocks of a table are decoded together, so that memory is bounded whatever their sizes are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.shard_plan import TablePlan
from influxdb_backup.model import Window

I64 = npt.NDArray[np.int64]

GROUP_VALUES = 1 << 20
"""values that are decoded at once, a quarter of it at first; unless a single series has more at one time"""
GROUP_TEXT = 16 << 20
"""and plain bytes of their strings"""
GROUP_KEYS = 1 << 22
"""and series times fields of the table"""


def groups(
    plan: TablePlan, chosen: I64, counts: I64, rooms: I64, lowest: I64, window: Window
) -> Iterator[tuple[slice, Window]]:
    """
    Stretches of ``chosen`` (blocks by their positions in the plan), whole series as far as they fit, and times of each.

    ``counts`` and ``rooms`` are points and plain bytes of the chosen blocks, ``lowest`` their first instants.
    """
    if not len(chosen):
        return
    series = plan.block_series[chosen]
    starts = np.flatnonzero(np.append(True, series[1:] != series[:-1]))
    stops = np.append(starts[1:], len(chosen))
    values = np.append(0, np.cumsum(counts))
    texts = np.append(0, np.cumsum(rooms))
    most = max(1, GROUP_KEYS // len(plan.fields))
    first = 0
    while first < len(starts):
        begin = int(starts[first])
        fitting = GROUP_VALUES if first else GROUP_VALUES // 4  # so that what waits for it begins sooner
        room = np.searchsorted(values[stops], values[begin] + fitting, side="right")
        text = np.searchsorted(texts[stops], texts[begin] + GROUP_TEXT, side="right")
        last = max(first + 1, int(min(room, text, first + most)))
        part = slice(begin, int(stops[last - 1]))
        if last == first + 1:
            yield from ((part, times) for times in _stretches(counts[part], rooms[part], lowest[part], window))
        else:
            yield part, window
        first = last


def _stretches(counts: I64, rooms: I64, lowest: I64, window: Window) -> Iterator[Window]:
    """The times of one series in stretches that hold few enough values, but for blocks that overlap."""
    order = np.argsort(lowest, kind="stable")
    shares = np.maximum(np.cumsum(counts[order]) // GROUP_VALUES, np.cumsum(rooms[order]) // GROUP_TEXT)
    begins = np.unique(lowest[order][1:][shares[1:] != shares[:-1]])
    edges = [edge for edge in begins.tolist() if window.start < edge < window.end]
    for start, end in zip([window.start, *edges], [*edges, window.end], strict=True):
        yield Window(start=start, end=end)
