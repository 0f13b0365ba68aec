"""Back one window of one plan up: read every table in shard-group pieces, prove it, commit it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from influxdb_backup.archive.commit import ManifestDraft
from influxdb_backup.archive.parts import table_entry
from influxdb_backup.archive.repository import Repository
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import IncompleteReadError, SourceError
from influxdb_backup.influx.influxql import between
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.clocks import compare_clocks
from influxdb_backup.jobs.coverage import effective_window, gaps_between
from influxdb_backup.jobs.earlier_backups import EarlierBackups, refuse_archived, refuse_shrink
from influxdb_backup.jobs.identity import claim, identity_of, refuse_other_source, standing_identity
from influxdb_backup.jobs.outside import Outside, outside
from influxdb_backup.jobs.piece import PieceResult
from influxdb_backup.jobs.progress import ProgressCallback, silent
from influxdb_backup.jobs.selection import (
    Selection,
    expired_policies,
    may_have_ended,
    missing_at_source,
    refuse_expired,
    select_policies,
    select_tables,
    visible_policies,
)
from influxdb_backup.jobs.shard_reading import ShardReading, telling_last_backup
from influxdb_backup.jobs.window_reader import WindowReader
from influxdb_backup.model import (
    MAX_END,
    MIN_TIME,
    Clocks,
    Evidence,
    ExpiredPolicy,
    Manifest,
    RetentionPolicy,
    Source,
    SourcePiece,
    Table,
    UnreadableTable,
    Value,
    Window,
    printable,
)
from influxdb_backup.windows import format_duration, format_instant, format_window, say_wait

_ROUNDS = 5
"""listings of tables and shard groups before a source that keeps changing its shape fails the export"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What a person may allow for one export, and who runs it."""

    force: bool = False
    """back an open window up; it is marked as open"""
    accept_expired: bool = False
    accept_shrink: bool = False
    accept_missing: bool = False
    accept_clock: bool = False
    """go on although the server's clock is neither this machine's nor the store's"""
    dag_id: str | None = None
    run_id: str | None = None
    now: int | None = None
    """the worker's clock in ns; None reads it"""


class ExportResult(Value):
    """What an export did; small enough for an XCom."""

    ref: str
    window: Window
    revision: int
    manifest: str
    """sha256 of the manifest"""
    created: bool
    """False when the latest revision already holds exactly this"""
    tables: int
    rows: int
    values: int
    bytes: int
    """of the parts as stored"""
    seconds: float
    open: bool
    unreadable: tuple[UnreadableTable, ...]
    gaps: tuple[Window, ...]
    """
    stretches of the plan since its start that have no backup, judged by the names of the earlier ones; ``coverage``
    reads each of them
    """
    expired: tuple[ExpiredPolicy, ...] = ()
    """policies that no longer kept the whole window: of them the backup has what was left"""
    outside: tuple[Outside, ...] = ()
    """stretches for which the source has shards, and that no window of the plan reaches"""
    ended: tuple[Table, ...] = ()
    """tables of the plan's last backup that are gone since all of their points have expired"""


def export(
    plan: Plan,
    window: Window,
    *,
    server: Server,
    repository: Repository,
    options: ExportOptions | None = None,
    progress: ProgressCallback = silent,
    earlier: EarlierBackups | None = None,
) -> ExportResult:
    """
    Backs ``window`` of ``plan`` up and commits it as a new revision; equal content to the latest is no new one.

    Raises SourceError (open, expired, shrunk or empty window, another source, tables that vanished),
    IncompleteReadError, ConflictError, SupersededError and the server's and the store's errors; then nothing
    is committed. The same call again is always safe. ``earlier`` is what a call before this one has read of the plan's
    backups; their names are listed again.
    """
    result = export_unless_empty(
        plan,
        window,
        server=server,
        repository=repository,
        options=options or ExportOptions(),
        progress=progress,
        earlier=earlier,
        only_with_points=False,
    )
    assert result is not None
    return result


