"""What the plan's earlier backups say to an export: which tables there were, how many rows, and of what source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from influxdb_backup.archive.commit import ManifestDraft
from influxdb_backup.archive.layout import RefName
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import is_damage
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import InfluxdbBackupError, SourceError
from influxdb_backup.jobs.scope import contains, table_in_scope
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Manifest, Ref, Window
from influxdb_backup.windows import format_window, intersect

logger = logger_of(__name__)


def sound_refs(repository: Repository, plan: Plan, window: Window) -> tuple[Ref, ...]:
    """
    The plan's refs that can be read. Raises what is wrong with one of this very window.

    Another window's must not keep this one from being backed up while the source still has it.
    """

    def on_damage(name: RefName, error: InfluxdbBackupError) -> None:
        if name.window == window:
            raise error
        logger.warning("The window %s counts as a gap: %s", format_window(name.window), error)

    return repository.refs(plan.name, on_damage=on_damage)


def last_manifest(repository: Repository, refs: Iterable[Ref]) -> Manifest | None:
    """
    The manifest of the plan's last backup; of the one before it when that cannot be read, and so on.

    A damaged old backup must not keep new ones from being made.
    """
    return next((manifest for _, manifest in _last_read_first(repository, refs)), None)


def last_revision(repository: Repository, refs: Iterable[Ref], window: Window) -> Manifest | None:
    """The manifest of the window's last revision; None when there is none, or when it cannot be read."""
    revisions = [ref for ref in refs if ref.window == window]
    try:
        return repository.manifest(max(revisions, key=lambda ref: ref.revision)) if revisions else None
    except InfluxdbBackupError as error:
        if not is_damage(error):
            raise
        logger.warning("No part of the last revision of %s is named again, since %s", format_window(window), error)
        return None


def backup_with(repository: Repository, refs: Iterable[Ref], retention_policy: str, times: Window) -> Ref | None:
    """The newest readable one of the refs that has points of a policy in these times; None when none has."""
    held = [ref for ref in refs if ref.rows and intersect(ref.window, times)]
    for ref, manifest in _last_read_first(repository, held):
        for count in manifest.evidence.counts:
            if count.counts and count.table.retention_policy == retention_policy and intersect(count.window, times):
                return ref
    return None


def _last_read_first(repository: Repository, refs: Iterable[Ref]) -> Iterator[tuple[Ref, Manifest]]:
    """The refs with their manifests; those that cannot be read are passed over."""
    for ref in sorted(refs, key=lambda ref: (ref.read_start, ref.read_end, ref.window.end, ref.revision), reverse=True):
        try:
            yield ref, repository.manifest(ref)
        except InfluxdbBackupError as error:
            if not is_damage(error):
                raise
            logger.warning("What the source showed before is judged by an older backup, since %s", error)


def refuse_shrink(draft: ManifestDraft, repository: Repository, revisions: Sequence[Ref]) -> None:
    """
    Raises SourceError (``shrunk-window``) when a table now has fewer rows than the window's latest revision.

    That is a person's decision, since it may be a failing read.
    """
    if not revisions:
        return
    latest = max(revisions, key=lambda ref: ref.revision)
    present = {entry.table: entry.rows for entry in draft.tables}
    lost = []
    try:
        for entry in repository.manifest(latest).tables:
            rows = present.get(entry.table, 0)
            if rows < entry.rows and table_in_scope(draft.scope, entry.table):
                lost.append(f"{entry.table} now holds {rows} rows and held {entry.rows}")
    except InfluxdbBackupError as error:
        if not is_damage(error):
            raise
        rows = sum(present.values())
        if rows < latest.rows and contains(draft.scope, latest.scope):
            lost.append(f"it now holds {rows} rows and held {latest.rows}")
    if lost:
        raise SourceError(
            f"The window {format_window(latest.window)} has shrunk since its revision {latest.revision}: "
            f"{'; '.join(lost[:5])}{' and more' if len(lost) > 5 else ''}.",
            kind="shrunk-window",
            hint="If points were deleted at the source on purpose, export with --accept-shrink.",
        )
