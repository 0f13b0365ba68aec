"""Preparing a real 2.x server beside the product's own code."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import ServerSettings
from influxdb_backup.influx.server2 import Server2
from tests.servers import RunningServer

DAY = 86400 * 10**9


@dataclass(frozen=True)
class Preparation:
    """The 2.x API with the operator's token."""

    server: RunningServer

    def call(self, method: str, path: str, document: object = None) -> dict:
        """One call; raises urllib.error.HTTPError for a refusal."""
        body = None if document is None else json.dumps(document).encode()
        headers = {"Authorization": f"Token {self.server.token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(self.server.url + path, body, headers, method=method)
        ) as reply:
            return dict(json.loads(reply.read() or b"{}"))

    def organization(self, name: str) -> str:
        """The id of an organisation, which is created when it is not there."""
        try:
            return str(self.call("GET", f"/api/v2/orgs?org={name}")["orgs"][0]["id"])
        except (urllib.error.HTTPError, IndexError):
            return str(self.call("POST", "/api/v2/orgs", {"name": name})["id"])

    @property
    def organization_id(self) -> str:
        """The id of the server's first organisation."""
        return self.organization(str(self.server.organization))

    def bucket(
        self,
        name: str,
        *,
        seconds: int = 0,
        shard_seconds: int = 86400,
        organization: str = "",
        mapped: bool = True,
    ) -> str:
        """A new bucket's id; on 2.4 with a mapping of its own name, unless that is not ``mapped``."""
        rule = {"type": "expire", "everySeconds": seconds, "shardGroupDurationSeconds": shard_seconds}
        document = {"orgID": organization or self.organization_id, "name": name, "retentionRules": [rule]}
        identity = str(self.call("POST", "/api/v2/buckets", document)["id"])
        if mapped:
            self.server.map_bucket(str(document["orgID"]), identity, name)
        return identity

    def mapping(self, database: str, policy: str, bucket: str, *, default: bool = True) -> str:
        """An explicit DBRP mapping's id."""
        document = {
            "orgID": self.organization_id,
            "database": database,
            "retention_policy": policy,
            "bucketID": bucket,
            "default": default,
        }
        return str(self.call("POST", "/api/v2/dbrps", document)["id"])

    def token(self, permissions: Sequence[Mapping[str, object]], *, organization: str = "") -> str:
        """A new token."""
        document = {"orgID": organization or self.organization_id, "permissions": list(permissions)}
        return str(self.call("POST", "/api/v2/authorizations", document)["token"])

    def reader(self, *buckets: str) -> str:
        """A token that reads these buckets and nothing else."""
        identity = self.organization_id
        return self.token(
            [{"action": "read", "resource": {"type": "buckets", "id": b, "orgID": identity}} for b in buckets]
        )

    def all_access(self, organization: str) -> str:
        """A token for all of one organisation's buckets, authorizations and mappings."""
        kinds = ("buckets", "dbrp", "orgs", "authorizations")
        actions = ("read", "write")
        return self.token(
            [{"action": a, "resource": {"type": kind, "orgID": organization}} for a in actions for kind in kinds],
            organization=organization,
        )

    def settings(
        self, token: str | None = None, organization: str | None = None, version: str | None = None
    ) -> ServerSettings:
        """Settings for the product."""
        return ServerSettings(
            url=self.server.url,
            token=token or self.server.token,
            organization=organization,
            version=version,
            name="influx_two",
            timeout=20,
        )

    @contextmanager
    def opened(
        self, token: str | None = None, organization: str | None = None, version: str | None = None
    ) -> Iterator[Server2]:
        """The product's server; by default with the operator's token and its organisation."""
        chosen = organization if organization is not None or token else self.server.organization
        server = connect(self.settings(token, chosen, version))
        assert isinstance(server, Server2)
        try:
            yield server
        finally:
            server.close()


def fresh() -> str:
    """A name that no other test uses."""
    return f"b{uuid4().hex[:10]}"
