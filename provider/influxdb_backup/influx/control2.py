"""
The control plane of 2.x through influxdb-client: organisations, buckets and DBRP mappings, as frozen values.

What a token may not see is left out by the server without a word: "not found" means "not visible". Listings of
buckets have pages (of 20 unless asked otherwise) that are cut before what is invisible is left out (run on 2.9.1):
for a token of single buckets a page can be empty and name no next one while a later page holds the bucket. So the
pages are read on past empty ones, and the list of mappings, which has no pages, is read as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Any

import influxdb_client
import urllib3
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError, SSLError

from influxdb_backup.errors import ConfigError, ServerError, ServerUnavailableError, TargetError
from influxdb_backup.influx.http import (
    CONNECT_SECONDS,
    TRANSIENT_STATUSES,
    WHOLE_TRIES,
    Reply,
    status_error,
    tls_error,
    words_of,
)
from influxdb_backup.influx.protocol import ServerSettings
from influxdb_backup.messages import logger_of, quoted
from influxdb_backup.model import RetentionPolicy, printable

logger = logger_of(__name__)

AUTOGEN = "autogen"
SECOND = 1_000_000_000
_PAGE = 100
_EMPTY_PAGES = 5
"""how many pages of buckets that the token does not see are passed over before a listing counts as ended"""
_TRIES = 4

_LIBRARY: Any = influxdb_client
"""The library says that it is typed and then is not."""


def bucket_name(database: str, retention_policy: str) -> str:
    """The bucket that stands for a database and policy: ``db/rp``, and the bare name for ``autogen``."""
    return database if retention_policy == AUTOGEN else f"{database}/{retention_policy}"


def spelled(database: str, policy: RetentionPolicy) -> str:
    """The name of the bucket of a policy that may say ``db/autogen``, as a server that was 1.x has them."""
    if policy.name == AUTOGEN and policy.bucket is not None:
        return f"{database}/{AUTOGEN}"
    return bucket_name(database, policy.name)


def split_bucket(name: str) -> tuple[str, str]:
    """Database and policy of a bucket's name, split at the first slash."""
    database, slash, policy = name.partition("/")
    return database, policy if slash else AUTOGEN


@dataclass(frozen=True)
class Organization:
    """An organisation; the name is the id where the token may not read it."""

    id: str
    name: str


@dataclass(frozen=True)
class Bucket:
    """A bucket as the token sees it; durations in ns, 0 = for ever (shard duration: not said)."""

    id: str
    name: str
    organization_id: str
    system: bool
    duration: int
    shard_duration: int
    description: str = ""

    @property
    def database(self) -> str:
        """The name before the first slash."""
        return split_bucket(self.name)[0]

    @property
    def policy(self) -> str:
        """The name after the first slash, ``autogen`` without one."""
        return split_bucket(self.name)[1]


@dataclass(frozen=True)
class Dbrp:
    """A DBRP mapping: the bucket that /query and /write take for a database and policy."""

    id: str
    database: str
    policy: str
    bucket_id: str
    default: bool
    virtual: bool


@dataclass(frozen=True)
class Authorization:
    """A token as the server lists it; ``token`` is empty where the server keeps hashes only."""

    organization_id: str
    token: str
    reads_beyond: bool
    """whether it may read anything outside of its own organisation"""