def export_unless_empty(
    plan: Plan,
    window: Window,
    *,
    server: Server,
    repository: Repository,
    options: ExportOptions,
    progress: ProgressCallback,
    earlier: EarlierBackups | None,
    only_with_points: bool = True,
) -> ExportResult | None:
    """Backs a window up as ``export`` does; None for one without points that no backup has held before."""
    started = time.monotonic()
    read_start = server.now()
    worker_now = options.now if options.now is not None else time.time_ns()
    clocks = compare_clocks(
        read_start,
        worker_now,
        repository.store.now,
        where=server.name,
        store=repository.url,
        accept=options.accept_clock,
    )
    now = min(read_start, worker_now)
    is_open = _is_open(plan, window, now, options)
    identity = identity_of(plan, server)
    if earlier is None:
        earlier = EarlierBackups(repository, plan.name)
    else:
        earlier.refresh()
    revisions = earlier.of_window(window)
    archived = window.end <= (plan.archived_until(now) or MIN_TIME)
    if archived:
        refuse_archived(window, earlier)
    previous = earlier.last()
    standing = standing_identity(plan.name, repository, previous)
    refuse_other_source(identity, standing, server.name)
    began = _Began(read_start, earlier.next_sequence(window), clocks)
    with (
        server.at_most(plan.concurrency),
        repository.begin(plan.name, window, earlier.last_revision(window)) as attempt,
    ):
        allowed, known = plan.hot_shards == "allow", earlier.with_points
        shards = ShardReading(server, plan.database, plan.reader, allow_hot=allowed, backup_with=known)
        with telling_last_backup(earlier, window), WindowReader(plan, server, attempt, shards, progress) as reader:
            reading = _read_everything(reader, earlier, previous, read_start, options)
            _refuse_unreadable(plan, _unreadable(reader, reading.selection))
        groups = {policy.name: server.listed_groups(plan.database, policy.name) for policy in reading.policies}
        held = [window, *(name.window for name in earlier.names)]
        beyond = outside(plan, groups, reading.policies, held, now)
        draft = _draft(reader, reading, began, is_open, options, beyond)
        if only_with_points and not revisions and not any(entry.rows for entry in draft.tables):
            return None
        if archived or not options.accept_shrink:
            refuse_shrink(draft, repository, revisions, archived=archived)
        if not standing.claimed:
            claim(identity, repository, server.name)
        committed = attempt.commit(draft)
    covered = [*earlier.covered(plan.settle, now), *([own] if (own := effective_window(committed.ref)) else [])]
    return ExportResult(
        ref=committed.ref.id,
        window=window,
        revision=committed.ref.revision,
        manifest=committed.ref.manifest,
        created=committed.created,
        tables=len(draft.tables),
        rows=sum(entry.rows for entry in draft.tables),
        values=sum(count.count for entry in draft.tables for count in entry.counts),
        bytes=sum(part.size for entry in draft.tables for part in entry.parts),
        seconds=time.monotonic() - started,
        open=is_open,
        unreadable=draft.evidence.unreadable,
        gaps=gaps_between(plan, covered, now),
        expired=draft.evidence.expired,
        outside=beyond,
        ended=draft.evidence.ended,
    )


def _is_open(plan: Plan, window: Window, now: int, options: ExportOptions) -> bool:
    settled_until = now - plan.settle
    if window.end <= settled_until:
        return False
    if not options.force:
        raise still_open(plan, window, now)
    return True


def still_open(plan: Plan, window: Window, now: int) -> SourceError:
    """The refusal of a window that has not settled at ``now`` (ns), with when it will have."""
    due = window.end + plan.settle
    return SourceError(
        f"The window {format_window(window)} is still open: with settle {format_duration(plan.settle)} "
        f"it can be backed up from {format_instant(min(due, MAX_END))}, in {say_wait(due - now)}; "
        f"now it is {format_instant(now - now % 10**9)}.",
        kind="open-window",
        hint="Wait, or force it: it is then marked as open and covers only what has settled.",
    )


