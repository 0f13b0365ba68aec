"""Reading ahead: while one record batch is used, the next is being read."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

LARGE = 1 << 20
"""bytes of a batch from which on a thread costs less than it saves"""


def ahead(batches: Iterator[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """
    The same batches and errors; behind a large one the next are read in a thread of their own, one ahead.

    Closing it waits for the batch that is being read, and closes ``batches`` when that is a generator.
    """
    try:
        for batch in batches:
            yield batch
            if batch.nbytes >= LARGE:
                break
        else:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
            future = pool.submit(next, batches, None)
            while (following := future.result()) is not None:
                future = pool.submit(next, batches, None)
                yield following
    finally:
        if isinstance(batches, Generator):
            batches.close()
