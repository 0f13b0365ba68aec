"""The preflight: proves on a person's own store, with their own credentials, that backups are safe there."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from influxdb_backup.archive import layout
from influxdb_backup.archive.store import REFUSED, UNFIT, VANISHED, Store, file_digest
from influxdb_backup.errors import BackupNotFoundError, InfluxdbBackupError, StoreError

RACES = 10
MAX_SKEW = 300.0
"""seconds that the clocks of store and worker may differ; the grace before deletes is judged by the store's"""
_UPLOAD_BYTES = 33 << 20
_KEEPS = (
    "These credentials cannot delete. Exports, restores, drills and verifications work; what failed exports leave "
    "below data/, which no backup names, stays until somebody else removes it. So do this check's objects below "
    "{prefix}, and one of a few bytes below preflight/ for each `repo init` and each look at the store's clock."
)


@dataclass(frozen=True)
class CheckItem:
    """One property that a store was tried for."""

    name: str
    ok: bool
    detail: str
    """what was seen; for a failure also what it would do to backups"""
    seconds: float
    needed: bool = True
    """whether backups are safe only with it"""


@dataclass(frozen=True)
class CheckReport:
    """The result of a preflight."""

    url: str
    items: tuple[CheckItem, ...]
    remarks: tuple[str, ...] = ()
    """what follows for a store that is fit all the same, in sentences"""

    @property
    def ok(self) -> bool:
        """Whether the store keeps every promise that backups need."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the needed properties that did not hold."""
        return tuple(item.name for item in self.items if item.needed and not item.ok)

    def raise_unless_ok(self) -> None:
        """Raises StoreError that names each failed property."""
        if not self.ok:
            reasons = "; ".join(f"{item.name}: {item.detail}" for item in self.items if item.name in self.failed)
            raise StoreError(f"{self.url} is not fit for backups: {reasons}.", kind=UNFIT)


class _Broken(Exception):
    """A property does not hold; the text says what was seen."""


def check_store(store: Store) -> CheckReport:
    """
    Tries every promise that a repository relies on, below ``preflight/<random>/``, and removes what it wrote.

    The properties: ``create``, ``second-create``, ``racing-creates`` (two clients at once), ``read-after-write``,
    ``list-after-write``, ``upload`` (33 MB, hashed), ``range-read``, ``missing-key``, ``clock``, ``delete``,
    ``clean-up``. A property that could not be tried is one that does not hold. A store that does not allow deletes is
    fit, with a remark that tells what follows. Raises StoreError only where the folder itself is not there, of which
    nothing can be said.
    """
    trial = _Trial(store)
    properties: tuple[tuple[str, Callable[[], str]], ...] = (
        ("create", trial.create),
        ("second-create", trial.second_create),
        ("racing-creates", trial.racing_creates),
        ("read-after-write", trial.read_after_write),
        ("list-after-write", trial.list_after_write),
        ("upload", trial.upload),
        ("range-read", trial.range_read),
        ("missing-key", trial.missing_key),
        ("clock", trial.clock),
        ("delete", trial.delete),
        ("clean-up", trial.clean_up),
    )
    items = tuple(_try(name, attempt) for name, attempt in properties)
    keeps = any(not item.ok and not item.needed for item in items)
    report = CheckReport(store.url, items, store.remarks())
    if not (keeps and report.ok):
        return report
    return replace(report, remarks=(*report.remarks, _KEEPS.format(prefix=trial.prefix)))


def _try(name: str, attempt: Callable[[], str]) -> CheckItem:
    began = time.monotonic()
    try:
        ok, detail = True, attempt()
    except _Broken as broken:
        ok, detail = False, str(broken)
    except (InfluxdbBackupError, OSError) as error:
        if isinstance(error, StoreError) and error.kind == VANISHED:
            raise
        ok, detail = False, f"could not be tried: {error}"
        if name in {"delete", "clean-up"} and isinstance(error, StoreError) and error.kind == REFUSED:
            return CheckItem(name, ok, f"not allowed: {error.message}", time.monotonic() - began, needed=False)
    return CheckItem(name, ok, detail, time.monotonic() - began)


