"""`export`, `list` and `show`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.listing import Listed, list_backups, plan_of
from influxdb_backup.cli.options import (
    EndOption,
    JsonOption,
    OptionalEnd,
    OptionalStart,
    PlanArgument,
    RefArgument,
    RepositoryConnectionOption,
    RepositoryOption,
    RepositoryUrlOption,
    StartOption,
)
from influxdb_backup.cli.session import RepositoryChoice, Session
from influxdb_backup.cli.windows import optional_window
from influxdb_backup.model import Manifest, Ref, printable
from influxdb_backup.windows import format_instant, format_window, parse_window, say_instant, say_window

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(export)
    app.command("list")(list_)
    app.command()(show)


def export(
    context: typer.Context,
    plan: PlanArgument,
    start: StartOption,
    end: EndOption,
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
    repository: RepositoryOption = None,
    json: JsonOption = False,
) -> None:
    """Back one window of a plan up. The same command again is always safe."""
    from influxdb_backup.jobs.export import ExportOptions
    from influxdb_backup.jobs.export import export as run_export

    session: Session = context.obj
    chosen = session.plan(plan)
    window = parse_window(start, end)
    opened = session.repository(RepositoryChoice(name=repository), plan)
    options = ExportOptions(
        force=force, accept_expired=accept_expired, accept_shrink=accept_shrink, accept_missing=accept_missing
    )
    with session.server(chosen.connection) as server, output.progress(f"export {plan}") as tell:
        result = run_export(chosen, window, server=server, repository=opened, options=options, progress=tell)
    for table in result.unreadable:
        output.note(f"Warning: {table.table} cannot be read and is not in the backup: {table.reason}")
    if json:
        output.document(result)
        return
    done = "Backed up" if result.created else "Nothing new: the latest revision already holds exactly this"
    output.line(
        f"{done}: {output.counted(result.rows, 'row')} of {output.counted(result.tables, 'table')}, "
        f"{output.size(result.bytes)}, in {output.seconds(result.seconds)}{', open' if result.open else ''}."
    )
    output.identifier(result.ref)
    if result.gaps:
        output.note(f"The plan has {output.counted(len(result.gaps), 'gap')}: see influxdb-backup coverage {plan}.")


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