@dataclass(frozen=True)
class _Began:
    """When a read began, and after which others."""

    read_start: int
    sequence: int
    clocks: Clocks | None


@dataclass(frozen=True)
class _Reading:
    """What the server listed when everything that it listed had been read."""

    policies: tuple[RetentionPolicy, ...]
    selection: Selection
    pieces: dict[str, tuple[Window, ...]]
    expired: tuple[ExpiredPolicy, ...]
    ended: tuple[Table, ...]


def _read_everything(
    reader: WindowReader,
    earlier: EarlierBackups,
    previous: Manifest | None,
    read_start: int,
    options: ExportOptions,
) -> _Reading:
    """
    Reads what the server lists, lists again, and reads what has changed, until a listing changes nothing.

    A shard group, table or column that appears in the middle would otherwise be left out or be read with the
    wrong type.
    """
    for _ in range(_ROUNDS):
        reading = _list(reader, earlier, previous, read_start, options)
        reader.finish()
        if not options.accept_missing:
            _refuse_vanished(reader, reading)
        wanted = {
            (table, piece): schema
            for table, schema in reading.selection.tables.items()
            if schema.columns
            for piece in reading.pieces[table.retention_policy]
        }
        for stale in [key for key in reader.results if key not in wanted or not reader.still_holds(key, wanted[key])]:
            reader.withdraw(stale)
        missing = {key: schema for key, schema in wanted.items() if key not in reader.results}
        if not missing:
            _refuse_unlisted(reader, reading.selection)
            return reading
        reader.read(missing)
    raise IncompleteReadError(
        f"The shard groups or measurements of {reader.plan.database!r} on {reader.server.name} changed during each of "
        f"{_ROUNDS} reads of {format_window(reader.window)}.",
        hint="Wait until the window has settled and run the export again.",
    )


def _refuse_vanished(reader: WindowReader, reading: _Reading) -> None:
    selection = reading.selection
    shown = {*selection.tables, *(entry.table for entry in selection.unreadable), *reading.ended}
    gone = sorted({str(table) for table, _ in reader.results if table not in shown})
    if gone:
        raise SourceError(
            f"{reader.server.name} no longer shows what it showed when this read began: {', '.join(gone[:5])}"
            f"{' and more' if len(gone) > 5 else ''}.",
            kind="missing-at-source",
            hint="Check the connection's rights; if it was dropped on purpose, export again.",
        )


def _refuse_unlisted(reader: WindowReader, selection: Selection) -> None:
    hidden = sorted((str(table), piece) for table, piece in reader.unlisted.items() if table not in selection.tables)
    if hidden:
        name, piece = hidden[0]
        raise IncompleteReadError(
            f"The files of {reader.server.name} hold points of {name} in {format_window(piece)}, and the server lists "
            f"no such measurement{f' ({len(hidden) - 1} more are like it)' if len(hidden) > 1 else ''}.",
            kind="hidden-values",
            hint="If it was dropped just now, run it again. If not, queries do not find it, though it is there: look "
            "at the server's log. With reader: query the plan backs up what queries find.",
        )


def _unreadable(reader: WindowReader, selection: Selection) -> tuple[UnreadableTable, ...]:
    """Of which tables the backup has not all that the server stores: none of it, or some fields in some pieces."""
    left_out: dict[Table, set[str]] = {}
    for (table, _), result in reader.results.items():
        if result.left_out:
            left_out.setdefault(table, set()).update(result.left_out)
    return (
        *selection.unreadable,
        *(
            UnreadableTable(
                table=table,
                reason=f"Queries answer its field {' and '.join(printable(name) for name in sorted(names))} from the "
                "server's index, so where it was read by queries the field is left out; a copy of its shard has the "
                "values (reader: shard).",
            )
            for table, names in sorted(left_out.items(), key=lambda item: str(item[0]))
        ),
    )


