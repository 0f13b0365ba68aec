"""
Builds a golden repository: ``python -m tests.archive.make_golden FOLDER`` (which must not exist).

Run once for each released version of the format; the result is committed and must be readable for ever.
``expected.json`` beside it is written from the points themselves, not from what was read back.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from influxdb_backup.archive import layout
from influxdb_backup.archive.attempt import Attempt
from influxdb_backup.archive.commit import ManifestDraft
from influxdb_backup.archive.parts import table_entry
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.jobs.drills import DrillReport, TableResult
from influxdb_backup.jobs.restore_documents import RestoreIdentity
from influxdb_backup.model import (
    MAX_END,
    MIN_TIME,
    Column,
    InfluxType,
    PlanIdentity,
    RetentionPolicy,
    Role,
    Scope,
    Table,
    TableEntry,
    UnreadableTable,
    VerifyLevel,
    Window,
    encode_name,
)
from tests.archive.build import COLUMNS, DAY, SECOND, Row, batch, evidence, rows, source

Piece = tuple[Window, list[Column], list[Row], frozenset[Column]]


def in_json(text: str | bytes) -> object:
    """Text as the format writes it."""
    raw = text if isinstance(text, bytes) else encode_name(text)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def value_in_json(kind: str, value: object) -> object:
    """A field's value without loss: floats in hexadecimal, integers as decimal strings."""
    if kind == "float":
        return float(value).hex()  # type: ignore[arg-type]
    if kind in {"integer", "unsigned"}:
        return str(value)
    return in_json(value) if isinstance(value, (str, bytes)) else value


def expected_points(pieces: Sequence[Piece]) -> list[object]:
    """The points of a table, sorted."""
    points = []
    for _, columns, made, _ in pieces:
        for row in made:
            pairs = [(c, v) for c, v in zip(columns, row[1:], strict=True) if v is not None]
            points.append(
                {
                    "time": str(row[0]),
                    "tags": [[in_json(c.name), in_json(v)] for c, v in pairs if c.role is Role.TAG],  # type: ignore[arg-type]
                    "fields": [
                        [in_json(c.name), c.type.value, value_in_json(c.type.value, v)]
                        for c, v in pairs
                        if c.role is Role.FIELD
                    ],
                }
            )
    return sorted(points, key=lambda point: json.dumps(point, sort_keys=True))


def tag(name: str) -> Column:
    """A tag column."""
    return Column(role=Role.TAG, name=name, type=InfluxType.TAG)


def field(name: str, kind: InfluxType) -> Column:
    """A field column."""
    return Column(role=Role.FIELD, name=name, type=kind)


HALF = Window(start=DAY.start, end=DAY.start + 43_200 * SECOND)
OTHER_HALF = Window(start=HALF.end, end=DAY.end)
NONE: frozenset[Column] = frozenset()


def hostile_tables() -> list[tuple[Table, list[Piece]]]:
    """Names and values that break careless readers."""
    value = tag("value")
    text = field("text", InfluxType.STRING)
    extremes: list[Row] = [
        (DAY.start, "a", -0.0, -(2**63), 2**64 - 1),
        (DAY.start + 1, "a", 5e-324, 2**63 - 1, 0),
        (DAY.end - 1, None, 1.7976931348623157e308, None, None),
    ]
    columns = [
        tag("host"),
        field("f", InfluxType.FLOAT),
        field("i", InfluxType.INTEGER),
        field("u", InfluxType.UNSIGNED),
    ]
    return [
        (Table(retention_policy="autogen", measurement="extremes"), [(DAY, columns, extremes, NONE)]),
        (
            Table(retention_policy="two weeks", measurement="cpu/load,host=a b%2F\n\U0001f600"),
            [
                (HALF, [value, field("value", InfluxType.FLOAT)], [(DAY.start, "tag", 1.5)], NONE),
                (OTHER_HALF, [value, field("value", InfluxType.STRING)], [(HALF.end, "tag", "x\n\"y'\\z\x00")], NONE),
            ],
        ),
        (
            Table(retention_policy="autogen", measurement="raw \udcff\udcfe"),
            [
                (
                    DAY,
                    [tag("key \udc80"), text, field("Text", InfluxType.BOOLEAN), field("time", InfluxType.FLOAT)],
                    [
                        (DAY.start, b"\xff", b"\x00\xc3(", True, 0.5),
                        (DAY.start + 5, None, b"utf-8 \xc3\xa9", None, None),
                    ],
                    frozenset({tag("key \udc80"), text}),
                )
            ],
        ),
        (Table(retention_policy="autogen", measurement="empty"), [(DAY, [value, text], [], NONE)]),
    ]


