"""
Whether the source still counts what a plan's backups hold; a look that reads no points and writes nothing.

Compared are counts of values, field by field: what a restore would read on the one side, the server's ``count(*)`` of
the same pieces on the other. A value that was overwritten by another one leaves the counts as they were.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from influxdb_backup.archive.repository import Repository, at_once
from influxdb_backup.columns import batch_columns
from influxdb_backup.config.model import Plan
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.coverage import Archived, Change, Unjudged
from influxdb_backup.jobs.earlier_backups import EarlierBackups
from influxdb_backup.jobs.identity import identity_of, refuse_other_source, standing_identity
from influxdb_backup.jobs.layers import Held, Layers
from influxdb_backup.jobs.progress import Progress, ProgressCallback, silent
from influxdb_backup.jobs.restore_request import oldest_read_first, winners
from influxdb_backup.jobs.scope import table_in_scope
from influxdb_backup.jobs.selection import select_policies, visible_policies
from influxdb_backup.model import MAX_END, Part, Ref, RetentionPolicy, Role, Table, Value, Window, printable
from influxdb_backup.windows import format_duration, intersect, merge, subtract, tile

_MARKED = "The plan marks it as archived, and the source no longer has all of it."
_OPEN = "It was backed up while it was open."


class Recheck(Value):
    """What a comparison of backups with their source found, in order of time."""

    changes: tuple[Change, ...] = ()
    unjudged: tuple[Unjudged, ...] = ()
    archived: tuple[Archived, ...] = ()

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows that have changed, each once."""
        return tuple(dict.fromkeys(change.window for change in self.changes))


def recheck(
    plan: Plan,
    refs: Iterable[Ref],
    *,
    repository: Repository,
    server: Server,
    range: Window | None = None,  # noqa: A002
    progress: ProgressCallback = silent,
) -> Recheck:
    """
    Compares every window of these refs that touches the range (None: all of them), each as a whole, with the source.

    At every instant and for every table of the plan's scope the backup that a restore would read is compared: values
    that arrived, that were deleted, and measurements that are new or gone are changes. What the source's retention may
    have dropped, and what is missing of windows that the plan marks as archived, is ``archived``; windows that were
    open, and tables that no query reads, are ``unjudged``. Raises SourceError (``identity-mismatch``) for another
    source than that of the backups, and the errors of server and repository.
    """
    refs = tuple(refs)
    last = EarlierBackups(repository, plan.name).last()
    refuse_other_source(identity_of(plan, server), standing_identity(plan.name, repository, last), server.name)
    asked = [ref for ref in refs if range is None or intersect(ref.window, range)]
    if not asked:
        return Recheck()
    whole = Window(start=min(ref.window.start for ref in asked), end=max(ref.window.end for ref in asked))
    used = winners(oldest_read_first(ref for ref in refs if intersect(ref.window, whole)), whole)
    manifests = at_once(repository.manifest, used)
    backups = [Held.of(ref, manifest) for ref, manifest in zip(used, manifests, strict=True)]
    comparison = _Comparison(
        plan,
        server,
        repository,
        _list(plan, server, whole),
        Layers(backups, whole),
        frozenset(ref.id for ref in asked),
    )
    return comparison.run(progress)


@dataclass(frozen=True)
class _Listing:
    """What the server shows of the plan's scope."""

    now: int
    policies: Mapping[str, RetentionPolicy]
    tables: frozenset[Table]
    unreadable: Mapping[Table, str]
    """those of which no query reads anything, with the reason"""
    pieces: Mapping[str, tuple[Window, ...]]
    """by policy, along its shard groups"""
    overlaps: Mapping[str, Mapping[Window, str]]
    """by policy the stretches that several shards hold, with these"""

    def shared(self, retention_policy: str, window: Window) -> str | None:
        """The shards that overlap somewhere in the window; None when none do."""
        overlaps = self.overlaps.get(retention_policy, {})
        return next((shards for piece, shards in overlaps.items() if intersect(piece, window)), None)

    def cut(self, retention_policy: str, window: Window) -> Iterator[Window]:
        """The window in stretches that cross no shard group, since a field has one type within a group only."""
        pieces = self.pieces[retention_policy]
        first = bisect_right(pieces, window.start, key=lambda piece: piece.start) - 1
        for piece in pieces[max(first, 0) :]:
            if piece.start >= window.end:
                return
            common = intersect(piece, window)
            if common is not None:
                yield common


