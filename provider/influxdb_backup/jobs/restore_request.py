"""What a restore is asked to do, and the reads that answer it: pure decisions over refs and manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from influxdb_backup.archive.repository import Repository, at_once
from influxdb_backup.config.names import listed, suggestion
from influxdb_backup.errors import BackupNotFoundError, UsageError
from influxdb_backup.jobs.coverage import effective_window
from influxdb_backup.jobs.layers import Held, Layers
from influxdb_backup.jobs.objections import Objections
from influxdb_backup.jobs.scope import contains, table_in_scope
from influxdb_backup.model import (
    Column,
    Manifest,
    Name,
    Part,
    Ref,
    RetentionPolicy,
    Role,
    Scope,
    Table,
    Value,
    Window,
    printable,
)
from influxdb_backup.windows import format_window, intersect, overlay, subtract


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
    fingerprints: bool = False
    """everything is read back, too, and must have the archive's fingerprints"""
    salvage: bool = False
    """of a damaged part what is whole is restored, and the report names every row that is not; else damage ends it"""
    connections: int = 2
    writer: Literal["auto", "lines", "shard"] = "auto"
    """how points are written: by line protocol, or as whole shards, into a new database only; ``auto`` takes shards
    where it can"""
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
    expired: tuple[str, ...]
    """stretches of which the source may have dropped points before they were backed up, in words"""
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


def decide_reads(
    request: RestoreRequest, repository: Repository, scope: Scope | None, objections: Objections | None = None
) -> Reads:
    """
    Which parts answer the request: at every instant and for every table the newest read that looked at it.

    Raises BackupNotFoundError when nothing is there, or, as an objection, when there are gaps and the request does not
    allow them; UsageError when the request names neither a plan nor refs, or refs of different databases, or asks for
    fingerprints of a target that is not to equal the archive.
    """
    _refuse_fingerprints(request)
    _refuse_salvage(request)
    candidates, window = _candidates(request, repository)
    used = winners(candidates, window)
    manifests = dict(zip((ref.id for ref in used), at_once(repository.manifest, used), strict=True))
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
    everything = {entry.table for manifest in manifests.values() for entry in manifest.tables}
    _refuse_unknown(request, tables, everything, window)
    nowhere = _gaps(request, candidates, window, scope)
    units, columns, gaps = [], {}, [format_window(gap) for gap in nowhere]
    late: dict[str, None] = {}
    layers = Layers([Held.of(ref, manifests[ref.id]) for ref in used], window)
    for table in tables:
        chosen, known, missing, expired = _units_of(layers, table, window)
        late |= dict.fromkeys(expired)
        units.extend(chosen)
        columns[table] = known
        gaps += [f"{table}: {format_window(rest)}" for gap in missing for rest in subtract(gap, nowhere)]
    if gaps and not request.allow_gaps:
        with (objections or Objections()).noted():
            raise BackupNotFoundError(
                f"There is no backup of {'; '.join(gaps[:5])}{' and more' if len(gaps) > 5 else ''}.",
                kind="gap",
                hint="Export the missing windows while the source has them, or restore what there is with "
                "--allow-gaps.",
            )
    if units:
        _refuse_unknown_tags(request, columns.values(), window)
    read = {unit.part.path for unit in units}
    return Reads(
        window=window,
        refs=tuple(ref for ref in used if _reads_of(manifests[ref.id]) & read),
        units=tuple(units),
        columns=columns,
        policies={policy.name: policy for ref in used for policy in manifests[ref.id].source.retention_policies},
        gaps=tuple(gaps),
        expired=tuple(late),
        database=database,
    )


def _refuse_fingerprints(request: RestoreRequest) -> None:
    """Where the target may hold something else than the archive, fingerprints differ and say nothing."""
    for asked, option in (
        (request.on_conflict == "merge", "--on-conflict merge"),
        (request.retention == "drop-points", "--retention drop-points"),
        (request.max_rejects > 0, "--max-rejects"),
        (request.unsigned_as_integer, "--unsigned-as-integer"),
    ):
        if request.fingerprints and asked:
            raise UsageError(
                f"Fingerprints cannot be compared with {option}: the target would not hold what the archive does.",
                hint="Leave one of them out; the counts are read back in any case.",
            )


def _refuse_salvage(request: RestoreRequest) -> None:
    """What is left of a damaged part is not what the archive was: it has no fingerprint, and fills no whole shard."""
    for asked, option in ((request.fingerprints, "--fingerprints"), (request.writer == "shard", "--writer shard")):
        if request.salvage and asked:
            raise UsageError(
                f"What is left of damaged parts cannot be restored with {option}.",
                hint=f"Leave out {option}; counts are read back in any case, and the lost rows are named.",
            )


def _reads_of(manifest: Manifest) -> set[str]:
    return {part.path for entry in manifest.tables for part in entry.parts}


