"""The page docs/reference/yaml.md, made from the models and their docstrings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from influxdb_backup.config.schema import json_schema

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
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# The YAML file"
    yield ""
    yield "<!-- Made by docs/reference/generate.py from the models; do not edit. -->"
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
