"""Where a server puts the edges of new shard groups: pure arithmetic, the same in 1.6.7, 1.12.4 and 2.9.1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.model import MAX_END, MIN_TIME, Window

YEAR_ONE = 62_135_596_800 * 10**9
"""ns between 0001-01-01, from which shard groups are counted, and 1970-01-01"""
HOUR = 3600 * 10**9
DAY = 24 * HOUR
DEFAULT_DURATION = 7 * DAY
"""of a policy that keeps points for ever"""


def group_number(instant: int, duration: int) -> int:
    """Which group of ``duration`` ns holds the instant (ns), counted from year 1."""
    return (instant + YEAR_ONE) // duration


def group_numbers(instants: npt.NDArray[np.int64], duration: int) -> npt.NDArray[np.int64]:
    """For each instant (ns) a number that it has in common with all others of its group, and with no more."""
    whole = instants // duration
    rest = instants - whole * duration  # both may wrap around at the limits of time, and the difference is right
    return whole + (rest >= -YEAR_ONE % duration)


def group_at(instant: int, duration: int) -> Window | None:
    """The group that holds the instant; None at the limits of time, where servers cut it each in its own way."""
    start = group_number(instant, duration) * duration - YEAR_ONE
    return Window(start=start, end=start + duration) if start >= MIN_TIME and start + duration <= MAX_END else None


def shard_duration(said: int, retention: int) -> int:
    """
    The shard duration (ns) of a policy that keeps points for ``retention`` ns, 0 for ever.

    Where the server ``said`` nothing (0) it is the one that it gives such a policy.
    """
    if said:
        return said
    if retention == 0 or retention >= 180 * DAY:
        return DEFAULT_DURATION
    return DAY if retention >= 2 * DAY else HOUR
