"""
Buckets of one organisation as databases and policies, and the proof that a name leads to the bucket.

The names go to a bucket's id before anything is read or written. An explicit DBRP mapping can lead a bucket's name
to another bucket's data without a word (run on 2.9.1), so the mappings are compared with the bucket's id.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from influxdb_backup.errors import InfluxdbBackupError, NotVisibleError, ServerError, TargetError, UsageError
from influxdb_backup.influx.control2 import AUTOGEN, Bucket, ControlPlane, Dbrp, bucket_name, spelled
from influxdb_backup.influx.marks import Mark, MarkedDatabase, Purpose, described_mark, has_form
from influxdb_backup.model import RetentionPolicy, printable
from influxdb_backup.windows import format_duration

_SHORTEST_RETENTION = 3600 * 1_000_000_000


class Buckets:
    """
    Finds, proves, creates and deletes buckets of one organisation.

    With ``needs_mappings`` /query finds a bucket by an explicit mapping of its own name only, which created ones get.
    """

    def __init__(self, control: ControlPlane, organization_id: str, name: str, *, needs_mappings: bool = False) -> None:
        self._control = control
        self._needs_mappings = needs_mappings
        self.organization_id = organization_id
        self._name = name
        self._proved: dict[tuple[str, str], Bucket] = {}

    def listed(self, *, system: bool = False) -> list[Bucket]:
        """Every bucket of the organisation that the token sees; those of the server's own only with ``system``."""
        return [bucket for bucket in self._control.buckets(self.organization_id) if system or not bucket.system]

    def policies(self, database: str) -> tuple[RetentionPolicy, ...]:
        """The buckets of a database as policies, sorted by name. Raises NotVisibleError when there is none."""
        found = [bucket for bucket in self.listed(system=True) if bucket.database == database]
        if not found:
            raise self._not_found(database, None)
        self._refuse_twins(database, found)
        mappings = self._control.mappings(self.organization_id)
        defaults = {mapping.policy for mapping in mappings if mapping.database == database and mapping.default}
        return tuple(
            RetentionPolicy(
                name=bucket.policy,
                duration=bucket.duration,
                shard_duration=bucket.shard_duration,
                default=bucket.policy in defaults,
                bucket=None if bucket.name == bucket_name(database, bucket.policy) else bucket.name,
            )
            for bucket in sorted(found, key=lambda bucket: bucket.policy)
        )

    def bucket(self, database: str, retention_policy: str) -> Bucket:
        """The bucket of these names. Raises NotVisibleError."""
        found = self.find(database, retention_policy)
        if not found:
            raise self._not_found(database, retention_policy)
        self._refuse_twins(database, found)
        return found[0]

    def find(self, database: str, retention_policy: str) -> list[Bucket]:
        """The bucket of these names, and its twin x/autogen beside x."""
        if not database or "/" in database or not retention_policy:
            return []
        candidates = {bucket_name(database, retention_policy), f"{database}/{retention_policy}"}
        found = (self._control.bucket_named(self.organization_id, name) for name in sorted(candidates))
        return [bucket for bucket in found if bucket is not None]

    def proved(self, database: str, retention_policy: str) -> Bucket:
        """The bucket, after it was shown that /query finds this one by the names. Raises NotVisibleError."""
        return self._proved_with(database, retention_policy)[0]

    def proved_default(self, database: str, retention_policy: str) -> bool:
        """Whether the database's name alone leads to the bucket, which is proved as by ``proved``."""
        bucket, mappings = self._proved_with(database, retention_policy)
        leads_to = {mapping.bucket_id for mapping in mappings if mapping.default and mapping.database == database}
        return leads_to == {bucket.id}

    def _proved_with(self, database: str, retention_policy: str) -> tuple[Bucket, Sequence[Dbrp]]:
        bucket = self.bucket(database, retention_policy)
        mapped = False
        mappings = self._control.mappings(self.organization_id)
        for mapping in mappings:
            if (mapping.database, mapping.policy) == (database, retention_policy):
                if mapping.bucket_id != bucket.id:
                    raise self._redirected(bucket, mapping)
                mapped = mapped or not mapping.virtual
        if self._needs_mappings and not mapped:
            raise self._unmapped(bucket)
        self._proved[(database, retention_policy)] = bucket
        return bucket, mappings

    def proved_before(self, database: str, retention_policy: str) -> Bucket:
        """The bucket that these names were proved to lead to last; as ``proved`` when they never were."""
        return self._proved.get((database, retention_policy)) or self.proved(database, retention_policy)

    def _refuse_twins(self, database: str, found: Sequence[Bucket]) -> None:
        twins = [bucket.name for bucket in found if bucket.policy == AUTOGEN]
        if len(twins) > 1:
            raise NotVisibleError(
                f"{self._name}: the buckets {' and '.join(map(printable, sorted(twins)))} have one name as a database "
                f"({printable(database)}, {AUTOGEN}), and no query reaches the second.",
                hint="Rename one of them.",
                kind="ambiguous-bucket",
            )

    def _redirected(self, bucket: Bucket, mapping: Dbrp) -> NotVisibleError:
        return NotVisibleError(
            f"{self._name}: a DBRP mapping ({mapping.id}) leads the name ({printable(mapping.database)}, "
            f"{printable(mapping.policy)}) to the bucket with the id {mapping.bucket_id} instead of the bucket "
            f"{printable(bucket.name)} ({bucket.id}).",
            hint="Mappings are not followed: delete this one (influx v1 dbrp delete), or rename the bucket.",
            kind="redirected-bucket",
        )

    def _unmapped(self, bucket: Bucket) -> NotVisibleError:
        return NotVisibleError(
            f"{self._name}: InfluxDB 2.4 reads a bucket by an explicit DBRP mapping only, and the bucket "
            f"{printable(bucket.name)} ({bucket.id}) has none of its own name.",
            hint=f"Create one (influx v1 dbrp create --bucket-id {bucket.id} --db {printable(bucket.database)} "
            f"--rp {printable(bucket.policy)}), or update the server to 2.5 or later.",
            kind="unmapped-bucket",
        )

    def _not_found(self, database: str, retention_policy: str | None) -> NotVisibleError:
        if retention_policy is None:
            what = f"a bucket of the database {printable(database)}"
        else:
            what = f"the bucket {printable(bucket_name(database, retention_policy))}"
        hint = "It is unknown, or not visible to this token."
        if "/" in database:
            hint = "A bucket a/b is the database a with the retention policy b: give these two."
        return NotVisibleError(f"{self._name}: {what} is not found.", hint=hint)

    def check_names(self, database: str, policies: Sequence[RetentionPolicy]) -> None:
        """Raises TargetError for what no bucket can be."""
        if not database or "/" in database:
            raise TargetError(
                f"{self._name}: a database named {printable(database)!r} cannot be on 2.x, where a bucket is "
                "database/policy.",
                hint="Choose a target database without a slash.",
            )
        if database.startswith("_"):
            raise TargetError(
                f"{self._name}: a bucket cannot be named {printable(database)!r}: names that begin with an underscore "
                "are the server's own on 2.x.",
                hint="Choose another target database (--target-database).",
            )
        for policy in policies:
            if not policy.name:
                raise TargetError(f"{self._name}: a retention policy without a name cannot be a bucket.")
            if '"' in database + policy.name:
                raise TargetError(
                    f"{self._name}: a bucket cannot be named {printable(bucket_name(database, policy.name))!r}: 2.x "
                    "refuses quotation marks.",
                    hint="Choose another target database or policy (--target-database, --target-retention-policy).",
                )
            _check_duration(bucket_name(database, policy.name), policy.duration)

    def refuse_taken(self, database: str, policies: Sequence[RetentionPolicy]) -> None:
        """Raises TargetError when a mapping leads one of these names to some bucket."""
        pairs = {(database, policy.name) for policy in policies}
        for mapping in self._control.mappings(self.organization_id):
            if (mapping.database, mapping.policy) in pairs:
                raise TargetError(
                    f"{self._name}: a DBRP mapping ({mapping.id}) takes the name ({printable(mapping.database)}, "
                    f"{printable(mapping.policy)}) for the bucket with the id {mapping.bucket_id}: a new bucket "
                    "of that name could not be read.",
                    hint="Delete the mapping, or choose another target database.",
                )

    def create(
        self, database: str, policies: Sequence[RetentionPolicy], description: str | None = None
    ) -> list[Bucket]:
        """Creates all of these buckets or, when one fails, none."""
        created: list[Bucket] = []
        try:
            for policy in policies:
                name = spelled(database, policy)
                bucket = self._control.create(name, self.organization_id, policy, description)
                created.append(bucket)
                if (bucket.name, bucket.organization_id) != (name, self.organization_id) or not _same_duration(
                    bucket.duration, policy.duration
                ):
                    raise ServerError(f"{self._name}: the bucket {printable(name)} is not as it was to be created.")
                self._map(bucket)
        except BaseException:
            self.delete(created)
            raise
        return created

    def _map(self, bucket: Bucket) -> None:
        if self._needs_mappings:
            self._control.map(bucket)

    def keep(self, database: str, retention_policy: str, duration: int) -> None:
        """Sets how long a bucket keeps points, and proves it."""
        bucket = self.bucket(database, retention_policy)
        _check_duration(bucket.name, duration)
        found = self._control.keep(bucket, duration).duration
        if not _same_duration(found, duration):
            raise ServerError(
                f"{self._name}: the bucket {printable(bucket.name)} keeps points for {format_duration(found)} "
                f"after it was set to {format_duration(duration)}."
            )

    def marked(self, purpose: Purpose) -> tuple[MarkedDatabase, ...]:
        """Databases that have the form of such a name, and all of whose buckets say that they were made by us."""
        found: dict[str, list[Bucket]] = {}
        for bucket in self.listed():
            if has_form(bucket.database, purpose):
                found.setdefault(bucket.database, []).append(bucket)
        marked = []
        for database, buckets in sorted(found.items()):
            marks = [described_mark(bucket.description, purpose) for bucket in buckets]
            known = [mark for mark in marks if mark is not None]
            if len(known) == len(marks) and len({mark.owner for mark in known}) == 1:
                mark = Mark(known[0].owner, max(mark.until for mark in known))
                marked.append(MarkedDatabase(database, ",".join(bucket.id for bucket in buckets), mark))
        return tuple(marked)

    def describe(self, database: str, ids: Sequence[str], description: str) -> None:
        """Gives the buckets of a database another description. Raises UsageError as ``drop`` does."""
        for bucket in self._of(database, ids):
            self._control.describe(bucket, description)

    def described(self, database: str, words: str) -> list[Bucket]:
        """The buckets of a database that have these words in their description."""
        return [bucket for bucket in self.listed() if bucket.database == database and words in bucket.description]

    def add_words(self, database: str, retention_policies: Collection[str], words: str) -> None:
        """Adds the words to the descriptions of these buckets."""
        for policy in retention_policies:
            bucket = self.bucket(database, policy)
            if words not in bucket.description:
                self._control.describe(bucket, f"{bucket.description} {words}".strip())

    def take_words(self, database: str, words: str) -> None:
        """Takes the words out of the descriptions of a database's buckets."""
        for bucket in self.described(database, words):
            self._control.describe(bucket, bucket.description.replace(words, "").strip())

    def taken(self, *databases: str) -> str | None:
        """The first of these names that a bucket or mapping has."""
        names = {bucket.database for bucket in self.listed(system=True)}
        names |= {mapping.database for mapping in self._control.mappings(self.organization_id)}
        return next((name for name in databases if name in names), None)

    def rename(self, database: str, ids: Sequence[str], to: str) -> None:
        """
        Gives the buckets of a database another one's name, all of them or none, and proves it.

        Raises TargetError when that name is taken, or a bucket is gone.
        """
        found = [bucket for bucket in map(self._control.bucket, ids) if bucket and bucket.database == database]
        if len(found) < len(ids):
            raise TargetError(f"{self._name}: buckets of the database {printable(database)} are gone.")
        if self.taken(to):
            raise TargetError(f"{self._name}: a bucket or DBRP mapping has the name {printable(to)} by now.")
        begun: list[Bucket] = []
        try:
            for bucket in found:
                begun.append(bucket)
                self._rename(bucket, to)
        except BaseException as error:
            self._rename_back(begun, error)
            raise

    def _rename(self, bucket: Bucket, to: str) -> None:
        self._proved.pop((bucket.database, bucket.policy), None)
        is_long = bucket.name != bucket_name(bucket.database, bucket.policy)
        name = f"{to}/{bucket.policy}" if is_long else bucket_name(to, bucket.policy)
        renamed = self._control.rename(bucket, name, bucket.description)
        self._map(renamed)
        if self.proved(to, bucket.policy).id != bucket.id:
            raise ServerError(f"{self._name}: the bucket {bucket.id} is not found as {printable(renamed.name)}.")

    def _rename_back(self, buckets: Sequence[Bucket], error: BaseException) -> None:
        for bucket in reversed(buckets):
            try:
                self._control.rename(bucket, bucket.name, bucket.description)
            except InfluxdbBackupError as failure:
                error.add_note(f"The bucket {bucket.id} could not be called {bucket.name} again: {failure.message}")

    def drop(self, database: str, ids: Sequence[str]) -> None:
        """
        Deletes buckets of a database by their ids, and proves that they are gone; gone before is fine.

        Raises UsageError, and deletes none, when one of them belongs to another database.
        """
        found = self._of(database, ids)
        self.delete(found)
        left = [bucket.name for bucket in found if self._control.bucket(bucket.id) is not None]
        if left:
            raise ServerError(f"{self._name}: the buckets {', '.join(map(printable, left))} are still there.")

    def _of(self, database: str, ids: Sequence[str]) -> list[Bucket]:
        found = [bucket for bucket in map(self._control.bucket, ids) if bucket is not None]
        for bucket in found:
            if bucket.database != database:
                raise UsageError(
                    f"{self._name}: the bucket {bucket.id} is {printable(bucket.name)} and does not belong to the "
                    f"scratch database {printable(database)}; nothing was dropped."
                )
        return found

    def delete(self, buckets: Sequence[Bucket]) -> None:
        """Deletes these buckets."""
        for bucket in buckets:
            self._proved.pop((bucket.database, bucket.policy), None)
            self._control.delete(bucket.id)


def _check_duration(name: str, duration: int) -> None:
    if 0 < duration < _SHORTEST_RETENTION:
        raise TargetError(
            f"The bucket {printable(name)} cannot keep points for {format_duration(duration)}: the shortest is 1h.",
            hint="Choose a longer or an infinite duration.",
        )


def _same_duration(found: int, wanted: int) -> bool:
    """Whether the server keeps points as long as wanted, which it does in whole seconds."""
    return found == -(-wanted // 1_000_000_000) * 1_000_000_000
