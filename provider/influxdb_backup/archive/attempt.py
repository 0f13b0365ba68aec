"""One attempt at a backup: parts under keys that nobody else uses, then the commit."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pyarrow as pa

from influxdb_backup.archive import layout
from influxdb_backup.archive.commit import Commit, Committed, ManifestDraft
from influxdb_backup.archive.parts import PartPlace, PartWriter, part_path
from influxdb_backup.errors import InfluxdbBackupError, UsageError
from influxdb_backup.fingerprint import TableFingerprint
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Column, FieldCount, Manifest, Part, Table, Window
from influxdb_backup.temporary import remove_dead_folders, temporary_folder

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository

logger = logger_of(__name__)

UPLOADS = 16
"""small parts that are uploaded at once"""
WAITING_UPLOADS = 64
"""small parts that wait for their upload in the temporary folder"""
Content = tuple[Table, Window, tuple[Column, ...], int, tuple[FieldCount, ...], str]
"""what makes two parts equal: table, piece, columns, rows, counts and fingerprint"""


def parts_by_content(manifest: Manifest | None) -> Mapping[Content, Part]:
    """The manifest's parts by what they hold; none without a manifest."""
    return {
        (entry.table, part.piece, part.columns, part.rows, part.counts, part.fingerprint): part
        for entry in (manifest.tables if manifest else ())
        for part in entry.parts
    }


class Uploads:
    """
    Uploads small files several at once beside what the caller does: a store's delay is not waited for each time.

    At most as many wait as a bound says: then ``begin`` waits.
    """

    def __init__(self, upload: Callable[[Path, str], None]) -> None:
        self._send = upload
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(WAITING_UPLOADS)
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[str, Future[None]] = {}

    def begin(self, path: Path, key: str) -> None:
        """Has the file uploaded and then removed here. Raises the error of an earlier upload: it ends the attempt."""
        with self._lock:
            for ended in [key for key, future in self._begun.items() if future.done()]:
                self._begun[ended].result()
                del self._begun[ended]
        self._room.acquire()
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")
            self._begun[key] = self._pool.submit(self._upload, path, key)

    def _upload(self, path: Path, key: str) -> None:
        try:
            self._send(path, key)
            path.unlink()
        finally:
            self._room.release()

    def wait_for(self, key: str) -> None:
        """Returns when nothing is uploaded to the key any more, whether that worked or not."""
        with self._lock:
            future = self._begun.get(key)
        if future is not None:
            with suppress(CancelledError):  # of one that had not begun when the attempt was given up
                future.exception()

    def finish(self) -> None:
        """Returns when all is uploaded. Raises the first error."""
        with self._lock:
            begun = list(self._begun.values())
        for future in begun:
            future.result()

    def stop(self) -> None:
        """Returns when nothing is uploaded any more; what had not begun is not."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


class Attempt:
    """
    A context manager around one try to back one window up. Its part writers may run in several threads.

    Leaving it removes its temporary folder, and, unless a manifest was begun, what it uploaded and did not
    commit. A killed attempt leaves objects that nothing references.
    """

    def __init__(self, repository: Repository, plan: str, window: Window, earlier: Manifest | None = None) -> None:
        """``earlier`` is the manifest of the window's last revision, whose equal parts are named, not stored again."""
        self.id = secrets.token_hex(16)
        self.plan = layout.check_plan(plan)
        self.window = window
        self._prefix = layout.attempt_prefix(plan, window, self.id)
        self._repository = repository
        self._lock = threading.Lock()
        self._numbers: dict[int, int] = {}
        self._writers = 0
        self._uploaded: set[str] = set()
        self._earlier = parts_by_content(earlier)
        self._shared: set[str] = set()
        remove_dead_folders()
        self._folder = temporary_folder()
        self._uploads = Uploads(self._upload)
        self._published = False

    def part_writer(self, number: int, table: Table, schema: pa.Schema, piece: Window) -> PartWriter:
        """A writer for the points of one table in one piece of the window. Raises UsageError for a foreign piece."""
        if not self.window.contains(piece):
            raise UsageError(f"The piece {piece} is not within the window {self.window}.")
        with self._lock:
            self._writers += 1
            temporary = Path(self._folder.name) / f"{self._writers}.parquet"
        place = PartPlace(
            plan=self.plan,
            window=self.window,
            table=table,
            piece=piece,
            temporary=temporary,
            next_key=lambda: self._next_key(number, table),
            uploaded=self._note,
            upload=self._uploads.begin,
            withdraw=self._withdraw,
            find_equal=partial(self._find_equal, table, piece),
        )
        return PartWriter(self._repository.store, place, schema)

    def _upload(self, path: Path, key: str) -> None:
        self._repository.prove_local_place()  # else the disk under an unmounted folder is filled
        self._repository.store.upload(path, key)

    def _next_key(self, number: int, table: Table) -> str:
        self._repository.prove_local_place()
        with self._lock:
            part = self._numbers.get(number, 0)
            self._numbers[number] = part + 1
        return layout.part_key(self._prefix, number, table.measurement, part)

    def _find_equal(
        self, table: Table, piece: Window, seen: TableFingerprint, columns: tuple[Column, ...]
    ) -> Part | None:
        part = self._earlier.get((table, piece, columns, seen.rows, seen.counts, seen.hexadecimal))
        if part is None:
            return None
        try:
            unharmed = self._repository.store.digest(part_path(part)) == (part.size, part.sha256)
        except InfluxdbBackupError as error:
            logger.warning("The part %s of the last revision is stored again: %s", part.path, error)
            return None
        if not unharmed:
            logger.warning("The part %s of the last revision is damaged, and is stored again.", part.path)
            return None
        with self._lock:
            self._shared.add(part.path)
        return part

    def _note(self, key: str) -> None:
        with self._lock:
            self._uploaded.add(key)

    def withdraw(self, parts: Sequence[Part]) -> None:
        """Removes parts that will not be part of the backup after all, as far as the store lets it."""
        self._withdraw(tuple(part.path for part in parts))

    def _withdraw(self, keys: tuple[str, ...]) -> None:
        with self._lock:
            own = [key for key in keys if key in self._uploaded]  # a shared part is the last revision's
        for key in own:
            self._uploads.wait_for(key)
            try:
                self._repository.store.delete(key)
            except InfluxdbBackupError as error:
                logger.warning("An object that nothing references stays behind: %s", error)
            with self._lock:
                self._uploaded.discard(key)

    def commit(self, draft: ManifestDraft) -> Committed:
        """
        Makes the parts of ``draft`` a backup: the manifest, then the ref at the next revision.

        Returns the revision that stands, also when it is the latest one and has the same content. Raises
        ConflictError, SupersededError, CommitStateUnknownError, StoreError; UsageError for a part of another
        attempt.
        """
        self._uploads.finish()
        with self._lock:
            own, shared = frozenset(self._uploaded), frozenset(self._shared)
        commit = Commit(self._repository, self.plan, self.window, self.id, draft)
        commit.check_parts(own, shared)
        standing = commit.same_as_latest()
        if standing is not None:
            return Committed(ref=standing, created=False)
        self._repository.prove_local_place()
        self._published = True  # from here on a ref may exist whatever is raised: nothing is removed any more
        return commit.publish()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._uploads.stop()
            if not self._published:
                self._withdraw(tuple(sorted(self._uploaded)))
        finally:
            self._folder.cleanup()
