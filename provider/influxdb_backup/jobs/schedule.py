"""Which windows of a schedule are due."""

from __future__ import annotations

from influxdb_backup.config.cron import previous_tick


def last_due(schedule: str, settle: int, now: int) -> int | None:
    """
    The end (ns) of the latest window that a schedule makes due: its last tick not after ``now`` minus ``settle``.

    ``schedule`` is a checked five-field cron expression, in UTC. None when it had no tick in four years.
    """
    return previous_tick(schedule, now - settle)
