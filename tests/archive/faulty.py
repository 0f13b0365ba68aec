"""A store that fails where a test wants it to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from influxdb_backup.archive.store import DOCUMENT_BYTES, Listing, Store
from influxdb_backup.errors import StoreError

T = TypeVar("T")


class Killed(BaseException):
    """The process is gone: no clean-up can reach the store."""


class FaultyStore(Store):
    """
    Passes everything on, and fails one call: before it does anything, or after it was done (the reply is lost).

    ``lasting`` makes every later call raise ``Killed``.
    """

    def __init__(
        self,
        inner: Store,
        *,
        at: int = -1,
        verb: str | None = None,
        key: str = "",
        when: str = "before",
        error: Callable[[], BaseException] = lambda: StoreError("connection reset by peer"),
        lasting: bool = False,
    ) -> None:
        self.inner = inner
        self.url = inner.url
        self.trace: list[tuple[str, str]] = []
        self.fired = False
        self._at, self._verb, self._key, self._when = at, verb, key, when
        self._error, self._lasting = error, lasting

    def _call(self, verb: str, key: str, act: Callable[[], T]) -> T:
        if self.fired and self._lasting:
            raise Killed
        number = len(self.trace)
        self.trace.append((verb, key))
        chosen = number == self._at or (self._verb == verb and self._key in key and not self.fired)
        if not chosen:
            return act()
        self.fired = True
        if self._when == "after":
            act()
        raise Killed if self._lasting else self._error()

    def create(self, key: str, data: bytes) -> None:
        """Fails as told."""
        self._call("create", key, lambda: self.inner.create(key, data))

    def _create(self, key: str, data: bytes) -> None:
        """Never reached: ``create`` passes everything on, so that a lost reply can be one that no store makes good."""
        self.inner._create(key, data)

    def make_root(self) -> None:
        """Passed on."""
        self.inner.make_root()

    def local_path(self, key: str) -> Path | None:
        """Passed on."""
        return self.inner.local_path(key)

    def upload(self, local: Path, key: str) -> None:
        """Fails as told."""
        self._call("upload", key, lambda: self.inner.upload(local, key))

    def flush(self, keys: Sequence[str]) -> None:
        """Fails as told."""
        self._call("flush", "", lambda: self.inner.flush(keys))

    def read(self, key: str, most: int = DOCUMENT_BYTES) -> bytes:
        """Fails as told."""
        return self._call("read", key, lambda: self.inner.read(key, most))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Fails as told."""
        return self._call("read_range", key, lambda: self.inner.read_range(key, start, length))

    def download(self, key: str, local: Path) -> None:
        """Fails as told."""
        self._call("download", key, lambda: self.inner.download(key, local))

    def size(self, key: str) -> int | None:
        """Fails as told."""
        return self._call("size", key, lambda: self.inner.size(key))

    def list(self, prefix: str) -> Listing:
        """Fails as told."""
        return self._call("list", prefix, lambda: self.inner.list(prefix))

    def delete(self, key: str) -> None:
        """Fails as told."""
        self._call("delete", key, lambda: self.inner.delete(key))

    def modified(self, key: str) -> int:
        """Fails as told."""
        return self._call("modified", key, lambda: self.inner.modified(key))

    def again(self) -> Store:
        """The inner store's other client, without faults."""
        return self.inner.again()
