"""Folders of file systems that lack something, and who may read them."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from influxdb_backup.archive import exclusive_rename, layout, store_local
from influxdb_backup.archive.check import check_store
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.errors import StoreError
from influxdb_backup.model import VerifyLevel
from tests.archive.build import backup

real_fsync = os.fsync


def refuse(number: int) -> Callable[..., Any]:
    """A call of the system that a file system does not know."""

    def call(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return call


def flush_only_files(descriptor: int) -> None:
    """As SMB and FUSE do it."""
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    real_fsync(descriptor)


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses every hard link, as on FAT and on some shares."""
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))


def test_a_folder_that_cannot_be_flushed_is_a_repository_and_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`repo init` is whole, backups are, and `repo check` says what a power cut can do."""
    monkeypatch.setattr(os, "fsync", flush_only_files)
    store = open_store(f"file://{tmp_path}/new/repository")
    repository = Repository.init(store)
    done = backup(repository)
    assert done.created and verify_ref(repository, done.ref, VerifyLevel.VALID).ok
    report = check_store(store)
    assert report.failed == () and any("cannot flush folders" in remark for remark in report.remarks)


def test_a_file_that_cannot_be_flushed_ends_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forgiven to folders is not forgiven to content."""
    repository = Repository.init(open_store(f"file://{tmp_path}/repository"))
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    with pytest.raises(StoreError):
        backup(repository)
    assert repository.store.list(layout.REFS) == []


@pytest.mark.usefixtures("without_links")
def test_without_hard_links_a_rename_that_replaces_nothing_does_it(tmp_path: Path) -> None:
    """Every promise is kept, races of two clients too, and it is told how."""
    store = open_store(f"file://{tmp_path}/repository")
    repository = Repository.init(store)
    done = backup(repository)
    assert done.created and verify_ref(repository, done.ref, VerifyLevel.VALID).ok
    with pytest.raises(FileExistsError):
        store.create(layout.REPOSITORY, b"other")
    report = check_store(store)
    assert report.failed == () and any("no hard links" in remark for remark in report.remarks)
    assert not list((tmp_path / "repository").rglob(".tmp-*"))


@pytest.fixture(params=["fuse", "unknown", "no such rename"])
def without_any_way(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, without_links: None
) -> Iterator[str]:
    """A file system of a program, one that nothing names, and one whose renames always replace."""
    if request.param == "no such rename":
        monkeypatch.setattr(store_local, "rename_new", refuse(errno.EINVAL))
        yield str(exclusive_rename.file_system_of(Path("/")))
        return
    kind = {"fuse": "fuse.rclone", "unknown": ""}[request.param]
    monkeypatch.setattr(store_local, "file_system_of", lambda _: kind)
    yield kind or "unknown type"


def test_where_two_exports_could_overwrite_each_other_no_repository_is_made(
    tmp_path: Path, without_any_way: str
) -> None:
    """The error names the file system and what to use, nothing is half made, and `repo check` says the same."""
    store = open_store(f"file://{tmp_path}/repository")
    with pytest.raises(StoreError, match="no hard links") as caught:
        Repository.init(store)
    assert caught.value.kind == "store-unfit" and "NFS" in caught.value.hint and "rights" not in caught.value.hint
    assert list((tmp_path / "repository").rglob("*")) == []
    report = check_store(store)
    assert "create" in report.failed and "no hard links" in report.items[0].detail
    assert list((tmp_path / "repository").rglob("*")) == []


def test_an_exclusive_rename_replaces_nothing(tmp_path: Path) -> None:
    """By the system's own call."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        exclusive_rename.rename_new(source, target)
    assert (source.read_bytes(), target.read_bytes()) == (b"new", b"old")
    target.unlink()
    exclusive_rename.rename_new(source, target)
    assert target.read_bytes() == b"new" and not source.exists()


def test_the_file_system_of_a_folder_is_named() -> None:
    """By the mount that lies nearest above it."""
    assert exclusive_rename.file_system_of(Path("/proc/self")) == "proc"
    assert exclusive_rename.file_system_of(Path("/proc/self/../..")) == exclusive_rename.file_system_of(Path("/"))


@contextmanager
def mounted(folder: Path, make: str, mount: list[str]) -> Iterator[Path]:
    """A real file system of 64 MB; skips where its tools, a loop device or the rights are missing."""
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    device = ""
    try:
        run = partial(subprocess.run, check=True, capture_output=True, text=True)
        run([make, str(image)])
        device = run(["losetup", "-f", "--show", str(image)]).stdout.strip()
        run([*mount, device, str(place)])
    except (OSError, subprocess.CalledProcessError) as error:
        if device:
            subprocess.run(["losetup", "-d", device], check=False, capture_output=True)
        pytest.skip(str(error))
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=False, capture_output=True)
        subprocess.run(["losetup", "-d", device], check=False, capture_output=True)


def test_a_stick_with_fat_is_a_repository(tmp_path: Path) -> None:
    """No hard links, and renames that the kernel keeps from replacing."""
    with mounted(tmp_path, "mkfs.vfat", ["mount", "-t", "vfat"]) as place:
        store = open_store(f"file://{place}/repository")
        repository = Repository.init(store)
        done = backup(repository)
        assert verify_ref(repository, done.ref, VerifyLevel.VALID).ok
        assert check_store(store).failed == ()


def test_a_real_file_system_in_user_space_without_links_is_refused_by_name(tmp_path: Path) -> None:
    """A file system that is FUSE says "not permitted" to a link: that is no matter of rights, and nothing stays behind."""
    with mounted(tmp_path, "mkfs.exfat", ["mount.exfat-fuse"]) as place:
        store = open_store(f"file://{place}/repository")
        with pytest.raises(StoreError, match=r"\(fuse.*no hard links") as caught:
            Repository.init(store)
        assert "rights" not in caught.value.hint
        assert not check_store(store).ok
        assert list((place / "repository").rglob("*")) == []


@pytest.mark.parametrize(("mode", "folders"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755)])
def test_a_repository_has_the_mode_that_it_is_given(tmp_path: Path, mode: int, folders: int) -> None:
    """Every file and folder, whatever the umask; what cannot be read by all is not told as such."""
    root = tmp_path / "above" / "repository"
    code = (
        "import os, sys\n"
        "os.umask(0o027)\n"
        "from influxdb_backup.archive.repository import Repository\n"
        "from influxdb_backup.archive.store import open_store\n"
        "from tests.archive.build import backup\n"
        "assert backup(Repository.init(open_store(sys.argv[1], mode=int(sys.argv[2])))).created\n"
    )
    subprocess.run([sys.executable, "-c", code, f"file://{root}", str(mode)], check=True, timeout=300)
    found = [root, *root.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()} == {mode}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {folders}


def test_backups_that_every_user_can_read_are_told(tmp_path: Path) -> None:
    """Where the umask lets everyone read and no folder above stands in the way."""
    for folder in (tmp_path, *tmp_path.parents):
        if not stat.S_IMODE(folder.stat().st_mode) & stat.S_IXOTH:
            folder.chmod(0o755)
    before = os.umask(0o022)
    try:
        store = open_store(f"file://{tmp_path}/repository")
        store.make_root()
        (remark,) = check_store(store).remarks
        assert "Every user" in remark and "chmod 700" in remark and "mode" in remark
        assert check_store(open_store(store.url, mode=0o600)).remarks == ()
        (tmp_path / "repository").chmod(0o700)
        assert check_store(open_store(store.url)).remarks == ()
    finally:
        os.umask(before)
