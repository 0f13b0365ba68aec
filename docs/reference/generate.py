"""
Makes the reference pages from the code. Run it after a change: python docs/reference/generate.py

tests/config/test_schema.py and tests/cli/test_reference.py fail while a page is not current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "provider"))

from influxdb_backup.config.schema import json_schema  # noqa: E402

MARK = "<!-- Made by docs/reference/generate.py from the code; do not edit. -->"
_SECTIONS = (
    ("Repository", "RepositoryConfig", "Keys of each entry under `repositories`."),
    ("Plan", "PlanEntry", "Keys of each entry under `plans`. All but `database` may also stand under `defaults`."),
    ("Drill", "DrillConfig", "Keys of `drill`."),
    ("Check", "Check", "Keys of each item of `drill.checks`. Exactly one expectation is needed."),
    ("Airflow", "AirflowConfig", "Keys of `airflow`."),
)
_EXAMPLE = """\
repositories:
  primary: {url: "s3://backups/influx", connection: aws_backups}
defaults:
  connection: influxdb_default
  schedule: "0 0 * * *"
plans:
  telemetry:
    database: telemetry
    start: 2026-01-01T00:00:00Z
    drill:
      schedule: "0 6 * * 0"
      pick: least_recently_drilled
      checks:
        - {query: "SELECT count(usage) FROM cpu", min: 1}
"""


def yaml_page() -> str:
    """The page as Markdown."""
    return "\n".join(_yaml_lines()) + "\n"


def _yaml_lines() -> Iterator[str]:
    yield "# The YAML file"
    yield ""
    yield MARK
    yield ""
    yield (
        "One file says what is backed up, when and where to. `influxdb-backup config check FILE` checks it; "
        "[config.schema.json](config.schema.json) lets an editor complete and check it while you type. "
        "Unknown keys are errors, and so is a key that is given twice."
    )
    yield ""
    yield "```yaml"
    yield _EXAMPLE.rstrip()
    yield "```"
    yield ""
    yield (
        "Names of plans and repositories are 1 to 64 of `a-z`, `0-9`, `_` and `-`. Durations are written `30m`, `12h` "
        "or `7d`, times as RFC 3339 with a zone, cron expressions in five fields and UTC. Names that are not UTF-8 are "
        'written `{base64: "…"}`. Credentials never stand in this file: name a connection.'
    )
    definitions = json_schema()["$defs"]
    for title, name, text in _SECTIONS:
        definition = definitions[name]
        yield ""
        yield f"## {title}"
        yield ""
        yield text
        yield ""
        yield "| key | value | default | meaning |"
        yield "|---|---|---|---|"
        required = set(definition.get("required", ()))
        for key, described in sorted(definition["properties"].items(), key=lambda item: item[0] not in required):
            default = "**required**" if key in required else _default(described)
            meaning = " ".join(described.get("description", "").split()).replace("|", "\\|")
            yield f"| `{key}` | {_kind(described)} | {default} | {meaning} |"


def _default(described: dict[str, Any]) -> str:
    value = described.get("default")
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(described: dict[str, Any]) -> str:
    if "enum" in described:
        return ", ".join(f"`{value}`" for value in described["enum"])
    if "$ref" in described:
        name = str(described["$ref"]).rpartition("/")[2]
        title = next((title for title, other, _ in _SECTIONS if other == name), name)
        return "level" if name == "VerifyLevel" else f"[{title}](#{title.lower()})"
    options = described.get("anyOf") or described.get("oneOf")
    if options:
        kinds = [_kind(option) for option in options if option.get("type") not in ("null", "object")]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    if described.get("type") == "array":
        return f"list of {_kind(described['items'])}" if described.get("items") else ""
    return _scalar(described)


def _scalar(described: dict[str, Any]) -> str:
    kind = str(described.get("type", "value"))
    if "h|d|w" in described.get("pattern", ""):
        return "duration"
    if described.get("format") == "date-time":
        return "time"
    if "0 0 * * *" in described.get("examples", ()):
        return "cron"
    words = {"boolean": "true or false", "string": "text", "integer": "whole number"}
    bounds = [str(described[bound]) for bound in ("minimum", "maximum") if bound in described]
    return words.get(kind, kind) + (f", {' to '.join(bounds)}" if len(bounds) == 2 else "")


_EXIT_STATUS = """\
| exit status | meaning |
|---|---|
| 0 | it held |
| 1 | it did not hold: damage, gaps, a database without a plan, a server or a store that failed |
| 2 | the call, the configuration or a connection is wrong |
| 130 | interrupted by Ctrl-C |
| 143, 129 | ended by SIGTERM or SIGHUP, tidied up as after Ctrl-C |"""
_CONNECTIONS = """\
Connections come from the environment: `INFLUXDB_BACKUP_CONN_<ID>` or Airflow's `AIRFLOW_CONN_<ID>`, as a URI
(`influxdb-backup://user:password@host:8086`, each part percent-encoded) or as Airflow's JSON. A store's connection is
of type `aws`, `google_cloud_platform` or `wasb`; without one the environment's own credentials are used. Results go to
standard output; progress, warnings and errors to standard error. With `--json` a command prints one document with the
field names of the program's models; 64-bit numbers are decimal strings, and an instant is there twice: `start` in ns
and `start_rfc3339`. An error is then a document too, on standard output with the same exit status:
`{"error": {"kind", "message", "hint", "problems"}}`.

