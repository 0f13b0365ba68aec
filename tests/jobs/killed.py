"""
A job in a process of its own that kills itself at a named point, for the tests of what is left behind.

``python killed.py JOB POINT URL REPOSITORY DATABASE TARGET``
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.archive.store_local import LocalStore
from influxdb_backup.influx.protocol import PointWriter, ReadOptions, Server, WriteOptions
from influxdb_backup.jobs.drill import drill
from influxdb_backup.model import TableSchema, Window
from tests.jobs.support import DAY, Wrapped, back_up, opened, plan, restore_into
from tests.servers import RunningServer


def kill() -> None:
    """Ends this process as the kernel's out-of-memory killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


class KilledStore(LocalStore):
    """Kills the process right before or after a kind of object is published."""

    def __init__(self, root: Path, point: str) -> None:
        super().__init__(root)
        self.point = point

    def _around(self, key: str, action: Callable[[], None]) -> None:
        kind = key.split("/", 1)[0]
        if self.point == f"before {kind}":
            kill()
        action()
        if self.point == f"after {kind}":
            kill()

    def create(self, key: str, data: bytes) -> None:
        """As a local store, with a crash."""
        self._around(key, lambda: super(KilledStore, self).create(key, data))

    def upload(self, local: Path, key: str) -> None:
        """As a local store, with a crash."""
        self._around(key, lambda: super(KilledStore, self).upload(local, key))


class KilledServer(Wrapped):
    """Kills the process in the middle of a read, or before the writer of a policy or after its block."""

    def __init__(self, server: Server, point: str) -> None:
        super().__init__(server)
        self.point = point

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """Dies after the first batch of the table that comes second."""
        for batch in self.server.read(database, schema, piece, options):
            yield batch
            if self.point == "read" and schema.table.measurement == "mem":
                kill()

    def writer(self, database: str, retention_policy: str, options: WriteOptions) -> PointWriter:
        """Dies before the policy ``other`` is written."""
        if self.point == "writer" and retention_policy == "other":
            kill()
        return self.server.writer(database, retention_policy, options)


def main(job: str, point: str, url: str, root: str, database: str, target: str) -> None:
    """Runs the job until it is killed; ends normally when the point is never reached."""
    repository = Repository.open(KilledStore(Path(root), point))
    assert open_store(root).url == repository.url
    with opened(RunningServer(url=url, generation=1)) as real:
        server: Server = KilledServer(real, point)  # type: ignore[assignment]
        if job == "export":
            back_up(repository, server, plan(database, concurrency=1))
        elif job == "restore":
            restore_into(repository, server, target, plan="telemetry", window=DAY, restore_id="run 1")
        else:
            drill(plan(database), repository=repository, server=server)


if __name__ == "__main__":
    main(*sys.argv[1:])
