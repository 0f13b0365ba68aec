"""Whether the rows of a part are ordered as the format promises: proved while writing, never assumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_MAX_SERIES = 500_000

SeriesKey = tuple[str | bytes | None, ...]


class OrderProof:
    """
    Watches batches go by, whose tags are the columns at the given positions.

    ``holds`` while each series is one run of rows with strictly ascending times. With more than half a million
    series it stops watching and claims nothing, to keep its memory bounded.
    """

    def __init__(self, tags: Sequence[int]) -> None:
        self._tags = tags
        self.holds = True
        self._seen: set[int] = set()
        self._last: SeriesKey | None = None
        self._last_time = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """The next rows, at least one."""
        if not self.holds:
            return
        tags = [batch.column(position) for position in self._tags]
        times = batch.column(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
        starts = np.zeros(batch.num_rows, dtype=bool)
        starts[0] = True
        for array in tags:
            codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            starts[1:] |= codes[1:] != codes[:-1]
        self.holds = bool(np.all((times[1:] > times[:-1]) | starts[1:])) and self._runs(
            tags, np.flatnonzero(starts), times
        )
        self._last_time = int(times[-1])

    def _runs(self, tags: list[pa.Array], starts: NDArray[np.int64], times: NDArray[np.int64]) -> bool:
        taken = [array.take(pa.array(starts)).dictionary_decode().to_pylist() for array in tags]
        keys: list[SeriesKey] = list(zip(*taken, strict=True)) if tags else [()] * len(starts)
        for position, key in enumerate(keys):
            if position == 0 and key == self._last:
                if times[0] <= self._last_time:
                    return False
                continue
            digest = hash(key)
            if digest in self._seen or len(self._seen) >= _MAX_SERIES:
                return False
            self._seen.add(digest)
            self._last = key
        return True
