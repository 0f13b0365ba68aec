"""What the check of a restore has read, kept for its write as far as memory goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import pyarrow as pa

from influxdb_backup.columns import row_bytes
from influxdb_backup.jobs.restore_request import Unit

KEPT_BYTES = 32 << 20
"""of all points that are kept: a small restore downloads and decodes its parts once"""


class KeptPoints:
    """
    The points of whole units that were read and proved; those of all others are read, and proved, again.

    ``read`` gives the points of a unit from the repository.
    """

    def __init__(self, read: Callable[[Unit], Iterator[pa.RecordBatch]], *, limit: int = KEPT_BYTES) -> None:
        self._read = read
        self._room = limit
        self._kept: dict[str, deque[pa.RecordBatch]] = {}

    def checked(self, unit: Unit) -> Iterator[pa.RecordBatch]:
        """The unit's points from the repository. Kept when the caller takes all of them and they fit."""
        kept: deque[pa.RecordBatch] = deque()
        size = 0
        for batch in self._read(unit):
            size += row_bytes(batch)
            if size <= self._room:
                kept.append(batch)
            else:
                kept.clear()
            yield batch
        if size <= self._room:
            self._room -= size
            self._kept[unit.key] = kept

    def taken(self, unit: Unit) -> Iterator[pa.RecordBatch]:
        """The unit's points, each of which is let go when it is taken."""
        kept = self._kept.pop(unit.key, None)
        if kept is None:
            yield from self._read(unit)
            return
        while kept:
            yield kept.popleft()
