"""A repository in an object store, through fsspec: S3 and what speaks it, Google, Azure, and memory for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.exceptions import FSTimeoutError

from influxdb_backup.archive.layout import check_key
from influxdb_backup.archive.store import DOCUMENT_BYTES, Listing, Store, store_errors, too_large
from influxdb_backup.errors import UsageError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_TRANSFER = 16 << 20
_TRANSFER_OPTIONS: dict[str, dict[str, int]] = {
    # s3fs keeps max_concurrency chunks in memory, by default ten of 50 MB
    "s3": {"chunksize": _TRANSFER, "max_concurrency": 3},
    "s3a": {"chunksize": _TRANSFER, "max_concurrency": 3},
}
_SILENCES = 8
"""a request may last as long as so many silences (``read_timeout`` of the S3 client), and the time for its bytes"""
_SILENCE_SECONDS = 15.0
"""what s3fs bears by itself"""
_LEAST_RATE = 256 << 10
"""bytes a second of an object on its way"""
_MOST_BYTES = 256 << 20
"""of an object whose size is not known: about a part"""
_LISTING_SECONDS = 1800.0
"""a listing has a page for each thousand objects"""
_CONNECTIONS = 32
"""of the S3 client, whose own ten are fewer than the requests that are made at once"""
_S3_TRIES = 2
"""of s3fs for a request that its client has given up; with its own five, silence would end after ten minutes"""
_S3 = frozenset({"s3", "s3a"})
_SECRET_WORDS = ("key", "secret", "token", "password", "credential", "sas", "connection_string")
_MEMORY_LOCK = threading.Lock()
"""fsspec's memory store is one per process and checks before it writes"""


