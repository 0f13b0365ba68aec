"""Documents and parts that nobody would write: refused in bounded time and memory, and never another's loss."""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.documents import canonical, parse, seal, sha256
from influxdb_backup.archive.parquet import ROW_GROUP_ROWS, encoded_texts, read_batches, with_texts
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import DOCUMENT_BYTES, Store, open_store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.columns import arrow_schema
from influxdb_backup.errors import FormatError, IntegrityError, RepositoryError, StoreError
from influxdb_backup.jobs.earlier_backups import EarlierBackups
from influxdb_backup.model import (
    Column,
    InfluxType,
    Manifest,
    PlanIdentity,
    Ref,
    Role,
    VerifyLevel,
    VerifyReport,
    Window,
)
from tests.archive.build import DAY, backup
from tests.archive.test_golden import copy, rewrite_manifest

NEXT = Window(start=DAY.end, end=DAY.end + (DAY.end - DAY.start))
MEMORY = 100 << 20
"""bytes that the refusal of a bad document may add at its peak"""


def peak() -> int:
    """Bytes that this process had resident at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": ' + b"1" * 5000 + b"}",
        b"1" * 5000,
        b'{"plan": "\\ud800"}',
        b'{"a": ["x", {"\\udcff": 1}]}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
)
@pytest.mark.parametrize("kind", [Ref, Manifest, PlanIdentity, VerifyReport])
def test_what_is_no_document_is_a_format_error(content: bytes, kind: type[Ref]) -> None:
    """A number of five thousand digits, half a character, no number, no end: each names the key, briefly."""
    with pytest.raises(FormatError, match=r"refs/x\.json") as caught:
        parse(content, kind, "refs/x.json")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "change",
    [
        {"database": {"base64": 5}},
        {"database": {"base64": None}},
        {"database": {"base64": "é"}},
        {"database": {"base64": "x" * 1001}},
        {"generation": "1" * 5000},
        {"generation": [[]]},
        {"media_type": ["x"] * 100_000},
        {"media_type": {"x": 1}},
        {"format_version": "x" * 100_000},
        {"features_required": [{"x": "y" * 100_000}]},
        {"features_required": 7},
        {"database": 5},
    ],
)
def test_a_field_of_another_kind_is_a_format_error(change: dict[str, object]) -> None:
    """The schema refuses it with an error of this package that is short."""
    good = PlanIdentity(plan="p", database="d", generation=1, instance_id=None, source=None).model_dump(mode="json")
    with pytest.raises(FormatError, match=r"plans/p\.json") as caught:
        parse(seal({**good, **change}), PlanIdentity, "plans/p.json")
    assert len(str(caught.value)) < 600


def test_a_large_document_is_not_read(store: Store, tmp_path: Path) -> None:
    """In every store no more than its kind can have is read, and no more is kept in memory."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(400 << 20 if type(store).__name__ == "LocalStore" else 40 << 20)
    store.upload(large, "refs/p/large.json")
    before = peak()
    with pytest.raises(IntegrityError, match=r"large\.json.*more than 16,777,216 bytes"):
        store.read("refs/p/large.json")
    if type(store).__name__ == "LocalStore":
        assert peak() - before < MEMORY
    edge = tmp_path / "edge"
    edge.write_bytes(b"x" * 1000)
    store.upload(edge, "refs/p/edge.json")
    assert store.read("refs/p/edge.json", 1000) == b"x" * 1000
    with pytest.raises(IntegrityError):
        store.read("refs/p/edge.json", 999)
    (tmp_path / "empty").write_bytes(b"")
    store.upload(tmp_path / "empty", "refs/p/empty.json")
    assert store.read("refs/p/empty.json") == b""
    assert DOCUMENT_BYTES < 20 << 20


def pipe(path: Path) -> None:
    """A pipe that nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    """A file without an end."""
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    """A folder under a document's name."""
    path.unlink()
    path.mkdir()
    (path / "x").write_bytes(b"")


