"""Prove that a backup restores: into a new scratch database, read back, compared, checked, dropped."""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository, count_as_gap
from influxdb_backup.config.model import Check, Plan
from influxdb_backup.errors import AccessError, DrillError, InfluxdbBackupError, IntegrityError, TargetError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.drill_checks import run_check
from influxdb_backup.jobs.drill_scratch import (
    SCRATCH_PREFIX,
    Cleaned,
    DrillRun,
    DrillScratch,
    clean,
    drop_scratches_of,
    new_scratch_name,
)
from influxdb_backup.jobs.drills import (
    CheckResult,
    DrillReport,
    TableResult,
    pick_ref,
    reports,
)
from influxdb_backup.jobs.identity import refuse_other_plan
from influxdb_backup.jobs.progress import Progress, ProgressCallback, silent
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_documents import RestoreReport
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.jobs.restore_run import Scratch
from influxdb_backup.jobs.restored_reading import RestoredReader, Seen, content
from influxdb_backup.jobs.shard_restore import WRITER
from influxdb_backup.messages import logger_of
from influxdb_backup.model import (
    InfluxType,
    Manifest,
    Problem,
    Ref,
    TableEntry,
    printable,
)

logger = logger_of(__name__)


@dataclass
class _Findings:
    """What one drill found so far."""

    problems: list[Problem] = field(default_factory=list)
    tables: list[TableResult] = field(default_factory=list)
    checks: list[CheckResult] = field(default_factory=list)
    restored: RestoreReport | None = None
    restore_seconds: float = 0.0
    read_back_seconds: float = 0.0
    dropped: bool = False

    def note(self, kind: str, name: str, message: str) -> None:
        self.problems.append(Problem(kind=kind, object=name, message=message))


def drill(
    plan: Plan,
    *,
    repository: Repository,
    server: Server,
    ref: Ref | None = None,
    progress: ProgressCallback = silent,
    drill_id: str | None = None,
) -> DrillReport:
    """
    Restores one backup into a scratch database on ``server`` and compares it with its manifest.

    The scratch is dropped whatever happens, and the report is written into the repository. What does not hold
    is in the report's problems, also damage and refused writes; errors that say nothing of the backup
    (an unreachable server or store) are raised after the scratch is dropped.
    """
    started_at, started = time.time_ns(), time.monotonic()
    refuse_other_plan(plan, repository)
    if ref is None:
        how = plan.drill.pick if plan.drill else "latest"
        refs = repository.refs(plan.name, on_damage=count_as_gap)
        ref = pick_ref(plan.name, refs, reports(repository, plan.name), how, secrets.randbits(32))
    scratch = new_scratch_name()
    run = DrillRun(
        plan=plan,
        repository=repository,
        server=server,
        ref=ref,
        drill_id=drill_id or scratch.removeprefix(SCRATCH_PREFIX),
        scratch=scratch,
        progress=progress,
    )
    findings = _Findings()
    manifest = None
    try:
        manifest = repository.manifest(ref)
    except InfluxdbBackupError as error:
        if error.retryable:
            raise
        findings.note(error.kind, ref.id, _said(error))
    if manifest is not None:
        with server.at_most(plan.concurrency):
            run, findings = _drilled(run, manifest)
    report = _report(run, findings, started_at, time.monotonic() - started)
    key = layout.drill_key(ref.plan, ref.window, ref.revision, started_at, run.drill_id)
    repository.put_document(key, report)
    return report


def _drilled(run: DrillRun, manifest: Manifest) -> tuple[DrillRun, _Findings]:
    """By shards where that works; else by line protocol, in a scratch of another name."""
    writer = run.plan.drill.writer if run.plan.drill else "auto"
    if writer != "lines" and any(entry.rows for entry in manifest.tables):
        findings = _Findings()
        if _with_scratch(run, manifest, findings, "shard"):
            return run, findings
        if writer == "shard":
            return run, findings
        run = replace(run, scratch=new_scratch_name())
    findings = _Findings()
    _with_scratch(run, manifest, findings, "lines")
    return run, findings


def _with_scratch(run: DrillRun, manifest: Manifest, findings: _Findings, writer: Literal["lines", "shard"]) -> bool:
    """
    Restores into a new scratch, proves the backup in it, and drops it, also when the proof was interrupted.

    False when that writer cannot do it, and nothing of the scratch is left.
    """
    scratch = DrillScratch(run)
    is_reported = False
    try:
        if not manifest.tables:
            scratch.announce()
            scratch.created(run.server.create_scratch(run.scratch, (), scratch.mark()))
        _prove(run, manifest, findings, scratch, writer)
        is_reported = True
    except TargetError as error:
        if error.kind != WRITER:
            raise
        logger.info("%s is not drilled by shards: %s", run.ref.id, error.message)
        way = "writer: auto under the plan's drill goes on by line protocol."
        findings.note(WRITER, run.ref.id, f"{error.message} {way}")
        return False
    finally:
        is_gone = scratch.drop()
        findings.dropped = is_gone and scratch.announced
        if not is_gone:
            left = (
                f"The scratch database could not be dropped{f' ({scratch.reason})' if scratch.reason else ''}; "
                f"run `influxdb-backup drill {run.plan.name} --clean`."
            )
            findings.note("scratch", run.scratch, left)
            if not is_reported:  # no report will say it
                logger.warning("%s: %s", run.scratch, left)
    return True


