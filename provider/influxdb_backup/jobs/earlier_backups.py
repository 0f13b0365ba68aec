"""What the plan's earlier backups say to an export: which tables there were, how many rows, and of what source."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from influxdb_backup.archive.commit import ManifestDraft
from influxdb_backup.archive.layout import RefName
from influxdb_backup.archive.repository import Repository, at_once
from influxdb_backup.archive.store import is_damage
from influxdb_backup.errors import BackupNotFoundError, InfluxdbBackupError, IntegrityError, SourceError
from influxdb_backup.jobs.coverage import effective_window
from influxdb_backup.jobs.scope import contains, table_in_scope
from influxdb_backup.messages import logger_of
from influxdb_backup.model import MAX_SEQUENCE, Manifest, Ref, Table, Window
from influxdb_backup.windows import format_window, intersect

logger = logger_of(__name__)

_ONE_DAY = 86_400 * 10**9


class EarlierBackups:
    """
    The backups of one plan, as an export that begins now finds them. Their names are listed once; a ref is read when
    something asks what it says, so that an export of a plan with years of windows reads as few as one without.
    """

    def __init__(self, repository: Repository, plan: str, now: int | None = None) -> None:
        """``now`` is the worker's clock in ns; None reads it."""
        self._repository = repository
        self._plan = plan
        self._now = time.time_ns() if now is None else now
        self._known: dict[RefName, Ref | None] = {}
        self.names: tuple[RefName, ...] = ()
        self.damaged: list[Ref] = []
        """whose manifest was asked for and is not there as it was written"""
        self.refresh()

    def refresh(self) -> None:
        """Lists the names again; what was read of refs stays, since a ref never changes."""
        self.names = tuple(name for name in self._repository.ref_names(self._plan) if not name.tombstone)

    def of_window(self, window: Window) -> tuple[Ref, ...]:
        """The revisions of a window, in order. Raises what is wrong with one of them."""
        found = []
        for name, ref in self._read([name for name in self.names if name.window == window]):
            with suppress(BackupNotFoundError):
                found.append(ref or self._repository.read_ref(name.plan, name.window, name.revision))
        return tuple(found)

    def touching(self, window: Window) -> tuple[Ref, ...]:
        """The readable refs of windows that touch this one, in order of time; what is wrong with another is told."""
        return self._readable(name for name in self.names if intersect(name.window, window))

    def last(self) -> Manifest | None:
        """
        The manifest of the plan's last backup; of one before it when that cannot be read, and so on.

        A damaged old backup must not keep new ones from being made.
        """
        return next((manifest for _, manifest in self._manifests(self._last_first())), None)

    def last_revision(self, window: Window) -> Manifest | None:
        """The manifest of the window's last revision; None when there is none, or when it cannot be read."""
        revisions = self.of_window(window)
        try:
            return self._repository.manifest(revisions[-1]) if revisions else None
        except InfluxdbBackupError as error:
            if not is_damage(error):
                raise
            logger.warning("No part of the last revision of %s is named again, since %s", format_window(window), error)
            return None

    def next_sequence(self, window: Window) -> int:
        """
        A number for a read that begins now, greater than that of every readable backup of this time and of the last.

        Raises IntegrityError for a ref whose number no export can have written.
        """
        refs = [*self.touching(window), *itertools.islice(self._last_first(), 1)]
        greatest = max(refs, key=lambda ref: ref.sequence, default=None)
        if greatest is None:
            return 1
        if greatest.sequence >= MAX_SEQUENCE:
            raise IntegrityError(
                f"The ref {greatest.id} has the sequence {greatest.sequence}, which no export writes.",
                hint="Move this file out of the repository, or put it back from a copy.",
                kind="foreign",
            )
        return greatest.sequence + 1

    def with_points(self, retention_policy: str, times: Window) -> Ref | None:
        """The newest readable one that has points of a policy in these times; None when none has."""
        held = (ref for ref in reversed(read_order(self.touching(times))) if ref.rows)
        for ref, manifest in self._manifests(held):
            for count in manifest.evidence.counts:
                if count.counts and count.table.retention_policy == retention_policy and intersect(count.window, times):
                    return ref
        return None

    def newest_points(self, tables: Mapping[Table, int]) -> dict[Table, int | None]:
        """
        For each table the newest point that the plan's backups know at or after an instant of the table's own.

        Where there is none: ``None`` when the table was there before that instant, and no entry when no backup tells.
        """
        if not tables:
            return {}
        first = min(tables.values())
        newest = {name.window: name for name in self.names}  # of each window the highest revision
        later = self._readable(name for window, name in newest.items() if window.end > first)
        before = sorted((name for window, name in newest.items() if window.end <= first), key=lambda n: n.window.end)
        found: dict[Table, int | None] = {}
        for _, manifest in self._manifests(self._readable(before[-1:])):
            found |= {entry.table: None for entry in manifest.tables if entry.table in tables and entry.columns}
        manifests = at_once(self._manifest_or_none, later)
        for manifest in (manifest for manifest in manifests if manifest is not None):
            for entry in manifest.tables:
                if entry.table not in tables or entry.max_time is None:
                    continue
                known = found.get(entry.table)
                if entry.max_time >= tables[entry.table]:
                    found[entry.table] = entry.max_time if known is None else max(known, entry.max_time)
                else:
                    found.setdefault(entry.table, None)
        return found

    def covered(self, settle: int, now: int) -> list[Window]:
        """
        What the backups cover at ``now``, judged by their names: of windows of the future nothing.

        A ref is read where it was written before its window had settled, since only of an open one that can be.
        """
        covered: list[RefName] = []
        early: list[RefName] = []
        for name in self.names:
            if name.window.start >= now:
                continue
            settled = name.window.end + settle
            (early if settled > (name.written or now) else covered).append(name)
        read = (effective_window(ref) for ref in self._readable(early))
        return [*(name.window for name in covered), *(window for window in read if window is not None)]

    def _last_first(self) -> Iterator[Ref]:
        """
        The refs, last read first.

        That is the one that was written last, by the store's clock, which dates all of them; one that it dates in the
        future was written when that clock was wrong, and comes behind the others.
        """
        for name in sorted(self.names, key=self._by_time_written, reverse=True):
            yield from self._readable([name])

    def _by_time_written(self, name: RefName) -> tuple[int, int, int]:
        is_believed = name.written <= self._now + _ONE_DAY
        return name.written if is_believed else 0, name.window.end, name.revision

    def _manifests(self, refs: Iterable[Ref]) -> Iterator[tuple[Ref, Manifest]]:
        """The refs with their manifests; those that cannot be read are passed over."""
        for ref in refs:
            manifest = self._manifest_or_none(ref)
            if manifest is not None:
                yield ref, manifest

    def _manifest_or_none(self, ref: Ref) -> Manifest | None:
        try:
            return self._repository.manifest(ref)
        except InfluxdbBackupError as error:
            if not is_damage(error):
                raise
            logger.warning("What the source showed before is judged by an older backup, since %s", error)
            self.damaged.append(ref)
            return None

    def _readable(self, names: Iterable[RefName]) -> tuple[Ref, ...]:
        return tuple(ref for _, ref in self._read(list(names)) if ref is not None)

    def _read(self, names: Sequence[RefName]) -> list[tuple[RefName, Ref | None]]:
        missing = [name for name in names if name not in self._known]
        self._known |= dict(zip(missing, at_once(self._read_one, missing), strict=True))
        return [(name, self._known[name]) for name in names]

    def _read_one(self, name: RefName) -> Ref | None:
        try:
            return self._repository.read_ref(name.plan, name.window, name.revision)
        except BackupNotFoundError:
            return None
        except InfluxdbBackupError as error:
            if not is_damage(error):
                raise
            logger.warning("The window %s counts as a gap: %s", format_window(name.window), error)
            return None


