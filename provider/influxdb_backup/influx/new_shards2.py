"""
New 2.x buckets that are filled shard by shard through ``restore/shards/:id``.

Status 200 of a shard proves nothing: 2.9.1 drops the error of a restore that failed (source: ``tsdb/shard.go``), so
what arrived is only known from counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from influxdb_backup.errors import TargetError
from influxdb_backup.influx.buckets2 import Buckets
from influxdb_backup.influx.control2 import AUTOGEN, Bucket, spelled
from influxdb_backup.influx.http import Http, status_error
from influxdb_backup.influx.metadata2 import metadata_shards
from influxdb_backup.influx.new_groups import Groups, lines_of, numbers_of, open_groups
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
    """See ``protocol.NewShards``."""

    def __init__(
        self,
        http: Http,
        door: BackupApiDoor,
        buckets: Buckets,
        naming: Naming,
        ids: Mapping[str, str],
        numbers: Mapping[tuple[str, Window], int],
    ) -> None:
        self._http = http
        self._door = door
        self._buckets = buckets
        self._naming = naming
        self._ids = tuple(ids.values())
        self._numbers = numbers
        self.database = naming.until_published
        self.created = tuple(f"{name}#{bucket}" for name, bucket in ids.items())
        self.scratch_id = ",".join(self._ids)

    def send(self, retention_policy: str, group: Window, files: Sequence[Path]) -> None:
        """See ``protocol.NewShards.send``."""
        number = self._numbers[retention_policy, group]
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
        return held_digests(self._door, self.database, retention_policy, shard)

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
    groups: Groups,
    sender: Callable[[Bucket], Send],
) -> NewShards2:
    """
    Creates a bucket for each policy with a shard in each group; all of them or none.

    Raises AccessError without an operator token, TargetError when a name is taken, and of the kind ``shards-refused``
    when the server makes other groups.
    """
    created = buckets.create(naming.until_published, policies, naming.description)
    made = dict(zip((p.name for p in policies), created, strict=True))
    ids = {policy: bucket.id for policy, bucket in made.items()}
    try:
        for policy, windows in groups.items():
            open_groups(sender(made[policy]), lines_of(windows, _dropped), http.name)
        listed = metadata_shards(http)
        numbers = numbers_of(groups, {policy: listed.get(bucket, ()) for policy, bucket in ids.items()}, http.name)
    except BaseException:
        buckets.drop(naming.until_published, list(ids.values()))
        raise
    named = {spelled(naming.database, policy): ids[policy.name] for policy in policies}
    return NewShards2(http, door, buckets, naming, named, numbers)


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
