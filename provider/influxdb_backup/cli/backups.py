"""`export`, `list` and `show`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.listing import Listed, list_backups, plan_of
from influxdb_backup.cli.options import (
    JsonOption,
    OptionalEnd,
    OptionalStart,
    PlanArgument,
    RefArgument,
    RepositoryConnectionOption,
    RepositoryOption,
    RepositoryUrlOption,
)
from influxdb_backup.cli.session import RepositoryChoice, Session
from influxdb_backup.cli.windows import optional_window
from influxdb_backup.model import Manifest, Ref, printable
from influxdb_backup.windows import format_instant, format_window, say_instant, say_window

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.jobs.export import ExportResult
    from influxdb_backup.jobs.export_range import FailedWindow, RangeResult


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(export)
    app.command("list")(list_)
    app.command()(show)


def export(
    context: typer.Context,
    plan: PlanArgument,
    start: OptionalStart = None,
    end: OptionalEnd = None,
    as_one: Annotated[
        bool, typer.Option("--as-one", help="The range as one window instead of one for each of the schedule.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also a window that is still open; it is marked as open.")
    ] = False,
    accept_expired: Annotated[
        bool, typer.Option("--accept-expired", help="Also a window that the source no longer keeps as a whole.")
    ] = False,
    accept_shrink: Annotated[
        bool, typer.Option("--accept-shrink", help="Also fewer rows than this window's last revision has.")
    ] = False,
    accept_missing: Annotated[
        bool, typer.Option("--accept-missing", help="Also when tables of the last backup are no longer there.")
    ] = False,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="Also when the server's clock is neither ours nor the repository's.")
    ] = False,
    repository: RepositoryOption = None,
    json: JsonOption = False,
) -> None:
    """
    Back the last due window of a plan up, or a range, cut into the windows of its schedule.

    The same command again is always safe. The exit status is 1 when a window failed; the others are backed up.
    """
    from influxdb_backup.jobs.export import ExportOptions
    from influxdb_backup.jobs.export import export as run_export
    from influxdb_backup.jobs.export_range import export_ahead, export_range, last_due_window, windows_between

    session: Session = context.obj
    chosen = session.plan(plan)
    window = optional_window(start, end) or last_due_window(chosen, time.time_ns())
    opened = session.repository(RepositoryChoice(name=repository), plan)
    options = ExportOptions(
        force=force,
        accept_expired=accept_expired,
        accept_shrink=accept_shrink,
        accept_missing=accept_missing,
        accept_clock=accept_clock,
    )
    several = not as_one and len(list(islice(windows_between(chosen, window), 2))) > 1
    with session.server(chosen.connection) as server, output.progress(f"export {plan}") as tell:
        if several:
            found = export_range(
                chosen,
                window,
                server=server,
                repository=opened,
                options=options,
                progress=tell,
                told=_silent if json else _tell_window,
            )
        else:
            result = run_export(chosen, window, server=server, repository=opened, options=options, progress=tell)
        ahead = export_ahead(chosen, window, server=server, repository=opened, options=options, progress=tell)
    if ahead is not None:
        _note_ahead(ahead)
    if several:
        _print_range(found, json=json)
        return
    _print_notes(result)
    if json:
        output.document(result)
        return
    output.line(f"{_said(result)}, in {output.seconds(result.seconds)}{', open' if result.open else ''}.")
    output.identifier(result.ref)
    _note_gaps(plan, result)


def _said(result: ExportResult) -> str:
    done = "Backed up" if result.created else "Nothing new: the latest revision already holds exactly this"
    return (
        f"{done}: {output.counted(result.rows, 'row')} of {output.counted(result.tables, 'table')}, "
        f"{output.size(result.bytes)}"
    )


def _silent(_: object) -> None:
    """A document says it at the end."""


def _tell_window(one: ExportResult | FailedWindow) -> None:
    """One line of a range as soon as it is known: what was backed up, or what failed and what to do."""
    from influxdb_backup.jobs.export import ExportResult

    if isinstance(one, ExportResult):
        output.line(f"{format_window(one.window)}: {_said(one)}{', open' if one.open else ''}.")
        _print_notes(one)
    else:
        output.note(f"FAILED: {format_window(one.window)}: {one.message} {one.hint}".rstrip())


def _print_range(found: RangeResult, *, json: bool) -> None:
    """Raises Exit with status 1 when a window failed."""
    if json:
        output.document({"ok": found.ok, **found.model_dump(mode="json")})
    else:
        count = len(found.windows) + len(found.failed)
        tried = " that were tried" if found.not_tried is not None else ""
        output.line(
            f"{_number(found)} of {output.counted(count, 'window')}{tried}, "
            f"{output.counted(sum(one.rows for one in found.windows), 'row')}, "
            f"{output.size(sum(one.bytes for one in found.windows))}, in {output.seconds(found.seconds)}."
        )
        if found.not_tried is not None:
            output.note(f"Not tried, since it would fail as well: {format_window(found.not_tried)}.")
        if found.windows:
            _note_gaps(found.plan, found.windows[-1])
    if not found.ok:
        raise typer.Exit(1)


def _number(found: RangeResult) -> str:
    """How many windows of a range have their backup now, and how many of these are new."""
    new = sum(one.created for one in found.windows)
    unchanged = len(found.windows) - new
    return f"Backed up {new}" + (f" and found {unchanged} unchanged" if unchanged else "")


def _note_ahead(ahead: RangeResult) -> None:
    new = sum(one.created for one in ahead.windows)
    output.note(
        f"Ahead of now: {output.counted(len(ahead.windows), 'window')} with points, {new} of them backed up, open."
    )
    for failed in ahead.failed:
        output.note(f"FAILED ahead: {format_window(failed.window)}: {failed.message} {failed.hint}".rstrip())


def _note_gaps(plan: str, result: ExportResult) -> None:
    if result.gaps:
        output.note(f"The plan has {output.counted(len(result.gaps), 'gap')}: see influxdb-backup coverage {plan}.")


def _print_notes(result: ExportResult) -> None:
    for beyond in result.outside:
        what = "before the plan's start" if beyond.where == "before-start" else "later than now"
        output.note(
            f"The source has shards of {printable(beyond.retention_policy)!r} {what} that no window of the plan "
            f"reaches: {format_window(beyond.window)}. Export them once, or set start or ahead in the plan."
        )
    for table in result.unreadable:
        output.note(f"Warning: {table.table} cannot be read and is not in the backup: {table.reason}")
    for policy in result.expired:
        output.note(
            f"Warning: the retention policy {printable(policy.retention_policy)!r} had kept points from "
            f"{format_instant(policy.kept_from)} on: of those before, the backup has what was left."
        )
    for gone in result.ended:
        output.note(f"{gone} is gone: all of its points have expired.")


def list_(
    context: typer.Context,
    plan: Annotated[
        str | None, typer.Argument(metavar="PLAN", help="Name of a plan; without it all plans in the repository.")
    ] = None,
    start: OptionalStart = None,
    end: OptionalEnd = None,
    ids: Annotated[bool, typer.Option("--ids", help="Only the ids of the backups, one a line.")] = False,
    repository: RepositoryOption = None,
    repository_url: RepositoryUrlOption = None,
    repository_connection: RepositoryConnectionOption = None,
    json: JsonOption = False,
) -> None:
    """List backups: window, revision, rows, size, and how far, by what and when each was proved."""
    session: Session = context.obj
    within = optional_window(start, end)
    choice = RepositoryChoice(name=repository, url=repository_url, connection=repository_connection)
    found = [
        entry
        for opened, name in _places(session, choice, plan)
        for entry in list_backups(opened, name, within, reports=not ids)
    ]
    if json:
        output.document({"backups": [entry.document() for entry in found]})
    elif ids:
        for entry in found:
            output.identifier(entry.ref.id)
    elif found:
        _print(found)
    else:
        output.note("There are no backups." if plan is None else f"There are no backups of the plan {plan!r}.")


def _places(session: Session, choice: RepositoryChoice, plan: str | None) -> Iterator[tuple[Repository, str]]:
    """Each opened repository with a plan to list in it."""
    if plan is not None:
        yield session.repository(choice, plan if choice.url is None else None), plan
        return
    if choice.url is None and choice.name is None:
        names = sorted({entry.repository for entry in session.config.plans.values()})
        choices = [RepositoryChoice(name=name) for name in names]
    else:
        choices = [choice]
    for each in choices:
        opened = session.repository(each)
        for name in opened.plans():
            yield opened, name


def _print(found: list[Listed]) -> None:
    plans = sorted({entry.ref.plan for entry in found})
    for at, plan in enumerate(plans):
        entries = [entry for entry in found if entry.ref.plan == plan]
        if len(plans) > 1:
            if at:
                output.line()
            output.line(f"{plan}:")
        _print_plan(entries)
    if len(plans) > 1:
        output.line()
    rows, size = sum(entry.ref.rows for entry in found), sum(entry.ref.bytes for entry in found)
    output.line(
        f"{output.counted(len(found), 'backup')}, {output.counted(rows, 'row')}, {output.size(size)}. Ids: --ids."
    )


def _print_plan(entries: list[Listed]) -> None:
    noted = any(entry.state for entry in entries)
    output.table(
        ("window (UTC)", "rev", "rows", "size", "proved", *(("state",) if noted else ())),
        [
            (
                say_window(entry.ref.window),
                entry.ref.revision,
                output.number(entry.ref.rows),
                output.size(entry.ref.bytes),
                entry.proved,
                *((entry.state,) if noted else ()),
            )
            for entry in entries
        ],
        numbers=("rev", "rows", "size"),
        alarms=("proved", "state"),
    )


def show(
    context: typer.Context,
    ref: RefArgument,
    repository: RepositoryOption = None,
    repository_url: RepositoryUrlOption = None,
    repository_connection: RepositoryConnectionOption = None,
    json: JsonOption = False,
) -> None:
    """Show what one backup holds and how it was read."""
    session: Session = context.obj
    choice = RepositoryChoice(name=repository, url=repository_url, connection=repository_connection)
    opened = session.repository(choice, plan_of(ref) if choice.url is None else None)
    found = opened.ref(ref)
    manifest = opened.manifest(found)
    if json:
        output.document({"id": found.id, "ref": found, "manifest": manifest})
        return
    output.pairs(_facts(found, manifest))
    output.line()
    output.table(
        ("table", "rows", "size", "first (UTC)", "last"),
        [
            (
                entry.table,
                output.number(entry.rows),
                output.size(sum(part.size for part in entry.parts)),
                say_instant(entry.min_time) if entry.min_time is not None else "",
                say_instant(entry.max_time) if entry.max_time is not None else "",
            )
            for entry in manifest.tables
        ],
        numbers=("rows", "size"),
    )
    output.line()
    output.table(
        ("table", "columns"),
        [
            (entry.table, ", ".join(f"{column.name} {column.type.value}" for column in entry.columns))
            for entry in manifest.tables
        ],
    )
    for table in manifest.evidence.unreadable:
        output.verdict(f"NOT in the backup: {table.table}: {table.reason}")


def _facts(ref: Ref, manifest: Manifest) -> list[tuple[str, object]]:
    source, evidence = manifest.source, manifest.evidence
    policies = ", ".join(printable(policy.name) for policy in source.retention_policies)
    return [
        ("backup", f"{ref.plan}, {say_window(ref.window)}, revision {ref.revision}"),
        ("id", ref.id),
        ("window", format_window(ref.window) + (" (open when it was read)" if ref.open else "")),
        ("source", f"{source.database}, InfluxDB {source.version}" + (f", {source.name}" if source.name else "")),
        ("policies", policies),
        ("read", f"{format_instant(evidence.read_start)} to {format_instant(evidence.read_end)}"),
        ("rows", output.number(manifest.rows)),
        ("size", output.size(manifest.bytes)),
        ("manifest", ref.manifest),
        ("written by", manifest.tool.package + (f", DAG run {manifest.tool.run_id}" if manifest.tool.run_id else "")),
    ]