A backup (REF) is named by its id, by `plan@latest`, or by its date: `plan@2013-01-12` is the newest revision of the
window that starts on that day (else of the one that holds it), `plan@2013-01-12T06:00Z` of the one that starts then,
and `plan@2013-01-12#0` is one revision. On a terminal tables fit its width and GAP, FAILED and DAMAGED are red, unless
`NO_COLOR` is set. `--install-completion` makes the shell complete commands and options, `--show-completion` prints its
script; `-h` is `--help` everywhere."""


def cli_page() -> str:
    """The page of the command line as Markdown."""
    return "\n".join(_cli_lines()) + "\n"


def _cli_lines() -> Iterator[str]:
    from typer.main import get_command

    from influxdb_backup.cli.main import app

    program: Any = get_command(app)
    yield "# The command line"
    yield ""
    yield MARK
    yield ""
    yield "The same jobs as the DAGs, without Airflow: none of it is imported."
    yield ""
    yield _CONNECTIONS
    yield ""
    yield _EXIT_STATUS
    yield ""
    yield "Options of the program stand before the command: `influxdb-backup --config backup.yaml list`."
    yield ""
    yield from _parameters(program)
    for path, command in _commands(program, ()):
        arguments = [_argument(parameter) for parameter in command.params if not _is_option(parameter)]
        yield ""
        yield f"## {' '.join(path)}"
        yield ""
        yield "```"
        yield " ".join(
            ["influxdb-backup", *path, *arguments, *(["[OPTIONS]"] if any(map(_is_option, command.params)) else [])]
        )
        yield "```"
        yield ""
        yield from (" ".join(paragraph.split()) for paragraph in [command.help or ""])
        yield ""
        yield from _parameters(command)


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar)
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _parameters(command: Any) -> Iterator[str]:
    shown = [parameter for parameter in command.params if parameter.name not in ("help",)]
    if not shown:
        return
    yield "| argument or option | meaning |"
    yield "|---|---|"
    for parameter in shown:
        yield f"| `{_written(parameter)}` | {_meaning(parameter)} |"


def _written(parameter: Any) -> str:
    if not _is_option(parameter):
        return str(parameter.metavar).strip("[]").replace("|", "\\|")
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag:
        return names
    value = str(parameter.metavar).replace("|", "\\|")
    return f"{names} {value}"


def _meaning(parameter: Any) -> str:
    words = [str(parameter.help or "").replace("|", "\\|")]
    if _is_option(parameter):
        default = getattr(parameter.default, "value", parameter.default)
        if parameter.required:
            words.append("**Required.**")
        elif default is not None and not parameter.is_flag and not callable(default) and default != ():
            words.append(f"Default `{default}`.")
        if parameter.envvar:
            words.append(f"Also from `{parameter.envvar}`.")
    return " ".join(words)


def pages() -> dict[str, str]:
    """The content of every generated page by file name."""
    return {
        "config.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
        "yaml.md": yaml_page(),
        "cli.md": cli_page(),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
