"""
New 2.x buckets that are filled shard by shard through ``restore/shards/:id``.

Status 200 of a shard proves nothing: 2.9.1 drops the error of a restore that failed (source: ``tsdb/shard.go``), so
what arrived is only known from counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from influxdb_backup.errors import TargetError
from influxdb_backup.influx.buckets2 import Buckets
from influxdb_backup.influx.control2 import AUTOGEN, Bucket, spelled
from influxdb_backup.influx.http import Http, status_error
from influxdb_backup.influx.metadata2 import metadata_shards
from influxdb_backup.influx.new_groups import lines_of, numbers_of, open_groups
from influxdb_backup.influx.shard_digests import held_digests
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.influx.shard_sending import archive_chunks, archive_size
from influxdb_backup.influx.shards2 import BackupApiDoor
from influxdb_backup.influx.writer import Send
from influxdb_backup.model import RetentionPolicy, Window

_SEND_SECONDS = 1800.0
"""a server builds its index of a shard before it answers: some 100,000 series a second (run on 2.9.1)"""


@dataclass(frozen=True)
class Naming:
    """What a new database is called in the end, and before."""

    database: str
    until_published: str
    description: str | None = None
    """of its buckets until then"""


class NewShards2:
    """See ``protocol.NewShards``; ``made`` are its buckets by policy."""

    def __init__(
        self,
        http: Http,
        door: BackupApiDoor,
        buckets: Buckets,
        naming: Naming,
        made: Mapping[str, Bucket],
        created: tuple[str, ...],
        sender: Callable[[Bucket], Send],
    ) -> None:
        self._http = http
        self._door = door
        self._buckets = buckets
        self._naming = naming
        self._made = made
        self._sender = sender
        self._ids = tuple(bucket.id for bucket in made.values())
        self._numbers: dict[tuple[str, Window], int] = {}
        self._sent: Counter[tuple[str, Window]] = Counter()
        """bytes of files"""
        self.database = naming.until_published
        self.created = created
        self.scratch_id = ",".join(self._ids)

    def open(self, retention_policy: str, groups: Mapping[Window, bytes | None]) -> None:
        """See ``protocol.NewShards.open``. Raises AccessError too, without an operator token."""
        bucket = self._made[retention_policy]
        open_groups(self._sender(bucket), lines_of(groups, _dropped), self._http.name)
        found = metadata_shards(self._http).get(bucket.id, ())
        for group, number in numbers_of(groups, found, self._http.name, retention_policy).items():
            self._numbers[retention_policy, group] = number

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """See ``protocol.NewShards.send``."""
        number = self._numbers[retention_policy, group]
        self._sent[retention_policy, group] += sum(file.stat().st_size for file in files)
        reply = self._http.send(
            "POST",
            f"/api/v2/restore/shards/{number}",
            archive_chunks(files, f"{AUTOGEN}/{number}"),
            size=archive_size(files, f"{AUTOGEN}/{number}"),
            seconds=_SEND_SECONDS,
        )
        if reply.status not in (200, 204):
            raise status_error(self._http.name, reply)

    def digests(self, retention_policy: str, group: Window) -> frozenset[str]:
        """See ``protocol.NewShards.digests``."""
        shard = ShardInfo(self._numbers[retention_policy, group], group)
        return held_digests(self._door, self.database, retention_policy, shard, self._sent[retention_policy, group])

    def publish(self) -> None:
        """Renames the buckets."""
        if self.database != self._naming.database:
            self._buckets.rename(self.database, self._ids, self._naming.database)
            self.database = self._naming.database


def create(
    http: Http,
    door: BackupApiDoor,
    buckets: Buckets,
    naming: Naming,
    policies: Sequence[RetentionPolicy],
    sender: Callable[[Bucket], Send],
) -> NewShards2:
    """
    Creates a bucket for each policy, all of them or none; ``sender`` gives what writes into one.

    Raises AccessError without an operator token, TargetError when a name is taken.
    """
    created = buckets.create(naming.until_published, policies, naming.description)
    made = {policy.name: bucket for policy, bucket in zip(policies, created, strict=True)}
    names = tuple(f"{spelled(naming.database, policy)}#{made[policy.name].id}" for policy in policies)
    return NewShards2(http, door, buckets, naming, made, names, sender)


def _dropped(series: bytes | None) -> bytes:
    """
    What a field of this name makes of a point: it is dropped behind the making of its group and of its series.

    So the series is one that the shard has in any case.
    """
    if series is None:
        raise TargetError(
            "a shard group has no series that line protocol can spell, and the server makes no group without one.",
            kind="shards-refused",
        )
    return series + b" time=1"
