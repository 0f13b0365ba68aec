"""Repositories of released format versions stay readable for ever, and damage is always found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.documents import canonical, content_id, scope_hash, seal, sha256, to_bytes
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.archive.verify import DrillVerdict, TableVerdict, VerifyProgress, verify_ref
from influxdb_backup.columns import batch_columns
from influxdb_backup.errors import IntegrityError, StoreError
from influxdb_backup.fingerprint import fingerprint_batches
from influxdb_backup.model import Manifest, Problem, Ref, Role, Scope, TableEntry, VerifyLevel, VerifyReport
from tests.archive.faulty import FaultyStore
from tests.archive.make_golden import in_json, value_in_json

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path for path in GOLDEN.iterdir() if path.is_dir())
LEVELS = (VerifyLevel.PRESENT, VerifyLevel.COMPLETE, VerifyLevel.VALID)


def read_points(repository: Repository, entry: TableEntry) -> list[object]:
    """All points of a table in the form of expected.json, through the product's reader."""
    points: list[object] = []
    for part in entry.parts:
        for batch in repository.read_part(part):
            columns = batch_columns(batch.schema)
            assert columns == part.columns
            times = batch.column(0).cast("int64").to_pylist()
            lists = [column.to_pylist() for column in batch.columns[1:]]
            for n, time in enumerate(times):
                pairs = [(c, values[n]) for c, values in zip(columns, lists, strict=True) if values[n] is not None]
                points.append(
                    {
                        "time": str(time),
                        "tags": [[in_json(c.name), in_json(v)] for c, v in pairs if c.role is Role.TAG],
                        "fields": [
                            [in_json(c.name), c.type.value, value_in_json(c.type.value, v)]
                            for c, v in pairs
                            if c.role is Role.FIELD
                        ],
                    }
                )
    return sorted(points, key=lambda point: json.dumps(point, sort_keys=True))


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_every_released_format_is_readable(version: Path) -> None:
    """Every point of every backup comes back, every level holds, identities are what they were."""
    repository = Repository.open(open_store(str(version / "repository")))
    expected = json.loads((version / "expected.json").read_text())
    refs = [ref for plan in repository.plans() for ref in repository.refs(plan)]
    assert {ref.id for ref in refs} == set(expected)
    for ref in refs:
        manifest = repository.manifest(ref)
        for entry, wanted in zip(manifest.tables, expected[ref.id], strict=True):
            assert in_json(entry.table.retention_policy) == wanted["retention_policy"]
            assert in_json(entry.table.measurement) == wanted["measurement"]
            assert read_points(repository, entry) == wanted["points"]
            batches = [batch for part in entry.parts for batch in repository.read_part(part)]
            assert fingerprint_batches(entry.table.measurement, batches).hexadecimal == entry.fingerprint
        held = all(entry.rows for entry in manifest.tables)  # once tables without rows were content, too
        if repository.self_proving or held:
            assert content_id(manifest.source, manifest.scope, manifest.window, manifest.tables) == ref.content_id
        assert scope_hash(manifest.scope) == ref.scope_hash
        report = verify_ref(repository, ref, VerifyLevel.VALID)
        assert report.ok and report.problems == ()
        assert (report.rows, report.bytes, report.tables) == (ref.rows, ref.bytes, len(manifest.tables))
    assert repository.read_documents(layout.CHECKS, VerifyReport)
    assert all(repository.plan_identity(plan) is not None for plan in repository.plans())


# damage


def copy(tmp_path: Path) -> tuple[Path, Repository, Ref]:
    """A golden repository of one's own, and the backup to damage."""
    root = tmp_path / "repository"
    shutil.copytree(GOLDEN / "v1" / "repository", root)
    repository = Repository.open(open_store(str(root)))
    return root, repository, repository.refs("hostile")[-1]


def part_file(root: Path, repository: Repository, ref: Ref) -> Path:
    """The largest part of a backup."""
    parts = [part for entry in repository.manifest(ref).tables for part in entry.parts]
    return root / max(parts, key=lambda part: part.size).path


def manifest_file(root: Path, ref: Ref) -> Path:
    """A backup's manifest."""
    return root / layout.manifest_key(ref.manifest)


def flip(path: Path, position: int) -> None:
    """Changes one bit."""
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(bytes(data))


