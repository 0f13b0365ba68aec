"""Counts, sizes and times in people's words: the command line and Airflow's log say them alike."""

from __future__ import annotations

UNITS = {
    "read": "pieces",
    "check": "parts",
    "write": "parts",
    "verify": "parts",
    "read-back": "tables",
    "compare": "tables",
    "recheck": "tables",
}
"""what a job's progress counts, by its stage"""


def number(value: int) -> str:
    """``1,234,567``."""
    return f"{value:,}"


def counted(count: int, what: str) -> str:
    """``1 row``, ``1,440 rows``."""
    return f"{number(count)} {what}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Bytes for people: ``1.2 MB``, powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def seconds(value: float) -> str:
    """``0.8 s``, ``75 s``, ``12 min``."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 180 else f"{value / 60:.0f} min"
