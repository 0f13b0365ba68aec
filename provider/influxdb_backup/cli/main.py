"""
The program `influxdb-backup`.

Exit status: 0 it held, 1 it did not (damage, gaps, a server or store that failed), 2 the call or the
configuration is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from influxdb_backup import __version__
from influxdb_backup.cli import backups, checks, configuration, databases, drills, repositories, restores, scrub, warm
from influxdb_backup.cli.output import failure, note
from influxdb_backup.cli.session import CONFIG_VARIABLE, Session
from influxdb_backup.errors import InfluxdbBackupError, UsageError

HELD, DID_NOT_HOLD, USAGE, INTERRUPTED = 0, 1, 2, 130
_INTERRUPTED = "Interrupted. No half-made backup is visible in the repository."

app = typer.Typer(
    name="influxdb-backup",
    help="Back up, verify, restore and drill InfluxDB databases by time window.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(configuration.app, name="config")
app.add_typer(repositories.app, name="repo")
for register in (
    backups.register,
    checks.register,
    restores.register,
    drills.register,
    databases.register,
    scrub.register,
    warm.register,
):
    register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"influxdb-backup {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", envvar=CONFIG_VARIABLE, help="The YAML file."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the program an error was raised.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Back up, verify, restore and drill InfluxDB databases by time window."""
    del debug, version  # debug is read by run, which also sees errors of commands that never started
    context.obj = Session(config, dict(os.environ))


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Errors are a message and a hint, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(given, prog_name="influxdb-backup")
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer ends like this at Ctrl-C, and says nothing
            failure(_INTERRUPTED)
        return ended.code if isinstance(ended.code, int) else HELD
    except KeyboardInterrupt:
        failure(_INTERRUPTED)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DID_NOT_HOLD
    except InfluxdbBackupError as error:
        if "--debug" in given:
            raise
        failure(error.message, error.hint)
        for problem in getattr(error, "problems", ()):
            note(f"  {problem}")
        return USAGE if isinstance(error, UsageError) else DID_NOT_HOLD
    except Exception as error:
        if "--debug" in given:
            raise
        failure(f"{type(error).__name__}: {error}", "This is a defect; --debug before the command shows where.")
        return DID_NOT_HOLD
    return HELD
