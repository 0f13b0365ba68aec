"""What drills leave in the repository, and which window a drill takes next."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository, pass_over
from influxdb_backup.errors import BackupNotFoundError
from influxdb_backup.model import DRILL_MEDIA_TYPE, Int64, Name, Problem, Ref, Value, Window

Pick = Literal["latest", "random", "least_recently_drilled"]


class ScratchStarted(Value):
    """Written before a scratch database is created: only what is recorded here is ever dropped."""

    media_type: str = "application/vnd.influxdb-backup.scratch-started.v1+json"
    drill_id: str
    ref: str
    server: str
    """the name of the server's connection"""
    database: Name
    started_at: Int64


class ScratchCreated(Value):
    """Written when the scratch exists, with the id to drop it by (2.x: of its buckets)."""

    media_type: str = "application/vnd.influxdb-backup.scratch-created.v1+json"
    drill_id: str
    scratch_id: str


class ScratchDropped(Value):
    """Written when the scratch is gone."""

    media_type: str = "application/vnd.influxdb-backup.scratch-dropped.v1+json"
    drill_id: str
    dropped_at: Int64


class CheckResult(Value):
    """One of the user's own queries, and what it gave."""

    query: str
    ok: bool
    value: str | None
    """the first value of the first row, as text; None when there was no row"""
    message: str


class TableResult(Value):
    """One table, read back from the scratch."""

    table: str
    ok: bool
    rows: Int64
    fingerprint: str


class DrillReport(Value):
    """The result of one drill. ``ok`` only when everything held and the scratch is gone."""

    media_type: str = DRILL_MEDIA_TYPE
    drill_id: str
    ref: str
    manifest: str
    """sha256 of the manifest that was restored"""
    window: Window
    server: str
    ok: bool
    problems: tuple[Problem, ...]
    tables: tuple[TableResult, ...]
    checks: tuple[CheckResult, ...]
    rows: Int64
    values: Int64
    bytes: Int64
    writer: Literal["lines", "shard"] = "lines"
    """how the scratch was filled"""
    seconds_restore: float
    """measured time to restore: from the first read of the archive to the last answer of the server"""
    seconds_read_back: float
    seconds_total: float
    scratch: Name
    scratch_dropped: bool
    """False where none was made, too"""
    started_at: Int64

    @property
    def is_exact(self) -> bool:
        """Whether the backup came back as it was written: then only the user's own checks can have failed."""
        return all(problem.kind == "check" for problem in self.problems)


def reports(repository: Repository, plan: str) -> tuple[DrillReport, ...]:
    """All drill reports of a plan."""
    found = repository.read_documents(layout.report_prefix(layout.DRILLS, plan), DrillReport, pass_over)
    return tuple(report for _, report in found)


def passing_drill(repository: Repository, ref: Ref) -> DrillReport | None:
    """The newest passed drill of this very manifest, or None."""
    prefix = layout.report_prefix(layout.DRILLS, ref.plan, ref.window, ref.revision)
    found = [report for _, report in repository.read_documents(prefix, DrillReport, pass_over)]
    passed = [report for report in found if report.ok and report.manifest == ref.manifest]
    return max(passed, key=lambda report: report.started_at, default=None)


def pick_ref(plan: str, refs: Sequence[Ref], drilled: Iterable[DrillReport], how: Pick, seed: int) -> Ref:
    """
    The backup to drill: the newest revision of one closed window, which has points.

    ``least_recently_drilled`` takes never drilled windows first, newest first, so that repeated drills come
    round to all. Raises BackupNotFoundError when the plan has no closed window, or none with points.
    """
    newest: dict[Window, Ref] = {}
    for ref in sorted(refs, key=lambda ref: ref.revision):
        if not ref.open:
            newest[ref.window] = ref
    if not newest:
        raise BackupNotFoundError(
            f"Plan {plan!r} has no backup of a closed window to drill.",
            hint="Export one first; see `influxdb-backup coverage`.",
        )
    with_points = [ref for ref in newest.values() if ref.rows]
    if not with_points:
        raise BackupNotFoundError(
            f"Plan {plan!r} has no backup with points to drill: the {len(newest):,} closed "
            f"{'window' if len(newest) == 1 else 'windows'} that are backed up had none.",
            hint="Backfill windows that have points; a backup without any can be drilled by its name (ref).",
        )
    choices = sorted(with_points, key=lambda ref: (ref.window.end, ref.window.start), reverse=True)
    if how == "latest":
        return choices[0]
    if how == "random":
        return random.Random(seed).choice(choices)  # noqa: S311
    last: dict[str, int] = {}
    for report in drilled:
        last[report.manifest] = max(report.started_at, last.get(report.manifest, 0))
    return min(choices, key=lambda ref: last.get(ref.manifest, 0))
