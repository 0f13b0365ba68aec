"""`repo init` and `repo check`."""

from __future__ import annotations

from typing import Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.options import JsonOption, RepositoryConnectionOption
from influxdb_backup.cli.session import RepositoryChoice, Session

app = typer.Typer(help="Make and check repositories.", no_args_is_help=True, rich_markup_mode=None)
RepositoryArgument = Annotated[
    str, typer.Argument(metavar="REPOSITORY", help="Name of a repository of the configuration file, or a URL.")
]


def _choice(repository: str, connection: str | None) -> RepositoryChoice:
    if "://" in repository:
        return RepositoryChoice(url=repository, connection=connection)
    return RepositoryChoice(name=repository, connection=connection)


@app.command()
def init(
    context: typer.Context, repository: RepositoryArgument, repository_connection: RepositoryConnectionOption = None
) -> None:
    """Make a repository; one that is there already is left as it is."""
    from influxdb_backup.archive.repository import Repository

    session: Session = context.obj
    made = Repository.init(session.store(_choice(repository, repository_connection)))
    output.line(f"Repository {made.repository_id} at {made.url}.")


@app.command()
def check(
    context: typer.Context,
    repository: RepositoryArgument,
    repository_connection: RepositoryConnectionOption = None,
    json: JsonOption = False,
) -> None:
    """Prove that a store keeps the promises that backups rest on; writes and removes a few small objects."""
    from influxdb_backup.archive import layout
    from influxdb_backup.archive.check import check_store

    session: Session = context.obj
    store = session.store(_choice(repository, repository_connection))
    report = check_store(store)
    ok = report.ok
    if json:
        items = [
            {
                "name": item.name,
                "ok": item.ok,
                "needed": item.needed,
                "detail": item.detail,
                "seconds": item.seconds,
            }
            for item in report.items
        ]
        output.document({"ok": ok, "items": items, "remarks": list(report.remarks)})
    else:
        output.table(
            ("promise", "kept", "seconds", "detail"),
            [(item.name, "yes" if item.ok else "NO", f"{item.seconds:.2f}", item.detail) for item in report.items],
            numbers=("seconds",),
        )
        output.line("The store is fit for backups." if ok else "The store is NOT fit for backups.")
        for remark in report.remarks:
            output.line(remark)
        if ok and store.size(layout.REPOSITORY) is None:
            output.line(f"There is no repository in it: `influxdb-backup repo init {repository}` makes one.")
    if not ok:
        raise typer.Exit(1)
