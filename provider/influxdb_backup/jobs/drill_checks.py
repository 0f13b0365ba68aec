"""The user's own queries in a drill: one InfluxQL SELECT, and what its first value must be."""

from __future__ import annotations

from collections.abc import Callable

from influxdb_backup.config.model import Check
from influxdb_backup.errors import InfluxdbBackupError
from influxdb_backup.jobs.drills import CheckResult

Rows = list[dict[str, object]]


def run_check(check: Check, select: Callable[[str], Rows]) -> CheckResult:
    """Asks ``select`` and judges. A query that the server refuses does not hold; a lost server is raised."""
    try:
        rows = select(check.query)
    except InfluxdbBackupError as error:
        if error.retryable:
            raise
        return CheckResult(query=check.query, ok=False, value=None, message=str(error))
    return judge(check, rows)


def judge(check: Check, rows: Rows) -> CheckResult:
    """Pure: whether the first value of the first row is what the check expects."""
    value = next((value for name, value in rows[0].items() if name != "time"), None) if rows else None
    message = _complaint(check, rows, value)
    return CheckResult(
        query=check.query, ok=not message, value=None if value is None else str(value), message=message or "as expected"
    )


def _complaint(check: Check, rows: Rows, value: object) -> str:
    if not rows:
        return "The query returned no row."
    if check.non_empty:
        return ""
    if check.equals is not None:
        same = value == check.equals and isinstance(value, bool) == isinstance(check.equals, bool)
        return "" if same else f"The value is {value!r}, and must be {check.equals!r}."
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"The value is {value!r}, and must be a number."
    if check.min is not None and not value >= check.min:
        return f"The value is {value}, and must be at least {check.min}."
    if check.max is not None and not value <= check.max:
        return f"The value is {value}, and must be at most {check.max}."
    return ""
