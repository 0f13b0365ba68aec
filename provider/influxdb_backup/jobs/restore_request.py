"""What a restore is asked to do, and the reads that answer it: pure decisions over refs and manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import BackupNotFoundError, UsageError
from influxdb_backup.jobs.coverage import effective_window
from influxdb_backup.jobs.scope import contains, table_in_scope
from influxdb_backup.model import (
    Column,
    Manifest,
    Name,
    Part,
    Ref,
    RetentionPolicy,
    Scope,
    Table,
    Value,
    Window,
    printable,
)
from influxdb_backup.windows import format_window, intersect, merge, overlay, subtract


class RestoreRequest(Value):
    """What to restore, from where and to where."""

    plan: str | None = None
    """every backup of this plan may be read; or name refs"""
    refs: tuple[str, ...] = ()
    """only these backups are read"""
    window: Window | None = None
    """the range of time; None with refs means all that they hold"""
    retention_policies: tuple[Name, ...] | None = None
    measurements: tuple[Name, ...] | None = None
    tags: Mapping[str, str] = {}
    """only points with all of these tag values"""
    target_database: Name | None = None
    """None: the source's name"""
    target_retention_policy: Name | None = None
    """None: each policy keeps its name"""
    on_conflict: Literal["fail", "merge"] = "fail"
    retention: Literal["fail", "widen", "drop-points"] = "fail"
    allow_gaps: bool = False
    max_rejects: int = 0
    unsigned_as_integer: bool = False
    connections: int = 2
    restore_id: str | None = None
    """names this restore; the same id goes on where it was"""


@dataclass(frozen=True)
class Unit:
    """One part to read, cut to the stretch in which its backup is the newest read."""

    table: Table
    """as it was at the source"""
    part: Part
    window: Window
    whole: bool
    """every point of the part is in the window"""

    @property
    def key(self) -> str:
        """Identifies the unit among those of its restore."""
        return f"{self.part.path}@{self.window.start}_{self.window.end}"


@dataclass(frozen=True)
class Reads:
    """Everything a restore reads, decided."""

    window: Window
    refs: tuple[Ref, ...]
    """those of which something is read"""
    units: tuple[Unit, ...]
    columns: Mapping[Table, tuple[Column, ...]]
    policies: Mapping[str, RetentionPolicy]
    """the source's, by name, as the newest backup saw them"""
    gaps: tuple[str, ...]
    """stretches without a backup, in words"""
    database: str
    """the source's"""

    @property
    def rows(self) -> int:
        """Points of the parts, an upper bound when parts are cut or filtered."""
        return sum(unit.part.rows for unit in self.units)

    @property
    def bytes(self) -> int:
        """Bytes of the parts as stored."""
        return sum(unit.part.size for unit in self.units)


def decide_reads(request: RestoreRequest, repository: Repository, scope: Scope | None) -> Reads:
    """
    Which parts answer the request: at every instant and for every table the newest read that looked at it.

    Raises BackupNotFoundError when nothing is there, or when there are gaps and the request does not allow
    them; UsageError when the request names neither a plan nor refs, or refs of different databases.
    """
    candidates, window = _candidates(request, repository)
    used = _winners(candidates, window)
    manifests = {ref.id: repository.manifest(ref) for ref in used}
    database = _database(manifests.values())
    wanted = Scope(retention_policies=request.retention_policies, measurements=request.measurements)
    tables = sorted(
        {
            entry.table
            for manifest in manifests.values()
            for entry in manifest.tables
            if table_in_scope(wanted, entry.table)
        },
        key=lambda table: (table.retention_policy, table.measurement),
    )
    _refuse_unknown(request, tables, window)
    units, columns, gaps = [], {}, _gaps(request, candidates, window, scope)
    for table in tables:
        chosen, known, missing = _table_units(table, used, manifests, window)
        units.extend(chosen)
        columns[table] = known
        gaps.extend(f"{table}: {format_window(gap)}" for gap in missing if not gaps)
    if gaps and not request.allow_gaps:
        raise BackupNotFoundError(
            f"There is no backup of {'; '.join(gaps[:5])}{' and more' if len(gaps) > 5 else ''}.",
            kind="gap",
            hint="Export the missing windows while the source has them, or restore what there is with --allow-gaps.",
        )
    read = {unit.part.path for unit in units}
    return Reads(
        window=window,
        refs=tuple(ref for ref in used if _reads_of(manifests[ref.id]) & read),
        units=tuple(units),
        columns=columns,
        policies={policy.name: policy for ref in used for policy in manifests[ref.id].source.retention_policies},
        gaps=tuple(gaps),
        database=database,
    )


def _reads_of(manifest: Manifest) -> set[str]:
    return {part.path for entry in manifest.tables for part in entry.parts}


