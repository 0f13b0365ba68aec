"""Verification of one backup: collects every problem, and counts what it cannot read as the worst of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from influxdb_backup.archive import layout
from influxdb_backup.errors import BackupNotFoundError, FormatError, InfluxdbBackupError, IntegrityError, StoreError
from influxdb_backup.messages import logger_of
from influxdb_backup.model import (
    DRILL_MEDIA_TYPE,
    Fingerprint,
    Int64,
    Manifest,
    Part,
    Problem,
    Ref,
    TableEntry,
    Value,
    VerifyLevel,
    VerifyReport,
)

if TYPE_CHECKING:
    from influxdb_backup.archive.fetching import FetchedParts
    from influxdb_backup.archive.repository import Repository

logger = logger_of(__name__)

REQUESTS = 8
WORKERS = 2
"""parts that are hashed at once; hashing leaves the other threads alone"""
_LEVELS = list(VerifyLevel)
_SEEN_AT = {"missing": VerifyLevel.PRESENT, "size": VerifyLevel.PRESENT, "digest": VerifyLevel.COMPLETE}
"""the lowest level that finds this kind of damage; of all other kinds it is ``valid``"""


@dataclass(frozen=True)
class VerifyProgress:
    """How far a verification is."""

    parts_done: int
    parts: int
    rows_done: int
    bytes_done: int
    table: str


class TableVerdict(Value):
    """What a drill read back of one table."""

    table: str
    """as messages name it"""
    ok: bool
    rows: Int64
    fingerprint: Fingerprint


class DrillVerdict(Value):
    """What of a drill's report matters here."""

    media_type: str = DRILL_MEDIA_TYPE
    ref: str
    manifest: str
    ok: bool
    problems: tuple[Problem, ...]
    tables: tuple[TableVerdict, ...]

    def proves(self, manifest: Manifest) -> bool:
        """Whether every table of the manifest came back, and nothing was wrong."""
        wanted = sorted((str(entry.table), entry.rows, entry.fingerprint) for entry in manifest.tables)
        came = sorted((one.table, one.rows, one.fingerprint) for one in self.tables)
        return self.ok and not self.problems and all(one.ok for one in self.tables) and came == wanted


def verify_ref(
    repository: Repository,
    ref: Ref,
    level: VerifyLevel,
    progress: Callable[[VerifyProgress], None] | None = None,
) -> VerifyReport:
    """
    Proves one backup at a level and at all levels below it.

    ``present``: ref, manifest and parts exist with the right sizes. ``complete``: their digests match. ``valid``:
    every part decodes, and rows, counts, time bounds and fingerprints are those of the manifest. ``restorable``:
    a drill of this very manifest passed, too. Damage never raises: it is listed. Damage is only what was read and is
    wrong, or is not there: raises StoreError, after everything else was tried, when the store did not give an
    object's bytes and no damage was found.
    """
    began = time.monotonic()
    findings, manifest = _check_documents(repository, ref)
    if manifest is not None:
        findings += _check_tables(manifest)
        findings += _check_parts(repository, manifest, level, progress)
    if level is VerifyLevel.RESTORABLE:
        findings += _drilled(repository, ref, manifest)
    problems = [finding for finding in findings if isinstance(finding, Problem)]
    _judge_unread(repository, ref, problems, [one for one in findings if isinstance(one, InfluxdbBackupError)])
    return VerifyReport(
        ref=ref.id,
        manifest=ref.manifest,
        level=level,
        ok=not problems,
        problems=tuple(problems),
        tables=len(manifest.tables) if manifest else 0,
        parts=sum(len(entry.parts) for entry in manifest.tables) if manifest else 0,
        rows=manifest.rows if manifest else 0,
        bytes=manifest.bytes if manifest else 0,
        seconds=time.monotonic() - began,
    )


def unreadable_ref(name: layout.RefName, level: VerifyLevel, error: InfluxdbBackupError) -> VerifyReport:
    """The report of a ref that cannot even be read, so that nothing is known of its backup."""
    key = layout.ref_key(name.plan, name.window, name.revision)
    return VerifyReport(
        ref=f"{name.plan}/{layout.format_window_key(name.window)}/{name.revision:06d}",
        manifest="",
        level=level,
        ok=False,
        problems=(_problem(key, error),),
        tables=0,
        parts=0,
        rows=0,
        bytes=0,
        seconds=0.0,
    )


