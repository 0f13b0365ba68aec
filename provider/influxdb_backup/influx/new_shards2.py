"""
New 2.x buckets that are filled shard by shard: ``restore/bucketMetadata`` and ``restore/shards/:id``.

Status 200 of a shard proves nothing: 2.9.1 drops the error of a restore that failed (source: ``tsdb/shard.go``), so
what arrived is only known from counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from influxdb_backup.errors import ServerError
from influxdb_backup.influx.buckets2 import Buckets
from influxdb_backup.influx.control2 import AUTOGEN, bucket_name
from influxdb_backup.influx.http import Http, Reply, status_error
from influxdb_backup.influx.shard_digests import held_digests
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.influx.shard_sending import archive_chunks, archive_size
from influxdb_backup.influx.shards2 import BackupApiDoor
from influxdb_backup.model import RetentionPolicy, Window, printable
from influxdb_backup.windows import format_instant

_SECOND = 10**9
_SEND_SECONDS = 1800.0
"""a server builds its index of a shard before it answers: some 100,000 series a second (run on 2.9.1)"""


@dataclass(frozen=True)
class Naming:
    """What a new database is called in the end, and before."""

    database: str
    until_published: str


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
        self.created = tuple(f"{bucket_name(naming.database, policy)}#{bucket}" for policy, bucket in ids.items())
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
    groups: Mapping[str, Sequence[Window]],
) -> NewShards2:
    """
    Creates a bucket for each policy with a shard in each group; all of them or none.

    Raises AccessError without an operator token, QueryError when a name is taken.
    """
    ids: dict[str, str] = {}
    numbers: dict[tuple[str, Window], int] = {}
    try:
        for policy in policies:
            name = bucket_name(naming.until_published, policy.name)
            wanted = dict(enumerate(groups.get(policy.name, ()), start=1))
            body = json.dumps(_manifest(buckets.organization_id, name, policy, wanted)).encode()
            reply = http.request(
                "POST",
                "/api/v2/restore/bucketMetadata",
                body=body,
                headers={"Content-Type": "application/json"},
                retry=False,
            )
            if reply.status != 201:
                raise status_error(http.name, reply)
            bucket, found = _mapped(http.name, reply)
            ids[policy.name] = bucket
            if set(found) != set(wanted):
                raise ServerError(f"{http.name} created the bucket {printable(name)} with other shards than asked.")
            numbers.update({(policy.name, group): found[number] for number, group in wanted.items()})
    except BaseException:
        buckets.drop(naming.until_published, list(ids.values()))
        raise
    return NewShards2(http, door, buckets, naming, ids, numbers)


def _mapped(name: str, reply: Reply) -> tuple[str, dict[int, int]]:
    try:
        answer = json.loads(reply.body)
        return str(answer["id"]), {int(pair["oldId"]): int(pair["newId"]) for pair in answer["shardMappings"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{name} answers the creation of a bucket in a form that is not known: {error!r}.") from error


def _manifest(
    organization_id: str, name: str, policy: RetentionPolicy, groups: Mapping[int, Window]
) -> dict[str, object]:
    """As ``GET /api/v2/backup/metadata`` lists a bucket; ids count within this one message only."""
    listed = [
        {
            "id": number,
            "startTime": format_instant(group.start),
            "endTime": format_instant(group.end),
            "shards": [{"id": number, "shardOwners": []}],
        }
        for number, group in groups.items()
    ]
    return {
        "organizationID": organization_id,
        "organizationName": "",
        "bucketID": "0000000000000001",
        "bucketName": name,
        "defaultRetentionPolicy": AUTOGEN,
        "retentionPolicies": [
            {
                "name": AUTOGEN,
                "replicaN": 1,
                "duration": -(-policy.duration // _SECOND) * _SECOND,
                "shardGroupDuration": policy.shard_duration,
                "shardGroups": listed,
                "subscriptions": [],
            }
        ],
    }
