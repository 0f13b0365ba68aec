"""What every store must keep: one suite for local, memory and S3."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from influxdb_backup.archive.store import REMOTE_CHUNK, Store, open_store
from influxdb_backup.archive.store_object import refused_because_it_exists
from influxdb_backup.errors import BackupNotFoundError, StoreError, UsageError


def test_create_then_every_reading_verb_sees_it(store: Store) -> None:
    """Read-after-write and list-after-write hold for all verbs, whatever was asked before."""
    assert store.size("refs/a/1.json") is None
    assert store.list("refs/") == []
    store.create("refs/a/1.json", b"content")
    assert store.read("refs/a/1.json") == b"content"
    assert store.size("refs/a/1.json") == 7
    assert store.list("refs/") == [("refs/a/1.json", 7)]
    assert store.list("refs/a/") == [("refs/a/1.json", 7)]
    assert store.list("") == [("refs/a/1.json", 7)]
    assert store.again().list("") == [("refs/a/1.json", 7)]


def test_a_listing_is_never_cached(store: Store) -> None:
    """What another client creates or deletes shows in the next listing."""
    other = store.again()
    store.create("refs/1.json", b"1")
    assert len(store.list("refs/")) == 1
    other.create("refs/2.json", b"22")
    assert store.list("refs/") == [("refs/1.json", 1), ("refs/2.json", 2)]
    other.delete("refs/1.json")
    assert store.list("refs/") == [("refs/2.json", 2)]
    assert store.size("refs/1.json") is None


def test_a_second_create_is_refused_and_changes_nothing(store: Store) -> None:
    """Create-if-absent: the first content stays."""
    store.create("a.json", b"first")
    with pytest.raises(FileExistsError):
        store.create("a.json", b"second")
    assert store.read("a.json") == b"first"


def test_a_create_of_equal_bytes_is_success(store: Store) -> None:
    """A client that repeats its own request, whose reply was lost, finds its own object in the way."""
    store.create("a.json", b"first")
    store.again().create("a.json", b"first")
    with pytest.raises(FileExistsError):
        store.again().create("a.json", b"firs")
    assert store.read("a.json") == b"first"


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_of_racing_creates_exactly_one_wins(store: Store, size: int) -> None:
    """The content that stands is the winner's, whole."""
    clients = [store, store.again(), store.again()]
    for turn in range(8):
        key, barrier = f"race/{turn}.json", threading.Barrier(len(clients))

        def run(position: int, key: str = key, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                clients[position].create(key, bytes([65 + position]) + b"x" * size)
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(len(clients)) as pool:
            won = list(pool.map(run, range(len(clients))))
        assert won.count(True) == 1
        assert store.read(key) == bytes([65 + won.index(True)]) + b"x" * size


def test_upload_and_download_carry_every_byte(store: Store, tmp_path: Path) -> None:
    """Also for a file larger than one chunk of every client."""
    data = os.urandom(1 << 20) * 36
    (tmp_path / "in").write_bytes(data)
    store.upload(tmp_path / "in", "data/x/part.parquet")
    store.download("data/x/part.parquet", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    assert store.size("data/x/part.parquet") == len(data)
    assert store.digest("data/x/part.parquet") == (len(data), "sha256:" + hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("size", [0, 5, REMOTE_CHUNK, REMOTE_CHUNK + 1])
def test_digest_of_any_size(store: Store, tmp_path: Path, size: int) -> None:
    """Sizes at the edges of the chunks are hashed whole."""
    (tmp_path / "in").write_bytes(b"z" * size)
    store.upload(tmp_path / "in", "data/one")
    assert store.digest("data/one") == (size, "sha256:" + hashlib.sha256(b"z" * size).hexdigest())


def test_ranges(store: Store) -> None:
    """A range is exact, short at the end and empty behind it."""
    store.create("a", b"0123456789")
    assert store.read_range("a", 2, 3) == b"234"
    assert store.read_range("a", 8, 10) == b"89"
    assert store.read_range("a", 10, 10) == b""
    assert store.read_range("a", 0, 10) == b"0123456789"


def test_a_missing_key_is_told_as_missing(store: Store, tmp_path: Path) -> None:
    """Where bytes are asked for, with key and URL in the message."""
    store.create("other", b"1")
    for ask in (
        lambda: store.read("no/such"),
        lambda: store.read_range("no/such", 0, 1),
        lambda: store.download("no/such", tmp_path / "x"),
        lambda: store.digest("no/such"),
        lambda: store.modified("no/such"),
    ):
        with pytest.raises(BackupNotFoundError, match="no/such") as found:
            ask()
        assert store.url in str(found.value)
    assert store.size("no/such") is None
    assert store.size("no") is None


def test_delete_and_create_again(store: Store) -> None:
    """A deleted key is gone for every verb; deleting what is not there is no error."""
    store.create("a/b/c.json", b"1")
    store.delete("a/b/c.json")
    store.delete("a/b/c.json")
    assert store.size("a/b/c.json") is None
    assert store.list("") == []
    store.create("a/b/c.json", b"2")
    assert store.read("a/b/c.json") == b"2"


def test_a_prefix_lists_what_is_below_it_only(store: Store) -> None:
    """``refs/a/`` does not list ``refs/ab/``, and a missing prefix lists nothing."""
    for key in ("refs/a/1", "refs/ab/1", "refs/a/x/y/2", "other"):
        store.create(key, b"1")
    assert [key for key, _ in store.list("refs/a/")] == ["refs/a/1", "refs/a/x/y/2"]
    assert store.list("nothing/here/") == []


def test_modified_is_now(store: Store) -> None:
    """The store's clock, in ns."""
    import time

    store.create("a", b"1")
    assert abs(store.modified("a") - time.time_ns()) < 60 * 10**9


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a/./b", "a\\b", "a\nb", "a\x00"])
def test_a_key_that_leaves_the_root_is_refused(store: Store, key: str, tmp_path: Path) -> None:
    """By every verb."""
    for ask in (
        lambda: store.create(key, b"1"),
        lambda: store.read(key),
        lambda: store.size(key),
        lambda: store.delete(key),
        lambda: store.digest(key),
        lambda: store.local_path(key),
    ):
        with pytest.raises(UsageError):
            ask()


def test_threads_share_a_store(store: Store, tmp_path: Path) -> None:
    """Parallel uploads, downloads and reads do not mix their bytes."""
    contents = {f"data/{n}": os.urandom(200_000 + n) for n in range(6)}

    def work(item: tuple[str, bytes]) -> bool:
        key, data = item
        local = tmp_path / key.replace("/", "-")
        local.write_bytes(data)
        store.upload(local, key)
        back = local.with_suffix(".back")
        store.download(key, back)
        return back.read_bytes() == data == store.read(key)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, contents.items()))

    def again(_: int) -> bytes:
        target = tmp_path / f"again-{_}"
        store.download("data/0", target)
        return target.read_bytes()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(again, range(12))) == {contents["data/0"]}


