"""How a running job tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One moment of a job."""

    stage: str
    """``read``, ``verify``, ``check``, ``write``, ``read-back``, ``recheck``"""
    done: int
    """units of the stage that are finished: table pieces, parts or tables"""
    total: int
    """units known so far"""
    rows: int
    bytes: int
    table: str
    """the table that was worked on last"""


ProgressCallback = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """A callback for jobs that nobody watches."""


__all__ = ["Progress", "ProgressCallback", "silent"]
