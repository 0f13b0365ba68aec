"""`restore`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.listing import plan_of
from influxdb_backup.cli.options import (
    JsonOption,
    OptionalEnd,
    OptionalStart,
    RepositoryConnectionOption,
    RepositoryOption,
    RepositoryUrlOption,
    TargetCaFileOption,
    TargetConnectionOption,
    TargetOrganizationOption,
    TargetPasswordFileOption,
    TargetPasswordOption,
    TargetTokenFileOption,
    TargetTokenOption,
    TargetUrlOption,
    TargetUsernameOption,
    TargetVerifyTlsOption,
    not_empty,
    secret_of,
)
from influxdb_backup.cli.session import RepositoryChoice, ServerChoice, Session
from influxdb_backup.cli.windows import optional_window
from influxdb_backup.errors import InfluxdbBackupError, UsageError
from influxdb_backup.windows import format_window

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.jobs.restore_documents import RestorePlan, RestoreReport
    from influxdb_backup.jobs.restore_request import RestoreRequest


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command()(restore)


def restore(
    context: typer.Context,
    what: Annotated[
        list[str], typer.Argument(metavar="PLAN|REF...", help="A plan, with --start and --end; or backups.")
    ],
    start: OptionalStart = None,
    end: OptionalEnd = None,
    retention_policy: Annotated[
        list[str] | None,
        typer.Option("--retention-policy", callback=not_empty, metavar="NAME", help="Only this one; repeatable."),
    ] = None,
    measurement: Annotated[
        list[str] | None,
        typer.Option("--measurement", callback=not_empty, metavar="NAME", help="Only this one; repeatable."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Only points with this tag; repeatable.")
    ] = None,
    target_database: Annotated[
        str | None,
        typer.Option("--target-database", callback=not_empty, metavar="NAME", help="Another name than the source's."),
    ] = None,
    target_retention_policy: Annotated[
        str | None,
        typer.Option(
            "--target-retention-policy", callback=not_empty, metavar="NAME", help="One policy for everything."
        ),
    ] = None,
    on_conflict: Annotated[
        Literal["fail", "merge"],
        typer.Option("--on-conflict", metavar="fail|merge", help="When the target has points in the range."),
    ] = "fail",
    retention: Annotated[
        Literal["fail", "widen", "drop-points"],
        typer.Option(
            "--retention",
            metavar="fail|widen|drop-points",
            help="When the target's retention policy would drop restored points.",
        ),
    ] = "fail",
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Restore what there is when a part of the range has no backup.")
    ] = False,
    max_rejects: Annotated[
        int,
        typer.Option(
            "--max-rejects", metavar="N", min=0, help="Points that the target may refuse before the restore fails."
        ),
    ] = 0,
    fingerprints: Annotated[
        bool,
        typer.Option("--fingerprints", help="Read everything back, too, and compare it with the archive to the bit."),
    ] = False,
    salvage: Annotated[
        bool,
        typer.Option("--salvage", help="Restore what is whole of damaged parts, name what is not, and end with 1."),
    ] = False,
    unsigned_as_integer: Annotated[
        bool, typer.Option("--unsigned-as-integer", help="Write unsigned fields as integers, for a 1.x target.")
    ] = False,
    writer: Annotated[
        Literal["auto", "lines", "shard"],
        typer.Option(
            "--writer",
            metavar="auto|lines|shard",
            help="By line protocol or, into a new database, as whole shards; auto takes shards where it can.",
        ),
    ] = "auto",
    connections: Annotated[
        int, typer.Option("--connections", metavar="N", min=1, max=16, help="Writers at the same time.")
    ] = 2,
    restore_id: Annotated[
        str | None,
        typer.Option("--restore-id", callback=not_empty, metavar="ID", help="Go on with the restore of this id."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be read, made and written.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="With --dry-run: end with status 1 when the restore would be refused.")
    ] = False,
    target_connection: TargetConnectionOption = None,
    target_url: TargetUrlOption = None,
    target_token: TargetTokenOption = None,
    target_username: TargetUsernameOption = None,
    target_password: TargetPasswordOption = None,
    target_token_file: TargetTokenFileOption = None,
    target_password_file: TargetPasswordFileOption = None,
    target_organization: TargetOrganizationOption = None,
    target_ca_file: TargetCaFileOption = None,
    target_verify_tls: TargetVerifyTlsOption = True,
    repository: RepositoryOption = None,
    repository_url: RepositoryUrlOption = None,
    repository_connection: RepositoryConnectionOption = None,
    json: JsonOption = False,
) -> None:
    """
    Restore a range of a plan, or whole backups, into a server, and prove by counts that it arrived.

    Without --target-connection or --target-url the plan's own server is the target.
    """
    from influxdb_backup.jobs import restore as job
    from influxdb_backup.jobs.identity import refuse_other_plan
    from influxdb_backup.jobs.restore_request import RestoreRequest

    session: Session = context.obj
    if check and not dry_run:
        raise UsageError("--check belongs to --dry-run.")
    plan, refs = _plan_and_refs(what)
    restore_id = restore_id or secrets.token_hex(8)
    request = RestoreRequest(
        plan=None if refs else plan,
        refs=refs,
        window=optional_window(start, end),
        retention_policies=tuple(retention_policy) if retention_policy else None,
        measurements=tuple(measurement) if measurement else None,
        tags=_tags(tag or []),
        target_database=target_database,
        target_retention_policy=target_retention_policy,
        on_conflict=on_conflict,
        retention=retention,
        writer=writer,
        allow_gaps=allow_gaps,
        max_rejects=max_rejects,
        unsigned_as_integer=unsigned_as_integer,
        fingerprints=fingerprints,
        salvage=salvage,
        connections=connections,
        restore_id=restore_id,
    )
    target = ServerChoice(
        connection=target_connection,
        url=target_url,
        token=secret_of(context, "target-token", target_token, target_token_file),
        username=target_username,
        password=secret_of(context, "target-password", target_password, target_password_file),
        organization=target_organization,
        ca_file=target_ca_file,
        verify_tls=target_verify_tls,
    )
    _refuse_unclear(request, session, repository_url)
    choice = RepositoryChoice(name=repository, url=repository_url, connection=repository_connection)
    opened = session.repository(choice, plan if choice.url is None else None)
    known = session.known_plan(plan)
    scope = known.scope if known is not None and not refs else None
    if known is not None and not refs:
        refuse_other_plan(known, opened)
    with session.target(target, known.connection if known else None) as server:
        if dry_run:
            planned = job.plan_restore(request, repository=opened, target=server, scope=scope)
            output.document(planned) if json else _print_plan(planned)
            if check and planned.refusals:
                raise typer.Exit(1)
            return
        with _named_when_it_fails(opened, restore_id), output.progress(f"restore {restore_id}") as tell:
            report = job.restore(request, repository=opened, target=server, scope=scope, progress=tell)
    output.document(report) if json else _print_report(report)
    if report.lost:
        raise typer.Exit(1)


@contextmanager
def _named_when_it_fails(repository: Repository, restore_id: str) -> Iterator[None]:
    """Tells how to go on with a restore that ended after it had begun to write, however it ended."""
    from influxdb_backup.archive import layout

    try:
        yield
    except BaseException as error:
        ours = error if isinstance(error, InfluxdbBackupError) else None
        if ours and ours.kind in {"usage", "restore-in-progress", "not-renamed", "shard-writer"}:
            raise
        with suppress(InfluxdbBackupError):
            if repository.store.size(layout.restore_key(restore_id)) is not None:
                way = f"It goes on where it ended with the same command and --restore-id {restore_id}."
                if ours:
                    ours.hint = f"{ours.hint} {way}".strip()
                else:
                    output.note(way)
        raise


def _plan_and_refs(what: list[str]) -> tuple[str, tuple[str, ...]]:
    """The plan, and the refs when backups are named instead of it."""
    named = [text for text in what if "/" in text or "@" in text]
    if not named:
        if len(what) > 1:
            raise UsageError("Only one plan can be restored at a time.")
        return what[0], ()
    if len(named) < len(what):
        raise UsageError("Name either a plan or backups, not both.")
    plans = sorted({plan_of(text) for text in named})
    if len(plans) > 1:
        raise UsageError(f"The backups are of several plans: {', '.join(plans)}.", hint="Restore one plan at a time.")
    return plans[0], tuple(named)


def _refuse_unclear(request: RestoreRequest, session: Session, repository_url: str | None) -> None:
    if request.plan and repository_url is None:
        session.plan(request.plan)
    if request.plan and request.window is None:
        raise UsageError(
            f"A restore of the plan {request.plan!r} needs a range.",
            hint=f"Give --start and --end, or name a backup such as {request.plan}@latest.",
        )


def _tags(written: list[str]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for text in written:
        key, separator, value = text.partition("=")
        if not separator or not key or not value:
            raise UsageError(f"--tag {text!r} is not of the form KEY=VALUE.")
        if tags.setdefault(key, value) != value:
            raise UsageError(f"--tag {key} is given with two values; a point has only one.")
    return tags


def _print_plan(plan: RestorePlan) -> None:
    refused = bool(plan.refusals)
    output.line(f"Nothing was changed. The restore would{' be REFUSED, see below; else it would' if refused else ''}")
    facts: list[tuple[str, object]] = [
        (
            "read",
            f"{output.counted(len(plan.refs), 'backup')}, at most {output.counted(plan.rows, 'row')}, "
            f"{output.size(plan.bytes)}",
        ),
        ("range", format_window(plan.window)),
        ("write to", f"{plan.target_server}, database {plan.target_database}"),
    ]
    facts += [("create", what) for what in plan.creates]
    facts += [("without retention", what) for what in plan.infinite]
    facts += [("separate types", what) for what in plan.separated]
    facts += [("widen", what) for what in plan.widens]
    facts += [("not write", what) for what in plan.drops]
    facts += [("gap", what) for what in plan.gaps]
    facts += [("expired", what) for what in plan.expired]
    output.pairs(facts)
    output.line()
    output.table(
        ("table", "becomes", "rows at most", "parts", "bytes"),
        [
            (table.source, table.target, output.number(table.rows), table.parts, output.size(table.bytes))
            for table in plan.tables
        ],
        numbers=("rows at most", "parts", "bytes"),
    )
    for refusal in plan.refusals:
        output.line()
        output.line(f"REFUSED ({refusal.kind}): {refusal.message}")
        output.line(f"  {refusal.hint}")


def _print_report(report: RestoreReport) -> None:
    output.line(
        f"Restored {output.counted(report.rows, 'row')} of {output.counted(report.tables, 'table')} into "
        f"{report.target_server}, "
        f"database {report.target_database}, in {output.seconds(report.seconds)}; "
        f"{report.proved_by} were read back."
    )
    if not report.rows and not report.dropped_points:
        output.note("Warning: no point was restored: the backups hold none of this range with these names and tags.")
    facts: list[tuple[str, object]] = [("restore id", report.restore_id)]
    if report.writer == "shard":
        facts.append(("written", "as whole shards"))
    if report.written_again:
        facts.append(("written", "twice: the first time the server had confirmed points that it did not hold"))
    facts += [("created", what) for what in report.created]
    facts += [("without retention", what) for what in report.infinite]
    facts += [("separated types", what) for what in report.separated]
    facts += [("widened", f"{what}: existed, and now keeps points for ever") for what in report.widened]
    facts += [("gap", what) for what in report.gaps]
    facts += [("LOST", f"{lost.path}: {lost}") for lost in report.lost]
    facts += [("expired", what) for what in report.expired]
    if report.dropped_points:
        facts.append(("not written", f"{output.number(report.dropped_points)} points older than the target keeps"))
    if report.rejects:
        facts.append(("refused", f"{output.number(report.rejects)} points, kept in {report.reject_file}"))
        facts += [("reason", reason) for reason in report.reject_reasons]
    output.pairs(facts)