@dataclass(frozen=True)
class Verdict:
    """What all checks of one manifest say together."""

    damage: VerifyReport | None
    """the check whose damage stands"""
    held: tuple[VerifyReport, ...]
    """the checks that held since damage was found last, in order of time"""


def verdict(checks: Iterable[VerifyReport]) -> Verdict:
    """
    The verdict of the checks of one manifest, given in order of time.

    Damage stands until a check that looks deep enough to see it holds: one of sizes says nothing of a changed
    byte. That a drill is missing is no damage.
    """
    damage: VerifyReport | None = None
    held: list[VerifyReport] = []
    for check in checks:
        if any(problem.kind != "drill" for problem in check.problems):
            damage, held = check, []
        elif check.ok and (damage is None or _LEVELS.index(check.level) >= _sight(damage)):
            damage = None
            held.append(check)
    return Verdict(damage, tuple(held))


def _sight(damage: VerifyReport) -> int:
    """The lowest level that sees all of this damage."""
    needed = [_SEEN_AT.get(problem.kind, VerifyLevel.VALID) for problem in damage.problems]
    return min(_LEVELS.index(damage.level), max(map(_LEVELS.index, needed)))


def _check_parts(
    repository: Repository, manifest: Manifest, level: VerifyLevel, progress: Callable[[VerifyProgress], None] | None
) -> list[Finding]:
    check = {VerifyLevel.PRESENT: _present, VerifyLevel.COMPLETE: _complete}.get(level, _valid)
    workers = REQUESTS if level is VerifyLevel.PRESENT else WORKERS if level is VerifyLevel.COMPLETE else 1
    pairs = [(entry, part) for entry in manifest.tables for part in entry.parts]
    problems: list[Finding] = []
    done = rows = size = 0
    pool = ThreadPoolExecutor(workers)
    with ExitStack() as stack:
        stack.callback(pool.shutdown, cancel_futures=True)  # an interruption must not wait for all of the parts
        if check is _valid:
            fetched = stack.enter_context(repository.fetch([part for _, part in pairs]))
            check = partial(_valid, fetched=fetched)
        chosen = check
        results = pool.map(lambda pair: _checked(chosen, repository, *pair), pairs)
        for (entry, part), found in zip(pairs, results, strict=True):
            problems += found
            done, rows, size = done + 1, rows + part.rows, size + part.size
            if progress is not None:
                progress(VerifyProgress(done, len(pairs), rows, size, str(entry.table)))
    return problems


Finding = Problem | InfluxdbBackupError
"""damage, or the error of an object that the store did not give"""


def _judge_unread(repository: Repository, ref: Ref, problems: list[Problem], unread: list[InfluxdbBackupError]) -> None:
    if any(problem.kind == "missing" for problem in problems):
        repository.prove_place()  # of a folder that was unmounted everything is missing
    if unread and all(problem.kind == "drill" for problem in problems):
        more = f" ({len(unread) - 1} more)" if len(unread) > 1 else ""
        raise StoreError(
            f"Whether {ref.id} holds is not known, since the store did not give all of it{more}: {unread[0].message}",
            hint=unread[0].hint or "Run the same again when the store answers; nothing was recorded.",
            kind=unread[0].kind,
        )
    for error in unread:
        logger.warning("An object of %s, which is damaged, could not be read: %s", ref.id, error)


def _finding(key: str, error: InfluxdbBackupError) -> Finding:
    is_found = isinstance(error, (IntegrityError, FormatError, BackupNotFoundError))
    return _problem(key, error) if is_found else error


def _problem(key: str, error: InfluxdbBackupError) -> Problem:
    known = {"missing", "size", "digest", "foreign", "path"}
    kind = error.kind if isinstance(error, IntegrityError) and error.kind in known else "unreadable"
    message = error.message if isinstance(error, IntegrityError) else str(error)
    return Problem(kind="missing" if isinstance(error, BackupNotFoundError) else kind, object=key, message=message)


def _check_documents(repository: Repository, ref: Ref) -> tuple[list[Finding], Manifest | None]:
    """The ref as it stands now, and the manifest; None when that cannot be trusted."""
    problems: list[Finding] = []
    try:
        standing = repository.read_ref(ref.plan, ref.window, ref.revision)
        if standing != ref:
            problems.append(
                Problem(kind="digest", object=ref.id, message=f"The ref {ref.id} is not the one that was asked for.")
            )
    except InfluxdbBackupError as error:
        problems.append(_finding(layout.ref_key(ref.plan, ref.window, ref.revision), error))
    try:
        manifest = repository.manifest(ref)
    except InfluxdbBackupError as error:
        return [*problems, _finding(layout.manifest_key(ref.manifest), error)], None
    return problems, manifest