def write(attempt: Attempt, number: int, table: Table, pieces: Sequence[Piece]) -> TableEntry:
    """One table through the product's own writer."""
    parts = []
    columns: list[Column] = []
    for window, piece_columns, made, binary in pieces:
        one = batch(piece_columns, made, binary)
        writer = attempt.part_writer(number, table, one.schema, window)
        writer.write(one)
        parts += writer.close()
        columns += [column for column in piece_columns if column not in columns]
    return table_entry(number, table, tuple(columns), tuple(parts))


def commit(
    repository: Repository,
    plan: str,
    window: Window,
    tables: Sequence[tuple[Table, list[Piece]]],
    *,
    read_start: int,
    open: bool = False,  # noqa: A002
    database: str = "telemetry",
    expected: dict[str, object],
) -> None:
    """One backup, and what must be read from it."""
    policies = (
        RetentionPolicy(name="autogen", duration=0, shard_duration=43_200 * SECOND, default=True),
        RetentionPolicy(name="two weeks", duration=14 * 86_400 * SECOND, shard_duration=43_200 * SECOND),
    )
    unreadable = (
        UnreadableTable(table=Table(retention_policy="autogen", measurement="ghost"), reason="not selectable"),
    )
    with repository.begin(plan, window) as attempt:
        entries = tuple(write(attempt, n, table, pieces) for n, (table, pieces) in enumerate(tables))
        draft = ManifestDraft(
            source=source(database=database, retention_policies=policies),
            scope=Scope(exclude_measurements=("tmp_*",)),
            evidence=evidence(read_start, open).model_copy(update={"unreadable": unreadable}),
            tables=entries,
            annotations={"note": "golden"},
            dag_id="influxdb_backup__telemetry",
            run_id="scheduled__2026-01-02",
        )
        ref = attempt.commit(draft).ref
    expected[ref.id] = [
        {
            "retention_policy": in_json(table.retention_policy),
            "measurement": in_json(table.measurement),
            "points": expected_points(pieces),
        }
        for table, pieces in tables
    ]


def main(folder: Path) -> None:
    """Builds ``folder/repository`` and ``folder/expected.json``."""
    folder.mkdir(parents=True)
    repository = Repository.init(open_store(f"file://{(folder / 'repository').resolve()}"))
    expected: dict[str, object] = {}
    cpu = Table(retention_policy="autogen", measurement="cpu load")
    for plan, database in (("telemetry", "telemetry"), ("hostile", "d\udcffb")):
        repository.claim_plan(
            PlanIdentity(plan=plan, database=database, generation=1, instance_id=None, source="cellar")
        )
    t = 1_800_000_000 * SECOND
    early: list[tuple[Table, list[Piece]]] = [(cpu, [(DAY, list(COLUMNS), rows(1, 5), NONE)])]
    late: list[tuple[Table, list[Piece]]] = [(cpu, [(DAY, list(COLUMNS), rows(1, 9), NONE)])]
    commit(repository, "telemetry", DAY, early, read_start=t, open=True, expected=expected)
    commit(repository, "telemetry", DAY, late, read_start=t + SECOND, expected=expected)
    tomorrow = Window(start=DAY.end, end=DAY.end + 86_400 * SECOND)
    commit(repository, "telemetry", tomorrow, [(cpu, [])], read_start=t, expected=expected)
    commit(repository, "hostile", DAY, hostile_tables(), read_start=t, database="d\udcffb", expected=expected)
    ever = Window(start=MIN_TIME, end=MAX_END)
    edges: list[Row] = [(MIN_TIME, None, 1.0), (MAX_END - 1, None, 2.0)]
    columns = [tag("host"), field("v", InfluxType.FLOAT)]
    commit(repository, "hostile", ever, [(cpu, [(ever, columns, edges, NONE)])], read_start=t, expected=expected)
    ref = repository.ref("telemetry@latest")
    report = verify_ref(repository, ref, VerifyLevel.VALID)
    repository.put_document(layout.check_report_key("telemetry", ref.window, ref.revision, t, "0123abcd"), report)
    manifest = repository.manifest(ref)
    drill = DrillReport(
        drill_id="0123abcd",
        ref=ref.id,
        manifest=ref.manifest,
        window=ref.window,
        server="scratch",
        ok=True,
        problems=(),
        tables=tuple(
            TableResult(table=str(entry.table), ok=True, rows=entry.rows, fingerprint=entry.fingerprint)
            for entry in manifest.tables
        ),
        checks=(),
        rows=ref.rows,
        values=0,
        bytes=ref.bytes,
        seconds_restore=0.5,
        seconds_read_back=0.5,
        seconds_total=1.5,
        scratch="influxdb_backup_drill_0123abcd",
        scratch_dropped=True,
        started_at=t,
    )
    repository.put_document(layout.drill_key("telemetry", ref.window, ref.revision, t, "0123abcd"), drill)
    restore = RestoreIdentity(
        restore_id="golden",
        request="sha256:" + "0" * 64,
        target_server="target",
        target_database="telemetry",
        started_at=t,
    )
    repository.put_document(layout.restore_key("golden"), restore)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
