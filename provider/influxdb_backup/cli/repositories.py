"""`repo init` and `repo check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.options import JsonOption, RepositoryConnectionOption
from influxdb_backup.cli.session import RepositoryChoice, Session

if TYPE_CHECKING:
    from influxdb_backup.archive.leftovers import Leftover

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
    leftovers: Annotated[
        bool,
        typer.Option(
            "--leftovers", help="Also tell what killed exports left, which no backup names; reads every manifest."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Prove that a store keeps the promises that backups rest on; writes and removes a few small objects."""
    from influxdb_backup.archive import layout
    from influxdb_backup.archive.check import check_store
    from influxdb_backup.archive.leftovers import leftovers as find_leftovers
    from influxdb_backup.archive.repository import Repository

    session: Session = context.obj
    store = session.store(_choice(repository, repository_connection))
    report = check_store(store)
    ok = report.ok
    left = find_leftovers(Repository.open(store), store.now()) if leftovers else ()
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
        told = {"leftovers": [{"place": one.place, "objects": one.objects, "bytes": one.bytes} for one in left]}
        output.document({"ok": ok, "items": items, "remarks": list(report.remarks), **(told if leftovers else {})})
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
        if leftovers:
            _print_leftovers(left)
    if not ok:
        raise typer.Exit(1)


def _print_leftovers(left: Sequence[Leftover]) -> None:
    """Each export's own line; what to do with them is the reader's."""
    objects, size = sum(one.objects for one in left), sum(one.bytes for one in left)
    if not left:
        output.line("No killed export left anything that is older than a day.")
        return
    output.line(
        f"In no backup, and harmless: {output.counted(objects, 'object')} ({output.size(size)}) of exports that never "
        "came to an end. Only what is named here, and what is below it, may be removed:"
    )
    for one in left:
        output.line(f"  {one.place} {output.counted(one.objects, 'object')}, {output.size(one.bytes)}")
