"""`databases`: what the servers hold, and which plan backs it up."""

from __future__ import annotations

from typing import Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.options import JsonOption, not_empty
from influxdb_backup.cli.session import Session
from influxdb_backup.model import printable


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command()(databases)


def databases(
    context: typer.Context,
    unplanned: Annotated[
        bool,
        typer.Option("--unplanned", help="Only visible databases that no plan backs up; the exit status is 1 if any."),
    ] = False,
    connection: Annotated[
        str | None,
        typer.Option(
            "--connection", callback=not_empty, metavar="ID", help="Only this server; without it those of all plans."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the databases of the servers and the plans that back them up."""
    session: Session = context.obj
    plans = session.config.plans.values()
    connections = [connection] if connection else sorted({plan.connection for plan in plans})
    found: list[tuple[str, str, list[str]]] = []
    for conn_id in connections:
        with session.server(conn_id) as server:
            names = server.databases()
        for database in names:
            backing = sorted(plan.name for plan in plans if (plan.connection, plan.database) == (conn_id, database))
            found.append((conn_id, database, backing))
    shown = [entry for entry in found if not (unplanned and entry[2])]
    if json:
        output.document(
            {
                "databases": [
                    {"connection": conn_id, "database": printable(database), "plans": backing}
                    for conn_id, database, backing in shown
                ]
            }
        )
    elif shown:
        output.table(
            ("connection", "database", "plans"),
            [(conn_id, database, ", ".join(backing) or "NONE") for conn_id, database, backing in shown],
        )
    else:
        output.line("Every visible database has a plan." if found else "The servers show no database.")
    if unplanned and not json:
        output.note("Only databases that the credentials of these connections show were compared.")
    if unplanned and shown:
        raise typer.Exit(1)