def _check_tables(manifest: Manifest) -> Iterator[Problem]:
    """Whether each table is the sum of its parts."""
    from influxdb_backup.archive.parts import table_entry

    for entry in manifest.tables:
        summed = table_entry(entry.number, entry.table, entry.columns, entry.parts)
        for part in entry.parts:
            if not manifest.window.contains(part.piece):
                yield Problem(kind="times", object=part.path, message="The part's piece is not within the window.")
        for kind, name in (
            ("rows", "rows"),
            ("counts", "counts"),
            ("times", "min_time"),
            ("times", "max_time"),
            ("fingerprint", "fingerprint"),
        ):
            if getattr(entry, name) != getattr(summed, name):
                message = f"The table's {name} is {getattr(entry, name)}, its parts make {getattr(summed, name)}."
                yield Problem(kind=kind, object=str(entry.table), message=message)


Check = Callable[["Repository", TableEntry, Part], Iterator[Problem]]


def _checked(check: Check, repository: Repository, entry: TableEntry, part: Part) -> list[Finding]:
    from influxdb_backup.archive.parts import part_path

    found: list[Finding] = []
    try:
        part_path(part)
        found.extend(check(repository, entry, part))
    except InfluxdbBackupError as error:
        found.append(_finding(part.path, error))
    return found


def _present(repository: Repository, _: TableEntry, part: Part) -> Iterator[Problem]:
    size = repository.store.size(part.path)
    if size is None:
        yield Problem(kind="missing", object=part.path, message=f"{repository.url} no longer holds {part.path}.")
    elif size != part.size:
        message = f"{part.path} has {size} bytes instead of {part.size}."
        yield Problem(kind="size", object=part.path, message=message)


def _complete(repository: Repository, _: TableEntry, part: Part) -> Iterator[Problem]:
    size, digest = repository.store.digest(part.path)
    if size != part.size:
        message = f"{part.path} has {size} bytes instead of {part.size}."
        yield Problem(kind="size", object=part.path, message=message)
    elif digest != part.sha256:
        message = f"{part.path} has the digest {digest} instead of {part.sha256}."
        yield Problem(kind="digest", object=part.path, message=message)


def _valid(
    repository: Repository, entry: TableEntry, part: Part, fetched: FetchedParts | None = None
) -> Iterator[Problem]:
    from influxdb_backup.archive.parquet import read_batches
    from influxdb_backup.archive.parts import part_file
    from influxdb_backup.columns import batch_columns
    from influxdb_backup.fingerprint import TableFingerprint

    seen = TableFingerprint(entry.table.measurement)
    with part_file(repository.store, part, fetched) as path:
        for batch in read_batches(path, part.path, rows=part.rows):
            if batch_columns(batch.schema) != part.columns:
                message = f"{part.path} has other columns than the manifest says."
                yield Problem(kind="counts", object=part.path, message=message)
                return
            seen.add(batch)
    for kind, name, found, said in (
        ("rows", "rows", seen.rows, part.rows),
        ("counts", "counts", seen.counts, part.counts),
        ("times", "time bounds", (seen.min_time, seen.max_time), (part.min_time, part.max_time)),
        ("fingerprint", "fingerprint", seen.hexadecimal, part.fingerprint),
    ):
        if found != said:
            message = f"{part.path} has {name} {found}, the manifest says {said}."
            yield Problem(kind=kind, object=part.path, message=message)


def _drilled(repository: Repository, ref: Ref, manifest: Manifest | None) -> list[Finding]:
    prefix = layout.report_prefix(layout.DRILLS, ref.plan, ref.window, ref.revision)
    damaged: list[Finding] = []
    try:
        drills = repository.read_documents(
            prefix, DrillVerdict, lambda key, error: damaged.append(_finding(key, error))
        )
    except InfluxdbBackupError as error:
        return [_finding(prefix, error)]
    if manifest is not None and any(one.manifest == ref.manifest and one.proves(manifest) for _, one in drills):
        return []
    if damaged:
        return damaged
    message = f"No drill of {ref.id} passed."
    return [
        Problem(kind="drill", object=ref.id, message=f"{message} Run influxdb-backup drill {ref.plan} --ref {ref.id}.")
    ]
