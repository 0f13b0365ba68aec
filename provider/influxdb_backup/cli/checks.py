"""`verify` and `coverage`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.listing import damaged_backups, plan_of, say_id
from influxdb_backup.cli.options import (
    JsonOption,
    OptionalEnd,
    OptionalStart,
    PlanArgument,
    RepositoryConnectionOption,
    RepositoryOption,
    RepositoryUrlOption,
)
from influxdb_backup.cli.session import RepositoryChoice, Session, plan_without_file
from influxdb_backup.cli.windows import optional_window
from influxdb_backup.errors import BackupNotFoundError, InfluxdbBackupError, StoreError, UsageError
from influxdb_backup.model import Ref, VerifyLevel, VerifyReport, Window, printable
from influxdb_backup.windows import intersect, say_instant, say_length, say_window

if TYPE_CHECKING:
    from influxdb_backup.archive.layout import RefName
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.config.model import Plan
    from influxdb_backup.jobs.coverage import Change, CoverageReport

_AGAIN = "back it up again while the source has the points"
_MARK = "mark it in the plan with archived_before or archived_after"
_SHOWN = 3
"""differences of a stale window that are shown as text"""


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(verify)
    app.command()(coverage)


def verify(
    context: typer.Context,
    ref: Annotated[
        str,
        typer.Argument(metavar="REF|PLAN", help="A backup; or a plan, for the newest revision of all its windows."),
    ],
    level: Annotated[
        VerifyLevel, typer.Option("--level", metavar="present|complete|valid|restorable", help="How much to prove.")
    ] = VerifyLevel.VALID,
    start: OptionalStart = None,
    end: OptionalEnd = None,
    record: Annotated[
        bool, typer.Option("--record/--no-record", help="Whether the result is kept in the repository.")
    ] = True,
    repository: RepositoryOption = None,
    repository_url: RepositoryUrlOption = None,
    repository_connection: RepositoryConnectionOption = None,
    json: JsonOption = False,
) -> None:
    """Verify backups. The exit status is 1 when one does not hold."""
    from influxdb_backup.archive.verify import unreadable_ref
    from influxdb_backup.jobs.identity import refuse_other_plan
    from influxdb_backup.jobs.verify import verify as run_verify

    session: Session = context.obj
    within = optional_window(start, end)
    is_plan = "/" not in ref and "@" not in ref
    if within is not None and not is_plan:
        raise UsageError("--start and --end choose windows of a plan; a backup is verified whole.")
    plan = ref if is_plan else plan_of(ref)
    choice = RepositoryChoice(name=repository, url=repository_url, connection=repository_connection)
    opened = session.repository(choice, plan if choice.url is None else None)
    known = session.known_plan(plan)
    if is_plan and known is not None:
        refuse_other_plan(known, opened)
    reports: list[VerifyReport] = []

    def unreadable(name: RefName, error: InfluxdbBackupError) -> None:
        reports.append(unreadable_ref(name, level, error))

    refs = _newest(opened.refs(plan, within, unreadable)) if is_plan else [opened.ref(ref)]
    if not json:
        for report in reports:
            _print(report)
    if not refs and not reports:
        raise BackupNotFoundError(
            f"{opened.url} has no backup of the plan {plan!r} to verify.",
            hint="`influxdb-backup list` shows what there is.",
        )
    unknown: list[StoreError] = []

    def prove(one: Ref) -> None:
        try:
            with output.progress(f"verify {say_id(one.id)}") as tell:
                report = run_verify(opened, one, level, progress=tell, record=record)
        except StoreError as error:
            output.note(f"NOT VERIFIED: {say_id(one.id)}")
            unknown.append(error)
            return
        reports.append(report)
        if not json:
            _print(report)
        if any(problem.kind != "drill" for problem in report.problems):
            output.note(f"{_AGAIN}: {_export_command(one.plan, one.window, known)}")

    for one in refs:
        prove(one)
    ok = all(report.ok for report in reports)
    if json:
        output.document({"ok": ok, "reports": reports})
    elif len(reports) + len(unknown) > 1:
        held = sum(report.ok for report in reports)
        count = len(reports) + len(unknown)
        rest = f"; of {len(unknown)} it is not known" if unknown else ""
        output.line(f"{held} of {count} backups are {level.value}{rest}.")
    if unknown:
        raise unknown[0]
    if not ok:
        raise typer.Exit(1)


def _newest(refs: tuple[Ref, ...]) -> list[Ref]:
    """The newest revision of each window, in order of time."""
    newest: dict[Window, Ref] = {}
    for ref in sorted(refs, key=lambda ref: ref.revision):
        newest[ref.window] = ref
    return sorted(newest.values(), key=lambda ref: (ref.window.start, ref.window.end))


def _print(report: VerifyReport) -> None:
    if report.ok:
        output.line(
            f"{report.level.value}: {say_id(report.ref)}: {output.counted(report.rows, 'row')} in "
            f"{output.counted(report.parts, 'part')}, "
            f"{output.size(report.bytes)}, {output.seconds(report.seconds)}"
        )
        return
    output.verdict(f"NOT {report.level.value}: {say_id(report.ref)}")
    for problem in report.problems:
        place = "" if problem.object in problem.message else f"{problem.object}: "
        output.line(f"  {problem.kind}: {place}{problem.message}")


def coverage(
    context: typer.Context,
    plan: PlanArgument,
    start: OptionalStart = None,
    end: OptionalEnd = None,
    recheck: Annotated[
        bool,
        typer.Option(
            "--recheck",
            help="Ask the server whether backed-up windows have changed since (counts only: a value that was "
            "overwritten is not seen).",
        ),
    ] = False,
    repository: RepositoryOption = None,
    repository_url: RepositoryUrlOption = None,
    repository_connection: RepositoryConnectionOption = None,
    json: JsonOption = False,
) -> None:
    """Show which stretch of time has a backup. The exit status is 1 for gaps, known damage and stale windows."""
    from influxdb_backup.jobs.coverage import coverage as run_coverage
    from influxdb_backup.jobs.earlier_backups import EarlierBackups
    from influxdb_backup.jobs.identity import refuse_other_plan

    session: Session = context.obj
    choice = RepositoryChoice(name=repository, url=repository_url, connection=repository_connection)
    if choice.url is None:
        session.plan(plan)
    within = optional_window(start, end)
    opened = session.repository(choice, plan if choice.url is None else None)
    known = session.known_plan(plan)
    if recheck and known is None:
        raise UsageError(
            f"--recheck asks the server of the plan {plan!r}, which only a configuration file names.",
            hint="Put --config FILE before the command, or leave --recheck out.",
        )
    chosen = known or plan_without_file(opened, plan)
    if known is not None:
        refuse_other_plan(chosen, opened)
    unreadable: list[tuple[RefName, InfluxdbBackupError]] = []
    refs = opened.refs(plan, within, on_damage=lambda name, error: unreadable.append((name, error)))
    report = run_coverage(chosen, refs, range=within, now=time.time_ns())
    touched = [ref for ref in _newest(refs) if report.range and intersect(ref.window, report.range)]
    earlier = EarlierBackups(opened, plan)
    last = earlier.last()
    found = damaged_backups(opened, plan, touched)
    damaged = [ref for ref in touched if ref in found or ref in earlier.damaged]
    ids = (*(name.id for name, _ in unreadable), *(ref.id for ref in damaged))
    report = report.model_copy(update={"damaged": ids, "outside": last.evidence.outside if last else ()})
    for name, error in unreadable:
        output.note(f"Warning: {name.id} counts as no backup: {error}")
    if recheck and report.range:
        report = _rechecked(session, chosen, opened, refs, report, report.range)
    if json:
        output.document(report)
    else:
        _print_coverage(chosen, report, damaged)
    if not report.ok:
        raise typer.Exit(1)


def _rechecked(
    session: Session,
    plan: Plan,
    repository: Repository,
    refs: Sequence[Ref],
    report: CoverageReport,
    within: Window,
) -> CoverageReport:
    from influxdb_backup.jobs.recheck import recheck

    with session.server(plan.connection) as server, output.progress(f"recheck {plan.name}") as tell:
        found = recheck(plan, refs, repository=repository, server=server, range=within, progress=tell)
    return report.model_copy(
        update={
            "rechecked": True,
            "stale": found.windows,
            "changes": found.changes,
            "unjudged": found.unjudged,
            "archived": found.archived,
        }
    )


def _print_coverage(plan: Plan, report: CoverageReport, damaged: Sequence[Ref]) -> None:
    from influxdb_backup.jobs.coverage import fill

    if report.range is None:
        output.line(f"The plan {plan.name} has no start and no backups: nothing is due.")
        return
    output.line(f"{plan.name}, {say_window(report.range)}, in UTC")
    stretches = [
        (window.start, window.end, state)
        for state, windows in (
            ("covered", report.covered),
            ("partial: narrower scope", report.partial),
            ("GAP", report.gaps),
            ("STALE: changed at the source", report.stale),
        )
        for window in windows
    ]
    output.table(
        ("from", "to", "length", "state"),
        [(say_instant(a), say_instant(b), say_length(b - a), state) for a, b, state in sorted(stretches)],
        alarms=("state",),
    )
    if report.unreadable:
        output.line(f"The newest backup could not read {output.counted(report.unreadable, 'table')}.")
    for ref in damaged:
        output.verdict(f"DAMAGED: {say_id(ref.id)}: {_AGAIN}: {_export_command(ref.plan, ref.window, plan)}")
    for window in report.stale:
        output.verdict(_stale_line(plan, window, [one for one in report.changes if one.window == window]))
    for beyond in report.outside:
        output.line(
            f"OUTSIDE of the plan's windows: the source has shards of {printable(beyond.retention_policy)!r} for "
            f"{say_window(beyond.window)}"
        )
    for gone in report.archived:
        output.line(f"ARCHIVED: {say_window(gone.window)}: {gone.reason}")
    for rest in report.unjudged:
        output.verdict(f"NOT COMPARED: {say_window(rest.window)}: {rest.reason}")
    for gap in report.gaps:
        output.line(f"Fill {say_window(gap)}:")
        for way in fill(plan, gap):
            output.line(f"  {way}")


def _stale_line(plan: Plan, window: Window, changes: Sequence[Change]) -> str:
    """What differs in one window, and the command that backs it up again."""
    shown = "; ".join(
        f"{one.table}, field {printable(one.field)!r}: {one.counted} counted, {one.backed_up} backed up"
        for one in changes[:_SHOWN]
    )
    more = f"; and {output.number(len(changes) - _SHOWN)} more" if len(changes) > _SHOWN else ""
    again = f"back it up again: {_export_command(plan.name, window, plan)}"
    if all(one.counted < one.backed_up for one in changes):
        # never the export that would put an empty read on top of the only copy
        again = f"find out who deleted; if on purpose, the backup is what is left: {_MARK}"
    elif any(one.counted < one.backed_up for one in changes):
        again += f" (it is refused while other points are gone; if they were dropped on purpose: {_MARK})"
    return f"STALE: {say_window(window)}: {shown}{more}: {again}"


def _export_command(name: str, window: Window, plan: Plan | None) -> str:
    """The command that backs this very window up again; without the plan's schedule it may be one of several."""
    from itertools import islice

    from influxdb_backup.jobs.coverage import export_command
    from influxdb_backup.jobs.export_range import windows_between

    is_one = plan is not None and len(list(islice(windows_between(plan, window), 2))) == 1
    return export_command(name, window) + ("" if is_one else " --as-one")
