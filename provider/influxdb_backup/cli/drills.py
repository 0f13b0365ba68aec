"""`drill`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.listing import plan_of, say_id
from influxdb_backup.cli.options import (
    JsonOption,
    PlanArgument,
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
    secret_of,
)
from influxdb_backup.cli.session import RepositoryChoice, ServerChoice, Session, plan_without_file
from influxdb_backup.errors import UsageError
from influxdb_backup.model import printable

if TYPE_CHECKING:
    from influxdb_backup.jobs.drill import Cleaned
    from influxdb_backup.jobs.drills import DrillReport


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command()(drill)


def drill(
    context: typer.Context,
    plan: PlanArgument,
    ref: Annotated[
        str | None, typer.Option("--ref", metavar="REF", help="This backup, instead of the plan's own choice.")
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Only drop the scratch databases that killed drills left behind.")
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
    Prove that a backup restores: into a new scratch database, read back, compared, checked, dropped.

    The exit status is 1 when it does not hold. Without --target-connection or --target-url the scratch is made on
    the server that the plan names for drills, or else on its own.
    """
    from influxdb_backup.jobs import drill as job

    session: Session = context.obj
    if ref is not None and plan_of(ref) != plan:
        raise UsageError(f"{ref} is no backup of the plan {plan!r}.")
    choice = RepositoryChoice(name=repository, url=repository_url, connection=repository_connection)
    if choice.url is None:
        session.plan(plan)
    opened = session.repository(choice, plan if choice.url is None else None)
    known = session.known_plan(plan)
    chosen = known or plan_without_file(opened, plan)
    default = (known.drill.connection if known.drill else None) or known.connection if known else None
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
    with session.target(target, default) as server:
        if clean:
            _print_cleaned(job.clean(plan, repository=opened, server=server), server.name, json=json)
            return
        found = opened.ref(ref) if ref is not None else None
        with output.progress(f"drill {plan}") as tell:
            report = job.drill(chosen, repository=opened, server=server, ref=found, progress=tell)
    output.document(report) if json else _print(report)
    if not report.ok:
        raise typer.Exit(1)


def _print_cleaned(cleaned: Cleaned, server: str, *, json: bool) -> None:
    if json:
        output.document(asdict(cleaned))
        return
    fates = (
        (cleaned.dropped, "dropped", ""),
        (
            cleaned.running,
            "left",
            ": its drill is at work, or was until a few minutes ago: then run the same again in three minutes",
        ),
        (cleaned.unseen, "not seen", f": never made, gone, or hidden from these credentials of {server}"),
        (cleaned.foreign, "left", f": {server} does not show that a drill made it; look at it, and drop it by hand"),
        (cleaned.forged, "left", ": no drill calls a scratch so, whatever the record in the repository says"),
    )
    for names, word, fate in fates:
        for name in names:
            output.line(f"{word} {printable(name)}{fate}")
    if cleaned == type(cleaned)():
        output.line("No scratch database was left behind.")


def _print(report: DrillReport) -> None:
    output.verdict(f"{_verdict(report)}: {say_id(report.ref)}")
    output.pairs(
        [
            (
                "restored",
                f"{output.counted(report.rows, 'row')} in {output.seconds(report.seconds_restore)}"
                f"{', as whole shards' if report.writer == 'shard' else ''}",
            ),
            (
                "read back",
                f"{output.counted(len(report.tables), 'table')} in {output.seconds(report.seconds_read_back)}",
            ),
            ("scratch", f"{report.scratch}, {_fate(report)}"),
        ]
    )
    for check in report.checks:
        output.verdict(f"check {'ok' if check.ok else 'FAILED'}: {check.query}: {check.value} ({check.message})")
    for problem in report.problems:
        if problem.kind == "check":  # told above
            continue
        output.verdict(f"  {problem.kind}: {problem.object}: {problem.message}")


def _verdict(report: DrillReport) -> str:
    if report.ok:
        return "The drill held"
    return "The backup is exact, and a check of yours did NOT hold" if report.is_exact else "The drill did NOT hold"


def _fate(report: DrillReport) -> str:
    """What became of the scratch; where the backup cannot be read at all none is made."""
    if report.scratch_dropped:
        return "dropped"
    return "NOT dropped" if any(problem.kind == "scratch" for problem in report.problems) else "not made"