def rewrite_manifest(root: Path, ref: Ref, change: Callable[[dict[str, Any]], None]) -> None:
    """A manifest that is wrong but has the right digest and is properly referenced: the writer itself erred."""
    document = json.loads(manifest_file(root, ref).read_bytes())
    change(document)
    said = content_id_of(document)
    if said is not None:
        document["content_id"] = said
    data = canonical(document)
    (root / layout.manifest_key(sha256(data))).write_bytes(data)
    told = {"manifest": sha256(data), "manifest_size": str(len(data)), "content_id": document["content_id"]}
    rewrite_ref(root, ref, lambda old: old.update({**told, **(summed(document) if said is not None else {})}))


def content_id_of(document: dict[str, Any]) -> str | None:
    """The content id that a changed manifest has; None where it is no manifest of this version."""
    try:
        made = Manifest.model_validate(document)
    except ValueError:
        return None
    return content_id(made.source, made.scope, made.window, made.tables)


def summed(document: dict[str, Any]) -> dict[str, str]:
    """What a ref says of the sums over a manifest's tables."""
    made = Manifest.model_validate(document)
    return {"rows": str(made.rows), "bytes": str(made.bytes)}


def rewrite_ref(root: Path, ref: Ref, change: Callable[[dict[str, Any]], None]) -> None:
    """A ref with another content."""
    path = root / layout.ref_key(ref.plan, ref.window, ref.revision)
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(seal(document))


def first_part(document: dict[str, Any]) -> dict[str, Any]:
    """The first part that a manifest names."""
    part: dict[str, Any] = next(part for table in document["tables"] for part in table["parts"])
    return part


Damage = Callable[[Path, Repository, Ref], object]


def _foreign_manifest(root: Path, repository: Repository, ref: Ref) -> None:
    other = repository.refs("telemetry")[0]
    rewrite_ref(root, ref, lambda old: old.update(manifest=other.manifest, manifest_size=str(other.manifest_size)))


def _swapped_manifest(root: Path, repository: Repository, ref: Ref) -> None:
    other = repository.refs("telemetry")[0]
    manifest_file(root, ref).write_bytes(manifest_file(root, other).read_bytes())


def _manifest_with(**changes: object) -> Damage:
    return lambda root, _, ref: rewrite_manifest(root, ref, lambda document: document.update(changes))


def _part_with(**changes: object) -> Damage:
    return lambda root, _, ref: rewrite_manifest(root, ref, lambda document: first_part(document).update(changes))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _other_size(root: Path, _: Repository, ref: Ref) -> None:
    rewrite_manifest(root, ref, lambda document: first_part(document).update(size="17"))


def _another_scope(document: dict[str, Any]) -> None:
    scope = Scope(measurements=("cpu",))
    document.update(scope=scope.model_dump(mode="json"), scope_hash=scope_hash(scope))


PRESENT, COMPLETE, VALID = LEVELS
VERDICTS: list[tuple[str, Damage, VerifyLevel | None, str]] = [
    # what was done, how, the lowest level that finds it, and as what
    ("nothing", lambda root, repository, ref: None, None, ""),
    ("part missing", lambda root, repository, ref: part_file(root, repository, ref).unlink(), PRESENT, "missing"),
    ("part truncated", lambda root, repository, ref: _cut(part_file(root, repository, ref)), PRESENT, "size"),
    ("part emptied", lambda root, repository, ref: part_file(root, repository, ref).write_bytes(b""), PRESENT, "size"),
    ("byte flipped", lambda root, repository, ref: flip(part_file(root, repository, ref), 100), COMPLETE, "digest"),
    ("last byte flipped", lambda root, repository, ref: flip(part_file(root, repository, ref), -1), COMPLETE, "digest"),
    ("wrong size in manifest", _other_size, PRESENT, "size"),
    ("manifest missing", lambda root, repository, ref: manifest_file(root, ref).unlink(), PRESENT, "missing"),
    ("manifest truncated", lambda root, repository, ref: _cut(manifest_file(root, ref)), PRESENT, "size"),
    ("manifest byte flipped", lambda root, repository, ref: flip(manifest_file(root, ref), 40), PRESENT, "digest"),
    ("manifest swapped", _swapped_manifest, PRESENT, "size"),
    ("foreign manifest", _foreign_manifest, PRESENT, "foreign"),
    ("manifest of another repository", _manifest_with(repository_id="0" * 32), PRESENT, "foreign"),
    ("unknown version", _manifest_with(format_version=2), PRESENT, "unreadable"),
    (
        "unknown media type",
        _manifest_with(media_type="application/vnd.influxdb-backup.manifest.v2+json"),
        PRESENT,
        "unreadable",
    ),
    ("unknown feature", _manifest_with(features_required=["encryption"]), PRESENT, "unreadable"),
    ("path with ..", _part_with(path="../outside.parquet"), PRESENT, "path"),
    ("absolute path", _part_with(path="/etc/passwd"), PRESENT, "path"),
    ("rows of a part", _part_with(rows="4"), PRESENT, "rows"),
    ("fingerprint of a part", _part_with(fingerprint="0" * 32), PRESENT, "fingerprint"),
    (
        "ref missing",
        lambda root, repository, ref: (root / layout.ref_key(ref.plan, ref.window, ref.revision)).unlink(),
        PRESENT,
        "missing",
    ),
    (
        "ref says other rows",
        lambda root, _, ref: rewrite_ref(root, ref, lambda old: old.update(rows="1")),
        PRESENT,
        "foreign",
    ),
    (
        "ref says another time of reading",
        lambda root, _, ref: rewrite_ref(root, ref, lambda old: old.update(read_start="1")),
        PRESENT,
        "foreign",
    ),
    (
        "ref says another scope",
        lambda root, _, ref: rewrite_ref(root, ref, _another_scope),
        PRESENT,
        "foreign",
    ),
]


