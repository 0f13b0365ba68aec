"""The commit: parts are proved to be there, the manifest is written, and the ref makes them a backup."""

from __future__ import annotations

import platform
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

import influxdb_backup
from influxdb_backup.archive import layout
from influxdb_backup.archive.documents import content_id, ref_of, sha256, to_bytes
from influxdb_backup.archive.encoding import CODEC
from influxdb_backup.archive.parts import part_path
from influxdb_backup.archive.store import is_damage
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.errors import (
    CommitStateUnknownError,
    ConflictError,
    InfluxdbBackupError,
    IntegrityError,
    RepositoryError,
    StoreError,
    SupersededError,
    UsageError,
)
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Evidence, Manifest, Part, Ref, Scope, Source, TableEntry, Tool, VerifyLevel, Window
from influxdb_backup.windows import format_instant, format_window

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository

logger = logger_of(__name__)

REQUESTS = 8
"""requests to the store that run at once"""


@dataclass(frozen=True, kw_only=True)
class ManifestDraft:
    """What the manifest of an attempt says beside what the repository knows itself."""

    source: Source
    scope: Scope
    evidence: Evidence
    tables: tuple[TableEntry, ...]
    """all tables of the scope, those without rows too"""
    annotations: dict[str, str] = field(default_factory=dict)
    dag_id: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Committed:
    """The ref that stands after a commit."""

    ref: Ref
    created: bool
    """False: the latest revision holds the same content, and no new one was made"""


