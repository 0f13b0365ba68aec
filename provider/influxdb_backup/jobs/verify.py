"""Verify a backup to a level, and keep the result in the repository."""

from __future__ import annotations

import secrets
import time

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.verify import VerifyProgress, verify_ref
from influxdb_backup.errors import IntegrityError, StoreError
from influxdb_backup.jobs.progress import Progress, ProgressCallback, silent
from influxdb_backup.model import Ref, VerifyLevel, VerifyReport


def verify(
    repository: Repository,
    ref: Ref,
    level: VerifyLevel,
    *,
    progress: ProgressCallback = silent,
    record: bool = True,
) -> VerifyReport:
    """
    Checks one backup and, with ``record``, writes the result under ``checks/``.

    Damage never raises: it is in the report's problems. ``restorable`` is everything of ``valid`` and a passed
    drill of this very manifest. Raises StoreError when the result cannot be written.
    """

    def tell(event: VerifyProgress) -> None:
        progress(Progress("verify", event.parts_done, event.parts, event.rows_done, event.bytes_done, event.table))

    report = verify_ref(repository, ref, level, progress=tell)
    if record:
        key = layout.check_report_key(ref.plan, ref.window, ref.revision, time.time_ns(), secrets.token_hex(4))
        try:
            repository.put_document(key, report)
        except StoreError as error:
            found = "holds" if report.ok else f"does NOT hold ({report.problems[0].message})"
            raise StoreError(
                f"{report.ref} {found} at the level {level.value}, but the result cannot be kept: {error.message}",
                hint=f"{error.hint} On the command line --no-record verifies without keeping the result.".lstrip(),
            ) from error
    return report


def raise_unless_ok(report: VerifyReport) -> None:
    """Raises IntegrityError with every problem of a report that does not hold."""
    if report.ok:
        return
    findings = tuple(f"{problem.kind} {problem.object}: {problem.message}" for problem in report.problems)
    raise IntegrityError(
        f"The backup {report.ref} is not {report.level.value}: {findings[0]}"
        f"{f' ({len(findings) - 1} more)' if len(findings) > 1 else ''}",
        problems=findings,
        hint="Restore from another repository or revision, and export the window again while the source has it.",
    )