@pytest.mark.parametrize(("name", "damage", "found_at", "kind"), VERDICTS, ids=[row[0] for row in VERDICTS])
def test_the_verdict_of_each_damage(
    tmp_path: Path, name: str, damage: Damage, found_at: VerifyLevel | None, kind: str
) -> None:
    """Each damage is found at its level and all above it, named by its kind; verification itself never raises."""
    root, repository, ref = copy(tmp_path)
    damage(root, repository, ref)
    if name not in {"ref missing"}:
        ref = repository.read_ref(ref.plan, ref.window, ref.revision)
    for level in LEVELS:
        report = verify_ref(repository, ref, level)
        should_find = found_at is not None and LEVELS.index(level) >= LEVELS.index(found_at)
        assert report.ok is not should_find, (level, report.problems)
        assert report.ok == (not report.problems)
        if should_find:
            assert kind in {problem.kind for problem in report.problems}


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "4", "counts": []},
        {"min_time": "1767225600000000001"},
        {"fingerprint": "0" * 32},
        {"columns": []},
    ],
)
def test_a_writer_that_lied_is_found_by_valid(tmp_path: Path, change: dict[str, Any]) -> None:
    """Parts and tables agree with each other, digests are right, and only the content tells."""
    root, repository, ref = copy(tmp_path)

    def lie(document: dict[str, Any]) -> None:
        table = document["tables"][0]
        table["parts"][0].update(change)
        table.update({key: value for key, value in change.items() if key != "columns"})
        if "rows" in change:
            document["tables"] = [table, *document["tables"][1:]]

    rewrite_manifest(root, ref, lie)
    ref = repository.read_ref(ref.plan, ref.window, ref.revision)
    report = verify_ref(repository, ref, VerifyLevel.VALID)
    part = repository.manifest(ref).tables[0].parts[0].path
    assert part in {problem.object for problem in report.problems}


def test_every_problem_is_collected(tmp_path: Path) -> None:
    """One bad part does not hide the next."""
    root, repository, ref = copy(tmp_path)
    parts = [part for entry in repository.manifest(ref).tables for part in entry.parts]
    (root / parts[0].path).unlink()
    flip(root / parts[1].path, 50)
    _cut(root / parts[2].path)
    report = verify_ref(repository, ref, VerifyLevel.VALID)
    assert [(problem.kind, problem.object) for problem in report.problems] == [
        ("missing", parts[0].path),
        ("digest", parts[1].path),
        ("size", parts[2].path),
    ]


