"""The JSON Schema of the YAML file, for editors; published as docs/reference/config.schema.json."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from influxdb_backup.config.fields import PLAN_NAME
from influxdb_backup.config.model import ConfigValue, PlanEntry, PlanSettings, RepositoryConfig
from influxdb_backup.windows import format_duration

_NAMED: dict[str, Any] = {"propertyNames": {"pattern": f"^{PLAN_NAME}$"}, "minProperties": 1}


class ConfigFile(ConfigValue):
    """Configuration of influxdb-backup."""

    repositories: dict[str, RepositoryConfig] = Field(json_schema_extra=_NAMED)
    """Where backups are kept, by name."""
    defaults: PlanSettings = PlanSettings()
    """Keys for all plans; a plan's own keys win."""
    plans: dict[str, PlanEntry] = Field(json_schema_extra=_NAMED)
    """What is backed up, by name. The name is part of DAG ids and of every backup's id."""


def json_schema() -> dict[str, Any]:
    """The schema, JSON Schema 2020-12."""
    schema = ConfigFile.model_json_schema(mode="validation")
    _written_defaults(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _written_defaults(node: Any) -> None:
    """Defaults as they would be written in the file, not as the program holds them."""
    if isinstance(node, dict):
        if node.get("default") is not None and "pattern" in node and isinstance(node["default"], int):
            node["default"] = format_duration(node["default"])
        if isinstance(node.get("default"), dict | list) or node.get("default", 0) is None:
            del node["default"]
        for value in node.values():
            _written_defaults(value)
    elif isinstance(node, list):
        for value in node:
            _written_defaults(value)