def _prove(
    run: DrillRun,
    manifest: Manifest,
    findings: _Findings,
    scratch: DrillScratch,
    writer: Literal["lines", "shard"],
) -> None:
    started = time.monotonic()
    try:
        findings.restored = (
            restore(
                RestoreRequest(refs=(run.ref.id,), target_database=run.scratch, allow_gaps=False, writer=writer),
                repository=run.repository,
                target=run.server,
                scratch=Scratch(scratch.mark, scratch.announce, scratch.created),
                progress=run.progress,
            )
            if manifest.tables
            else None
        )
    except InfluxdbBackupError as error:
        if error.retryable or error.kind == WRITER or scratch.is_in_doubt or isinstance(error, AccessError):
            raise  # a server that cannot be reached, or refuses a right, says nothing of the backup
        findings.note(error.kind, run.ref.id, _said(error))
        for problem in getattr(error, "problems", ()):
            findings.note(error.kind, run.ref.id, problem)
        return
    findings.restore_seconds = time.monotonic() - started
    compared = time.monotonic()
    _compare_all(run, manifest, findings)
    findings.read_back_seconds = time.monotonic() - compared
    _run_checks(run, manifest, findings)


def _said(error: InfluxdbBackupError) -> str:
    """What is wrong; of damage without the way out, since whoever reads a drill's report is told one in any case."""
    return error.message if isinstance(error, IntegrityError) else str(error)


def _compare_all(run: DrillRun, manifest: Manifest, findings: _Findings) -> None:
    by_shards = findings.restored is not None and findings.restored.writer == "shard"
    reader = RestoredReader(run.server, run.scratch, run.ref.window, by_shards, random.SystemRandom())
    number = 0
    for policy in dict.fromkeys(entry.table.retention_policy for entry in manifest.tables):
        entries = [entry for entry in manifest.tables if entry.table.retention_policy == policy]
        seen = reader.read(policy, [entry.table for entry in entries])
        for entry in entries:
            number += 1
            findings.tables.append(_compare(entry, seen.get(entry.table, Seen()), findings))
            run.progress(Progress("compare", number, len(manifest.tables), entry.rows, 0, str(entry.table)))


def _compare(entry: TableEntry, held: Seen, findings: _Findings) -> TableResult:
    """Compares what the scratch holds of a table with the manifest, field by field."""
    name = str(entry.table)
    seen = held.found
    rows, fingerprint = content(seen)
    before = len(findings.problems)
    if rows != entry.rows:
        findings.note("rows", name, f"{entry.rows} rows were backed up and {rows} came back.")
    wanted = {(count.name, count.type): count.count for count in entry.counts}
    came: Counter[tuple[str, InfluxType]] = Counter()
    for count in (count for one in seen for count in one.counts):
        came[count.name, count.type] += count.count
    for key in sorted({*wanted, *came}):
        if wanted.get(key, 0) != came[key]:
            findings.note(
                "counts",
                name,
                f"Field {printable(key[0])!r} ({key[1].value}): {wanted.get(key, 0)} values were backed up and "
                f"{came[key]} came back.",
            )
    if fingerprint != entry.fingerprint and before == len(findings.problems):
        findings.note("fingerprint", name, "Counts agree, but the content differs from what was backed up.")
    for difference in held.differences:
        findings.note("query", name, difference)
    return TableResult(table=name, ok=before == len(findings.problems), rows=rows, fingerprint=fingerprint)


def _run_checks(run: DrillRun, manifest: Manifest, findings: _Findings) -> None:
    default = next((policy.name for policy in manifest.source.retention_policies if policy.default), None)
    checks: Iterable[Check] = run.plan.drill.checks if run.plan.drill else ()
    for check in checks:
        policy = check.retention_policy or default
        result = run_check(check, partial(run.server.select, run.scratch, policy))
        findings.checks.append(result)
        if not result.ok:
            findings.note("check", check.query, result.message)


def _report(run: DrillRun, findings: _Findings, started_at: int, seconds: float) -> DrillReport:
    restored = findings.restored
    return DrillReport(
        drill_id=run.drill_id,
        ref=run.ref.id,
        manifest=run.ref.manifest,
        window=run.ref.window,
        server=run.server.name,
        ok=not findings.problems,
        problems=tuple(findings.problems),
        tables=tuple(findings.tables),
        checks=tuple(findings.checks),
        rows=restored.rows if restored else 0,
        values=restored.values if restored else 0,
        bytes=run.ref.bytes,
        writer=restored.writer if restored else "lines",
        seconds_restore=findings.restore_seconds,
        seconds_read_back=findings.read_back_seconds,
        seconds_total=seconds,
        scratch=run.scratch,
        scratch_dropped=findings.dropped,
        started_at=started_at,
    )


def raise_unless_ok(report: DrillReport) -> None:
    """Raises DrillError with the problems of a drill that did not hold."""
    if report.ok:
        return
    first = report.problems[0]
    if report.is_exact:
        more = f" ({len(report.problems) - 1} more failed)" if len(report.problems) > 1 else ""
        raise DrillError(
            f"The backup {report.ref} is exact: its {report.rows:,} rows came back as they were backed up. "
            f"Your check did not hold, {first.object}: {first.message}{more}",
            kind="drill-check",
            hint="Correct the check (drill.checks of the plan), or look at the source: the points that it asks for may "
            "never have been written in this window.",
        )
    raise DrillError(
        f"The drill of {report.ref} did not hold: {first.kind} {first.object}: {first.message}"
        f"{f' ({len(report.problems) - 1} more)' if len(report.problems) > 1 else ''}",
        hint="Verify the backup with `influxdb-backup verify`, and export the window again while the source has it.",
    )


__all__ = ["Cleaned", "DrillReport", "clean", "drill", "drop_scratches_of", "raise_unless_ok"]
