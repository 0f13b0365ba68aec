"""
The door to a repository's objects: few verbs, each with a promise that every store must keep.

``check.check_store`` proves the promises on a user's own store. Keys are relative to the store's root. Every
failure of the store is a StoreError that names key and URL; a missing key is a BackupNotFoundError where bytes
were asked for.
"""

from __future__ import annotations

import errno
import hashlib
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from influxdb_backup.archive.layout import PREFLIGHT, check_key
from influxdb_backup.errors import (
    BackupNotFoundError,
    FormatError,
    InfluxdbBackupError,
    IntegrityError,
    StoreError,
    UsageError,
)
from influxdb_backup.messages import logger_of

logger = logger_of(__name__)

Listing = list[tuple[str, int]]

CHUNK = 1 << 20
"""bytes that are read at once from a local file"""
DOCUMENT_BYTES = 16 << 20
"""the largest document that is read, manifests left out; a ref of ten thousand names has a thousandth of that"""
MANIFEST_BYTES = 1 << 30
"""the largest manifest that is read: of about a million parts"""
UNREADABLE = "object-unreadable"
"""the kind of a StoreError that is about one object: a disk or its rights refuse its bytes, and not those of others"""
_OF_ONE_OBJECT = {
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EBADMSG,
    getattr(errno, "EUCLEAN", errno.EIO),
    errno.ELOOP,
}
REFUSED = "store-refused"
"""the kind of a StoreError of a store that understood, and does not allow it to these credentials"""
UNFIT = "store-unfit"
"""the kind of a StoreError of a store that breaks a promise"""
VANISHED = "repository-vanished"
"""the kind of a StoreError of a repository, or its folder, that is not at its place"""
REMOTE_CHUNK = 8 << 20
"""bytes of one ranged read from a remote store"""
_CLOCKS = "The clocks of this machine and of the store differ by more than 15 minutes: set the wrong one, by NTP."
_WAYS_OUT = {
    "RequestTimeTooSkewed": _CLOCKS,
    "difference between the request time": _CLOCKS,
    "Unsupported header": "A store that does not know the checksums of newer clients needs, in the connection's extra, "
    '{"config_kwargs": {"request_checksum_calculation": "when_required", '
    '"response_checksum_validation": "when_required"}}.',
    "answered with a redirect to": "Redirects of a store are not followed, since credentials would go along. Where the "
    "other address is the store's own, write it into the connection's extra as endpoint_url; else ask who runs it.",
}
"""what a store's refusal says, and what is to be done about it"""
_SPACE = {errno.ENOSPC, errno.EDQUOT}
_WITH_PASSWORD = re.compile(r"[a-z0-9+.-]+://([^/]*:|[^/@]*:.*@)", re.IGNORECASE)
"""a secret with a slash in it reaches beyond the first one, and no bucket's name has a colon"""
_ABSENT_IS_AN_ANSWER = {"read", "read a range of", "download", "digest", "time"}