def _secrets(options: dict[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _secrets(value)
        elif isinstance(value, str) and len(value) > 3 and any(word in name.lower() for word in _SECRET_WORDS):
            yield value


def refused_because_it_exists(error: BaseException) -> bool:
    """
    Whether a conditional put was answered 412, in whatever way the client's library says so.

    s3fs raises FileExistsError only when the reply's body names the condition, which not every server's does.
    """
    seen: BaseException | None = error
    while seen is not None:
        if any(getattr(seen, name, None) in {412, "412"} for name in ("code", "status", "status_code")):
            return True
        reply = getattr(seen, "response", None)
        if isinstance(reply, dict):
            status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 412 or reply.get("Error", {}).get("Code") in {"PreconditionFailed", "412"}:
                return True
        seen = seen.__cause__
    return False


def _written(entry: dict[str, Any]) -> int:
    """When an object of a listing was written; S3, Google, Azure and memory each have a word of their own for it."""
    for name in ("LastModified", "mtime", "last_modified", "created"):
        moment = entry.get(name)
        if isinstance(moment, datetime):
            return _nanoseconds(moment)
    return 0


def _nanoseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000_000) * 1000


class ObjectStore(Store):
    """Objects of a bucket (or container) below a prefix. The client keeps no listing and is shared with nobody."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._protocol, _, place = url.partition("://")
        if self._protocol not in {*_EXTRAS, "memory"}:
            raise UsageError(
                f"No store for {self._protocol}:// is known.",
                hint="Use file, s3, gs or abfs; see docs/format/spec-v1.md.",
            )
        if "?" in url or "#" in url:
            raise UsageError("A repository's URL has no ? and no #.", hint="Put options into its connection.")
        if not place.strip("/"):
            raise UsageError(f"The URL {url} names no bucket.")
        self.url = url.rstrip("/")
        self._options = options
        self._hidden = tuple(_secrets(options))
        try:
            self._fs, root = url_to_fs(
                self.url, **{**options, "skip_instance_cache": True, "use_listings_cache": False}
            )
        except ImportError as error:
            raise UsageError(
                f"The library for {self._protocol}:// is not installed: {error}.",
                hint=f"pip install 'airflow-provider-influxdb-backup[{_EXTRAS.get(self._protocol, '')}]'",
            ) from None
        if self._protocol in _S3:
            from influxdb_backup.archive.s3_session import UnredirectedSession

            self._fs.config_kwargs = {
                "max_pool_connections": _CONNECTIONS,
                **self._fs.config_kwargs,
                "http_session_cls": UnredirectedSession,
            }
            self._fs.retries = _S3_TRIES
        silence = (options.get("config_kwargs") or {}).get("read_timeout", _SILENCE_SECONDS)
        self._patience = _SILENCES * float(silence)
        self._root = root.rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _ask(self, call: Callable[..., Any], *arguments: Any, size: int = 0, seconds: float = 0.0, **more: Any) -> Any:
        """
        What the client's ``call`` returns, which moves ``size`` bytes. Raises TimeoutError when it takes too long.

        The client bounds only silences, and repeats what they end: a byte now and then would hold it for ever.
        """
        if not self._fs.async_impl:
            return call(*arguments, **more)
        limit = self._patience + seconds + size / _LEAST_RATE
        try:
            return call(*arguments, timeout=limit, **more)
        except FSTimeoutError as error:
            raise TimeoutError(f"the store was not done with it after {limit:.0f} s") from error

    def make_root(self) -> None:
        """See Store.make_root. Nothing: a bucket is made by its owner, and a prefix of it by its first object."""

    def _create(self, key: str, data: bytes) -> None:
        """See Store._create. S3: ``If-None-Match: *``; Google: ``ifGenerationMatch=0``; Azure: ``overwrite=False``."""
        path = self._path(key)
        with store_errors(self.url, "create", key, self._hidden):
            try:
                self._ask(self._fs.pipe_file, path, data, mode="create", size=len(data))
            except Exception as error:  # Google's client raises its own errors, of no common root
                if not isinstance(error, FileExistsError) and refused_because_it_exists(error):
                    raise FileExistsError(key) from error
                raise

    def upload(self, local: Path, key: str) -> None:
        """See Store.upload."""
        path = self._path(key)
        with store_errors(self.url, "upload", key, self._hidden):
            options = _TRANSFER_OPTIONS.get(self._protocol, {})
            self._ask(self._fs.put_file, str(local), path, size=local.stat().st_size, **options)

    def read(self, key: str, most: int = DOCUMENT_BYTES) -> bytes:
        """See Store.read. A range is asked for, so that a large object is not sent whole."""
        path = self._path(key)
        with store_errors(self.url, "read", key, self._hidden):
            try:
                data = bytes(self._ask(self._fs.cat_file, path, start=0, end=most + 1, size=min(most, _MOST_BYTES)))
            except Exception as error:  # an empty object has no range, and each library says so in its own way
                if isinstance(error, FileNotFoundError | TimeoutError) or self._ask(self._fs.info, path)["size"]:
                    raise
                data = b""
        if len(data) > most:
            raise too_large(self.url, key, most)
        return data

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """See Store.read_range."""
        path = self._path(key)
        with store_errors(self.url, "read a range of", key, self._hidden):
            size = self._ask(self._fs.info, path)["size"]
            if start >= size:  # a store refuses a range that begins behind the end
                return b""
            end = min(start + length, size)
            return bytes(self._ask(self._fs.cat_file, path, start=start, end=end, size=end - start))

    def download(self, key: str, local: Path) -> None:
        """See Store.download."""
        path = self._path(key)
        with store_errors(self.url, "download", key, self._hidden):
            options = _TRANSFER_OPTIONS.get(self._protocol, {})
            self._ask(self._fs.get_file, path, str(local), size=_MOST_BYTES, **options)

    def size(self, key: str) -> int | None:
        """See Store.size."""
        path = self._path(key)
        with store_errors(self.url, "find", key, self._hidden):
            try:
                found = self._ask(self._fs.info, path)
            except FileNotFoundError:
                return None
            return int(found["size"]) if found["type"] == "file" else None

    def list(self, prefix: str) -> Listing:
        """See Store.list."""
        return [(key, int(entry["size"])) for key, entry in self._listed(prefix)]

    def list_times(self, prefix: str) -> Listing:
        """See Store.list_times."""
        return [(key, _written(entry)) for key, entry in self._listed(prefix)]

    def _listed(self, prefix: str) -> Sequence[tuple[str, dict[str, Any]]]:
        path = self._path(prefix.rstrip("/")) if prefix else self._root
        with store_errors(self.url, "list", prefix, self._hidden):
            self._fs.invalidate_cache()
            if prefix and self._protocol in _S3:  # s3fs looks up a folder that seems to be empty once more
                only = f"{prefix.rstrip('/')}/"
                found = self._ask(self._fs.find, self._root, prefix=only, detail=True, seconds=_LISTING_SECONDS)
            else:
                found = self._ask(self._fs.find, path, detail=True, seconds=_LISTING_SECONDS)
        skip = len(self._root) + 1
        return sorted(
            ((str(name)[skip:], entry) for name, entry in found.items() if entry["type"] == "file"),
            key=lambda one: one[0],
        )

    def delete(self, key: str) -> None:
        """See Store.delete."""
        path = self._path(key)
        with store_errors(self.url, "delete", key, self._hidden):
            try:
                self._ask(self._fs.rm_file, path)
            except FileNotFoundError:
                return

    def modified(self, key: str) -> int:
        """See Store.modified."""
        path = self._path(key)
        with store_errors(self.url, "time", key, self._hidden):
            if written := _written(self._ask(self._fs.info, path)):
                return written
            moment: datetime = self._fs.modified(path)
        return _nanoseconds(moment)

    def again(self) -> Store:
        """See Store.again."""
        return type(self)(self.url, self._options)


class MemoryStore(ObjectStore):
    """fsspec's memory, which is one for the whole process; for tests."""

    def _create(self, key: str, data: bytes) -> None:
        """See Store._create."""
        with _MEMORY_LOCK:
            super()._create(key, data)

    def upload(self, local: Path, key: str) -> None:
        """See Store.upload."""
        path = self._path(key)
        with store_errors(self.url, "upload", key):
            self._fs.pipe_file(path, local.read_bytes())

    def download(self, key: str, local: Path) -> None:
        """See Store.download. An open memory file has one position for all of its readers, so none is opened."""
        path = self._path(key)
        with store_errors(self.url, "download", key):
            local.write_bytes(self._fs.cat_file(path))