class _Trial:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._other = store.again()
        self.prefix = f"{layout.PREFLIGHT}{secrets.token_hex(8)}/"
        self._first = f"{self.prefix}first.json"
        self._part = f"{self.prefix}part.parquet"

    def create(self) -> str:
        began = time.monotonic()
        self._store.create(self._first, b"first\n")
        return f"one object in {time.monotonic() - began:.3f} s"

    def second_create(self) -> str:
        for client in (self._store, self._other):
            try:
                client.create(self._first, b"second\n")
            except FileExistsError:
                continue
            raise _Broken("an existing object was replaced: two exports could overwrite each other's backup")
        if self._other.read(self._first) != b"first\n":
            raise _Broken("a refused create changed the object")
        return "refused, content unchanged"

    def racing_creates(self) -> str:
        with ThreadPoolExecutor(2) as pool:
            for turn in range(RACES):
                self._race(pool, f"{self.prefix}race-{turn}.json")
        return f"{RACES} races of two clients, one winner each"

    def _race(self, pool: ThreadPoolExecutor, key: str) -> None:
        barrier = threading.Barrier(2, timeout=60)

        def run(client: Store, data: bytes) -> bytes | None:
            barrier.wait()
            try:
                client.create(key, data)
            except FileExistsError:
                return None
            return data

        tries = [pool.submit(run, self._store, b"A" * 1000), pool.submit(run, self._other, b"B" * 1000)]
        winners = [data for data in (one.result() for one in tries) if data is not None]
        if len(winners) != 1:
            raise _Broken(f"{len(winners)} of two racing creates of one key succeeded: a backup could be lost")
        if self._store.read(key) != winners[0]:
            raise _Broken("the content after a race is not the winner's")

    def read_after_write(self) -> str:
        for turn in range(5):
            key, data = f"{self.prefix}read-{turn}.json", f"{turn}\n".encode()
            if self._other.size(key) is not None:
                raise _Broken("an object is there before it was written")
            self._store.create(key, data)
            if self._other.size(key) != len(data) or self._other.read(key) != data:
                raise _Broken("another client does not see an object that was just written")
        return "seen by another client at once"

    def list_after_write(self) -> str:
        prefix = f"{self.prefix}list/"
        for turn in range(5):
            self._store.create(f"{prefix}{turn}.json", b"1")
            for client in (self._store, self._other):
                if len(client.list(prefix)) != turn + 1:
                    raise _Broken("a listing lacks an object that was just written: a revision could be used twice")
        return "listed by another client at once"

    def upload(self) -> str:
        with tempfile.TemporaryDirectory(prefix="influxdb-backup-") as folder:
            local, back = Path(folder) / "in", Path(folder) / "out"
            block = secrets.token_bytes(1 << 20)
            with local.open("wb") as file:
                for _ in range(_UPLOAD_BYTES >> 20):
                    file.write(block)
            began = time.monotonic()
            self._store.upload(local, self._part)
            self._store.flush([self._part])
            seconds = max(time.monotonic() - began, 1e-6)
            if self._other.size(self._part) != _UPLOAD_BYTES:
                raise _Broken("an uploaded file has another size in the store")
            self._other.download(self._part, back)
            if file_digest(local) != file_digest(back):
                raise _Broken("an uploaded file came back with other bytes")
        return f"{_UPLOAD_BYTES >> 20} MB, {(_UPLOAD_BYTES >> 20) / seconds:.0f} MB/s up, same sha256 back"

    def range_read(self) -> str:
        key = f"{self.prefix}range.json"
        self._store.create(key, b"0123456789")
        if self._other.read_range(key, 1, 3) != b"123" or self._other.read_range(key, 8, 5) != b"89":
            raise _Broken("a ranged read returned other bytes")
        return "exact"

    def missing_key(self) -> str:
        key = f"{self.prefix}missing.json"
        if self._store.size(key) is not None:
            raise _Broken("an object that was never written has a size")
        try:
            self._store.read(key)
        except BackupNotFoundError:
            return "told as missing"
        raise _Broken("an object that was never written can be read")

    def clock(self) -> str:
        key = f"{self.prefix}clock.json"
        before = time.time_ns()
        self._store.create(key, b"1")
        after = time.time_ns()
        written = self._store.modified(key)
        skew = max(before - written, written - after, 0) / 1e9
        if skew > MAX_SKEW:
            raise _Broken(f"the store's clock and this machine's differ by {skew:.0f} s; correct the wrong one")
        return f"within {max(skew, 1.0):.0f} s of this machine's"

    def delete(self) -> str:
        self._other.delete(self._first)
        if self._store.size(self._first) is not None:
            raise _Broken("a deleted object is still there")
        if self._first in {key for key, _ in self._store.list(self.prefix)}:
            raise _Broken("a deleted object is still listed")
        return "gone for both clients"

    def clean_up(self) -> str:
        keys = [key for key, _ in self._store.list(self.prefix)]
        for key in keys:
            self._store.delete(key)
        left = [key for key, _ in self._store.list(self.prefix)]
        if left:
            raise _Broken(f"{len(left)} objects below {self.prefix} could not be removed")
        return f"{len(keys)} objects removed"
