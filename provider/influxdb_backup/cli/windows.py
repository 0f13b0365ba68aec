"""Ranges of time as options."""

from __future__ import annotations

from influxdb_backup.errors import UsageError
from influxdb_backup.model import Window
from influxdb_backup.windows import parse_window


def optional_window(start: str | None, end: str | None) -> Window | None:
    """The range of --start and --end, or None when neither is given. Raises UsageError when only one is."""
    if start is None and end is None:
        return None
    if start is None or end is None:
        raise UsageError("--start and --end belong together.", hint="Give both, or none of them.")
    return parse_window(start, end)
