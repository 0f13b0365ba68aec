"""The preflight: a good store passes, and each broken promise is named."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from influxdb_backup.archive.check import check_store
from influxdb_backup.archive.store import Listing, Store, open_store
from influxdb_backup.errors import BackupNotFoundError, StoreError
from tests.archive.faulty import FaultyStore


def test_a_good_store_passes_and_is_left_clean(store: Store) -> None:
    """Every property is tried, with its name and time, and nothing stays behind."""
    store.create("repository.json", b"{}")
    report = check_store(store)
    assert report.failed == () and report.ok
    report.raise_unless_ok()
    assert [item.name for item in report.items] == [
        "create",
        "second-create",
        "racing-creates",
        "read-after-write",
        "list-after-write",
        "upload",
        "range-read",
        "missing-key",
        "clock",
        "delete",
        "clean-up",
    ]
    assert all(item.detail and item.seconds >= 0 for item in report.items)
    assert store.list("") == [("repository.json", 2)]


class Broken(FaultyStore):
    """A store with one broken promise; its other client is broken in the same way."""

    def again(self) -> Store:
        """Shares the state, as two clients of one store do."""
        return self


class Overwrites(Broken):
    """``create`` replaces what is there."""

    def create(self, key: str, data: bytes) -> None:
        """Broken."""
        path = self.inner.local_path(key)
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


class ChecksThenWrites(Broken):
    """The classic: exists, then write. It refuses a second create and loses races."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.barrier = threading.Barrier(2)

    def create(self, key: str, data: bytes) -> None:
        """Broken."""
        if self.inner.size(key) is not None:
            raise FileExistsError(key)
        if "race" in key:
            self.barrier.wait()
        Overwrites(self.inner).create(key, data)


class LiesAboutTheWinner(Broken):
    """Creates are exclusive, but another's content is what stands."""

    def create(self, key: str, data: bytes) -> None:
        """Broken."""
        self.inner.create(key, b"C" * len(data) if "race" in key else data)


class CachesListings(Broken):
    """The first listing of a prefix is the last."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.seen: dict[str, Listing] = {}

    def list(self, prefix: str) -> Listing:
        """Broken."""
        return self.seen.setdefault(prefix, self.inner.list(prefix))


class ReadsLate(Broken):
    """Another client sees an object only at the second look."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.looked: set[str] = set()

    def size(self, key: str) -> int | None:
        """Broken."""
        size = self.inner.size(key)
        if "read-" in key and size is not None and key not in self.looked:
            self.looked.add(key)
            return None
        return size


class Truncates(Broken):
    """Large uploads lose their end."""

    def upload(self, local: Path, key: str) -> None:
        """Broken."""
        self.inner.create(key, local.read_bytes()[:-1])


class Corrupts(Broken):
    """Downloads have the right size and one wrong bit."""

    def download(self, key: str, local: Path) -> None:
        """Broken."""
        data = bytearray(self.inner.read(key))
        data[len(data) // 2] ^= 1
        local.write_bytes(bytes(data))


class WrongRange(Broken):
    """Ranges are off by one."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Broken."""
        return self.inner.read_range(key, start, length + 1)


class InventsObjects(Broken):
    """A missing object reads as an empty one."""

    def read(self, key: str) -> bytes:
        """Broken."""
        try:
            return self.inner.read(key)
        except BackupNotFoundError:
            return b""


class WrongClock(Broken):
    """The store lives an hour ahead."""

    def modified(self, key: str) -> int:
        """Broken."""
        return self.inner.modified(key) + 3600 * 10**9


class KeepsEverything(Broken):
    """Deletes do nothing, as with a bucket under a retention lock."""

    def delete(self, key: str) -> None:
        """Broken."""
        return


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        (Overwrites, {"second-create", "racing-creates"}),
        (ChecksThenWrites, {"racing-creates"}),
        (LiesAboutTheWinner, {"racing-creates"}),
        (CachesListings, {"list-after-write", "clean-up"}),
        (ReadsLate, {"read-after-write"}),
        (Truncates, {"upload"}),
        (Corrupts, {"upload"}),
        (WrongRange, {"range-read"}),
        (InventsObjects, {"missing-key"}),
        (WrongClock, {"clock"}),
        (KeepsEverything, {"delete", "clean-up"}),
    ],
)
def test_each_broken_promise_is_named(tmp_path: Path, kind: type[Broken], failed: set[str]) -> None:
    """The store is refused with the name of the property, and the others are tried all the same."""
    report = check_store(kind(open_store(f"file://{tmp_path}")))
    assert set(report.failed) == failed
    with pytest.raises(StoreError, match=sorted(failed)[0]) as refused:
        report.raise_unless_ok()
    assert refused.value.kind == "store-unfit"


@pytest.mark.parametrize(
    "verb", ["create", "read", "read_range", "upload", "download", "size", "list", "delete", "modified"]
)
def test_a_verb_that_always_fails_fails_the_check(tmp_path: Path, verb: str) -> None:
    """What could not be tried does not hold, and the check itself never raises."""

    class Fails(Broken):
        def _call(self, called: str, key: str, act):  # type: ignore[no-untyped-def]
            if called == verb:
                raise StoreError("connection reset by peer")
            return act()

    report = check_store(Fails(open_store(f"file://{tmp_path}")))
    assert not report.ok
    assert any("could not be tried: connection reset by peer" in item.detail for item in report.items)