def _candidates(request: RestoreRequest, repository: Repository) -> tuple[list[Ref], Window]:
    """Refs that may be read, oldest read first, and the range."""
    if request.refs:
        refs = [repository.ref(text) for text in request.refs]
    elif request.plan:
        refs = list(repository.refs(request.plan, request.window))
    else:
        raise UsageError("A restore needs a plan or at least one ref.")
    if not refs and not (request.plan and repository.ref_names(request.plan)):
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
    return oldest_read_first(inside), window


def oldest_read_first(refs: Iterable[Ref]) -> list[Ref]:
    """The order in which backups lie on top of each other."""
    return sorted(refs, key=lambda ref: ref.read_order)


def _refuse_unknown(
    request: RestoreRequest, tables: Sequence[Table], everything: Iterable[Table], window: Window
) -> None:
    """A name in the request that nothing answers is a mistake, also beside names that something does."""
    policies, measurements = request.retention_policies, request.measurements
    for what, asked, held, known in (
        (
            "retention policy",
            policies,
            {table.retention_policy for table in tables},
            {table.retention_policy for table in everything},
        ),
        (
            "measurement",
            measurements,
            {table.measurement for table in tables},
            {table.measurement for table in everything},
        ),
    ):
        unknown = [name for name in asked or () if name not in held]
        if unknown:
            raise BackupNotFoundError(
                f"No table in the backups of {format_window(window)} is of the {what} {printable(unknown[0])!r}."
                f"{suggestion(unknown[0], known)}",
                hint=f"They have {listed(map(printable, known))}.",
            )
    if not tables:
        raise BackupNotFoundError(
            f"No table in the backups of {format_window(window)} matches the request.",
            hint="Look at the tables with `influxdb-backup show REF`.",
        )


def _refuse_unknown_tags(request: RestoreRequest, tables: Iterable[Sequence[Column]], window: Window) -> None:
    """A tag that no table has selects nothing; no value of a tag, which selects what is without it, is fine."""
    held = {column.name for columns in tables for column in columns if column.role is Role.TAG}
    unknown = [name for name, value in request.tags.items() if value and name not in held]
    if unknown:
        raise BackupNotFoundError(
            f"No table in the backups of {format_window(window)} has the tag {printable(unknown[0])!r}."
            f"{suggestion(unknown[0], held)}",
            hint=f"They have {listed(map(printable, held)) if held else 'no tags'}.",
        )


def winners(candidates: Sequence[Ref], window: Window) -> list[Ref]:
    """
    Refs of which something may be read, oldest read first.

    One is left out only where a newer one of the same scope looked at everything that it looked at.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Ref]] = {}
    for ref in candidates:
        groups.setdefault((ref.scope_hash, ref.retention_policies), []).append(ref)
    chosen: set[str] = set()
    for same in groups.values():
        whole = [ref for ref in same if not (ref.unreadable or ref.expired)]
        for _, position in overlay([(ref.window, n) for n, ref in enumerate(whole)], window):
            chosen.add(whole[position].id)
        chosen.update(ref.id for ref in same if ref.unreadable or ref.expired)
    return [ref for ref in candidates if ref.id in chosen]


def _database(manifests: Iterable[Manifest]) -> str:
    databases = {manifest.source.database for manifest in manifests}
    if len(databases) > 1:
        raise UsageError(
            f"The refs are of several databases: {', '.join(sorted(map(printable, databases)))}.",
            hint="Restore each database on its own.",
        )
    return databases.pop()


def _gaps(
    request: RestoreRequest, candidates: Sequence[Ref], window: Window, scope: Scope | None
) -> tuple[Window, ...]:
    """Stretches that no backup of the plan's present scope covers; of named refs, their own windows count whole."""
    covered = []
    for ref in candidates:
        held = ref.window if request.refs else effective_window(ref)
        filtered = request.measurements or request.retention_policies
        if held is not None and (scope is None or filtered or contains(ref.scope, scope)):
            covered.append(held)
    return subtract(window, covered)


def _units_of(
    layers: Layers, table: Table, window: Window
) -> tuple[list[Unit], tuple[Column, ...], tuple[Window, ...], list[str]]:
    """
    What to read of a table, the columns of that, the stretches in which no backup looked at it, and in words those
    that were backed up when the table's policy no longer kept them.
    """
    expired: list[str] = []
    units: list[Unit] = []
    columns: dict[Column, None] = {}
    looked_at = [n for n, backup in enumerate(layers.backups) if backup.looked_at(table)]
    stretches = layers.stretches(looked_at, table.retention_policy)
    for stretch, backup in stretches:
        kept_from = backup.ref.kept_from(table.retention_policy)
        if stretch.start < kept_from:
            lost = Window(start=stretch.start, end=min(kept_from, stretch.end))
            expired.append(f"retention policy {printable(table.retention_policy)!r}, {format_window(lost)}")
        entry = backup.entries.get(table)
        for part in entry.parts if entry else ():
            if part.max_time < stretch.start or part.min_time >= stretch.end:
                continue
            whole = stretch.start <= part.min_time and part.max_time < stretch.end
            units.append(Unit(table=table, part=part, window=stretch, whole=whole))
            columns.update(dict.fromkeys(part.columns))
    return units, tuple(columns), subtract(window, [stretch for stretch, _ in stretches]), expired
