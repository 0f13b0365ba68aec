"""Every document proves itself: of all flips of a single bit not one is believed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.documents import canonical, load, seal
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.archive.verify import DrillVerdict, verify_ref
from influxdb_backup.errors import IntegrityError, RepositoryError
from influxdb_backup.jobs.drills import DrillReport
from influxdb_backup.jobs.restore_documents import RestoreIdentity
from influxdb_backup.model import VerifyLevel, VerifyReport
from tests.archive.build import backup
from tests.archive.test_golden import rewrite_ref

GOLDEN = Path(__file__).parent / "golden"
Read = Callable[[Repository], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A golden repository of one's own."""
    shutil.copytree(GOLDEN / "v1" / "repository", tmp_path / "r")
    return tmp_path / "r"


def opened(root: Path) -> Repository:
    """The repository there, opened now."""
    return Repository.open(open_store(str(root)))


def flips(path: Path) -> Iterator[tuple[int, int]]:
    """Flips each bit of a file in turn, and puts it back."""
    whole = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(whole):
            for bit in range(8):
                file.seek(position)
                file.write(bytes([byte ^ 1 << bit]))
                yield position, bit
            file.seek(position)
            file.write(bytes([byte]))


def documents(root: Path) -> list[tuple[str, Read]]:
    """One of each kind, and how the product reads it."""
    repository = opened(root)
    ref = repository.ref("telemetry@latest")
    first = repository.refs("hostile")[0]
    check = next(key for key, _ in repository.store.list(layout.CHECKS))
    drill = next(key for key, _ in repository.store.list(layout.DRILLS))
    restore = layout.restore_key("golden")
    return [
        (layout.ref_key(ref.plan, ref.window, ref.revision), lambda r: r.read_ref(ref.plan, ref.window, ref.revision)),
        (
            layout.ref_key(first.plan, first.window, first.revision),
            lambda r: r.read_ref(first.plan, first.window, first.revision),
        ),
        (layout.plan_key("telemetry"), lambda r: r.plan_identity("telemetry")),
        (check, lambda r: r.read_documents(layout.CHECKS, VerifyReport)),
        (drill, lambda r: r.read_documents(layout.DRILLS, DrillReport)),
        (drill, lambda r: r.read_documents(layout.DRILLS, DrillVerdict)),
        (restore, lambda r: r.document(restore, RestoreIdentity)),
        (layout.manifest_key(ref.manifest), lambda r: r.manifest(ref)),
    ]


@pytest.mark.parametrize("number", range(8))
def test_no_flipped_bit_is_believed(root: Path, number: int) -> None:
    """Not one of a document's flips is read: neither the digest's own, nor those of its name."""
    key, read = documents(root)[number]
    repository = opened(root)
    read(repository)
    believed = []
    for place in flips(root / key):
        try:
            read(repository)
        except RepositoryError:
            continue
        believed.append(place)
    assert believed == []


def test_no_flipped_bit_of_the_marker_is_believed(root: Path) -> None:
    """Also not one that would make it an old repository, whose documents need no digest."""
    believed = []
    for place in flips(root / layout.REPOSITORY):
        try:
            opened(root)
        except RepositoryError:
            continue
        believed.append(place)
    assert believed == []


def test_a_verification_finds_a_flipped_ref_and_a_restorable_needs_a_whole_report(root: Path) -> None:
    """Both as damage that names the file."""
    repository = opened(root)
    drills = [key for key, _ in repository.store.list("drills/")]
    ref = next(
        ref for ref in repository.refs("telemetry") if any(key.startswith(f"drills/{ref.id}/") for key in drills)
    )
    assert verify_ref(repository, ref, VerifyLevel.RESTORABLE).ok
    for key in (
        layout.ref_key(ref.plan, ref.window, ref.revision),
        drills[0],
    ):
        whole = (root / key).read_bytes()
        (root / key).write_bytes(whole.replace(b'"digest"', b'"digesu"'))
        report = verify_ref(repository, ref, VerifyLevel.RESTORABLE)
        assert not report.ok and key in str(report.problems), key
        (root / key).write_bytes(whole)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("read_start", "1"), ("read_end", "2"), ("settle", "3"), ("rows", "4"), ("bytes", "5"), ("open", True),
        ("unreadable", 6), ("retention_policies", ["other"]), ("sequence", "7"),
    ],
)  # fmt: skip
def test_a_ref_says_what_its_manifest_says(root: Path, field: str, value: object) -> None:
    """Also one with a right digest, as somebody could write it: the field that differs is named, and nothing is read."""
    repository = opened(root)
    ref = repository.ref("telemetry@latest")
    rewrite_ref(root, ref, lambda document: document.update({field: value}))
    written = repository.read_ref(ref.plan, ref.window, ref.revision)
    with pytest.raises(IntegrityError, match=f"do not agree on {field}\\."):
        repository.manifest(written)
    report = verify_ref(repository, written, VerifyLevel.PRESENT)
    assert [problem.kind for problem in report.problems] == ["foreign"]


@pytest.mark.parametrize(
    "change",
    [{"scope_hash": "sha256:" + "0" * 64}, {"scope": {"measurements": ["m"]}}],
    ids=lambda change: str(*change),
)
def test_a_refs_scope_has_its_hash(root: Path, change: dict[str, object]) -> None:
    """It is computed again from the scope, so that neither is changed without the other."""
    repository = opened(root)
    ref = repository.ref("telemetry@latest")
    rewrite_ref(root, ref, lambda document: document.update({**document, **change}))
    with pytest.raises(IntegrityError, match="scope_hash"):
        repository.read_ref(ref.plan, ref.window, ref.revision)


def test_a_document_under_another_key_is_refused(root: Path) -> None:
    """A whole report or identity says nothing of another backup or plan."""
    repository = opened(root)
    check = next(key for key, _ in repository.store.list(layout.CHECKS))
    other = check.replace("/000000/", "/000001/")
    (root / other).parent.mkdir()
    shutil.copy(root / check, root / other)
    shutil.copy(root / "plans/telemetry.json", root / "plans/hostile.json")
    with pytest.raises(IntegrityError, match="holds a report of"):
        repository.read_documents(layout.CHECKS, VerifyReport)
    with pytest.raises(IntegrityError, match="holds the identity of"):
        repository.plan_identity("hostile")


def test_a_repository_made_before_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its old documents hold no digest; what this release adds does, and that is proved."""
    shutil.copytree(GOLDEN / "v1-before-digests" / "repository", tmp_path / "r")
    with caplog.at_level(logging.WARNING, "influxdb_backup"):
        repository = opened(tmp_path / "r")
    assert "made by an earlier release" in caplog.text
    refs = repository.refs("telemetry")
    assert len(refs) == 3 and all(verify_ref(repository, ref, VerifyLevel.VALID).ok for ref in refs)
    new = backup(repository, plan="new").ref
    path = tmp_path / "r" / layout.ref_key(new.plan, new.window, new.revision)
    path.write_bytes(path.read_bytes().replace(b'"unreadable":0', b'"unreadable":1'))
    with pytest.raises(IntegrityError, match="digest of itself"):
        repository.refs("new")


def test_a_digest_is_of_the_bytes_with_zeros_in_its_place() -> None:
    """Whatever the names in a document are, also ones that look like the field."""
    document = {"a": '"digest":"' + "1" * 64 + '"', "z": {"b": [1, "digest"]}}
    data = seal(document)
    assert load(data, "x") == {**document, "digest": load(data, "x")["digest"]}
    assert canonical(load(data, "x")) == data
