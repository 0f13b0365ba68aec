"""Arrays in memory of Arrow's pool, which keeps what it has had: fresh memory can cost more than filling it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def pooled_words(count: int) -> npt.NDArray[np.uint64]:
    """So many words of 64 bits, of any content. The pool has them back with the last array or batch over them."""
    return np.frombuffer(pa.allocate_buffer(8 * count), np.uint64)


__all__ = ["pooled_words"]
