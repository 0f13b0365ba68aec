"""
A restore by shards in a process of its own that kills itself at a named point: ``created``, ``sent`` (after the first
group) or a number of bytes of the second group's archive.

``python killed.py POINT TARGET REPOSITORY REF RESTORE_ID SETTINGS``, the settings of the server as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.influx import new_shards1, new_shards2
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import NewShards, Server, ServerSettings
from influxdb_backup.influx.shard_sending import archive_chunks
from influxdb_backup.model import RetentionPolicy, Window
from tests.jobs.killed import kill
from tests.jobs.support import Wrapped, restore_into


class Killed(Wrapped):
    """Dies once the database is created, or once a group was sent."""

    def __init__(self, server: Server, point: str) -> None:
        super().__init__(server)
        self.point = point
        self.made: NewShards

    def create_with_shards(
        self, database: str, policies: Sequence[RetentionPolicy], groups: Mapping[str, Sequence[Window]]
    ) -> NewShards:
        """The real shards, sent to by way of this one."""
        self.made = self.server.create_with_shards(database, policies, groups)
        self.created, self.scratch_id = self.made.created, self.made.scratch_id
        if self.point == "created":
            kill()
        return self  # type: ignore[return-value]

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """Sends the group."""
        self.made.send(retention_policy, group, files)
        if self.point == "sent":
            kill()


def cut(size: int) -> None:
    """The second archive that is sent ends this process after so many bytes."""
    begun = 0

    def chunks(files: Sequence[Path], folder: str) -> Iterator[bytes]:
        nonlocal begun
        begun += 1
        whole = b"".join(archive_chunks(files, folder))
        if begun == 2:
            yield whole[: min(size, len(whole) - 1)]
            kill()
        yield whole

    new_shards1.archive_chunks = chunks
    new_shards2.archive_chunks = chunks


def main(point: str, target: str, root: str, ref: str, restore_id: str, settings: str) -> None:
    """Runs the restore until it is killed."""
    if point.isdigit():
        cut(int(point))
    server = connect(ServerSettings(**json.loads(settings)))
    repository = Repository.open(open_store(root))
    killed = Killed(server, point)
    restore_into(repository, killed, target, refs=(ref,), restore_id=restore_id, writer="shard")  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
