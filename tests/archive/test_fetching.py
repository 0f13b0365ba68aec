"""Parts of a late store are uploaded and fetched several at once, in bounded room, and proved like any other."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from influxdb_backup.archive import fetching
from influxdb_backup.archive.attempt import UPLOADS
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import Store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.errors import BackupNotFoundError, StoreError
from influxdb_backup.model import Part, Ref, Table, VerifyLevel
from tests.archive.build import COLUMNS, DAY, batch, draft, rows, write_table
from tests.archive.proxy import Asked, Reply, error
from tests.archive.test_s3_faults import store_behind

PARTS = 24


class Late:
    """A store that answers 0.1 s late, and counts how many of its parts are asked for at a time."""

    def __init__(self, method: str = "GET") -> None:
        self._method = method
        self._lock = threading.Lock()
        self._asked = 0
        self.most = 0

    def __call__(self, asked: Asked) -> None:
        """Sleeps."""
        if asked.method != self._method or ".parquet" not in asked.path:
            return
        with self._lock:
            self._asked += 1
            self.most = max(self.most, self._asked)
        time.sleep(0.1)
        with self._lock:
            self._asked -= 1


def many_parts(store: Store) -> tuple[Repository, Ref, list[Part]]:
    """A backup of as many tables of one part each."""
    repository = Repository.init(store)
    with repository.begin("telemetry", DAY) as attempt:
        entries = [
            write_table(attempt, [batch(COLUMNS, rows(n))], n, Table(retention_policy="autogen", measurement=f"m{n}"))
            for n in range(PARTS)
        ]
        ref = attempt.commit(draft(*entries)).ref
    return repository, ref, [entry.parts[0] for entry in entries]


def test_parts_of_a_late_store_are_fetched_several_at_once(s3_endpoint: str) -> None:
    """A verification waits for the store as often as parts fit into its requests, not once for each part."""
    late = Late()
    with store_behind(s3_endpoint, late) as (store, _):
        repository, ref, _ = many_parts(store)
        assert verify_ref(repository, ref, VerifyLevel.VALID).ok
    assert 4 <= late.most <= fetching.REQUESTS


def test_parts_of_a_late_store_are_uploaded_several_at_once(s3_endpoint: str) -> None:
    """A backup waits for the store as often as parts fit into its requests, and is whole when it is committed."""
    late = Late("PUT")
    with store_behind(s3_endpoint, late) as (store, _):
        repository, ref, _ = many_parts(store)
        assert verify_ref(repository, ref, VerifyLevel.VALID).ok
    assert 4 <= late.most <= UPLOADS


def test_an_upload_that_fails_ends_the_attempt(s3_endpoint: str) -> None:
    """Whichever it was: the error names the object, nothing is committed, and nothing stays behind."""
    put: list[str] = []

    def rule(asked: Asked) -> Reply | None:
        if asked.method == "PUT" and ".parquet" in asked.path:
            put.append(asked.path)
            if len(put) == 5:
                return error(403, "AccessDenied")
        return None

    with store_behind(s3_endpoint, rule) as (store, _):
        with pytest.raises(StoreError, match="parquet"):
            many_parts(store)
        assert Repository.open(store).refs("telemetry") == ()
        assert store.list("data/") == []


def test_a_damaged_and_a_missing_part_are_found_as_ever(s3_store: Store) -> None:
    """Which of them were fetched ahead makes no difference."""
    repository, ref, parts = many_parts(s3_store)
    s3_store.delete(parts[3].path)
    content = bytearray(s3_store.read(parts[5].path))
    content[100] ^= 1
    s3_store.delete(parts[5].path)
    s3_store.create(parts[5].path, bytes(content))
    found = verify_ref(repository, ref, VerifyLevel.VALID).problems
    assert [(problem.object, problem.kind) for problem in found] == [
        (parts[3].path, "missing"),
        (parts[5].path, "digest"),
    ]


def test_fetched_parts_take_bounded_room_and_leave_nothing(
    s3_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was not read yet is no more than the bound, in any order of reading, and goes at the end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    repository, _, parts = many_parts(s3_store)
    largest = max(part.size for part in parts)
    monkeypatch.setattr(fetching, "AHEAD_BYTES", 3 * largest)
    with repository.fetch(parts) as fetched:
        time.sleep(0.5)
        held = list(tmp_path.rglob("*.parquet"))
        assert len(held) >= 1 and sum(path.stat().st_size for path in held) <= 3 * largest
        assert fetched.take(parts[-1]) is None
        for part in parts:
            path = fetched.take(part)
            assert path is not None and path.stat().st_size == part.size
            path.unlink()
            assert fetched.take(part) is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_download_raises_is_raised_where_the_part_is_read(s3_store: Store) -> None:
    """And only there: other parts are read."""
    repository, _, parts = many_parts(s3_store)
    s3_store.delete(parts[0].path)
    with repository.fetch(parts) as fetched:
        with pytest.raises(BackupNotFoundError):
            fetched.take(parts[0])
        assert fetched.take(parts[1]) is not None


def test_nothing_is_fetched_from_a_folder(local_store: Store) -> None:
    """Its files are read in place."""
    repository, _, parts = many_parts(local_store)
    with repository.fetch(parts) as fetched:
        assert all(fetched.take(part) is None for part in parts)