def _list(plan: Plan, server: Server, whole: Window) -> _Listing:
    now = server.now()
    policies = {policy.name: policy for policy in select_policies(plan, visible_policies(plan, server))}
    schemas = [server.schema(plan.database, name) for name in policies]
    shown = {found.table for schema in schemas for found in schema.tables}
    unreadable = {entry.table: entry.reason for schema in schemas for entry in schema.unreadable}
    return _Listing(
        now=now,
        policies=policies,
        tables=frozenset(table for table in shown if table_in_scope(plan.scope, table)),
        unreadable={
            table: reason
            for table, reason in unreadable.items()
            if table not in shown and table_in_scope(plan.scope, table)
        },
        pieces={name: server.pieces(plan.database, name, whole) for name in policies},
        overlaps={name: server.overlaps(plan.database, name, whole) for name in policies},
    )


def _stretches(layers: Layers, table: Table, *, policy_is_gone: bool) -> tuple[tuple[Window, Held], ...]:
    """
    Every stretch in which a backup's scope asked for the table, and the backup that a restore would read there.

    One that did not know the policy, or could not read the table, is below all that did, as for a restore. Where the
    policy is gone from the server, a newer backup without it is one for which that was accepted.
    """
    asked = [n for n, backup in enumerate(layers.backups) if table_in_scope(backup.ref.scope, table)]
    order = sorted(asked, key=lambda n: (not policy_is_gone and layers.backups[n].looked_at(table), n))
    return layers.stretches(order, table.retention_policy)


@dataclass(frozen=True)
class _Question:
    """One table in one piece, with the parts of a backup that hold it."""

    window: Window
    """the backup's"""
    table: Table
    piece: Window
    parts: tuple[Part, ...] = ()