def _refuse_unreadable(plan: Plan, unreadable: Sequence[UnreadableTable]) -> None:
    if unreadable and plan.unreadable == "fail":
        first = unreadable[0]
        raise SourceError(
            f"The measurement {first.table} cannot be read: {first.reason}",
            kind="unreadable",
            hint="Set unreadable: warn in the plan to back everything else up and have it reported.",
        )


def _list(
    reader: WindowReader,
    earlier: EarlierBackups,
    previous: Manifest | None,
    read_start: int,
    options: ExportOptions,
) -> _Reading:
    plan, server, window = reader.plan, reader.server, reader.window
    policies = select_policies(plan, visible_policies(plan, server))
    now = max(read_start, server.now())
    if not options.accept_expired and plan.expired == "fail":
        refuse_expired(policies, window, now)
    with ThreadPoolExecutor(1, thread_name_prefix="pieces") as pool:
        listed = pool.submit(
            lambda: {policy.name: server.pieces(plan.database, policy.name, window) for policy in policies}
        )
        schemas = {policy.name: server.schema(plan.database, policy.name) for policy in policies}
    known = [entry.table for entry in previous.tables] if previous else []
    selection = select_tables(plan, schemas, known)
    may_be = may_have_ended(plan, previous, policies, selection, now)
    ended = tuple(table for table, newest in earlier.newest_points(may_be).items() if newest is None)
    gone = missing_at_source(plan, previous, policies, selection, ended)
    if gone and not options.accept_missing:
        raise SourceError(
            f"The plan's last backup holds what {server.name} no longer shows: {', '.join(gone[:5])}"
            f"{' and more' if len(gone) > 5 else ''}.",
            kind="missing-at-source",
            hint="Check the connection's rights; if it was dropped on purpose, export once with --accept-missing.",
        )
    _refuse_unreadable(plan, selection.unreadable)
    reader.unreadable = frozenset(entry.table for entry in selection.unreadable)
    for table in selection.tables:
        reader.number(table)
    return _Reading(
        policies=policies,
        selection=selection,
        pieces=listed.result(),
        expired=expired_policies(policies, window, now),
        ended=ended,
    )


def _draft(
    reader: WindowReader,
    reading: _Reading,
    began: _Began,
    is_open: bool,
    options: ExportOptions,
    beyond: Sequence[Outside],
) -> ManifestDraft:
    by_table: dict[Table, list[PieceResult]] = {table: [] for table in reading.selection.tables}
    for key in sorted(reader.results, key=lambda key: key[1].start):
        by_table[key[0]].append(reader.results[key])
    info = reader.server.info
    return ManifestDraft(
        source=Source(
            product=info.product,
            version=info.version,
            generation=info.generation,
            database=reader.plan.database,
            instance_id=info.instance_id,
            name=reader.plan.source,
            retention_policies=reading.policies,
        ),
        scope=reader.plan.scope,
        evidence=Evidence(
            predicate=between(reader.window),
            read_start=began.read_start,
            read_end=reader.server.now(),
            settle=reader.plan.settle,
            open=is_open,
            pieces=tuple(
                SourcePiece(retention_policy=policy, window=piece, by_query=reader.by_query.get((policy, piece)))
                for policy, pieces in reading.pieces.items()
                for piece in pieces
            ),
            counts=tuple(count for results in by_table.values() for result in results for count in result.counts),
            unreadable=_unreadable(reader, reading.selection),
            expired=reading.expired,
            sequence=began.sequence,
            clocks=began.clocks,
            outside=tuple(SourcePiece(retention_policy=one.retention_policy, window=one.window) for one in beyond),
            ended=reading.ended,
        ),
        tables=tuple(
            table_entry(
                reader.number(table),
                table,
                reading.selection.tables[table].columns,
                tuple(part for result in by_table[table] for part in result.parts),
            )
            for table in reading.selection.tables
        ),
        dag_id=options.dag_id,
        run_id=options.run_id,
    )