class Commit:
    """One commit of one attempt, in the order of the format's "Write order"."""

    def __init__(self, repository: Repository, plan: str, window: Window, attempt: str, draft: ManifestDraft) -> None:
        self._repository = repository
        self._store = repository.store
        self._plan = plan
        self._window = window
        self._attempt = attempt
        self._draft = draft
        self._content_id = content_id(draft.source, draft.scope, window, draft.tables)
        self._latest: Ref | None = None
        self._next = 0
        self._shared: frozenset[str] = frozenset()

    def check_parts(self, own: frozenset[str], shared: frozenset[str]) -> None:
        """
        Lists what the store holds of the attempt. Raises StoreError when a part is not there as it was uploaded.

        ``shared`` are parts of the last revision whose digests this attempt has proved. Raises UsageError for a part
        that is neither of those nor uploaded by this attempt.
        """
        parts = [part for entry in self._draft.tables for part in entry.parts]
        keys = [part_path(part) for part in parts]
        foreign = sorted(set(keys) - own - shared)
        if foreign or len(set(keys)) != len(keys):
            raise UsageError(f"The parts of a commit must be the attempt's own, once each: {foreign or keys}.")
        if own:
            sizes = dict(self._store.list(layout.attempt_prefix(self._plan, self._window, self._attempt)))
            for part in parts:
                if part.path in own:
                    self._check_part(part, sizes.get(part.path))
        self._store.flush([key for key in keys if key in own])
        self._shared = shared

    def _check_part(self, part: Part, size: int | None) -> None:
        if size != part.size:
            found = "nothing" if size is None else f"{size} bytes"
            raise StoreError(
                f"{self._store.url} holds {found} under {part.path}, where {part.size} bytes were uploaded.",
                hint="Run the same again; if it happens again, run influxdb-backup repo check.",
            )

    def same_as_latest(self) -> Ref | None:
        """
        The latest revision when it is a backup of the same content and its objects are unharmed; else None.

        An open one counts only for an open read. Raises SupersededError when the latest was read later.
        """
        names = self._repository.ref_names(self._plan, self._window)
        self._next = max((name.revision for name in names), default=-1) + 1
        standing = [name.revision for name in names if not name.tombstone]
        if not standing:
            return None
        latest = self._repository.read_ref(self._plan, self._window, max(standing))
        self._latest = latest
        if self._is_same(latest) and self._is_unharmed(latest):
            return latest
        evidence = self._draft.evidence
        if (evidence.sequence, evidence.read_start) < (latest.sequence, latest.read_start):
            raise SupersededError(
                f"{latest.id} was read at {format_instant(latest.read_start)}, after this read began "
                f"({format_instant(evidence.read_start)}): committing would put older data on top.",
                hint="Nothing is lost; export the window again if it should be read once more.",
            )
        return None

    def _is_same(self, ref: Ref) -> bool:
        return ref.content_id == self._content_id and (self._draft.evidence.open or not ref.open)

    def _is_unharmed(self, ref: Ref) -> bool:
        """
        Whether all objects of a revision have their digests, so that it can be said to hold this content.

        One that is damaged is backed up again while the source has the points: its sizes alone would hide a
        changed byte, and the window could never be healed. Digests that this attempt proved are not computed again.
        """
        try:
            parts = {part.path for entry in self._repository.manifest(ref).tables for part in entry.parts}
        except InfluxdbBackupError as error:
            if not is_damage(error):
                raise
            return False
        level = VerifyLevel.PRESENT if parts <= self._shared else VerifyLevel.COMPLETE
        try:
            return verify_ref(self._repository, ref, level).ok
        except StoreError as error:  # whole or not, its bytes cannot be had: they are stored once more
            logger.warning("%s cannot be read, and its window is backed up again: %s", ref.id, error)
            return False

    def publish(self) -> Committed:
        """Writes the manifest and the ref. Raises as Attempt.commit says."""
        manifest = self._manifest()
        data = to_bytes(manifest)
        digest = sha256(data)
        manifest_key = layout.manifest_key(digest)
        self._create_manifest(manifest_key, data)
        ref = ref_of(manifest, digest, len(data), revision=self._next, write_id=secrets.token_hex(16))
        key = layout.ref_key(self._plan, self._window, ref.revision)
        self._repository.prove_local_place()  # at a store it is asked once, after the ref: nothing counts before
        self._repository.prove_refusal(manifest_key, data)
        try:
            self._store.create(key, to_bytes(ref))
        except (FileExistsError, StoreError) as error:
            done = self._resolve(ref, error)
        else:
            done = Committed(ref=ref, created=True)
        try:
            self._repository.prove_place()
        except StoreError as error:
            raise CommitStateUnknownError(
                f"Whether {ref.id} was committed is not known: {error.message}",
                hint="Run the same again once it is there: an equal backup is recognised and not made twice.",
            ) from error
        return done

    def _create_manifest(self, key: str, data: bytes) -> None:
        try:
            self._store.create(key, data)
        except FileExistsError:
            if self._store.read(key) != data:
                raise IntegrityError(f"{self._store.url} holds other bytes under {key}.") from None

    def _resolve(self, ref: Ref, error: Exception) -> Committed:
        """
        The ref was refused, or the reply was lost: what stands at its key decides.

        An object that exists is never replaced, so another writer's ref there means that ours did not land.
        """
        try:
            standing = self._repository.read_ref(self._plan, self._window, ref.revision)
        except RepositoryError as unreadable:
            raise CommitStateUnknownError(
                f"Whether {ref.id} was committed to {self._store.url} is not known: {error} "
                f"Reading it back: {unreadable}",
                hint="Run the same again: an equal backup is recognised and not made twice.",
            ) from error
        if standing.write_id == ref.write_id:
            return Committed(ref=standing, created=True)
        if self._is_same(standing):
            return Committed(ref=standing, created=False)
        raise ConflictError(
            f"Another writer committed {ref.id} with other content while {format_window(self._window)} was read.",
            hint="Run the same again: it compares with that revision, or makes the next one.",
        ) from error

    def _manifest(self) -> Manifest:
        draft = self._draft
        return Manifest(
            repository_id=self._repository.repository_id,
            plan=self._plan,
            window=self._window,
            attempt=self._attempt,
            content_id=self._content_id,
            source=draft.source,
            scope=draft.scope,
            evidence=draft.evidence,
            tables=draft.tables,
            tool=Tool(
                package=f"airflow-provider-influxdb-backup {influxdb_backup.__version__}",
                pyarrow=pa.__version__,
                python=platform.python_version(),
                codec=CODEC,
                dag_id=draft.dag_id,
                run_id=draft.run_id,
            ),
            previous_revision=self._latest.revision if self._latest else None,
            annotations=draft.annotations,
        )