def read_order(refs: Iterable[Ref]) -> list[Ref]:
    """Refs in the order in which they were read: the last one says what is true now."""
    return sorted(refs, key=lambda ref: (ref.read_order[:-1], ref.window.end, ref.revision))


def refuse_archived(window: Window, earlier: EarlierBackups) -> None:
    """
    Raises SourceError (``archived-window``) when another window's backup holds a part of an archived window.

    What the source has dropped of it since would be blanked by the newer read.
    """
    held = next((name for name in earlier.names if name.window != window and intersect(name.window, window)), None)
    if held is not None:
        raise SourceError(
            f"The window {format_window(window)} is archived, and {held.id} holds a part of it: the source may no "
            "longer have that, and a newer backup of it would be restored instead.",
            kind="archived-window",
            hint="Export only what has no backup; `influxdb-backup coverage` lists the gaps.",
        )


def refuse_shrink(
    draft: ManifestDraft, repository: Repository, revisions: Sequence[Ref], *, archived: bool = False
) -> None:
    """
    Raises SourceError (``shrunk-window``) when a table now has fewer rows than the window's latest revision.

    That is a person's decision, since it may be a failing read; of an ``archived`` window nobody's, since its backup is
    what is left (``archived-window``). Rows that a policy no longer kept when they were read may be fewer: of them the
    older revision still says what there was.
    """
    if not revisions:
        return
    latest = max(revisions, key=lambda ref: ref.revision)
    present = {entry.table: entry.rows for entry in draft.tables}
    kept_from = {entry.retention_policy: entry.kept_from for entry in draft.evidence.expired}
    lost = []
    try:
        for entry in repository.manifest(latest).tables:
            since = kept_from.get(entry.table.retention_policy, latest.window.start)
            held = sum(part.rows for part in entry.parts if part.min_time >= since)
            rows = present.get(entry.table, 0)
            if rows < held and table_in_scope(draft.scope, entry.table):
                lost.append(f"{entry.table} now holds {rows} rows and held {held}")
    except InfluxdbBackupError as error:
        if not is_damage(error):
            raise
        rows = sum(present.values())
        if rows < latest.rows and contains(draft.scope, latest.scope):
            lost.append(f"it now holds {rows} rows and held {latest.rows}")
    if lost:
        said = (
            f"{format_window(latest.window)} has shrunk since its revision {latest.revision}: "
            f"{'; '.join(lost[:5])}{' and more' if len(lost) > 5 else ''}."
        )
        if archived:
            raise SourceError(
                f"The archived window {said}",
                kind="archived-window",
                hint="Its backup is what is left of it and stays. Points that came since can be backed up by a plan of "
                "their own, under another name.",
            )
        raise SourceError(
            f"The window {said}",
            kind="shrunk-window",
            hint="If the source dropped them on purpose and the backup is to keep them, mark them in the plan "
            "(archived_before or archived_after). If the backup is to forget them as well, --accept-shrink.",
        )
