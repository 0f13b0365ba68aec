"""
The program `influxdb-backup`.

Exit status: 0 it held, 1 it did not (damage, gaps, a server or store that failed), 2 the call or the
configuration is wrong, 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from influxdb_backup import __version__
from influxdb_backup.cli import backups, checks, configuration, databases, drills, repositories, restores, scrub, warm
from influxdb_backup.cli.output import OutputError, Teller, note, trace
from influxdb_backup.cli.session import CONFIG_VARIABLE, Session
from influxdb_backup.errors import InfluxdbBackupError, UsageError
from influxdb_backup.messages import MASKER, hide, shown_lines

HELD, DID_NOT_HOLD, USAGE, INTERRUPTED = 0, 1, 2, 130
_INTERRUPTED = "Interrupted. No half-made backup is visible in the repository."

_WRONG_CALL: type[Exception] = typer.BadParameter.__mro__[2]
"""the root of what the library raises for a call that it cannot understand, wherever it keeps it"""
_SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
    "INFLUXDB_BACKUP_TARGET_PASSWORD",
    "INFLUXDB_BACKUP_TARGET_TOKEN",
)
"""what the libraries of the stores and our own options take from the environment"""

app = typer.Typer(
    name="influxdb-backup",
    help="Back up, verify, restore and drill InfluxDB databases by time window.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
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
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Tell on standard error what is chosen, such as how points are read.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Back up, verify, restore and drill InfluxDB databases by time window."""
    del debug, version  # debug is read by run, which also sees errors of commands that never started
    context.obj = Session(config, dict(os.environ))
    if verbose:
        _show_log(context)


def _show_log(context: typer.Context) -> None:
    """Informational lines of the program's own log on standard error; warnings are there without it."""
    logger = logging.getLogger("influxdb_backup")
    level = logger.level

    def end() -> None:
        logger.setLevel(level)

    logger.setLevel(logging.INFO)
    context.call_on_close(end)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Errors are a message and a hint, never a traceback."""
    if arguments is None:
        sys.meta_path.insert(0, WithoutUnused())
    given = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_streams()
    with _stopped_as_by_ctrl_c() as stopped, MASKER.forgetting(), _safe_log():
        hide(*(os.environ.get(name) for name in _SECRET_VARIABLES))
        status = _run(given)
        if arguments is None:
            gc.freeze()  # the process ends: to look for garbage in all that was imported takes 0.3 s
        return 128 + stopped[0] if stopped and status == INTERRUPTED else status


class WithoutUnused(MetaPathFinder):
    """
    Says that some libraries are not installed, in a process that is one command, which does not use them.

    pyarrow asks for pandas when it makes its first array, and importing it took 0.4 s; no command makes a data frame.
    aiobotocore 3.10 asks for httpx, which brings a command line of its own and took 0.2 s; S3 is spoken by aiohttp.
    """

    NAMES = frozenset({"pandas", "httpx", "httpx2"})

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Nothing, so that the next finder is asked. Raises ModuleNotFoundError for these."""
        del path, target
        if fullname in self.NAMES:
            raise ModuleNotFoundError(f"A command of influxdb-backup uses no {fullname}.", name=fullname)


class _SafeFormatter(logging.Formatter):
    """A line of a log, of whatever library, as it may be shown; a traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        return shown_lines(super().format(record))


@contextmanager
def _safe_log() -> Iterator[None]:
    """Warnings of all libraries go to standard error; `--verbose` adds what this package tells."""
    handler = logging.StreamHandler()
    handler.setFormatter(_SafeFormatter())
    root, ours = logging.getLogger(), logging.getLogger("influxdb_backup")

    def is_wanted(record: logging.LogRecord) -> bool:
        told = record.name.startswith("influxdb_backup") and ours.level == logging.INFO
        return told or record.levelno >= logging.WARNING

    handler.addFilter(is_wanted)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _run(given: list[str]) -> int:
    tell = Teller(as_json="--json" in given)
    try:
        ended = app(given, prog_name="influxdb-backup", standalone_mode=False)
        if ended == INTERRUPTED:  # the newer versions of typer make a status of Ctrl-C themselves
            tell.failure(_INTERRUPTED, kind="interrupted")
        return ended if isinstance(ended, int) else HELD
    except SystemExit as error:  # completion ends like this
        return error.code if isinstance(error.code, int) else HELD
    except (typer.Abort, KeyboardInterrupt):
        tell.failure(_INTERRUPTED, kind="interrupted")
        return INTERRUPTED
    except _WRONG_CALL as error:
        return _refuse_call(error, tell)
    except BrokenPipeError:
        _discard_output()
        return DID_NOT_HOLD
    except OutputError as error:
        hint = "What the command did is done; `influxdb-backup list` shows what there is."
        Teller(as_json=False).failure(str(error), hint)
        _discard_output()
        return DID_NOT_HOLD
    except InfluxdbBackupError as error:
        if "--debug" in given:
            trace(error)
        tell.failure(error.message, error.hint, kind=error.kind, problems=getattr(error, "problems", ()))
        return USAGE if isinstance(error, UsageError) else DID_NOT_HOLD
    except Exception as error:  # noqa: BLE001  whatever it is, a person gets a sentence and a status
        if "--debug" in given:
            trace(error)
        words = f"{type(error).__name__}: {error}"
        tell.failure(words, "This is a defect; --debug before the command shows where.", kind="defect")
        return DID_NOT_HOLD


def _refuse_call(error: Any, tell: Teller) -> int:
    """Says what is wrong with the words of a call, and how the command is called."""
    context, message = error.ctx, error.format_message()
    if message.startswith("Usage: "):  # no words at all: the help
        sys.stderr.write(message + "\n")
        return int(error.exit_code)
    command = context.command_path if context is not None else "influxdb-backup"
    if context is not None and not tell.as_json:
        note(context.get_usage())
    tell.failure(message, f"`{command} --help` shows what there is.", kind="usage")
    return int(error.exit_code)


def _prepare_streams() -> None:
    """Characters that a stream does not know are escaped, and what goes to a closed stream is lost."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 as long as the program
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """What is still to be written would fail once more when the interpreter ends, with a status of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextmanager
def _stopped_as_by_ctrl_c() -> Iterator[list[int]]:
    """
    SIGTERM and SIGHUP (a service that is stopped, a terminal that is lost) end a command as Ctrl-C does.

    Temporary folders and scratch databases would stay behind otherwise. Gives the signals that came; those after
    the first do not disturb the tidying. A signal that is ignored, as under nohup, stays so.
    """
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt

    may = threading.current_thread() is threading.main_thread()
    taken = [one for one in (signal.SIGTERM, signal.SIGHUP) if may and signal.getsignal(one) is signal.SIG_DFL]
    for one in taken:
        signal.signal(one, stop)
    try:
        yield came
    finally:
        for one in taken:
            signal.signal(one, signal.SIG_DFL)
