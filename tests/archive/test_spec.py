"""The format's specification: complete, current, and true to the bit."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pyarrow as pa
import pytest

from influxdb_backup.archive.documents import canonical, content_id, scope_hash, sha256
from influxdb_backup.archive.readme_text import readme_text
from influxdb_backup.columns import TIME_TYPE, arrow_schema
from influxdb_backup.fingerprint import add_fingerprints, fingerprint_batches
from influxdb_backup.model import (
    Column,
    Evidence,
    FieldCount,
    InfluxType,
    Manifest,
    Part,
    PlanIdentity,
    Ref,
    RetentionPolicy,
    Role,
    Scope,
    Source,
    SourceCount,
    SourcePiece,
    TableEntry,
    Tool,
    Value,
    VerifyReport,
    decode_name,
)

ROOT = Path(__file__).parents[2]
FORMAT = ROOT / "docs" / "format"
SPEC = (FORMAT / "spec-v1.md").read_text("utf-8")
GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = {kind: json.loads(text) for kind, text in re.findall(r"```json (\w+)\n(.*?)```", SPEC, re.DOTALL)}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """``docs/format/generate.py``."""
    spec = importlib.util.spec_from_file_location("generate_format", FORMAT / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def schema(kind: str) -> dict[str, Any]:
    """A published schema."""
    loaded: dict[str, Any] = json.loads((FORMAT / "schemas" / f"{kind}.v1.json").read_text())
    return loaded


def test_the_schemas_are_current(generator: ModuleType) -> None:
    """They say what the code reads and writes: after a change run python docs/format/generate.py."""
    made = generator.document_schemas()
    assert {path.name for path in (FORMAT / "schemas").iterdir()} == {f"{name}.v1.json" for name in made}
    for name, wanted in made.items():
        assert (FORMAT / "schemas" / f"{name}.v1.json").read_text() == generator.schema_text(wanted)
        jsonschema.Draft202012Validator.check_schema(wanted)


def test_the_examples_validate() -> None:
    """Each example of the page, against the schema that it names."""
    assert set(EXAMPLES) == {"repository", "plan", "ref", "manifest", "check", "drill"}
    for kind, example in EXAMPLES.items():
        jsonschema.validate(example, schema(kind))


@pytest.mark.parametrize("kind", sorted(set(EXAMPLES) - {"manifest"}))
def test_the_examples_prove_themselves(kind: str) -> None:
    """Written canonically each has the digest of itself that it holds, computed here from the page's words alone."""
    data = canonical(EXAMPLES[kind])
    said = EXAMPLES[kind]["digest"].encode()
    assert hashlib.sha256(data.replace(said, b"0" * 64)).hexdigest().encode() == said


def test_the_examples_are_one_backup() -> None:
    """Written canonically, the example's manifest has the digest, size and content id that its ref says."""
    manifest, ref = EXAMPLES["manifest"], EXAMPLES["ref"]
    data = canonical(manifest)
    assert (sha256(data), str(len(data))) == (ref["manifest"], ref["manifest_size"])
    value = Manifest.model_validate(manifest)
    assert content_id(value.source, value.scope, value.window, value.tables) == ref["content_id"]
    assert scope_hash(value.scope) == ref["scope_hash"]
    stored = GOLDEN / "v1" / "repository" / "manifests" / f"{ref['manifest'].removeprefix('sha256:')}.json"
    assert stored.read_bytes() == data


def test_scope_hash_and_content_id_are_as_the_page_says() -> None:
    """Computed here from the page's words alone."""
    manifest, ref = EXAMPLES["manifest"], EXAMPLES["ref"]

    def written(value: object) -> bytes:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    scope = {key: manifest["scope"][key] for key in ("exclude_measurements", "measurements", "retention_policies")}
    assert sha256(written(scope)) == ref["scope_hash"]
    said = {
        "scope": scope,
        "source": {key: manifest["source"][key] for key in ("database", "generation", "instance_id", "name")},
        "tables": [
            [t["table"]["retention_policy"], t["table"]["measurement"], t["rows"], t["fingerprint"]]
            for t in manifest["tables"]
        ],
        "window": manifest["window"],
    }
    assert sha256(written(said)) == ref["content_id"]


def golden_documents() -> Iterator[tuple[str, Path]]:
    """Every document of every golden repository, with the name of its schema."""
    kinds = {"refs": "ref", "manifests": "manifest", "plans": "plan", "checks": "check", "drills": "drill"}
    for path in GOLDEN.glob("*/repository/**/*.json"):
        folder = path.relative_to(GOLDEN).parts[2]
        if folder != "restores":
            yield ("repository" if folder == "repository.json" else kinds[folder]), path


