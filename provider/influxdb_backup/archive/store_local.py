"""A repository in a folder of this machine, or of a network file system that can name a file without replacing one."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from influxdb_backup.archive.exclusive_rename import file_system_of, rename_new, renames_are_proved
from influxdb_backup.archive.layout import check_key
from influxdb_backup.archive.store import (
    CHUNK,
    DOCUMENT_BYTES,
    UNFIT,
    VANISHED,
    Listing,
    Store,
    file_digest,
    store_errors,
    too_large,
)
from influxdb_backup.errors import FormatError, StoreError, UsageError

_TEMPORARY = ".tmp-"
_FOLDER_TRIES = 10
_LARGE = 1 << 20
"""bytes of a file that takes the disk a while"""
_FLUSHES = 8
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""what a file system says that knows no hard links"""
_NO_FLUSH_OF_FOLDERS = frozenset({errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
"""what a file system says that writes names in its own time, as PostgreSQL's fsync_fname knows it"""
_NO_EXCLUSIVE_RENAME = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


class LocalStore(Store):
    """
    Objects are files. A file appears under its name only when its content is whole and on the disk.

    Content goes to a temporary name in the same folder, is flushed, linked to its name with ``os.link`` (which
    fails when the name exists, unlike a rename), and then the folder is flushed; what is uploaded is flushed later,
    all at once. Without hard links a rename that replaces nothing does it, where that is proved to be one act; a folder
    that cannot be flushed is a remark. A killed process leaves ``.tmp-*`` files at most, which no verb shows. A root
    that is not there is never made by a verb that writes: it may be a disk that is not mounted.
    """

    replies_get_lost = False

    def __init__(self, root: Path, mode: int | None = None) -> None:
        """``mode`` is that of the files, folders are given the search rights with it; else the process's umask."""
        if not str(root) or not root.is_absolute():
            raise UsageError(f"The repository's path {str(root)!r} is not absolute.", hint="Write file:///path/to/it.")
        self.root = Path(os.path.normpath(root))
        self.url = f"file://{self.root}"
        self._mode = mode
        self._names_are_flushed = True
        self._has_links = True
        self._others_read = False

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def make_root(self) -> None:
        """See Store.make_root. Makes the folder, and those above it."""
        with store_errors(self.url, "make", ""):
            self._make_folder(self.root, top=Path(self.root.anchor), flush=True)

    def _create(self, key: str, data: bytes) -> None:
        """See Store._create."""
        path = self._path(key)

        def write(descriptor: int) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

        with store_errors(self.url, "create", key):
            self._publish(path, write)

    def refuses(self, key: str, data: bytes) -> bool:
        """See Store.refuses. Nothing is written where the file system knows hard links."""
        path = self._path(key)
        with store_errors(self.url, "create again", key):
            try:
                os.link(path, path)
            except FileExistsError:
                return True
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
        return super().refuses(key, data)

    def upload(self, local: Path, key: str) -> None:
        """See Store.upload."""
        path = self._path(key)

        def write(descriptor: int) -> None:
            with local.open("rb") as source, os.fdopen(os.dup(descriptor), "wb") as target:
                shutil.copyfileobj(source, target, CHUNK)
                large = target.tell() >= _LARGE
            if large:
                _begin_flushing(descriptor)

        with store_errors(self.url, "upload", key):
            self._publish(path, write, flush=False)

    def flush(self, keys: Sequence[str]) -> None:
        """See Store.flush. Several at once, since one journal commit of the disk serves them all."""
        paths = [self._path(key) for key in keys]
        parents = {path.parent for path in paths}
        folders = {folder for parent in parents for folder in (parent, *parent.parents)}
        folders = {folder for folder in folders if folder.is_relative_to(self.root)}
        with store_errors(self.url, "flush", keys[0] if keys else ""), ThreadPoolExecutor(_FLUSHES) as pool:
            list(pool.map(_flush, paths))
            list(pool.map(self._flush_folder, folders))

    def _publish(self, path: Path, write: Callable[[int], None], *, flush: bool = True) -> None:
        temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        descriptor = self._open_new(temporary, flush=flush)
        try:
            try:
                write(descriptor)
                if flush:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._name(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            with suppress(OSError):  # what went wrong is what is told
                self._remove_empty(path.parent)
            raise
        temporary.unlink(missing_ok=True)
        if flush:
            self._flush_folder(path.parent)

    def _name(self, temporary: Path, path: Path) -> None:
        try:
            os.link(temporary, path)
        except FileExistsError:
            if not path.samefile(temporary):  # NFS repeats a request whose reply was lost
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._rename(temporary, path)

    def _rename(self, temporary: Path, path: Path) -> None:
        kind = file_system_of(path.parent)
        if not renames_are_proved(kind):
            raise self._no_exclusive_names(kind)
        try:
            rename_new(temporary, path)
        except OSError as error:
            if error.errno in _NO_EXCLUSIVE_RENAME:
                raise self._no_exclusive_names(kind) from error
            raise
        self._has_links = False

    def _no_exclusive_names(self, kind: str) -> StoreError:
        return StoreError(
            f"The file system of {self.root} ({kind or 'of unknown type'}) has no hard links, and no rename that is "
            "proved to replace nothing: two exports could overwrite each other's backup.",
            hint="Use a folder on a disk of this machine, on NFS, or on SMB, or an object store, such as s3://; a file "
            "system in user space (FUSE) only where it has hard links.",
            kind=UNFIT,
        )

    def _flush_folder(self, folder: Path) -> None:
        try:
            _flush(folder)
        except OSError as error:
            if error.errno not in _NO_FLUSH_OF_FOLDERS:
                raise
            self._names_are_flushed = False

    def remarks(self) -> tuple[str, ...]:
        """See Store.remarks."""
        kind = file_system_of(self.root) or "of unknown type"
        found = []
        if not self._names_are_flushed:
            found.append(
                f"The file system ({kind}) cannot flush folders: after a power cut of this machine, or of its server, "
                "the newest backups can be missing, though none is half there; `influxdb-backup coverage` tells."
            )
        if not self._has_links:
            found.append(
                f"The file system ({kind}) has no hard links; a rename that replaces nothing takes their place."
            )
        if self._others_read and all(_lets_others_through(folder) for folder in (self.root, *self.root.parents)):
            found.append(
                f"Every user of this host can read the backups: `chmod 700 {self.root}` ends that at once, and `mode` "
                'of the repository in the YAML file, such as "0600", gives new files their rights.'
            )
        return tuple(found)

    def _open_new(self, temporary: Path, *, flush: bool) -> int:
        for _ in range(_FOLDER_TRIES):
            self._make_folder(temporary.parent, top=self.root, flush=flush)
            try:
                descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 & (self._mode or 0o666))
            except FileNotFoundError:
                continue  # another client deleted the last object of the folder, and the folder with it
            return self._with_rights(descriptor)
        raise OSError(errno.EBUSY, f"the folder {temporary.parent} disappears again and again")

    def _with_rights(self, descriptor: int) -> int:
        try:
            if self._mode is not None:
                os.fchmod(descriptor, self._mode)
            self._others_read |= bool(os.fstat(descriptor).st_mode & stat.S_IROTH)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _make_folder(self, folder: Path, *, top: Path, flush: bool) -> None:
        """Makes a folder and those above it, up to ``top``, which must be there."""
        if folder.is_dir():
            return
        if folder == top:
            raise self._no_root()
        self._make_folder(folder.parent, top=top, flush=flush)
        try:
            if self._mode is not None and folder.is_relative_to(self.root):
                rights = self._mode | (self._mode & 0o444) >> 2
                folder.mkdir(rights)
                folder.chmod(rights)  # whatever the umask says
            else:
                folder.mkdir()
        except FileNotFoundError:
            return  # the parent was deleted meanwhile; the caller tries again
        except FileExistsError:  # to callers that would mean that the object is there
            if folder.is_dir():
                return
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        if flush:
            self._flush_folder(folder.parent)

    def _no_root(self) -> StoreError:
        return StoreError(
            f"There is no folder {self.root}.",
            hint="Mount it, or put it back where it was, and run the same again; only `influxdb-backup repo init` "
            "makes a repository.",
            kind=VANISHED,
        )

    @contextmanager
    def _open(self, key: str) -> Iterator[BinaryIO]:
        """An object's file. Raises FormatError for what is none: a pipe would be waited for, a device has no end."""
        descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FormatError(f"{key} in {self.url} is no regular file.", hint="Move it out of the repository.")
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            yield cast("BinaryIO", file)

    def read(self, key: str, most: int = DOCUMENT_BYTES) -> bytes:
        """See Store.read."""
        chunks, left = [], most + 1
        with store_errors(self.url, "read", key), self._open(key) as file:
            while left and (chunk := file.read(min(left, CHUNK))):
                chunks.append(chunk)
                left -= len(chunk)
        if not left:
            raise too_large(self.url, key, most)
        return b"".join(chunks)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """See Store.read_range."""
        with store_errors(self.url, "read a range of", key), self._open(key) as file:
            file.seek(start)
            return file.read(length)

    def download(self, key: str, local: Path) -> None:
        """See Store.download."""
        with store_errors(self.url, "download", key), self._open(key) as file, local.open("wb") as copy:
            shutil.copyfileobj(file, copy, CHUNK)

    def digest(self, key: str) -> tuple[int, str]:
        """See Store.digest."""
        path = self._path(key)
        with store_errors(self.url, "digest", key), self._open(key):
            return file_digest(path)

    def size(self, key: str) -> int | None:
        """See Store.size."""
        path = self._path(key)
        with store_errors(self.url, "find", key):
            try:
                return path.stat().st_size if path.is_file() else None
            except FileNotFoundError:
                return None

    def list(self, prefix: str) -> Listing:
        """See Store.list."""
        return [(key, state.st_size) for key, state in self._listed(prefix)]

    def list_times(self, prefix: str) -> Listing:
        """See Store.list_times."""
        return [(key, state.st_mtime_ns) for key, state in self._listed(prefix)]

    def _listed(self, prefix: str) -> Sequence[tuple[str, os.stat_result]]:
        folder = self._path(prefix.rstrip("/")) if prefix else self.root
        with store_errors(self.url, "list", prefix):
            found = sorted(self._walk(folder), key=lambda one: one[0])
        if not found and not self.root.is_dir():
            raise self._no_root()
        return found

    def _walk(self, folder: Path) -> Iterator[tuple[str, os.stat_result]]:
        try:
            entries = os.scandir(folder)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                if entry.name.startswith(_TEMPORARY):
                    continue
                path = Path(entry.path)
                if entry.is_dir():
                    yield from self._walk(path)
                    continue
                try:
                    state = entry.stat()
                except FileNotFoundError:
                    continue  # deleted since the folder was read
                yield path.relative_to(self.root).as_posix(), state

    def delete(self, key: str) -> None:
        """See Store.delete. Folders that become empty go as well, up to the root."""
        path = self._path(key)
        with store_errors(self.url, "delete", key):
            path.unlink(missing_ok=True)
            self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        """Removes a folder without entries, and those above it that it leaves without, up to the root."""
        while folder != self.root:
            try:
                folder.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                    return
                raise
            folder = folder.parent

    def modified(self, key: str) -> int:
        """See Store.modified."""
        path = self._path(key)
        with store_errors(self.url, "time", key):
            return path.stat().st_mtime_ns

    def again(self) -> Store:
        """See Store.again."""
        return LocalStore(self.root, self._mode)

    def local_path(self, key: str) -> Path | None:
        """See Store.local_path."""
        return self._path(key)


def _begin_flushing(descriptor: int) -> None:
    """Has the system write a file to the disk from now on, so that flushing it later does not take as long."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _lets_others_through(folder: Path) -> bool:
    with suppress(OSError):
        return bool(folder.stat().st_mode & stat.S_IXOTH)
    return False


def _flush(path: Path) -> None:
    """A file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