class Store(ABC):
    """
    One root in one object store. Safe for use by several threads.

    After a verb that changes something returned, every client sees the change in every verb (read-after-write and
    list-after-write); objects are seen whole or not at all.
    """

    url: str
    """as messages show it: no credentials"""

    replies_get_lost: ClassVar[bool] = True
    """whether an object may stand although its creation ended in an error; a local file then may not be on the disk"""

    @abstractmethod
    def make_root(self) -> None:
        """Makes the place itself, where a store has such a thing: only what makes a repository calls it."""

    def create(self, key: str, data: bytes) -> None:
        """
        Publishes the whole content under a key that must not exist, or holds these very bytes.

        Of any number of racing calls with different bytes exactly one succeeds, the others raise FileExistsError and
        change nothing. Equal bytes are success, since a client that repeats a request whose reply was lost is told
        that its own object is in the way: a writer that must be the only one puts an id of its own into them.
        A StoreError leaves open whether the object was created.
        """
        try:
            self._create(key, data)
        except FileExistsError:
            if self.read(key) != data:
                raise
            self.flush([key])
        except StoreError as lost:
            if not (self.replies_get_lost and self._stands(key, data)):
                raise
            logger.info("%s stands in %s with its content, although its creation ended so: %s", key, self.url, lost)

    def _stands(self, key: str, data: bytes) -> bool:
        try:
            return self.read(key) == data
        except InfluxdbBackupError:
            return False

    @abstractmethod
    def _create(self, key: str, data: bytes) -> None:
        """
        The store's own act of ``create``: raises FileExistsError for a key that exists, whatever it holds.

        A StoreError leaves open whether the object was created.
        """

    def refuses(self, key: str, data: bytes) -> bool:
        """Whether the creation of an object that stands, with these bytes, is refused; False when it was written."""
        try:
            self._create(key, data)
        except FileExistsError:
            return True
        return False

    def prove_refusal(self, key: str, data: bytes) -> None:
        """Raises StoreError (``store-unfit``) when an object that stands, with these bytes, can be created again."""
        if not self.refuses(key, data):
            raise StoreError(
                f"{self.url} does not refuse to create {key}, which stands there already: two exports could overwrite "
                "each other's backup.",
                hint="Use a store that keeps the condition If-None-Match of a PUT, or correct its settings; "
                "`influxdb-backup repo check` proves all that a store must do.",
                kind=UNFIT,
            )

    def prove_creates(self) -> None:
        """Raises StoreError when the place cannot be written, or does not refuse a second creation; leaves nothing."""
        key, data = f"{PREFLIGHT}create-{secrets.token_hex(16)}", b"create\n"
        try:
            self.create(key, data)
            self.prove_refusal(key, data)
        finally:
            with suppress(StoreError):  # who may only create leaves it behind
                self.delete(key)

    @abstractmethod
    def upload(self, local: Path, key: str) -> None:
        """
        Copies a local file to a key that only this caller knows; a failure may leave anything there.

        What is uploaded must be flushed before anything references it.
        """

    def flush(self, keys: Sequence[str]) -> None:
        """Makes uploaded objects survive a power cut. Most stores have done so when an upload returns."""
        for key in keys:
            check_key(key)

    @abstractmethod
    def read(self, key: str, most: int = DOCUMENT_BYTES) -> bytes:
        """
        The whole content of an object of at most so many bytes.

        Raises BackupNotFoundError, IntegrityError (``size``) for a larger one, of which no more than that is read,
        and FormatError for what is no file.
        """

    @abstractmethod
    def read_range(self, key: str, start: int, length: int) -> bytes:
        """At most ``length`` bytes from ``start``; fewer only at the end. Raises BackupNotFoundError."""

    @abstractmethod
    def download(self, key: str, local: Path) -> None:
        """Copies an object to a local file. Raises BackupNotFoundError."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Size in bytes, or None when there is no such object."""

    @abstractmethod
    def list(self, prefix: str) -> Listing:
        """Keys and sizes of all objects below a prefix that ends with ``/`` (or is empty), sorted; never cached."""

    def list_times(self, prefix: str) -> Listing:
        """
        As ``list``, with the time (ns) at which each object was written, by the store's clock, in place of its size.

        0 where the store does not say it in a listing; a store that was copied says when that was.
        """
        return [(key, 0) for key, _ in self.list(prefix)]

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""

    @abstractmethod
    def modified(self, key: str) -> int:
        """When the object was written by the store's clock, in ns. Raises BackupNotFoundError."""

    @abstractmethod
    def again(self) -> Store:
        """Another client of the same root that shares no cache and no connection with this one."""

    def now(self) -> int:
        """The store's clock in ns, as it dates a small object that is written for that and removed."""
        key = f"{PREFLIGHT}clock-{secrets.token_hex(16)}"
        self.create(key, b"clock\n")
        try:
            return self.modified(key)
        finally:
            with suppress(StoreError):  # who may only create leaves it behind
                self.delete(key)

    def remarks(self) -> tuple[str, ...]:
        """What is to be known of a place that keeps every promise, in sentences, as far as was seen until now."""
        return ()

    def local_path(self, key: str) -> Path | None:
        """Where the object can be read in place, for stores on this machine; else None."""
        check_key(key)
        return None

    def digest(self, key: str) -> tuple[int, str]:
        """Size and ``sha256:<hex>`` of an object as stored. Raises BackupNotFoundError."""
        state, position = hashlib.sha256(), 0
        while True:
            chunk = self.read_range(key, position, REMOTE_CHUNK)
            state.update(chunk)
            position += len(chunk)
            if len(chunk) < REMOTE_CHUNK:
                return position, "sha256:" + state.hexdigest()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


