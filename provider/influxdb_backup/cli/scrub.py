"""`scrub-server`: reads every block of the servers' own files, of which no server checks any."""

from __future__ import annotations

from typing import Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.options import JsonOption
from influxdb_backup.cli.session import Session
from influxdb_backup.model import printable


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(name="scrub-server")(scrub_server)


def scrub_server(
    context: typer.Context,
    connection: Annotated[str, typer.Argument(metavar="CONNECTION", help="The server's connection.")],
    database: Annotated[
        list[str] | None, typer.Option("--database", metavar="NAME", help="Only this one; may be given several times.")
    ] = None,
    allow_hot_shards: Annotated[
        bool,
        typer.Option(
            "--allow-hot-shards", help="Also shards with writes in their caches, which can cost overwritten values."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """
    Read every block of a server's files and name those that are damaged; nothing is written.

    Needs the extra 'fast' and the server's backup door. Shards with writes in their caches are left out and named. The
    exit status is 1 when anything is damaged.
    """
    from influxdb_backup.jobs.scrub import scrub

    session: Session = context.obj
    with session.server(connection) as server, output.progress(f"scrub {connection}") as tell:
        found = scrub(server, database, tell, allow_hot=allow_hot_shards)
    if json:
        output.document(
            {
                "policies": [
                    {
                        "database": printable(policy.database),
                        "retention_policy": printable(policy.retention_policy),
                        "shard_groups": policy.shard_groups,
                        "rows": policy.rows,
                        "damages": list(policy.damages),
                        "hot": list(policy.hot),
                    }
                    for policy in found
                ]
            }
        )
    else:
        output.table(
            ("database", "retention policy", "shard groups", "rows", "damages"),
            [
                (
                    printable(policy.database),
                    printable(policy.retention_policy),
                    output.number(policy.shard_groups),
                    output.number(policy.rows),
                    output.number(len(policy.damages)) if policy.damages else "none",
                )
                for policy in found
            ],
            numbers=("shard groups", "rows"),
        )
        for policy in found:
            for damage in policy.damages:
                output.line(damage)
            for shard in policy.hot:
                output.line(shard)
    if any(policy.damages for policy in found):
        raise typer.Exit(1)