@pytest.mark.parametrize("act", [pipe, endless, folder], ids=lambda act: str(act.__name__))
@pytest.mark.parametrize("what", ["ref", "manifest", "part"])
def test_what_is_no_file_is_damage_at_once(repository: Repository, act: Callable[[Path], None], what: str) -> None:
    """A pipe is not waited for and a device not read to its end."""
    ref = backup(repository).ref
    root = Path(repository.url.removeprefix("file://"))
    key = {
        "ref": layout.ref_key(ref.plan, ref.window, ref.revision),
        "manifest": layout.manifest_key(ref.manifest),
        "part": repository.manifest(ref).tables[0].parts[0].path,
    }[what]
    act(root / key)
    began = time.monotonic()
    for level in (VerifyLevel.PRESENT, VerifyLevel.COMPLETE, VerifyLevel.VALID):
        report = verify_ref(repository, ref, level)
        assert not report.ok and key in str(report.problems), level
    assert time.monotonic() - began < 20


class Refuses:
    """``os.open`` that gives an error for some paths, as a disk or its rights do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, number: int) -> None:
        real = os.open

        def refuse(name: object, *rest: int, **more: int) -> int:
            if str(name) == str(path):
                raise OSError(number, os.strerror(number), str(name))
            return real(name, *rest, **more)  # type: ignore[call-overload, no-any-return]

        monkeypatch.setattr(os, "open", refuse)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EBADMSG], ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("what", ["ref", "manifest"])
def test_an_old_document_that_the_disk_does_not_give_does_not_end_other_windows(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int, what: str
) -> None:
    """It is named and passed over; of its own window it is an error, and no verification calls it damage."""
    old, new = backup(repository).ref, backup(repository, window=NEXT).ref
    backup(repository, window=Window(start=NEXT.end, end=NEXT.end + 3600 * 10**9))
    key = layout.ref_key(old.plan, DAY, 0) if what == "ref" else layout.manifest_key(old.manifest)
    Refuses(monkeypatch, Path(repository.url.removeprefix("file://")) / key, number)
    with caplog.at_level(logging.WARNING, "influxdb_backup"):
        earlier = EarlierBackups(repository, "telemetry")
        refs = earlier.touching(Window(start=DAY.start, end=NEXT.end))
        assert new in refs and (old in refs) == (what == "manifest")
        assert earlier.last() is not None
        if what == "manifest":
            earlier.names = tuple(name for name in earlier.names if name.window == DAY)
            assert earlier.last() is None
    assert key in caplog.text
    if what == "ref":
        with pytest.raises(StoreError, match=key):
            EarlierBackups(repository, "telemetry").of_window(DAY)
    with pytest.raises(StoreError, match="is not known") as caught:
        verify_ref(repository, old, VerifyLevel.VALID)
    assert caught.value.retryable and key in caught.value.message
    assert backup(repository, window=NEXT).ref == new


def test_a_store_that_gives_no_ref_at_all_is_an_error(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an export would take a plan with backups for one without, and everything in it for new."""
    backup(repository)
    backup(repository, window=NEXT)
    real = os.open

    def refuse(name: object, *rest: int, **more: int) -> int:
        if "/refs/" in str(name) and str(name).endswith(".json"):
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return real(name, *rest, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        repository.refs("telemetry", on_damage=lambda *_: None)


def test_a_part_of_more_rows_than_the_manifest_says_is_not_decoded(tmp_path: Path) -> None:
    """Five million rows under a manifest of a few: refused by the file's own footer, before a row is made."""
    root, repository, ref = copy(tmp_path)
    part = repository.manifest(ref).tables[0].parts[0]
    table = pq.read_table(root / part.path)
    many = table.take(pa.array(np.zeros(5_000_000, np.int64)))
    pq.write_table(many, root / part.path, row_group_size=many.num_rows)
    del many, table
    data = (root / part.path).read_bytes()

    def lie(document: dict[str, object]) -> None:
        first = document["tables"][0]["parts"][0]  # type: ignore[index]
        first.update(size=str(len(data)), sha256=sha256(data))

    rewrite_manifest(root, ref, lie)
    ref = repository.read_ref(ref.plan, ref.window, ref.revision)
    lied = repository.manifest(ref).tables[0].parts[0]
    before = peak()
    with pytest.raises(IntegrityError, match="rows, the manifest says"):
        list(repository.read_part(lied))
    report = verify_ref(repository, ref, VerifyLevel.VALID)
    assert [(problem.kind, problem.object) for problem in report.problems][-1] == ("unreadable", part.path)
    assert peak() - before < MEMORY


def test_a_text_that_is_said_very_often_is_not_decoded(tmp_path: Path) -> None:
    """131,072 rows of one text of 64 KB are a few kilobytes of Parquet and 8 GB of memory: refused before they are made."""
    rows = ROW_GROUP_ROWS
    schema = arrow_schema([Column(role=Role.FIELD, name="s", type=InfluxType.STRING)])
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 65_536]))
    encoded = pa.schema([schema.field(0), schema.field(1).with_type(texts.type)], schema.metadata)
    times = pa.array(np.arange(rows)).cast(schema.field(0).type)
    bomb = tmp_path / "bomb.parquet"
    with pq.ParquetWriter(bomb, encoded, store_schema=False) as writer:
        writer.write_table(pa.Table.from_arrays([times, texts], schema=encoded), rows)
        writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes()).decode()})
    assert bomb.stat().st_size < 2 * 10**6
    before = peak()
    with pytest.raises(FormatError, match="more texts than"):
        list(read_batches(bomb, "part"))
    metadata = pq.read_metadata(bomb)
    with pq.ParquetFile(bomb, read_dictionary=encoded_texts(bomb, metadata)) as file:  # as the salvage reads it
        (batch,) = file.read_row_group(0).to_batches()
        with pytest.raises(FormatError, match="more texts than"):
            next(with_texts(batch, metadata.schema.to_arrow_schema(), "part"))
    assert peak() - before < MEMORY


