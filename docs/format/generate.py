"""
Makes the JSON Schemas of the repository's documents from the code. Run it after a change:
python docs/format/generate.py

tests/archive/test_spec.py fails while a schema is not current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "provider"))

from influxdb_backup.archive.documents import DIGEST, RepositoryDocument  # noqa: E402
from influxdb_backup.archive.verify import DrillVerdict  # noqa: E402
from influxdb_backup.model import Manifest, PlanIdentity, Ref, Value, VerifyReport  # noqa: E402

DOCUMENTS: dict[str, type[Value]] = {
    "repository": RepositoryDocument,
    "plan": PlanIdentity,
    "ref": Ref,
    "manifest": Manifest,
    "check": VerifyReport,
    "drill": DrillVerdict,
}


def document_schemas() -> dict[str, dict[str, Any]]:
    """The schema of each kind of document. Fields beyond those listed are allowed and ignored."""
    schemas = {}
    for name, kind in DOCUMENTS.items():
        schema = kind.model_json_schema(mode="validation")
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["$id"] = f"urn:influxdb-backup:schema:{name}:1"
        fixed = {"media_type": kind.model_fields["media_type"].default, "format_version": 1}
        for field, value in fixed.items():
            if field in schema["properties"]:
                schema["properties"][field]["const"] = value
        if kind is not Manifest:
            schema["properties"][DIGEST] = {"type": "string", "pattern": "^[0-9a-f]{64}$", "title": "Digest"}
        always = [
            field for field in ("media_type", "format_version", "features_required") if field in schema["properties"]
        ]
        schema["required"] = [*always, *(field for field in schema["required"] if field not in always)]
        schemas[name] = schema
    return schemas


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Writes the files."""
    for name, schema in document_schemas().items():
        (FOLDER / "schemas" / f"{name}.v1.json").write_text(schema_text(schema), "utf-8")


if __name__ == "__main__":
    main()
