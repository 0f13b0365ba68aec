"""Arrays in memory of Arrow's pool, which keeps what it has had: fresh memory can cost more than filling it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def pooled_words(count: int) -> npt.NDArray[np.uint64]:
    """So many words of 64 bits, of any content. The pool has them back with the last array or batch over them."""
    return pooled_bytes(8 * count).view(np.uint64)


def pooled_bytes(count: int) -> npt.NDArray[np.uint8]:
    """So many bytes of any content: of the pool, since the C library keeps up to 32 MB of what an array had."""
    return np.frombuffer(pa.allocate_buffer(count), np.uint8)


__all__ = ["pooled_bytes", "pooled_words"]
