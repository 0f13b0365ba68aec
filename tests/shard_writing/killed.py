"""
A restore by shards in a process of its own that kills itself at a named point.

``created``, ``sent`` (after the first group), a number of bytes of the second group's archive, ``proved`` (with the name
that it has before it is published), ``renamed`` (one bucket of two, on 2.x) or ``published``.

``python killed.py POINT TARGET REPOSITORY REF RESTORE_ID SETTINGS``, the settings of the server as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.influx import new_shards1, new_shards2
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.control2 import Bucket, ControlPlane
from influxdb_backup.influx.protocol import NewShards, Server, ServerSettings
from influxdb_backup.influx.shard_sending import archive_chunks
from influxdb_backup.model import Window
from tests.jobs.killed import kill
from tests.jobs.support import Wrapped, restore_into


class Killed(Wrapped):
    """Dies once the database is created, or at a point of its shards."""

    def __init__(self, server: Server, point: str) -> None:
        super().__init__(server)
        self.point = point

    def create_with_shards(self, *arguments: object, **named: object) -> NewShards:
        """The real shards, sent to by way of others."""
        made = self.server.create_with_shards(*arguments, **named)  # type: ignore[arg-type]
        if self.point == "created":
            kill()
        return KilledShards(made, self.point)  # type: ignore[return-value]


class KilledShards(Wrapped):
    """Dies once a group was sent, or before, after or within the change of names."""

    def __init__(self, made: NewShards, point: str) -> None:
        super().__init__(made)  # type: ignore[arg-type]
        self.made = made
        self.point = point

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """Sends the group."""
        self.made.send(retention_policy, group, files)
        if self.point == "sent":
            kill()

    def publish(self) -> None:
        """Gives the database its name."""
        if self.point == "proved":
            kill()
        if self.point == "renamed":
            rename_once()
        self.made.publish()
        kill()


def rename_once() -> None:
    """The first bucket that gets another name ends this process."""
    rename = ControlPlane.rename

    def renamed(control: ControlPlane, bucket: Bucket, name: str, description: str) -> Bucket:
        rename(control, bucket, name, description)
        kill()
        raise AssertionError

    ControlPlane.rename = renamed  # type: ignore[method-assign]


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
