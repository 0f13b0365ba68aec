"""
A new 1.x database whose shards are filled through the backup port.

ShardUpdate takes the files of one shard and answers nothing at all: what arrived is only known from counts (run on
1.6.7 and 1.12.4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from influxdb_backup.influx.new_groups import Groups, lines_of, numbers_of, open_groups
from influxdb_backup.influx.shard_digests import held_digests
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.influx.shard_sending import archive_chunks
from influxdb_backup.influx.snapshot1 import SnapshotDoor
from influxdb_backup.influx.writer import Send
from influxdb_backup.model import Window

_DROPPED = b"influxdb_backup,time=x v=1"
"""no point may have such a tag: it is dropped behind the making of its group and before that of a series"""


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


def with_groups(
    door: SnapshotDoor, database: str, groups: Groups, sender: Callable[[str], Send], name: str
) -> NewShards1:
    """
    The groups of a database that was just created; ``sender`` gives what writes into a policy.

    Raises TargetError (``shards-refused``) when the server makes others, ConfigError when the port is not its own.
    """
    for policy, windows in groups.items():
        open_groups(sender(policy), lines_of(windows, lambda _: _DROPPED), name)
    return NewShards1(door, database, numbers_of(groups, door.new_shards(database), name))
