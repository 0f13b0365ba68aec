"""A restore that uses pyarrow, json, hashlib and base64, and nothing of this project."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path for path in GOLDEN.iterdir() if path.is_dir())


def text(value: str | bytes) -> object:
    """As the documents write names: text, or base64 of bytes that are not UTF-8."""
    raw = value.encode() if isinstance(value, str) else value
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def json_value(kind: str, value: Any) -> object:
    """A value without loss."""
    if kind == "float":
        return float(value).hex()
    if kind in {"integer", "unsigned"}:
        return str(value)
    return value if kind == "boolean" else text(value)


def read_part(root: Path, part: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of one part, after its size and digest were proved."""
    data = (root / part["path"]).read_bytes()
    assert len(data) == int(part["size"])
    assert "sha256:" + hashlib.sha256(data).hexdigest() == part["sha256"]
    table = pq.read_table(pa.BufferReader(data))
    times = table.column(0).cast(pa.int64()).to_pylist()
    points: list[dict[str, Any]] = [{"time": str(time), "tags": [], "fields": []} for time in times]
    for position, column in enumerate(part["columns"], start=1):
        for point, value in zip(points, table.column(position).to_pylist(), strict=True):
            if value is None:
                continue
            if column["role"] == "tag":
                point["tags"].append([column["name"], text(value)])
            else:
                point["fields"].append([column["name"], column["type"], json_value(column["type"], value)])
    assert len(points) == int(part["rows"])
    return points


def read_document(path: Path, self_proving: bool) -> dict[str, Any]:
    """A document, after the digest of itself that it holds was proved."""
    data = path.read_bytes()
    document: dict[str, Any] = json.loads(data)
    if self_proving:
        written = data.replace(document["digest"].encode(), b"0" * 64)
        assert hashlib.sha256(written).hexdigest() == document["digest"]
    return document


def read_backup(root: Path, ref_file: Path) -> list[dict[str, Any]]:
    """All tables of one ref."""
    self_proving = json.loads((root / "repository.json").read_bytes()).get("self_proving", False)
    read_document(root / "repository.json", self_proving)
    ref = read_document(ref_file, self_proving)
    digest = ref["manifest"].removeprefix("sha256:")
    data = (root / "manifests" / f"{digest}.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    return [
        {
            **table["table"],
            "points": sorted(
                (point for part in table["parts"] for point in read_part(root, part)),
                key=lambda point: json.dumps(point, sort_keys=True),
            ),
        }
        for table in json.loads(data)["tables"]
    ]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_everything_comes_back(version: Path) -> None:
    """Every point of every backup, bit by bit, from the documents and any Parquet reader alone."""
    root = version / "repository"
    expected = json.loads((version / "expected.json").read_text())
    found = {
        ref_file.relative_to(root / "refs").with_suffix("").as_posix(): read_backup(root, ref_file)
        for ref_file in root.glob("refs/*/*/*.json")
    }
    assert found == expected
    assert sum(len(table["points"]) for tables in found.values() for table in tables) > 30


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_another_reader_reads_the_parts(version: Path) -> None:
    """DuckDB, which shares no code with pyarrow, finds the rows, the names and the time of every part."""
    duckdb = pytest.importorskip("duckdb")
    parts = [
        part
        for manifest in version.glob("repository/manifests/*.json")
        for table in json.loads(manifest.read_bytes())["tables"]
        for part in table["parts"]
    ]
    assert parts
    for part in parts:
        path = str(version / "repository" / part["path"])
        relation = duckdb.sql(
            "SELECT count(*), min(epoch_ns(time)), max(epoch_ns(time)) FROM read_parquet($1)", params=[path]
        )
        assert relation.fetchall() == [(int(part["rows"]), int(part["min_time"]), int(part["max_time"]))]
        described = duckdb.sql("SELECT * FROM read_parquet($1) LIMIT 0", params=[path])
        assert len(described.columns) == len(part["columns"]) + 1


def test_it_imports_nothing_of_ours() -> None:
    """The proof holds only while this file stays free of the package."""
    lines = Path(__file__).read_text().splitlines()
    assert not any(line.startswith(("import influxdb", "from influxdb", "from tests")) for line in lines)
