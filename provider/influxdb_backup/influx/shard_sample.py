"""Which few values of a shard's copy the server is to count, where its files prove that the copy has all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.protocol import Sample
from influxdb_backup.model import Window

I64 = npt.NDArray[np.int64]

FEW_BLOCKS = 64
"""of up to 1,000 values each: all are counted"""
PARTS = 64
"""one of so many parts of the time is counted where there are more"""


@dataclass(frozen=True)
class BlockExtents:
    """First and last times of some blocks, and of each the position of its field in ``fields``."""

    first: I64
    last: I64
    field: I64
    fields: tuple[str, ...]


def choose_sample(blocks: Sequence[BlockExtents], piece: Window, randomness: Random) -> Sample | None:
    """
    A short stretch of the piece through one of the blocks, and that block's field; None where there are few blocks.

    A server decodes whole blocks to count a part of one: of a short stretch that is one of each series.
    """
    inside = [np.flatnonzero((own.first < piece.end) & (own.last >= piece.start)) for own in blocks]
    total = sum(len(found) for found in inside)
    if total <= FEW_BLOCKS:
        return None
    held = [(own, found) for own, found in zip(blocks, inside, strict=True) if len(found)]
    first = max(piece.start, min(int(own.first[found].min()) for own, found in held))
    last = min(piece.end - 1, max(int(own.last[found].max()) for own, found in held))
    (chosen, found) = randomness.choices(held, [len(found) for _, found in held])[0]
    block = found[randomness.randrange(len(found))]
    middle = randomness.randint(max(first, int(chosen.first[block])), min(last, int(chosen.last[block])))
    width = (last - first) // PARTS + 1
    start = max(first, middle - width // 2)
    window = Window(start=start, end=min(last + 1, start + width))
    return Sample(window, chosen.fields[chosen.field[block]])


__all__ = ["FEW_BLOCKS", "BlockExtents", "choose_sample"]