class ControlPlane:
    """The few verbs of /api/v2 that the server's side needs. Thread-safe; ``close`` ends the connections."""

    def __init__(self, settings: ServerSettings) -> None:
        if not settings.token:
            raise ConfigError(
                f"The connection {settings.name or settings.url} has no token, which InfluxDB 2.x needs.",
                hint='Give it as {"token": "..."} in the extra of the connection, or as --target-token of a restore.',
            )
        self.sees_all = False
        """set once the token was seen to be an operator's: nothing is hidden from it, and a short page is the last"""
        self._name = settings.name or settings.url
        retries = urllib3.Retry(
            total=_TRIES,
            read=_TRIES,
            other=False,
            redirect=False,
            backoff_factor=0.2,
            status_forcelist=TRANSIENT_STATUSES,
            allowed_methods=frozenset({"GET"}),
            raise_on_status=False,
        )
        self._client: Any = _LIBRARY.InfluxDBClient(
            url=settings.url,
            token=settings.token,
            timeout=(int(min(settings.timeout, CONNECT_SECONDS) * 1000), int(settings.timeout * 1000)),
            verify_ssl=settings.verify_tls,
            ssl_ca_cert=settings.ca_file,
            retries=retries,
        )
        api = self._client.api_client
        self._authorizations: Any = _LIBRARY.AuthorizationsService(api)
        self._buckets: Any = _LIBRARY.BucketsService(api)
        self._mappings: Any = _LIBRARY.DBRPsService(api)
        self._organizations: Any = _LIBRARY.OrganizationsService(api)

    def organizations(self) -> tuple[Organization, ...]:
        """Organisations that the token may read; none for a token of single buckets."""
        found: list[Organization] = []
        while True:
            page = self._call(lambda: self._organizations.get_orgs(limit=_PAGE, offset=len(found)).orgs or [])
            found.extend(Organization(entry.id, entry.name) for entry in page)
            if len(page) < _PAGE:
                return tuple(found)

    def organization(self, name_or_id: str) -> Organization | None:
        """One organisation of which the token sees anything: itself, or a bucket's mapping."""
        for key in ("org", "org_id"):
            listed = self._call(partial(self._organizations.get_orgs, **{key: name_or_id}), absent={400, 404})
            for entry in listed.orgs if listed else []:
                if name_or_id in (entry.id, entry.name):
                    return Organization(entry.id, entry.name)
            mapped = self._call(partial(self._mappings.get_dbr_ps, **{key: name_or_id}), absent={400, 404})
            for entry in mapped.content if mapped else []:
                if key == "org" or entry.org_id == name_or_id:
                    return Organization(entry.org_id, name_or_id)
        return None

    def buckets(self, organization_id: str | None = None) -> tuple[Bucket, ...]:
        """Buckets of one organisation, or of all that the token sees, sorted by name."""
        filters = {} if organization_id is None else {"org_id": organization_id}
        found: dict[str, Bucket] = {}
        empty = page = 0
        while empty < _EMPTY_PAGES:
            listing = partial(self._buckets.get_buckets, limit=_PAGE, offset=page * _PAGE, **filters)
            entries = self._entries(listing, "buckets")
            found.update((bucket.id, bucket) for bucket in map(_bucket, entries))
            empty = 0 if entries else empty + 1
            page += 1
            if self.sees_all and len(entries) < _PAGE:
                break
        if organization_id is not None and not self.sees_all:
            for mapping in self.mappings(organization_id):
                if mapping.bucket_id not in found and (bucket := self.bucket(mapping.bucket_id)):
                    found[bucket.id] = bucket
        return tuple(sorted(found.values(), key=lambda bucket: bucket.name))

    def bucket_named(self, organization_id: str, name: str) -> Bucket | None:
        """A bucket by its exact name; None when the token sees none."""
        listing = partial(self._buckets.get_buckets, org_id=organization_id, name=name)
        listed = map(_bucket, self._entries(listing, "buckets", absent={404}))
        return next((bucket for bucket in listed if bucket.name == name), None)

    def bucket(self, bucket_id: str) -> Bucket | None:
        """A bucket by its id; None when there is none."""
        entry = self._document(partial(self._buckets.get_buckets_id, bucket_id), absent={404}, tries=WHOLE_TRIES)
        return _bucket(entry) if entry else None

    def mappings(self, organization_id: str) -> tuple[Dbrp, ...]:
        """All DBRP mappings of the organisation, virtual ones too, as far as the token reads their buckets."""
        listed = self._entries(partial(self._mappings.get_dbr_ps, org_id=organization_id), "content")
        return tuple(
            Dbrp(
                id=entry["id"],
                database=entry["database"],
                policy=entry["retention_policy"],
                bucket_id=entry["bucketID"],
                default=bool(entry["default"]),
                virtual=bool(entry.get("virtual")),
            )
            for entry in listed
        )

    def authorizations(self) -> tuple[Authorization, ...]:
        """Tokens that this token may list."""
        listed = self._call(lambda: self._authorizations.get_authorizations().authorizations or [])
        return tuple(Authorization(entry.org_id, entry.token or "", _reads_beyond(entry)) for entry in listed)

    def create(self, name: str, organization_id: str, policy: RetentionPolicy, description: str | None) -> Bucket:
        """A new bucket. Raises TargetError when the name is taken or not allowed."""
        rules = [_rules(policy.duration, policy.shard_duration)]
        request = _LIBRARY.PostBucketRequest(
            name=name, org_id=organization_id, retention_rules=rules, description=description
        )
        return _bucket(self._document(partial(self._buckets.post_buckets, post_bucket_request=request), about=name))

    def map(self, bucket: Bucket) -> None:
        """An explicit DBRP mapping of the bucket's own name; the server deletes it with the bucket."""
        request = _LIBRARY.DBRPCreate(
            org_id=bucket.organization_id,
            bucket_id=bucket.id,
            database=bucket.database,
            retention_policy=bucket.policy,
            default=bucket.policy == AUTOGEN,
        )
        self._call(partial(self._mappings.post_dbrp, dbrp_create=request), about=bucket.name)

    def keep(self, bucket: Bucket, duration: int) -> Bucket:
        """Sets how long the bucket keeps points (ns, 0 = for ever); its shard duration stays."""
        request = _LIBRARY.PatchBucketRequest(retention_rules=[_rules(duration, bucket.shard_duration)])
        update = partial(self._buckets.patch_buckets_id, bucket.id, patch_bucket_request=request)
        return _bucket(self._document(update, about=bucket.name))

    def describe(self, bucket: Bucket, description: str) -> None:
        """Gives the bucket another description."""
        request = _LIBRARY.PatchBucketRequest(description=description)
        self._call(partial(self._buckets.patch_buckets_id, bucket.id, patch_bucket_request=request), about=bucket.name)

    def rename(self, bucket: Bucket, name: str, description: str) -> Bucket:
        """Gives the bucket another name and description. Raises TargetError for a name that is taken or not allowed."""
        request = _LIBRARY.PatchBucketRequest(name=name, description=description)
        update = partial(self._buckets.patch_buckets_id, bucket.id, patch_bucket_request=request)
        return _bucket(self._document(update, about=name))

    def delete(self, bucket_id: str) -> None:
        """Deletes a bucket by its id; one that is gone already is fine."""
        self._call(partial(self._buckets.delete_buckets_id, bucket_id), absent={404})

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def _entries(self, listing: Callable[..., Any], key: str, *, absent: AbstractSet[int] = frozenset()) -> list[Any]:
        return self._document(listing, absent=absent, tries=WHOLE_TRIES).get(key) or []

    def _document(
        self, verb: Callable[..., Any], *, about: str = "", absent: AbstractSet[int] = frozenset(), tries: int = 1
    ) -> dict[str, Any]:
        """
        The JSON of a reply, empty for a status in ``absent``: the library's objects take ten times as long.

        A reply that breaks off is asked for again, ``tries`` times in all.
        """

        def whole() -> Any:
            for left in reversed(range(tries)):
                reply = verb(_preload_content=False)
                try:
                    return reply.data
                except ProtocolError as error:
                    if not left:
                        raise
                    logger.info("%s is asked again: %s", self._name, words_of(error))
            return None

        body = self._call(whole, about=about, absent=absent)
        if body is None:
            return {}
        try:
            document: dict[str, Any] = dict(json.loads(body))
        except (ValueError, TypeError) as error:
            raise ServerError(
                f"{self._name} does not answer in JSON: {quoted(body[:10_000].decode('utf-8', 'replace'), 100)}.",
                hint="Check that the connection's URL is that of an InfluxDB server.",
            ) from error
        return document

    def _call(self, verb: Callable[[], Any], *, about: str = "", absent: AbstractSet[int] = frozenset()) -> Any:
        """What the library returns, None for a status in ``absent``; its exceptions become ours."""
        try:
            return verb()
        except ApiException as error:
            if error.status in absent:
                return None
            raise self._server_error(error, about) from error
        except (HTTPError, OSError) as error:
            reason = error.reason if isinstance(error, MaxRetryError) else error
            if isinstance(reason, SSLError):
                raise tls_error(reason, self._name, self._name) from error
            raise ServerUnavailableError(
                f"{self._name} cannot be asked: {words_of(error)}.", hint="Look whether the server runs and answers."
            ) from error

    def _server_error(self, error: ApiException, about: str) -> Exception:
        body = error.body.encode() if isinstance(error.body, str) else error.body or b""
        reply = Reply(error.status or 0, dict(error.headers or {}), body)
        if about and reply.status in (400, 409, 422):
            return TargetError(
                f"{self._name} refuses the bucket {printable(about)!r}: {reply.reason}.",
                hint="Choose another name or duration.",
            )
        if reply.status == 0:
            return ServerError(f"{self._name}: {quoted(str(error.reason), 300)}.")
        return status_error(self._name, reply)


def _rules(duration: int, shard_duration: int) -> Any:
    seconds = -(-duration // SECOND)
    shard = shard_duration // SECOND or None
    return _LIBRARY.BucketRetentionRules(type="expire", every_seconds=seconds, shard_group_duration_seconds=shard)


def _bucket(entry: Mapping[str, Any]) -> Bucket:
    rules = entry.get("retentionRules") or []
    return Bucket(
        id=entry["id"],
        name=entry["name"],
        organization_id=entry["orgID"],
        system=entry.get("type") == "system",
        duration=max((rule.get("everySeconds") or 0 for rule in rules), default=0) * SECOND,
        shard_duration=max((rule.get("shardGroupDurationSeconds") or 0 for rule in rules), default=0) * SECOND,
        description=entry.get("description") or "",
    )


def _reads_beyond(entry: Any) -> bool:
    return any(
        permission.action == "read" and permission.resource.org_id != entry.org_id
        for permission in entry.permissions or []
    )
