"""
Blocks that need no settling: all fields of each series have the same times, block for block, and nothing overlaps.

Most tables are written so. Their values are decoded to where the record batch has them, and times once for all fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.shard_plan import TablePlan
from influxdb_backup.model import Window

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Aligned:
    """Where each block goes."""

    series: I64
    """in the order of their rows"""
    rows: I64
    """of each series"""
    leads: I64
    """for each block the one of the series' first field that should have the same times"""
    row_firsts: I64
    """each block's first row"""
    firsts: I64
    """and its place among all values, one field's after the other's"""


def aligned(plan: TablePlan, part: I64, counts: I64, lowest: I64, highest: I64, stretch: Window) -> Aligned | None:
    """
    The places of these blocks (positions in the plan), by what the index says; None where it says that they differ.

    ``counts``, ``lowest`` and ``highest`` are the points and bounds of each. Whether times inside of the blocks are the
    same is for the decoder to prove.
    """
    fields = len(plan.fields)
    series = plan.block_series[part]
    begins = np.flatnonzero(np.append(True, series[1:] != series[:-1]))
    sizes = np.diff(np.append(begins, len(part)))
    if lowest.min() < stretch.start or highest.max() >= stretch.end or (sizes % fields).any():
        return None
    begin, each = np.repeat(begins, sizes), np.repeat(sizes // fields, sizes)
    place = np.arange(len(part)) - begin
    field, slot = place // each, place % each
    leads = begin + slot
    if not np.array_equal(field, plan.block_field[part]):
        return None
    if any((column != column[leads]).any() for column in (counts, lowest, highest, plan.block_file[part])):
        return None
    if (lowest[1:] <= highest[:-1])[slot[1:] > 0].any():
        return None
    of_lead = np.where(field == 0, counts, 0)
    row_firsts = (np.cumsum(of_lead) - of_lead)[leads]
    firsts = field * int(of_lead.sum()) + row_firsts
    return Aligned(series[begins], np.add.reduceat(of_lead, begins), leads, row_firsts, firsts)