# what only one kind can show


def test_s3_without_the_bucket_says_so(s3_store: Store) -> None:
    """Writing into a bucket that does not exist is a StoreError, not a missing backup."""
    options = dict(s3_store._options)  # type: ignore[attr-defined]
    missing = open_store("s3://there-is-no-such-bucket/x", options)
    with pytest.raises(StoreError, match="bucket or folder exists"):
        missing.create("a", b"1")


def test_errors_never_show_credentials(s3_store: Store) -> None:
    """A secret that a library's message repeats is blanked."""
    options = {**s3_store._options, "client_kwargs": {"endpoint_url": "http://127.0.0.1:1/hush-hush-token"}}  # type: ignore[attr-defined]
    options["token"] = "hush-hush-token"
    broken = open_store("s3://bucket/x", {**options, "config_kwargs": {"retries": {"max_attempts": 1}}})
    broken._fs.retries = 1  # type: ignore[attr-defined]
    with pytest.raises(StoreError) as found:
        broken.read("a")
    assert "hush-hush-token" not in str(found.value)
    assert "s3://bucket/x" in str(found.value)


def test_local_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a write shows no object and says what to do."""
    store = open_store(f"file://{tmp_path}/r")
    store.make_root()

    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StoreError, match="No space is left to create a/b in file://") as found:
            store.create("a/b", b"12345")
    assert found.value.kind == "disk-full"
    assert [path for path in (tmp_path / "r").rglob("*") if path.is_file()] == []
    store.create("a/b", b"12345")


def test_local_below_a_file_is_no_object_that_exists(tmp_path: Path) -> None:
    """A folder that cannot be made, since a file has its name, is a StoreError: not a key that is taken."""
    (tmp_path / "taken").write_text("a file")
    store = open_store(f"file://{tmp_path}")
    with pytest.raises(StoreError, match="Not a directory"):
        store.create("taken/1.json", b"1")
    with pytest.raises(StoreError, match="Not a directory"):
        store.upload(tmp_path / "taken", "taken/1")
    with pytest.raises(StoreError, match="Not a directory"):
        open_store(f"file://{tmp_path}/taken/repository").make_root()


def test_local_writes_never_make_the_root(tmp_path: Path) -> None:
    """A folder that is not there may be a disk that is not mounted: only what makes a repository makes it."""
    store = open_store(f"file://{tmp_path}/not/there")
    (tmp_path / "in").write_bytes(b"1")
    for write in (
        lambda: store.create("refs/1.json", b"1"),
        lambda: store.upload(tmp_path / "in", "data/1"),
        lambda: store.list("refs/"),
    ):
        with pytest.raises(StoreError, match=r"There is no folder .*not/there.*repo init"):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_local_temporary_files_of_a_killed_process_stay_invisible(tmp_path: Path) -> None:
    """They are in no listing and in no way of a create."""
    store = open_store(f"file://{tmp_path}")
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / ".tmp-0123").write_bytes(b"half")
    assert store.list("refs/") == []
    store.create("refs/1.json", b"1")
    assert store.list("refs/") == [("refs/1.json", 1)]


def test_a_refused_create_is_recognised_in_every_dialect() -> None:
    """Clients say 412 in different ways; anything else is no refusal."""

    class Reply(Exception):
        def __init__(self, **attributes: object) -> None:
            super().__init__()
            self.__dict__.update(attributes)

    minio = OSError(22, "At least one of the pre-conditions you specified did not hold")
    minio.__cause__ = Reply(response={"Error": {"Code": "PreconditionFailed"}})
    assert refused_because_it_exists(minio)
    assert refused_because_it_exists(Reply(response={"ResponseMetadata": {"HTTPStatusCode": 412}}))
    assert refused_because_it_exists(Reply(code=412))
    assert refused_because_it_exists(Reply(status_code=412))
    assert not refused_because_it_exists(Reply(code=409))
    assert not refused_because_it_exists(Reply(response={"Error": {"Code": "SlowDown"}}))
    assert not refused_because_it_exists(OSError(5, "input/output error"))


def test_options_cannot_switch_listing_caches_on(s3_store: Store) -> None:
    """Whatever a connection says, conflicts and verification see the store as it is."""
    options = {**s3_store._options, "use_listings_cache": True}  # type: ignore[attr-defined]
    cached = open_store(s3_store.url, options)
    assert cached.list("") == []
    s3_store.create("a", b"1")
    assert cached.list("") == [("a", 1)]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("relative/path", "not absolute"),
        ("file://relative", "not absolute"),
        ("s3://key:secret@bucket/x", "holds credentials"),
        ("ftp://host/x", "No store for ftp"),
        ("s3://bucket/x?token=1", "no [?]"),
        ("s3://", "names no bucket"),
        ("memory://", "names no bucket"),
    ],
)
def test_urls_that_cannot_be_repositories(url: str, reason: str) -> None:
    """The error names what is wrong and never repeats a secret."""
    with pytest.raises(UsageError, match=reason) as found:
        open_store(url)
    assert "secret" not in str(found.value)


def test_a_plain_path_is_a_folder(tmp_path: Path) -> None:
    """``/path`` and ``file:///path`` are the same place."""
    open_store(str(tmp_path)).create("a", b"1")
    assert open_store(f"file://{tmp_path}/").read("a") == b"1"
