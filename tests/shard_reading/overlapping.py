"""Real servers on which two shard groups of one policy hold the same times."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from influxdb_backup.model import Window
from influxdb_backup.windows import parse_window
from tests.jobs.support import new_name
from tests.servers import (
    RunningServer,
    find_influxd1,
    find_influxd2,
    find_newer_influxd1,
    start_influxdb1,
    start_influxdb2,
)

OLD = parse_window("2022-01-03T00:00:00Z", "2022-01-10T00:00:00Z")
NEW = parse_window("2021-12-27T00:00:00Z", "2022-01-06T00:00:00Z")
"""misaligned, made later: it ends inside of the old one"""
BOTH = Window(start=OLD.start, end=NEW.end)
MONTH = parse_window("2021-12-20T00:00:00Z", "2022-01-20T00:00:00Z")
SHARED = 1641254400 * 10**9
"""2022-01-04T00:00:00Z, of both groups"""
BEFORE = 1640995200 * 10**9
"""2022-01-01T00:00:00Z, of the new group alone"""
BEHIND = 1641600000 * 10**9
"""2022-01-08T00:00:00Z, of the old group alone"""

KINDS = ("1.6", "1.12", "2")


@contextmanager
def overlapping(kind: str, folder: Path, old: str, new: str) -> Iterator[tuple[RunningServer, str]]:
    """A server with a database of which the lines ``old`` stand in the one group and ``new`` in the other."""
    database = new_name()
    if kind == "2":
        binary = find_influxd2()
        if binary is None:
            pytest.skip("no 2.x server")
        with start_influxdb2(folder, binary) as running:
            _on_2x(running, database, old, new)
            yield running, database
        return
    first, newer = find_influxd1(), find_newer_influxd1()
    if first is None:
        pytest.skip("no 1.x before 1.9, which makes such groups")
    if kind == "1.12" and newer is None:
        pytest.skip("no influxd-1.* in the cache folder influxdb-backup-tests")
    with start_influxdb1(folder, first) as running:
        running.create_database(database)
        running.write(old, database)
        running.query(f'ALTER RETENTION POLICY "autogen" ON "{database}" SHARD DURATION 10d')
        running.write(f"maker v=1 {BEFORE}", database)
        for line in new.splitlines():  # one by one: a request whose points lie in both goes where its first one goes
            running.write(line, database)
        if kind == "1.6":
            yield running, database
            return
    with start_influxdb1(folder, str(newer)) as running:
        yield running, database


def _on_2x(running: RunningServer, database: str, old: str, new: str) -> None:
    """Metadata that is restored may have such groups; so may what an upgrade from 1.x brings."""
    organization = json.loads(running.get(f"/api/v2/orgs?org={running.organization}"))["orgs"][0]["id"]
    groups = [
        {
            "id": number,
            "startTime": f"{start}T00:00:00Z",
            "endTime": f"{end}T00:00:00Z",
            "shards": [{"id": number, "shardOwners": []}],
        }
        for number, start, end in ((1, "2022-01-03", "2022-01-10"), (2, "2021-12-27", "2022-01-06"))
    ]
    policy = {"name": "autogen", "replicaN": 1, "duration": 0, "shardGroupDuration": 7 * 86400 * 10**9}
    document = {
        "organizationID": organization,
        "organizationName": running.organization,
        "bucketID": "0123456789abcdef",
        "bucketName": database,
        "defaultRetentionPolicy": "autogen",
        "retentionPolicies": [{**policy, "subscriptions": [], "shardGroups": groups}],
    }
    made = json.loads(_posted(running, "/api/v2/restore/bucketMetadata", json.dumps(document).encode()))
    shards = {entry["oldId"]: entry["newId"] for entry in made["shardMappings"]}
    for number, lines in ((1, old), (2, f"maker v=1 {BEFORE}\n{new}")):
        scratch = new_name()
        rules = {"name": scratch, "orgID": organization}
        rules["retentionRules"] = [{"type": "expire", "everySeconds": 0, "shardGroupDurationSeconds": 3650 * 86400}]
        _posted(running, "/api/v2/buckets", json.dumps(rules).encode())
        running.write(lines, scratch)
        _posted(running, f"/api/v2/restore/shards/{shards[number]}", _shard_of(running, scratch))


def _shard_of(running: RunningServer, bucket: str) -> bytes:
    reply = running.get("/api/v2/backup/metadata")
    listing = json.loads(reply[reply.rindex(b'[{"organizationID"') : reply.rindex(b"]") + 1])
    (found,) = (entry for entry in listing if entry["bucketName"] == bucket)
    (group,) = found["retentionPolicies"][0]["shardGroups"]
    return running.get(f"/api/v2/backup/shards/{group['shards'][0]['id']}")


def _posted(running: RunningServer, path: str, body: bytes) -> bytes:
    headers = {"Authorization": f"Token {running.token}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(running.url + path, body, headers)) as reply:
        return bytes(reply.read())
