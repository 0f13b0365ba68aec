"""
A new 1.x database whose shards are filled through the backup port.

ShardUpdate takes the files of one shard and answers nothing at all: what arrived is only known from counts (run on
1.6.7 and 1.12.4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from influxdb_backup.influx.new_groups import lines_of, numbers_of, open_groups
from influxdb_backup.influx.shard_digests import held_digests
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.influx.shard_sending import archive_chunks
from influxdb_backup.influx.snapshot1 import SnapshotDoor
from influxdb_backup.influx.writer import Send
from influxdb_backup.model import Window

_DROPPED = b"influxdb_backup,time=x v=1"
"""no point may have such a tag: it is dropped behind the making of its group and before that of a series"""


class NewShards1:
    """See ``protocol.NewShards``; ``sender`` gives what writes into a policy of the database that was just created."""

    def __init__(self, door: SnapshotDoor, database: str, sender: Callable[[str], Send], name: str) -> None:
        self._door = door
        self._sender = sender
        self._name = name
        self._numbers: dict[tuple[str, Window], int] = {}
        self._sent: Counter[tuple[str, Window]] = Counter()
        """bytes of files"""
        self.database = database
        self.created: tuple[str, ...] = (database,)
        self.scratch_id = database

    def open(self, retention_policy: str, groups: Mapping[Window, bytes | None]) -> None:
        """See ``protocol.NewShards.open``. Raises ConfigError too, when the backup port is not the server's own."""
        open_groups(self._sender(retention_policy), lines_of(groups, lambda _: _DROPPED), self._name)
        found = self._door.new_shards(self.database).get(retention_policy, ())
        for group, number in numbers_of(groups, found, self._name, retention_policy).items():
            self._numbers[retention_policy, group] = number

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """See ``protocol.NewShards.send``. The connection's end says only that the server is done."""
        number = self._numbers[retention_policy, group]
        self._sent[retention_policy, group] += sum(file.stat().st_size for file in files)
        folder = f"{self.database}/{retention_policy}/{number}"
        self._door.port.send_shard(number, archive_chunks(files, folder))

    def digests(self, retention_policy: str, group: Window) -> frozenset[str]:
        """See ``protocol.NewShards.digests``."""
        shard = ShardInfo(self._numbers[retention_policy, group], group)
        return held_digests(self._door, self.database, retention_policy, shard, self._sent[retention_policy, group])

    def publish(self) -> None:
        """Nothing: the database has its own name from the beginning."""
