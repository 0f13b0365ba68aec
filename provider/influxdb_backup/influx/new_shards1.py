"""
A new 1.x database that is filled shard by shard through the backup port.

MetaStoreUpdate creates it, and refuses a name that exists; ShardUpdate takes the files of one shard and answers
nothing at all: what arrived is only known from counts (run on 1.6.7 and 1.12.4).

Up to 1.8.7 a server reads the description of the new database once and takes what has arrived by then (run on 1.6.7 and
1.7.11: some 20 shard groups across a network; loopback takes thousands). What was cut off it refuses as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from influxdb_backup.errors import ServerError, ServerUnavailableError, TargetError
from influxdb_backup.influx.metadata1 import MAGIC, metadata
from influxdb_backup.influx.shard_digests import held_digests
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.influx.shard_sending import archive_chunks
from influxdb_backup.influx.snapshot1 import SnapshotDoor
from influxdb_backup.model import RetentionPolicy, Window, printable

_MOST_NUMBERS = 1 << 20


class NewShards1:
    """See ``protocol.NewShards``."""

    def __init__(self, door: SnapshotDoor, database: str, numbers: Mapping[tuple[str, Window], int]) -> None:
        self._door = door
        self._numbers = numbers
        self.database = database
        self.created: tuple[str, ...] = (database,)
        self.scratch_id = database

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """See ``protocol.NewShards.send``. The connection's end says only that the server is done."""
        number = self._numbers[retention_policy, group]
        folder = f"{self.database}/{retention_policy}/{number}"
        self._door.port.send_shard(number, archive_chunks(files, folder))

    def digests(self, retention_policy: str, group: Window) -> frozenset[str]:
        """See ``protocol.NewShards.digests``."""
        shard = ShardInfo(self._numbers[retention_policy, group], group)
        return held_digests(self._door, self.database, retention_policy, shard)

    def publish(self) -> None:
        """Nothing: the database has its own name from the beginning."""


def create(
    door: SnapshotDoor,
    database: str,
    policies: Sequence[RetentionPolicy],
    groups: Mapping[str, Sequence[Window]],
    name: str,
) -> NewShards1:
    """
    Creates the database with a shard in each group. Durations of the policies must be those of the groups.

    Raises TargetError (``shards-refused``) when the server refuses, which it does without a reason.
    """
    pairs = [(policy.name, group) for policy in policies for group in groups.get(policy.name, ())]
    wanted = {pair: number for number, pair in enumerate(pairs, start=1)}
    listed = {
        policy.name: [(group, wanted[policy.name, group]) for group in groups.get(policy.name, ())]
        for policy in policies
    }
    description = metadata(database, policies, listed)
    reply = door.port.update_metadata(database, description, limit=16 * (len(wanted) + 1))
    if not reply:
        raise ServerUnavailableError(
            f"The backup port of {name} ended the connection before it said whether it created the database "
            f"{printable(database)}.",
            hint="The server's log may say why.",
        )
    magic, count = struct.unpack(">QQ", reply[:16]) if len(reply) >= 16 else (0, 0)
    if magic != MAGIC or len(reply) != 16 * (count + 1):
        raise ServerError(f"The backup port of {name} answers in a form that is not known ({len(reply)} bytes).")
    found = dict(struct.iter_unpack(">QQ", reply[16:]))
    if set(found) != set(wanted.values()):
        raise TargetError(
            f"{name} did not create the database {printable(database)} through its backup port.",
            hint=f"Up to 1.8.7 only a part of its description ({len(description)} bytes) may have been read; otherwise "
            "the server's log says why.",
            kind="shards-refused",
        )
    return NewShards1(door, database, {pair: found[number] for pair, number in wanted.items()})