def test_stored_documents_validate_and_are_canonical() -> None:
    """What was released stays valid under the schemas of today."""
    documents = list(golden_documents())
    assert len(documents) > 10
    for kind, path in documents:
        data = path.read_bytes()
        document = json.loads(data)
        jsonschema.validate(document, schema(kind))
        assert canonical(document) == data


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("ref", {"manifest": "md5:1"}),
        ("ref", {"rows": 5}),
        ("ref", {"format_version": 2}),
        ("manifest", {"media_type": "application/vnd.influxdb-backup.manifest.v2+json"}),
        ("manifest", {"tables": {}}),
        ("repository", {"repository_id": None}),
    ],
)
def test_the_schemas_refuse_what_is_wrong(kind: str, change: dict[str, object]) -> None:
    """A schema that accepts everything would prove nothing."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**EXAMPLES[kind], **change}, schema(kind))


VALUES: tuple[type[Value], ...] = (
    Ref,
    Manifest,
    Part,
    TableEntry,
    Column,
    Evidence,
    Source,
    SourceCount,
    SourcePiece,
    RetentionPolicy,
    FieldCount,
    Scope,
    Tool,
    PlanIdentity,
    VerifyReport,
)


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_every_field_is_described(kind: type[Value]) -> None:
    """No field without a word in the prose or the tables of the page."""
    prose = re.sub(r"```.*?```", "", SPEC, flags=re.DOTALL)
    missing = [name for name in kind.model_fields if f"`{name}`" not in prose]
    inline = {"count"}  # FieldCount: "counts (values that are not null, by field name and type)"
    assert set(missing) <= inline


def test_fingerprint_vectors() -> None:
    """Each vector of the page, computed by the product from a batch, and their sum."""
    rows = re.findall(
        r"^\| `(b'.*?')` \| `(\{.*?\})` \| (-?\d+) \| (\w+) \| `(b'.*?')` \| `(.*?)` \| `([0-9a-f]{32})` \|$",
        SPEC,
        re.MULTILINE,
    )
    assert {row[3] for row in rows} == {"float", "integer", "unsigned", "string", "boolean"}
    for measurement, tags, time, kind, field, value, wanted in rows:
        names = ast.literal_eval(tags)
        columns = [Column(role=Role.TAG, name=decode_name(key), type=InfluxType.TAG) for key in names]
        columns.append(Column(role=Role.FIELD, name=decode_name(ast.literal_eval(field)), type=InfluxType(kind)))
        schema_ = arrow_schema(columns, frozenset(column for column in columns if column.type in {"tag", "string"}))
        arrays = [pa.array([int(time)], pa.int64()).cast(TIME_TYPE)]
        arrays += [pa.array([raw], pa.binary()).dictionary_encode() for raw in names.values()]
        arrays.append(pa.array([ast.literal_eval(value)], schema_.field(len(columns)).type))
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema_)
        name = decode_name(ast.literal_eval(measurement))
        assert fingerprint_batches(name, [batch]).hexadecimal == wanted
    assert f"The sum of these seven is `{add_fingerprints(row[-1] for row in rows)}`" in SPEC
    assert len(rows) == 7


def test_the_definition_is_the_code_s() -> None:
    """The formulas of the page stand word for word in the module that computes them."""
    module = (ROOT / "provider" / "influxdb_backup" / "fingerprint.py").read_text("utf-8")
    block = re.search(r"```\n(series = .*?)```", SPEC, re.DOTALL)
    assert block is not None
    indented = "".join(f"    {line}\n" for line in block[1].rstrip().splitlines())
    assert indented in module


@pytest.mark.parametrize("text", [SPEC, readme_text()], ids=["spec", "README.txt"])
def test_the_shell_commands_work(text: str, tmp_path: Path) -> None:
    """What the page and the README tell a person to type, on a golden repository, with sha256sum, cut and sed for jq."""
    commands = re.findall(r"^ *(ref=.*|ref_digest=.*|grep -q .*|manifest=.*|echo .*sha256sum -c)$", text, re.MULTILINE)
    assert len(commands) == 5
    script = "\n".join(commands).replace(
        "<start>_<end>/000000.json", "20260101T000000.000000000Z_20260102T000000.000000000Z/000000.json"
    )
    jq = tmp_path / "jq"
    jq.write_text(
        '#!/bin/sh\n# the one expression that is used: jq -r .manifest FILE\nsed \'s/.*"manifest":"\\([^"]*\\)".*/\\1/\' "$3"\n'
    )
    jq.chmod(0o755)
    done = subprocess.run(
        ["sh", "-ec", f'PATH="$PATH:{tmp_path}"\n{script}'],
        cwd=GOLDEN / "v1" / "repository",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.count(": OK") == 2, done.stderr
