"""Reading ahead: while one record batch is used, the next is being read."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from influxdb_backup.columns import row_bytes

LARGE = 1 << 20
"""bytes of a batch from which on a thread costs less than it saves"""
HUGE = 8 << 20
"""bytes of a batch (one with long texts) beside which no other is held, so that memory stays bounded"""


def ahead(batches: Iterator[pa.RecordBatch], huge: int = HUGE) -> Generator[pa.RecordBatch, None, None]:
    """
    The same batches and errors; behind a large one the next is read in a thread of its own, behind a huge one it waits.

    Closing it waits for the batch that is being read, and closes ``batches`` when that is a generator.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
            reading: Future[pa.RecordBatch | None] | None = None
            while (batch := reading.result() if reading else next(batches, None)) is not None:
                reading = pool.submit(next, batches, None) if LARGE <= row_bytes(batch) <= huge else None
                yield batch
    finally:
        if isinstance(batches, Generator):
            batches.close()