@dataclass
class _Comparison:
    """One recheck."""

    plan: Plan
    server: Server
    repository: Repository
    listing: _Listing
    layers: Layers
    asked: frozenset[str]
    """ids of the refs that are compared; the others only lie on top of them"""
    unjudged: dict[str, list[Window]] = field(default_factory=dict)
    archived: dict[str, list[Window]] = field(default_factory=dict)

    def run(self, progress: ProgressCallback) -> Recheck:
        """Asks about all tables. Raises the errors of server and repository."""
        held = (
            table
            for backup in self.layers.backups
            for table in backup.entries
            if table_in_scope(self.plan.scope, table)
        )
        tables = sorted({*self.listing.tables, *self.listing.unreadable, *held}, key=str)
        changes: list[Change] = []
        with ThreadPoolExecutor(max(1, self.plan.concurrency), thread_name_prefix="recheck") as pool:
            for done, table in enumerate(tables):
                for found in pool.map(self._differences, self._questions(table)):
                    changes += found
                    progress(Progress("recheck", done, len(tables), 0, 0, str(table)))
        kept = sorted(self._still_kept(changes), key=lambda one: (one.window.start, one.window.end, str(one.table)))
        unjudged = [
            Unjudged(window=window, reason=reason)
            for reason, windows in self.unjudged.items()
            for window in merge(windows)
        ]
        archived = [
            Archived(window=window, reason=reason)
            for reason, windows in self.archived.items()
            for window in merge(windows)
        ]
        return Recheck(
            changes=tuple(kept),
            unjudged=tuple(sorted(unjudged, key=lambda one: (one.window.start, one.reason))),
            archived=tuple(sorted(archived, key=lambda one: (one.window.start, one.reason))),
        )

    def _questions(self, table: Table) -> Iterator[_Question]:
        gone = table.retention_policy not in self.listing.policies
        for stretch, backup in _stretches(self.layers, table, policy_is_gone=gone):
            if backup.ref.id not in self.asked:
                continue
            reason = self._reason(table, backup.ref)
            if reason:
                self.unjudged.setdefault(reason, []).append(stretch)
            else:
                for rest in self._kept(table, stretch, backup.ref):
                    yield from self._about(table, rest, backup)

    def _reason(self, table: Table, ref: Ref) -> str | None:
        """Why nothing can be said of a table in a backup's window; None when it can."""
        if ref.open:
            return _OPEN
        if table in self.listing.unreadable:
            return f"{table} cannot be read: {self.listing.unreadable[table]}"
        return None

    def _kept(self, table: Table, stretch: Window, ref: Ref) -> tuple[Window, ...]:
        """The stretch without what has expired, cut where the plan's archive ends."""
        kept_from = ref.kept_from(table.retention_policy)
        policy = self.listing.policies.get(table.retention_policy)
        if policy is not None and policy.duration:
            kept_from = max(kept_from, self.listing.now - policy.duration)
        if kept_from > stretch.start:
            expired = Window(start=stretch.start, end=min(stretch.end, kept_from))
            self.archived.setdefault(_expired_reason(table, policy), []).append(expired)
        if kept_from >= stretch.end:
            return ()
        rest = Window(start=max(kept_from, stretch.start), end=stretch.end)
        archived = self.plan.archived_until(self.listing.now)
        return tile(rest, [Window(start=archived, end=MAX_END)] if archived is not None else [])

    def _about(self, table: Table, stretch: Window, backup: Held) -> Iterator[_Question]:
        pieces: dict[Window, list[Part]] = {}
        entry = backup.entries.get(table)
        for part in entry.parts if entry else ():
            pieces.setdefault(part.piece, []).append(part)
        held = []
        for piece, parts in pieces.items():
            common = intersect(piece, stretch)
            if common is not None:
                held.append(common)
                yield _Question(backup.ref.window, table, common, tuple(parts))
        for rest in subtract(stretch, held):
            yield _Question(backup.ref.window, table, rest)

    def _differences(self, question: _Question) -> list[Change]:
        shared = self.listing.shared(question.table.retention_policy, question.piece)
        if shared is not None:
            return self._cannot_judge(
                question,
                f"The shards {shared} of the retention policy {printable(question.table.retention_policy)!r} overlap: "
                "a count there leaves out values of another type and has a point of two shards twice.",
            )
        backed_up = self._backed_up(question)
        counted = self._counted(question, sorted(backed_up))
        for name in self.server.dialect.index_fields & set(backed_up):
            del backed_up[name]
            self._cannot_judge(
                question, f"Queries answer the field {printable(name)} of {question.table} from the server's index."
            )
        return [
            Change(
                window=question.window,
                table=question.table,
                field=name,
                piece=question.piece,
                counted=counted[name],
                backed_up=backed_up[name],
                listed=question.table in self.listing.tables,
            )
            for name in sorted({*backed_up, *counted})
            if counted[name] != backed_up[name]
        ]

    def _cannot_judge(self, question: _Question, reason: str) -> list[Change]:
        self.unjudged.setdefault(reason, []).append(question.piece)
        return []

    def _backed_up(self, question: _Question) -> Counter[str]:
        """
        The values that a restore would write.

        The parts say it and not the counts of the evidence, which where points arrived during the read are more.
        """
        counts: Counter[str] = Counter()
        piece = question.piece
        for part in question.parts:
            if piece.start <= part.min_time and part.max_time < piece.end:
                for count in part.counts:
                    counts[count.name] += count.count
            elif part.min_time < piece.end and piece.start <= part.max_time:
                for batch in self.repository.read_part(part, window=piece):
                    for column, values in zip(batch_columns(batch.schema), batch.columns[1:], strict=True):
                        if column.role is Role.FIELD:
                            counts[column.name] += len(values) - values.null_count
        return counts

    def _counted(self, question: _Question, fields: Sequence[str]) -> Counter[str]:
        counts: Counter[str] = Counter()
        table = question.table
        if table.retention_policy in self.listing.policies:
            for piece in self.listing.cut(table.retention_policy, question.piece):
                counts.update(
                    self.server.counts(self.plan.database, table.retention_policy, table.measurement, piece, fields)
                )
        return counts

    def _still_kept(self, changes: Sequence[Change]) -> Iterator[Change]:
        """The changes without what has expired while the server was asked, and what is missing of archived time."""
        now = self.server.now() if changes else self.listing.now
        archived = self.plan.archived_until(self.listing.now)
        for change in changes:
            policy = self.listing.policies.get(change.table.retention_policy)
            if policy is not None and policy.duration:
                groups = self.listing.cut(policy.name, change.piece)
                if any(group.end <= now - policy.duration for group in groups):
                    self.archived.setdefault(_expired_reason(change.table, policy), []).append(change.piece)
                    continue
            if archived is not None and change.piece.end <= archived and change.counted < change.backed_up:
                self.archived.setdefault(_MARKED, []).append(change.piece)
                continue
            yield change


def _expired_reason(table: Table, policy: RetentionPolicy | None) -> str:
    name = printable(table.retention_policy)
    keeps = f" keeps {format_duration(policy.duration)}" if policy is not None and policy.duration else " had expired"
    return f"The retention policy {name!r}{keeps}: the source may have dropped what is older."


__all__ = ["Recheck", "recheck"]