def test_a_part_that_is_listed_again_and_again_is_refused(tmp_path: Path) -> None:
    """A manifest names a part once, and only parts with points: its length is bounded by what there is."""
    root, repository, ref = copy(tmp_path)
    for change in (
        lambda table: table.update(parts=table["parts"] * 1000),
        lambda table: table["parts"][0].update(rows="0"),
    ):
        shutil.rmtree(root)
        root, repository, ref = copy(tmp_path)
        rewrite_manifest(root, ref, lambda document, change=change: change(document["tables"][0]))  # type: ignore[misc]
        ref = repository.read_ref(ref.plan, ref.window, ref.revision)
        with pytest.raises(IntegrityError, match=r"more than once|without points"):
            repository.manifest(ref)


def test_a_manifest_of_very_many_missing_parts_is_judged_in_bounded_time(repository: Repository) -> None:
    """Each part is asked for once: three thousand in well under a minute."""
    ref = backup(repository).ref
    document = json.loads(repository.store.read(layout.manifest_key(ref.manifest)))
    table = document["tables"][0]
    part = table["parts"][0]
    folder = part["path"].rpartition("/")[0]
    table["parts"] = [{**part, "path": f"{folder}/{number:04d}.parquet"} for number in range(1, 3_001)]
    data = canonical(document)
    repository.store.create(layout.manifest_key(sha256(data)), data)
    key = layout.ref_key(ref.plan, ref.window, 1)
    said = json.loads(repository.store.read(layout.ref_key(ref.plan, ref.window, 0)))
    rows, size = 3_000 * ref.rows, 3_000 * ref.bytes
    said.update(manifest=sha256(data), manifest_size=str(len(data)), revision=1)
    said["bytes"] = str(size)
    repository.store.create(key, seal(said))
    began = time.monotonic()
    report = verify_ref(repository, repository.read_ref(ref.plan, ref.window, 1), VerifyLevel.VALID)
    assert not report.ok and time.monotonic() - began < 60
    assert rows


def test_a_bad_restore_record_is_an_error_of_that_restore(repository: Repository) -> None:
    """Its progress bears on what is written: it is not passed over."""
    from influxdb_backup.jobs.restore_documents import RestoreProgress

    repository.store.create(layout.restore_progress_key("r", "000001-x"), b"{")
    with pytest.raises(RepositoryError, match="000001-x"):
        repository.read_documents(layout.restore_prefix("r"), RestoreProgress)


def test_an_opened_repository_is_the_same(repository: Repository) -> None:
    """The limits are far beyond real documents."""
    ref = backup(repository).ref
    assert Repository.open(open_store(repository.url)).refs("telemetry") == (ref,)
