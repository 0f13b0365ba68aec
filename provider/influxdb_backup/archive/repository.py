"""A repository of backups: what its documents say, and the way in for new ones."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from influxdb_backup.archive import layout
from influxdb_backup.archive.documents import (
    RepositoryDocument,
    is_a,
    load_proved,
    parse,
    parse_document,
    ref_of,
    scope_hash,
    sha256,
    to_bytes,
)
from influxdb_backup.archive.readme_text import readme_text
from influxdb_backup.archive.store import MANIFEST_BYTES, VANISHED, Store, is_damage
from influxdb_backup.errors import (
    BackupNotFoundError,
    FormatError,
    InfluxdbBackupError,
    IntegrityError,
    StoreError,
    UsageError,
)
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Manifest, Part, PlanIdentity, Ref, Value, Window, printable
from influxdb_backup.windows import format_instant, format_window, intersect, parse_instant

if TYPE_CHECKING:
    import pyarrow as pa

    from influxdb_backup.archive.attempt import Attempt
    from influxdb_backup.archive.fetching import FetchedParts
    from influxdb_backup.archive.salvage import LostRows

logger = logger_of(__name__)

V = TypeVar("V", bound=Value)
A = TypeVar("A")
B = TypeVar("B")
OnDamage = Callable[[layout.RefName, InfluxdbBackupError], None]
"""told of a ref that cannot be read, and why"""
OnBadDocument = Callable[[str, InfluxdbBackupError], None]
"""told of a document that cannot be read, by its key, and why"""

REQUESTS = 16
"""small documents that are read at once"""
_BAD_REF = (
    "Put this file back from a copy of the repository. Or move it out of the repository: its window then counts as "
    "a gap, which can be exported again while the source has the points."
)
_BAD_DOCUMENT = (
    "Put this file back from a copy of the repository. Or move it out of the repository: what it says is then forgotten"
)
_BAD_REPOSITORY = (
    "Put this file back from a copy of the repository, or write it again: every manifest holds the repository_id."
)
_BAD_PLAN = f"{_BAD_DOCUMENT}, and the next export goes by the source of the plan's last backup."
_BAD_REPORT = f"{_BAD_DOCUMENT}; verify or drill its backup again."
_REVISION = re.compile(r"[0-9]{1,6}\Z")


class Repository:
    """
    One repository, opened. Everything it returns was read from the store by that very call.

    What reads and writes points is imported where it is first used: a command that only lists needs none of it.

    Make one with ``Repository.init`` or ``Repository.open``.
    """

    def __init__(self, store: Store, document: RepositoryDocument) -> None:
        self.store = store
        self.repository_id = document.repository_id
        self.url = store.url
        self.self_proving = document.self_proving
        """whether every document but manifests holds the digest of itself"""
        self._proved = False

    @classmethod
    def init(cls, store: Store) -> Repository:
        """
        Makes the place a repository; one that is there already is opened. Raises StoreError, FormatError.

        Nothing is made in a store that does not refuse to create an object twice.
        """
        document = RepositoryDocument(
            repository_id=secrets.token_hex(16),
            created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            self_proving=True,
        )
        store.make_root()
        store.prove_creates()
        try:
            store.create(layout.REPOSITORY, to_bytes(document))
        except FileExistsError:
            document = _parse_marker(store.read(layout.REPOSITORY), store.url)
        with suppress(FileExistsError):
            store.create(layout.README, readme_text().encode())
        return cls(store, document)

    @classmethod
    def open(cls, store: Store) -> Repository:
        """
        Raises BackupNotFoundError when there is none, FormatError for one of another version.

        One that was made before documents proved themselves is opened with a warning.
        """
        try:
            data = store.read(layout.REPOSITORY)
        except BackupNotFoundError:
            raise BackupNotFoundError(
                f"There is no repository at {store.url}.", hint="Create it with influxdb-backup repo init."
            ) from None
        return cls(store, _parse_marker(data, store.url))

    # writing

    def begin(self, plan: str, window: Window, earlier: Manifest | None = None) -> Attempt:
        """
        A new attempt to back a window up; use it as a context manager. Raises UsageError for a bad plan name.

        Parts that ``earlier``, the manifest of the window's last revision, has as well are named and not stored again.
        """
        from influxdb_backup.archive.attempt import Attempt

        return Attempt(self, plan, window, earlier)

    def claim_plan(self, identity: PlanIdentity) -> PlanIdentity:
        """Records what a plan's backups are backups of, unless that stands already. Returns what stands."""
        key = layout.plan_key(identity.plan)
        try:
            self.store.create(key, to_bytes(identity))
        except FileExistsError:
            return self.plan_identity(identity.plan) or identity
        return identity

    def put_document(self, key: str, document: Value) -> None:
        """
        Publishes a report or a restore's state under a key of ``layout``, once.

        Raises FileExistsError when another document stands there: one that decides who goes first holds an id of its
        writer, since equal ones are both published. Raises StoreError when the repository is not there any more.
        """
        self.prove_place()
        self.store.create(key, to_bytes(document))
        self.prove_place()

    def prove_place(self) -> None:
        """
        Raises StoreError unless this very repository still is at its place.

        A folder can be unmounted, renamed or removed while a job runs; what is written then lies where no one finds it.
        """
        try:
            document = parse(self.store.read(layout.REPOSITORY), RepositoryDocument, layout.REPOSITORY)
        except (BackupNotFoundError, FormatError, IntegrityError) as error:
            raise self._vanished(error.message) from error
        if document.repository_id != self.repository_id:
            raise self._vanished(f"There is the repository {document.repository_id} now.")

    def prove_refusal(self, key: str, data: bytes) -> None:
        """
        Raises StoreError when the store lets an object that was just created be created again.

        It is asked once. A store that forgets what it promised to ``repo init`` could lose a backup to a race.
        """
        if not self._proved:
            self.store.prove_refusal(key, data)
            self._proved = True

    def prove_local_place(self) -> None:
        """The same where asking costs nothing, and nothing where it is a request to a store."""
        if self.store.local_path(layout.REPOSITORY) is not None:
            self.prove_place()

    def _vanished(self, why: str) -> StoreError:
        return StoreError(
            f"The repository {self.repository_id} is not at {self.url} any more: {why}",
            hint="Nothing counts as written. Mount it, or put it back where it was, and run the same again.",
            kind=VANISHED,
        )

    # reading

    def plans(self) -> tuple[str, ...]:
        """The plans that have an identity or a ref here, sorted."""
        found = {layout.parse_plan_key(key) for key, _ in self.store.list(layout.PLANS)}
        for key, _ in self.store.list(layout.REFS):
            name = layout.parse_ref_key(key)
            if name is not None and not name.tombstone:
                found.add(name.plan)
        return tuple(sorted(name for name in found if name is not None))

    def plan_identity(self, plan: str) -> PlanIdentity | None:
        """What the plan's backups are backups of; None before its first export."""
        key = layout.plan_key(plan)
        with _way_out(_BAD_PLAN):
            identity = self.document(key, PlanIdentity)
            if identity is not None and identity.plan != plan:
                raise IntegrityError(f"{key} holds the identity of {printable(identity.plan)}.", kind="foreign")
        return identity

    def document(self, key: str, kind: type[V]) -> V | None:
        """
        One document; None when there is none.

        Raises FormatError for one of another kind or version, IntegrityError for one that does not prove itself.
        """
        try:
            return parse(self.store.read(key), kind, key, self_proving=self.self_proving)
        except BackupNotFoundError:
            return None

    def ref_names(self, plan: str, window: Window | None = None) -> tuple[layout.RefName, ...]:
        """The names of a plan's or a window's refs and tombstones, from one fresh listing, sorted by time."""
        listed = self.store.list_times(layout.refs_prefix(plan, window))
        names = [(layout.parse_ref_key(key), written) for key, written in listed]
        return tuple(sorted((replace(name, written=at) for name, at in names if name), key=_by_time))

    def read_ref(self, plan: str, window: Window, revision: int) -> Ref:
        """One ref. Raises BackupNotFoundError, FormatError, and IntegrityError when it is another's ref."""
        key = layout.ref_key(plan, window, revision)
        data = self.store.read(key)
        with _way_out(_BAD_REF):
            ref = parse(data, Ref, key, self_proving=self.self_proving)
            if (ref.plan, ref.window, ref.revision) != (plan, window, revision):
                raise IntegrityError(f"{key} holds the ref {ref.id}.", kind="foreign")
            if scope_hash(ref.scope) != ref.scope_hash:
                raise IntegrityError(f"{key} has a scope_hash that is not the one of its scope.", kind="digest")
        return ref

    def refs(self, plan: str, within: Window | None = None, on_damage: OnDamage | None = None) -> tuple[Ref, ...]:
        """
        All revisions of the plan's windows that touch ``within``, sorted by start, end and revision.

        A ref that disappears while they are read is left out. Raises FormatError or IntegrityError for a bad one;
        with ``on_damage`` that is told of it, and the others are returned.
        """
        names = [
            name
            for name in self.ref_names(plan)
            if not name.tombstone and (within is None or intersect(name.window, within) is not None)
        ]
        found = at_once(partial(self._read_ref_or_error, on_damage is not None), names)
        if len(found) > 1 and all(isinstance(ref, StoreError) for ref in found):
            raise cast("StoreError", found[0])  # not one of them can be read: that is no damage
        for name, ref in zip(names, found, strict=True):
            if on_damage is not None and isinstance(ref, InfluxdbBackupError):
                on_damage(name, ref)
        return tuple(ref for ref in found if isinstance(ref, Ref))

    def _read_ref_or_error(self, catch: bool, name: layout.RefName) -> Ref | InfluxdbBackupError | None:
        try:
            return self._read_ref_or_none(name)
        except InfluxdbBackupError as error:
            if not (catch and is_damage(error)):
                raise
            return error

    def _read_ref_or_none(self, name: layout.RefName) -> Ref | None:
        try:
            return self.read_ref(name.plan, name.window, name.revision)
        except BackupNotFoundError:
            return None

    def ref(self, text: str) -> Ref:
        """
        The ref that a person names: ``plan/start_end/revision``, ``plan/start_end`` (its newest revision),
        ``plan@latest`` (of the closed window with the latest end that has points), or ``plan@2013-01-12`` (the newest
        revision of the window that starts then, else of the one that holds that day), ``plan@2013-01-12T06:00Z``, and
        ``plan@2013-01-12#0`` for one revision.

        Raises UsageError for another form and for a date of several windows, BackupNotFoundError when there is none.
        """
        if text.endswith("@latest"):
            return self._latest(text.removesuffix("@latest"))
        if "@" in text:
            return self._dated(text)
        plan, *rest = text.split("/")
        if len(rest) not in {1, 2}:
            raise UsageError(f"{text!r} is not a backup.", hint="Write plan@latest or plan/<start>_<end>/<revision>.")
        layout.check_plan(plan)
        window = layout.parse_window_key(rest[0])
        if len(rest) == 1:
            revisions = [name.revision for name in self.ref_names(plan, window) if not name.tombstone]
            if not revisions:
                raise self._no_backup(f"There is no backup {text} in {self.url}.", plan)
            return self.read_ref(plan, window, max(revisions))
        if not _REVISION.match(rest[1]):
            raise UsageError(f"{rest[1]!r} is not a revision.", hint="Write a number such as 000000.")
        try:
            return self.read_ref(plan, window, int(rest[1]))
        except BackupNotFoundError:
            raise self._no_backup(f"There is no backup {text} in {self.url}.", plan) from None

    def _dated(self, text: str) -> Ref:
        plan, _, when = text.partition("@")
        moment, _, number = when.partition("#")
        stretch = _stretch(text, moment)
        if number and not number.isdecimal():
            raise UsageError(f"{number!r} is not a revision.", hint=f"Write {plan}@{moment}#0.")
        names = [name for name in self.ref_names(layout.check_plan(plan)) if not name.tombstone]
        windows = {name.window for name in names}
        found = {window for window in windows if stretch.start <= window.start < stretch.end} or {
            window for window in windows if window.start <= stretch.start < window.end
        }
        if len(found) > 1:
            shown = [f"{plan}@{format_instant(start)}" for start in sorted({window.start for window in found})]
            raise UsageError(
                f"{text} means {len(found)} windows: {', '.join(shown[:3])}{' and more' if len(shown) > 3 else ''}.",
                hint=f"Name one by its start, or by an id that `influxdb-backup list {plan} --ids` shows.",
            )
        revisions = [name.revision for name in names if name.window in found and number in ("", str(name.revision))]
        if not revisions:
            raise self._no_backup(f"There is no backup {text} in {self.url}.", plan)
        return self.read_ref(plan, found.pop(), max(revisions))

    def _latest(self, plan: str) -> Ref:
        names = [name for name in self.ref_names(layout.check_plan(plan)) if not name.tombstone]
        empty: set[Window] = set()
        for name in sorted(names, key=lambda n: (n.window.end, n.window.start, n.revision), reverse=True):
            ref = None if name.window in empty else self._read_ref_or_none(name)
            if ref is None or ref.open:
                continue
            if ref.rows:
                return ref
            empty.add(ref.window)  # its earlier revisions hold what is no longer so
        what = "only backups of windows that were still open" if names else "no backup"
        if empty:
            what = f"backups of {len(empty):,} closed {'window' if len(empty) == 1 else 'windows'}, none with points,"
        raise self._no_backup(f"{self.url} holds {what} of the plan {plan}.", plan)

    def _no_backup(self, message: str, plan: str) -> BackupNotFoundError:
        return BackupNotFoundError(message, hint=f"influxdb-backup list {plan} shows what there is.")

    def manifest(self, ref: Ref) -> Manifest:
        """
        The manifest of a ref, its digest proved.

        Raises IntegrityError when it is missing, changed or of another backup or repository, FormatError when its
        version is not known.
        """
        key = layout.manifest_key(ref.manifest)
        try:
            data = self.store.read(key, min(ref.manifest_size, MANIFEST_BYTES))
        except BackupNotFoundError:
            raise IntegrityError(
                f"{self.url} no longer holds {key}, the manifest of {ref.id}.", kind="missing"
            ) from None
        if len(data) != ref.manifest_size:
            raise IntegrityError(f"{key} has {len(data)} bytes instead of {ref.manifest_size}.", kind="size")
        if sha256(data) != ref.manifest:
            raise IntegrityError(f"{key} has the digest {sha256(data)}.", kind="digest")
        manifest = parse(data, Manifest, key)
        if (manifest.plan, manifest.window, manifest.content_id) != (ref.plan, ref.window, ref.content_id):
            raise IntegrityError(
                f"{key} is the manifest of {printable(manifest.plan)}, {format_window(manifest.window)}, "
                f"and not of {ref.id}.",
                kind="foreign",
            )
        _refuse_impossible(manifest, key)
        made = ref_of(manifest, ref.manifest, ref.manifest_size, revision=ref.revision, write_id=ref.write_id)
        if made != ref:
            differ = [name for name in Ref.model_fields if getattr(made, name) != getattr(ref, name)]
            raise IntegrityError(
                f"The ref {ref.id} and its manifest {key} do not agree on {', '.join(differ)}.", kind="foreign"
            )
        if manifest.repository_id != self.repository_id:
            raise IntegrityError(
                f"{key} was written for the repository {printable(manifest.repository_id)}; "
                f"{self.url} is {self.repository_id}.",
                hint="A copy of a repository needs the original's repository.json.",
                kind="foreign",
            )
        return manifest

    def read_part(
        self,
        part: Part,
        *,
        window: Window | None = None,
        tags: Mapping[str, str] | None = None,
        large: bool = False,
        fetched: FetchedParts | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """See ``parts.read_part``: proved bytes, bounded batches, filtered by half-open time and tag equality."""
        from influxdb_backup.archive.parts import read_part

        return read_part(self.store, part, window=window, tags=tags, large=large, fetched=fetched)

    def refuse_missing(self, parts: Sequence[Part]) -> None:
        """
        Raises IntegrityError for a part that is not there, or has another size, by listing the folders they are in.

        Says nothing where the store does not list them: whoever reads a part is told of the same, and of its digest.
        """
        folders = _folders_of(parts)
        try:
            sizes = {key: size for listing in at_once(self.store.list, folders) for key, size in listing}
        except StoreError as error:
            logger.info("The parts are not looked at before they are read: %s", error)
            return
        for part in parts:
            size = sizes.get(part.path)
            if size is None:
                self.prove_place()  # in a folder that was unmounted everything is missing
                raise IntegrityError(f"{self.url} no longer holds {part.path}.", kind="missing")
            if size != part.size:
                raise IntegrityError(f"{part.path} has {size} bytes instead of {part.size}.", kind="size")

    def fetch(self, parts: Sequence[Part]) -> FetchedParts:
        """Fetches parts that will be read in this order, several at once, while the context lasts."""
        from influxdb_backup.archive.fetching import FetchedParts

        return FetchedParts(self.store, parts)

    def read_part_salvaged(
        self,
        part: Part,
        measurement: str,
        on_lost: Callable[[LostRows], None],
        *,
        window: Window | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """See ``parts.read_part_salvaged``: what is whole of a damaged part, and which rows are not."""
        from influxdb_backup.archive.parts import read_part_salvaged

        return read_part_salvaged(self.store, part, measurement, on_lost, window=window, tags=tags)

    def read_documents(self, prefix: str, kind: type[V], on_damage: OnBadDocument | None = None) -> list[tuple[str, V]]:
        """
        Key and value of all documents of one kind below a prefix of ``layout``, sorted by key.

        Documents of other kinds are left out. Raises FormatError for what is not JSON, or of another version, and
        IntegrityError for what does not prove itself or stands under another backup's key; with ``on_damage`` that is
        told of it, and the others are returned.
        """
        keys = [key for key, _ in self.store.list(prefix) if key.endswith(".json")]
        found = []
        for key, document in zip(keys, at_once(partial(self._read_or_error, kind), keys), strict=True):
            if not isinstance(document, InfluxdbBackupError):
                found += [(key, document)] if document is not None else []
            elif on_damage is None or not is_damage(document):
                raise document
            else:
                on_damage(key, document)
        return found

    def _read_or_error(self, kind: type[V], key: str) -> V | InfluxdbBackupError | None:
        """None for a document of another kind, and for one that disappears meanwhile."""
        try:
            data = self.store.read(key)
            with _way_out(_BAD_REPORT):
                loaded = load_proved(data, key, self_proving=self.self_proving)
                if not is_a(loaded, kind):
                    return None
                document = parse_document(loaded, kind, key)
                _refuse_foreign_report(key, document)
        except BackupNotFoundError:
            return None
        except InfluxdbBackupError as error:
            return error
        return document


def count_as_gap(name: layout.RefName, error: InfluxdbBackupError) -> None:
    """Names a ref that cannot be read, and goes on without it: other windows are not less backed up for it."""
    logger.warning(
        "A backup of the window %s cannot be read, and counts for nothing: %s", format_window(name.window), error
    )


def pass_over(key: str, error: InfluxdbBackupError) -> None:
    """Names a report that cannot be read, and goes on without it: it says nothing of other backups."""
    logger.warning("What %s says is not known: %s", key, error)


def _folders_of(parts: Sequence[Part]) -> list[str]:
    """
    What is listed to see these parts: the folders of their tables, or where these are many that of their attempt.

    One request lists a thousand objects, so that an attempt's folder takes fewer than the folders of many tables.
    """
    from influxdb_backup.archive.parts import part_path

    by_attempt: dict[str, set[str]] = {}
    for part in parts:
        folder = part_path(part).rpartition("/")[0] + "/"
        is_usual = layout.parse_part_key(part.path) is not None
        attempt = folder[:-1].rpartition("/")[0] + "/" if is_usual else folder
        by_attempt.setdefault(attempt, set()).add(folder)
    return sorted(
        folder
        for attempt, folders in by_attempt.items()
        for folder in (folders if len(folders) <= REQUESTS else (attempt,))
    )


def _refuse_impossible(manifest: Manifest, key: str) -> None:
    """A part is there once and has a point, so that a manifest cannot list more than there can be."""
    paths = [part.path for entry in manifest.tables for part in entry.parts]
    if len(set(paths)) != len(paths):
        raise IntegrityError(f"{key} lists a part more than once.", kind="foreign")
    if any(part.rows < 1 for entry in manifest.tables for part in entry.parts):
        raise IntegrityError(f"{key} lists a part without points.", kind="foreign")


def _refuse_foreign_report(key: str, document: Value) -> None:
    """A report that names a backup counts for that one only."""
    ref = getattr(document, "ref", None)
    if isinstance(ref, str) and not any(key.startswith(f"{root}{ref}/") for root in (layout.CHECKS, layout.DRILLS)):
        raise IntegrityError(f"{key} holds a report of {printable(ref)}.", kind="foreign")


@contextmanager
def _way_out(hint: str) -> Iterator[None]:
    """Tells what to do about a document that cannot be read; one of a newer release says that itself."""
    try:
        yield
    except FormatError as error:
        raise FormatError(error.message, hint=error.hint or hint) from None
    except IntegrityError as error:
        raise IntegrityError(error.message, hint=hint, kind=error.kind) from None


def _stretch(text: str, moment: str) -> Window:
    """The day, minute or instant that a person wrote behind ``plan@``."""
    day, instant = re.fullmatch(r"\d{4}-\d{2}-\d{2}", moment), re.sub(r"(T\d{2}:\d{2})Z?$", r"\1:00Z", moment)
    try:
        start = parse_instant(f"{moment}T00:00:00Z" if day else instant)
        return Window(start=start, end=start + (86_400 * 10**9 if day else 1))
    except (UsageError, ValueError):
        raise UsageError(
            f"{text!r} is not a backup.",
            hint="Write plan@latest, plan@2013-01-12, plan@2013-01-12T06:00Z, or plan/<start>_<end>/<revision>.",
        ) from None


def _parse_marker(data: bytes, url: str) -> RepositoryDocument:
    with _way_out(_BAD_REPOSITORY):
        document = parse(data, RepositoryDocument, layout.REPOSITORY)
    if not document.self_proving:
        logger.warning(
            "The repository %s was made by an earlier release: changed bytes in refs and reports of that time are not "
            "found. A new repository (`influxdb-backup repo init`) holds documents that prove themselves.",
            url,
        )
    return document


def _by_time(name: layout.RefName) -> tuple[int, int, int, bool]:
    return name.window.start, name.window.end, name.revision, name.tombstone


def at_once(read: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """The results in order, read by several threads; the first error is raised."""
    if len(items) < 2:
        return [read(item) for item in items]
    with ThreadPoolExecutor(min(REQUESTS, len(items))) as pool:
        return list(pool.map(read, items))