@pytest.mark.parametrize("verb", ["read", "size", "list", "read_range", "download"])
@pytest.mark.parametrize("level", VerifyLevel)
def test_a_store_that_fails_is_no_damage_and_never_counts_as_good(
    tmp_path: Path, verb: str, level: VerifyLevel
) -> None:
    """Fails closed: what could not be read is an error that passes, never a pass, and nothing that is recorded."""
    _, repository, ref = copy(tmp_path)
    faulty = FaultyStore(repository.store)
    opened = Repository.open(faulty)
    faulty._verb = verb
    try:
        report = verify_ref(opened, ref, level)
    except StoreError as error:
        assert faulty.fired and error.retryable and "is not known" in error.message
        assert verify_ref(repository, ref, VerifyLevel.VALID).ok
    else:
        assert not faulty.fired and report.ok == (level is not VerifyLevel.RESTORABLE)


def test_damage_is_reported_although_another_object_cannot_be_read(tmp_path: Path) -> None:
    """What was read and is wrong stays true, whatever the store did not give."""
    root, repository, ref = copy(tmp_path)
    parts = [part for entry in repository.manifest(ref).tables for part in entry.parts]
    flip(root / parts[0].path, 100)
    faulty = FaultyStore(repository.store, verb="read_range", key=parts[1].path)
    report = verify_ref(Repository.open(faulty), ref, VerifyLevel.COMPLETE)
    assert faulty.fired
    assert [(problem.kind, problem.object) for problem in report.problems] == [("digest", parts[0].path)]


def test_restorable_needs_a_passed_drill_of_this_very_manifest(tmp_path: Path) -> None:
    """A failed drill, or one of another manifest, does not count."""
    root, repository, ref = copy(tmp_path)

    tables = tuple(
        TableVerdict(table=str(entry.table), ok=True, rows=entry.rows, fingerprint=entry.fingerprint)
        for entry in repository.manifest(ref).tables
    )
    passed = DrillVerdict(ref=ref.id, manifest=ref.manifest, ok=True, problems=(), tables=tables)

    def drill(name: str, **changes: object) -> None:
        path = root / layout.drill_key(ref.plan, ref.window, ref.revision, 0, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(passed.model_copy(update=changes)))

    def kinds() -> set[str]:
        return {problem.kind for problem in verify_ref(repository, ref, VerifyLevel.RESTORABLE).problems}

    assert kinds() == {"drill"}
    drill("a", ok=False)
    drill("b", manifest="sha256:" + "0" * 64)
    drill("c", tables=tables[1:])
    drill("d", tables=(tables[0].model_copy(update={"fingerprint": "0" * 32}), *tables[1:]))
    drill("e", problems=(Problem(kind="rows", object="x", message="x"),))
    assert kinds() == {"drill"}
    drill("f")
    assert kinds() == set()


def test_progress_is_told(tmp_path: Path) -> None:
    """After each part, up to all of them."""
    _, repository, ref = copy(tmp_path)
    seen: list[VerifyProgress] = []
    report = verify_ref(repository, ref, VerifyLevel.VALID, seen.append)
    assert [one.parts_done for one in seen] == list(range(1, report.parts + 1))
    assert (seen[-1].rows_done, seen[-1].bytes_done) == (report.rows, report.bytes)


def test_an_interruption_does_not_wait_for_the_rest(tmp_path: Path) -> None:
    """An error out of the progress callback (a timeout, Ctrl-C) ends the verification."""
    _, repository, ref = copy(tmp_path)
    counting = FaultyStore(repository.store)

    def stop(_: VerifyProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_ref(Repository.open(counting), ref, VerifyLevel.VALID, stop)
    assert sum(verb == "read_range" for verb, _ in counting.trace) < 8


def test_damaged_documents_name_the_field(tmp_path: Path) -> None:
    """A ref whose field is wrong is a FormatError with key and field; a manifest that is missing is IntegrityError."""
    root, repository, ref = copy(tmp_path)
    rewrite_ref(root, ref, lambda old: old.update(window={"start": "5", "end": "4"}))
    with pytest.raises(Exception, match=r"refs/hostile.*damaged: window"):
        repository.refs("hostile")
    manifest_file(root, ref).unlink()
    with pytest.raises(IntegrityError, match="no longer holds"):
        repository.manifest(ref)


def test_unknown_fields_are_ignored(tmp_path: Path) -> None:
    """A later release may add fields without making old readers fail."""
    root, repository, ref = copy(tmp_path)
    rewrite_manifest(root, ref, lambda document: document.update(later={"x": 1}))
    rewrite_ref(root, ref, lambda old: old.update(later=1))
    ref = repository.read_ref(ref.plan, ref.window, ref.revision)
    assert verify_ref(repository, ref, VerifyLevel.VALID).ok
