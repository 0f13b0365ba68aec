"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from influxdb_backup.cli import output
from influxdb_backup.errors import UsageError
from influxdb_backup.messages import hide


def not_empty(value: str | list[str] | None) -> str | list[str] | None:
    """
    The value of an option as it is. Raises BadParameter for an empty one, as an unset variable of a script gives it.

    Taken for an option that was left out it would lead a restore to the source itself.
    """
    if value is not None and not all([value] if isinstance(value, str) else value):
        raise typer.BadParameter("It is empty: give a value, or leave the option out.")
    return value


def secret_of(context: typer.Context, option: str, value: str | None, file: Path | None) -> str | None:
    """
    A secret from its variable or file; from the command's own words only with a warning.

    ``option`` is its name without the dashes. Raises UsageError for two sources, or a file that cannot be read.
    """
    hide(value)
    variable = f"INFLUXDB_BACKUP_{option.upper().replace('-', '_')}"
    source = context.get_parameter_source(option.replace("-", "_"))
    in_words = source is not None and source.name == "COMMANDLINE"
    if file is None:
        if in_words:
            output.note(
                f"Warning: every user of this machine can read --{option} in the list of processes: "
                f"set {variable} or use --{option}-file FILE."
            )
        return value
    if in_words:
        raise UsageError(f"Give either --{option} or --{option}-file.")
    try:
        text = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"The file {file} of --{option}-file cannot be read: {reason}.") from None
    if not text:
        raise UsageError(f"The file {file} of --{option}-file is empty.")
    hide(text)
    return text


PlanArgument = Annotated[str, typer.Argument(metavar="PLAN", help="Name of a plan of the configuration file.")]
RefArgument = Annotated[str, typer.Argument(metavar="REF", help="A backup: plan@latest, plan@2013-01-12, or its id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
StartOption = Annotated[
    str, typer.Option("--start", metavar="TIME", help="Start, RFC 3339 with a zone: 2026-01-31T00:00:00Z.")
]
EndOption = Annotated[str, typer.Option("--end", metavar="TIME", help="End, not included.")]
OptionalStart = Annotated[
    str | None, typer.Option("--start", metavar="TIME", help="Start, RFC 3339 with a zone: 2026-01-31T00:00:00Z.")
]
OptionalEnd = Annotated[str | None, typer.Option("--end", metavar="TIME", help="End, not included.")]
RepositoryOption = Annotated[
    str | None,
    typer.Option(
        "--repository",
        callback=not_empty,
        metavar="NAME",
        help="Another one of the plan's repositories than its first.",
    ),
]
RepositoryUrlOption = Annotated[
    str | None,
    typer.Option(
        "--repository-url",
        callback=not_empty,
        metavar="URL",
        help="The repository itself, when there is no configuration file.",
    ),
]
RepositoryConnectionOption = Annotated[
    str | None,
    typer.Option(
        "--repository-connection",
        callback=not_empty,
        metavar="ID",
        help="Connection with the store's credentials, for a URL.",
    ),
]
TargetConnectionOption = Annotated[
    str | None,
    typer.Option("--target-connection", callback=not_empty, metavar="ID", help="Connection of the server to write to."),
]
TargetUrlOption = Annotated[
    str | None,
    typer.Option(
        "--target-url", callback=not_empty, metavar="URL", help="Address of the server to write to: http://host:8086."
    ),
]
TargetTokenOption = Annotated[
    str | None,
    typer.Option(
        "--target-token",
        metavar="TOKEN",
        envvar="INFLUXDB_BACKUP_TARGET_TOKEN",
        help="Its token (2.x); all users of this machine see it in ps: set the variable, or give the file.",
    ),
]
TargetTokenFileOption = Annotated[
    Path | None, typer.Option("--target-token-file", metavar="FILE", help="A file that holds the token.")
]
TargetUsernameOption = Annotated[
    str | None,
    typer.Option("--target-username", metavar="NAME", envvar="INFLUXDB_BACKUP_TARGET_USERNAME", help="Its user (1.x)."),
]
TargetPasswordOption = Annotated[
    str | None,
    typer.Option(
        "--target-password",
        metavar="PASSWORD",
        envvar="INFLUXDB_BACKUP_TARGET_PASSWORD",
        help="The user's password; all users of this machine see it in ps: set the variable, or give the file.",
    ),
]
TargetPasswordFileOption = Annotated[
    Path | None, typer.Option("--target-password-file", metavar="FILE", help="A file that holds the password.")
]
TargetOrganizationOption = Annotated[
    str | None,
    typer.Option("--target-organization", callback=not_empty, metavar="NAME", help="Its organization (2.x)."),
]
TargetCaFileOption = Annotated[
    str | None,
    typer.Option(
        "--target-ca-file",
        callback=not_empty,
        metavar="FILE",
        help="Certificate authority that signed its certificate.",
    ),
]
TargetVerifyTlsOption = Annotated[
    bool,
    typer.Option("--target-verify-tls/--no-target-verify-tls", help="Whether its certificate is verified."),
]