def _candidates(request: RestoreRequest, repository: Repository) -> tuple[list[Ref], Window]:
    """Refs that may be read, oldest read first, and the range."""
    if request.refs:
        refs = [repository.ref(text) for text in request.refs]
    elif request.plan:
        refs = list(repository.refs(request.plan))
    else:
        raise UsageError("A restore needs a plan or at least one ref.")
    if not refs:
        raise BackupNotFoundError(
            f"The repository has no backup of plan {request.plan!r}.",
            hint="See what it has with `influxdb-backup list`.",
        )
    if request.window is None and not request.refs:
        raise UsageError("A restore of a plan needs a range: give --start and --end, or name refs.")
    window = request.window or Window(
        start=min(ref.window.start for ref in refs), end=max(ref.window.end for ref in refs)
    )
    inside = [ref for ref in refs if intersect(ref.window, window)]
    if not inside:
        raise BackupNotFoundError(
            f"No backup of {request.plan or ', '.join(request.refs)} holds anything of {format_window(window)}.",
            hint="See what there is with `influxdb-backup coverage`.",
        )
    return sorted(inside, key=lambda ref: (ref.read_start, ref.read_end, ref.revision)), window


def _refuse_unknown(request: RestoreRequest, tables: Sequence[Table], window: Window) -> None:
    """A name in the request that nothing answers is a mistake, also beside names that something does."""
    for what, asked, held in (
        ("retention policy", request.retention_policies, {table.retention_policy for table in tables}),
        ("measurement", request.measurements, {table.measurement for table in tables}),
    ):
        unknown = [name for name in asked or () if name not in held]
        if unknown:
            raise BackupNotFoundError(
                f"No table in the backups of {format_window(window)} is of the {what} {printable(unknown[0])!r}.",
                hint="Look at the tables with `influxdb-backup show REF`.",
            )
    if not tables:
        raise BackupNotFoundError(
            f"No table in the backups of {format_window(window)} matches the request.",
            hint="Look at the tables with `influxdb-backup show REF`.",
        )


def _winners(candidates: Sequence[Ref], window: Window) -> list[Ref]:
    """
    Refs of which something may be read, oldest read first.

    One is left out only where a newer one of the same scope looked at everything that it looked at.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Ref]] = {}
    for ref in candidates:
        groups.setdefault((ref.scope_hash, ref.retention_policies), []).append(ref)
    chosen: set[str] = set()
    for same in groups.values():
        whole = [ref for ref in same if not ref.unreadable]
        for _, position in overlay([(ref.window, n) for n, ref in enumerate(whole)], window):
            chosen.add(whole[position].id)
        chosen.update(ref.id for ref in same if ref.unreadable)
    return [ref for ref in candidates if ref.id in chosen]


def _looked_at(ref: Ref, manifest: Manifest, table: Table) -> bool:
    """Whether a backup says what the table holds: it asked for it, saw its policy, and could read it."""
    return (
        table_in_scope(ref.scope, table)
        and table.retention_policy in ref.retention_policies
        and all(entry.table != table for entry in manifest.evidence.unreadable)
    )


def _database(manifests: Iterable[Manifest]) -> str:
    databases = {manifest.source.database for manifest in manifests}
    if len(databases) > 1:
        raise UsageError(
            f"The refs are of several databases: {', '.join(sorted(map(printable, databases)))}.",
            hint="Restore each database on its own.",
        )
    return databases.pop()


def _gaps(request: RestoreRequest, candidates: Sequence[Ref], window: Window, scope: Scope | None) -> list[str]:
    """Stretches that no backup of the plan's present scope covers; of named refs, their own windows count whole."""
    covered = []
    for ref in candidates:
        held = ref.window if request.refs else effective_window(ref)
        if held is not None and (scope is None or contains(ref.scope, scope) or request.measurements):
            covered.append(held)
    return [format_window(gap) for gap in subtract(window, covered)]


def _table_units(
    table: Table, refs: Sequence[Ref], manifests: Mapping[str, Manifest], window: Window
) -> tuple[list[Unit], tuple[Column, ...], tuple[Window, ...]]:
    looked = [ref for ref in refs if _looked_at(ref, manifests[ref.id], table)]
    units: list[Unit] = []
    columns: dict[Column, None] = {}
    stretches = overlay([(ref.window, n) for n, ref in enumerate(looked)], window)
    for stretch, position in stretches:
        entries = [entry for entry in manifests[looked[position].id].tables if entry.table == table]
        for entry in entries:
            for part in entry.parts:
                if part.max_time < stretch.start or part.min_time >= stretch.end:
                    continue
                whole = stretch.start <= part.min_time and part.max_time < stretch.end
                units.append(Unit(table=table, part=part, window=stretch, whole=whole))
                columns.update(dict.fromkeys(part.columns))
    return units, tuple(columns), subtract(window, merge(stretch for stretch, _ in stretches))