def file_digest(path: Path) -> tuple[int, str]:
    """Size and ``sha256:<hex>`` of a local file. Raises OSError."""
    state, size = hashlib.sha256(), 0
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(buffer):
            state.update(view[:read])
            size += read
    return size, "sha256:" + state.hexdigest()


def too_large(url: str, key: str, most: int) -> IntegrityError:
    """The error of an object with more bytes than what stands under such a key can have."""
    return IntegrityError(f"{key} in {url} has more than {most:,} bytes, and is not what was written.", kind="size")


def is_damage(error: InfluxdbBackupError) -> bool:
    """Whether it is about one object alone: wrong bytes, or bytes that its disk does not give. Others say nothing."""
    return isinstance(error, (FormatError, IntegrityError)) or error.kind == UNREADABLE


@contextmanager
def store_errors(url: str, verb: str, key: str, secrets: tuple[str, ...] = ()) -> Iterator[None]:
    """
    Turns what a store's library raises into this package's errors; the body holds only calls of that library.

    FileExistsError passes when the verb is ``create``.
    """
    try:
        yield
    except InfluxdbBackupError:
        raise
    except FileNotFoundError as error:
        if verb in _ABSENT_IS_AN_ANSWER:
            raise BackupNotFoundError(f"{url} holds no object {key}.") from error
        raise _store_error(url, verb, key, error, secrets) from error
    except FileExistsError as error:
        if verb == "create":
            raise FileExistsError(errno.EEXIST, f"{url} holds an object {key} already") from error
        raise _store_error(url, verb, key, error, secrets) from error
    except Exception as error:  # the libraries of the stores have no common root of their errors
        raise _store_error(url, verb, key, error, secrets) from error


def is_disk_full(error: Exception) -> bool:
    """Whether the reason is that a disk or a quota is used up."""
    text = str(error).lower()
    return isinstance(error, OSError) and (error.errno in _SPACE or "no space left on device" in text)


def _store_error(url: str, verb: str, key: str, error: Exception, secrets: tuple[str, ...]) -> StoreError:
    if is_disk_full(error):
        return StoreError(
            f"No space is left to {verb} {key} in {url}.",
            hint="Free space there and run the same again.",
            kind="disk-full",
        )
    reason = str(error).strip() or type(error).__name__
    for secret in secrets:
        reason = reason.replace(secret, "***")
    hint, kind = "", None
    if url.startswith("file:") and verb in _ABSENT_IS_AN_ANSWER and getattr(error, "errno", None) in _OF_ONE_OBJECT:
        kind = UNREADABLE
        hint = "Look at the disk and at the rights on this file, or put it back from a copy of the repository."
    elif said := next((way for word, way in _WAYS_OUT.items() if word in reason), None):
        hint = said
    elif isinstance(error, TimeoutError):
        hint = "Look whether the store, and what is between, is up and how fast it is; then run the same again."
    elif isinstance(error, PermissionError):
        kind = REFUSED
        hint = "Check the credentials and their rights on this place."
    elif isinstance(error, OSError) and error.errno == errno.EROFS:
        hint = "The place can only be read; use one that can be written."
    elif isinstance(error, FileNotFoundError):
        hint = "Check that the bucket or folder exists."
    return StoreError(
        f"Cannot {verb} {key or 'objects'} in {url}: {type(error).__name__}: {reason}.", hint=hint, kind=kind
    )


def open_store(url: str, storage_options: Mapping[str, object] | None = None, *, mode: int | None = None) -> Store:
    """
    The store at a URL: ``file:///folder`` or a path, ``s3://``, ``gs://``, ``abfs://``, ``memory://``.

    ``storage_options`` are fsspec's (credentials, endpoint), ``mode`` that of a folder's new files. Nothing is read or
    created. Raises UsageError for a URL that cannot be a store's or holds credentials, or when the store's library is
    not installed.
    """
    if _WITH_PASSWORD.match(url):
        raise UsageError(
            "The repository's URL holds credentials.", hint="Put them into the connection of the repository."
        )
    scheme, separator, rest = url.partition("://")
    if not separator or scheme in {"file", "local"}:
        from influxdb_backup.archive.store_local import LocalStore

        return LocalStore(Path(rest if separator else url), mode)
    from influxdb_backup.archive.store_object import MemoryStore, ObjectStore

    kind = MemoryStore if scheme == "memory" else ObjectStore
    return kind(url, dict(storage_options or {}))
