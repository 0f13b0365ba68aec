"""What the measurements share: a server of their own, a repository, and the product opened on both."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.config.model import Plan
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import Server, ServerSettings
from tests.servers import RunningServer, find_influxd1, start_influxdb1


@dataclass(frozen=True)
class Bed:
    """A running server and a folder for repositories."""

    running: RunningServer
    server: Server
    folder: Path

    def repository(self, name: str) -> Repository:
        """A new empty repository."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return Repository.init(open_store(f"file://{self.folder / name}"))

    def plan(self, database: str, concurrency: int = 2) -> Plan:
        """A plan of the whole database."""
        return Plan(name=database, database=database, repositories=("bench",), concurrency=concurrency)

    def tsm_bytes(self, database: str) -> int:
        """Bytes of a database's TSM files, once compaction has come to rest with nothing left in the WAL."""
        assert self.running.folder is not None
        data, wal = self.running.folder / "data" / database, self.running.folder / "wal" / database
        deadline, before, steady = time.monotonic() + 180, -1, 0
        while time.monotonic() < deadline:
            files = list(data.rglob("*.tsm"))
            size = sum(file.stat().st_size for file in files)
            busy = any(data.rglob("*.tmp")) or sum(file.stat().st_size for file in wal.rglob("*.wal")) > 0
            shards = {file.parent for file in files}
            done = files and not busy and len(files) == len(shards)
            steady = steady + 1 if done and size == before else 0
            if steady >= 3:
                return size
            before = size
            time.sleep(1)
        raise RuntimeError(f"the compaction of {database} did not come to rest")


@contextmanager
def bed(folder: Path) -> Iterator[Bed]:
    """A server of Debian's package that compacts at once, and what is open on it."""
    binary = find_influxd1()
    if binary is None:
        raise SystemExit("No influxd on PATH: install the Debian package influxdb.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with start_influxdb1(folder / "server", binary, data_options=_COMPACTION) as running:
        server = connect(ServerSettings(url=running.url, name="bench"))
        try:
            yield Bed(running, server, folder)
        finally:
            server.close()
    shutil.rmtree(folder, ignore_errors=True)


_COMPACTION = """
  cache-snapshot-write-cold-duration = "2s"
  compact-full-write-cold-duration = "3s"
"""
