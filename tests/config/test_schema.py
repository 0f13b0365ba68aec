"""The published JSON Schema agrees with the program, and the published documents are current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from influxdb_backup.config.model import PlanEntry
from influxdb_backup.config.schema import json_schema

DOCS = Path(__file__).parents[2] / "docs" / "reference"
GOOD: dict[str, Any] = yaml.safe_load(
    """
repositories:
  primary: {url: "s3://backups/influx", connection: aws}
defaults: {settle: 30m, repositories: [primary], airflow: {execution_timeout: 6h}}
plans:
  telemetry:
    database: telemetry
    start: "2026-01-01T00:00:00Z"
    measurements: [cpu, {base64: "/w=="}]
    drill: {schedule: "0 6 * * 0", checks: [{query: "SELECT count(x) FROM cpu", min: 1}]}
"""
)


def test_good_file_fits() -> None:
    """A file that the program accepts fits the schema."""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(GOOD, json_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"recheck": 1},
        {"settle": 30},
        {"database": None},
        {"verify": "restorable"},
        {"concurrency": 0},
        {"measurements": []},
    ],
)
def test_bad_plans_do_not_fit(change: dict[str, Any]) -> None:
    """What the program refuses by its form, the schema refuses as well."""
    broken = {**GOOD, "plans": {"telemetry": {**GOOD["plans"]["telemetry"], **change}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json_schema())


def test_every_key_is_described() -> None:
    """An editor can show a description for every key of a plan."""
    entry = json_schema()["$defs"]["PlanEntry"]["properties"]
    assert set(entry) == set(PlanEntry.model_fields)
    assert all(described.get("description") for described in entry.values())
    assert entry["settle"]["default"] == "30m"


def test_published_schema_is_current() -> None:
    """docs/reference/config.schema.json is what the program prints (python docs/reference/generate.py renews it)."""
    assert json.loads((DOCS / "config.schema.json").read_text()) == json_schema()


def test_published_page_is_current() -> None:
    """docs/reference/yaml.md names every key; that it is current is proved in tests/cli/test_reference.py."""
    page = (DOCS / "yaml.md").read_text()
    assert all(f"| `{key}` |" in page for key in PlanEntry.model_fields)
