"""`config check` and `config schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.cli.options import JsonOption
from influxdb_backup.cli.session import Session
from influxdb_backup.config.load import load
from influxdb_backup.config.model import Config
from influxdb_backup.windows import format_duration, format_instant

app = typer.Typer(help="Check the configuration file.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def check(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The file to check; without it the one of --config.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check a configuration file; every mistake is named with its line, and the exit status is then 2."""
    session: Session = context.obj
    config = load(file) if file is not None else session.config
    if json:
        output.document(
            {
                "path": str(config.path),
                "repositories": dict(config.repositories),
                "plans": {name: _plan(config, name) for name in config.plans},
            }
        )
        return
    output.table(
        ("plan", "database", "schedule", "start", "settle", "connection", "repositories", "drill"),
        [
            (
                plan.name,
                plan.database,
                plan.schedule,
                format_instant(plan.start) if plan.start is not None else "",
                format_duration(plan.settle),
                plan.connection,
                ", ".join(plan.repositories),
                (plan.drill.schedule or "by hand") if plan.drill else "",
            )
            for plan in config.plans.values()
        ],
    )
    output.line(f"{config.path} is right: {output.counted(len(config.plans), 'plan')}.")


def _plan(config: Config, name: str) -> dict[str, object]:
    """A plan with its 64-bit numbers as decimal strings."""
    plan = config.plan(name)
    dumped = plan.model_dump(mode="json")
    dumped["start"] = None if plan.start is None else str(plan.start)
    dumped["settle"] = str(plan.settle)
    timeout = plan.airflow.execution_timeout
    dumped["airflow"]["execution_timeout"] = None if timeout is None else str(timeout)
    return dumped


@app.command()
def schema(json: JsonOption = False) -> None:
    """Print the JSON Schema of the configuration file, for editors; it is JSON with and without --json."""
    del json
    from influxdb_backup.config.schema import json_schema

    output.document(json_schema())
