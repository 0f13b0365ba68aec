"""Parts fetched before they are read, several at once: a store that answers late costs its delay once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from influxdb_backup.archive.layout import check_key
from influxdb_backup.archive.store import Store
from influxdb_backup.errors import UsageError
from influxdb_backup.model import Part
from influxdb_backup.temporary import temporary_folder

REQUESTS = 16
"""parts that are fetched at once"""
AHEAD_BYTES = 64 << 20
"""of parts that are fetched and not yet read; a larger one is fetched alone"""


class FetchedParts:
    """
    Downloads the parts in their order while earlier ones are read, in bounded room of the temporary folder.

    A context manager. Nothing is fetched from a store whose objects can be read in place. What was fetched is proved
    by whoever reads it, as every download is.
    """

    def __init__(self, store: Store, parts: Sequence[Part]) -> None:
        self._store = store
        self._waiting = deque({part.path: part for part in parts if _is_key(part.path)}.values())
        self._fetching: dict[str, tuple[Part, Future[Path]]] = {}
        self._room = AHEAD_BYTES
        self._lock = threading.Lock()
        self._made = 0

    def __enter__(self) -> FetchedParts:
        self._folder = temporary_folder()
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="fetch")
        with self._lock:
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._fetching.clear()
        self._folder.cleanup()

    def take(self, part: Part) -> Path | None:
        """
        The part's copy, which is the caller's to remove; None when it is not one that is fetched, or was taken before.

        Raises what its download raised.
        """
        with self._lock:
            found = self._fetching.pop(part.path, None)
        if found is None:
            return None
        try:
            return found[1].result()
        finally:
            with self._lock:
                self._room += found[0].size
                self._begin()

    def _begin(self) -> None:
        while self._waiting and (self._waiting[0].size <= self._room or not self._fetching):
            part = self._waiting.popleft()
            if self._store.local_path(part.path) is not None:
                continue
            self._room -= part.size
            self._made += 1
            target = Path(self._folder.name) / f"{self._made}.parquet"
            self._fetching[part.path] = part, self._pool.submit(self._fetch, part.path, target)

    def _fetch(self, key: str, target: Path) -> Path:
        self._store.download(key, target)
        return target


def _is_key(path: str) -> bool:
    """Whether a part's path stays in the repository; whoever reads one that does not is told."""
    try:
        check_key(path)
    except UsageError:
        return False
    return True
