"""Proof on request that a restore arrived to the bit: what is read back has the archive's fingerprints."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from influxdb_backup.errors import TargetError
from influxdb_backup.fingerprint import add_fingerprints, fingerprint_batches
from influxdb_backup.jobs.ahead import ahead
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.jobs.restore_request import Unit
from influxdb_backup.jobs.restore_run import RestoreRun, batches
from influxdb_backup.jobs.restored_reading import RestoredReader, Seen, content
from influxdb_backup.model import Table, Window, printable
from influxdb_backup.windows import intersect


def compare_fingerprints(run: RestoreRun, *, by_shards: bool) -> None:
    """
    Reads all tables of the target back in the range of a restore into what was empty.

    ``by_shards`` where they were written as whole shards. Raises TargetError (``read-back-differs``) with the first
    differences, and the errors of reading.
    """
    window = run.reads.window
    differences = _different(run, run.target.database, window, None, by_shards=by_shards)
    _refuse(run, run.target.database, differences)


def refuse_other_content(run: RestoreRun, database: str, retention_policy: str, window: Window) -> None:
    """Raises as ``compare_fingerprints`` for the tables of one policy of the target within a window."""
    differences = _different(run, database, window, retention_policy, by_shards=True)
    _refuse(run, database, differences)


def _different(run: RestoreRun, database: str, window: Window, only: str | None, *, by_shards: bool) -> list[str]:
    expected = _expected(run, window, only)
    reader = RestoredReader(run.target.server, database, window, by_shards, random.SystemRandom())
    differences: list[str] = []
    done = 0
    for policy in dict.fromkeys(table.retention_policy for table in expected):
        tables = [table for table in expected if table.retention_policy == policy]
        seen = reader.read(policy, tables)
        for table in tables:
            differences += _differences(table, expected[table], seen.get(table, Seen()))
            done += 1
            run.progress(Progress("compare", done, len(expected), expected[table][0], 0, str(table)))
    return differences


def _refuse(run: RestoreRun, database: str, differences: Sequence[str]) -> None:
    if differences:
        raise TargetError(
            f"The target {printable(database)!r} on {run.target.server.name} has other content than the "
            f"archive: {'; '.join(differences[:5])}{' and more' if len(differences) > 5 else ''}.",
            kind="read-back-differs",
            hint="Look whether something else writes there, then restore into another database (--target-database).",
        )


def _differences(table: Table, expected: tuple[int, str], held: Seen) -> list[str]:
    rows, fingerprint = expected
    found_rows, found = content(held.found)
    differences = [f"{table}: {difference}" for difference in held.differences]
    if (found_rows, found) != expected:
        differences.append(
            f"{table}: {rows} rows with the fingerprint {fingerprint} in the archive, "
            f"{found_rows} rows with {found} in the target"
        )
    return differences


def _expected(run: RestoreRun, window: Window, only: str | None) -> dict[Table, tuple[int, str]]:
    """Rows and fingerprint of each table of the target in a window, by the archive."""
    parts: dict[Table, list[tuple[int, str]]] = {}
    for source in run.reads.columns:
        table = Table(retention_policy=run.target.policies[source], measurement=source.measurement)
        if only is None or table.retention_policy == only:
            units = (unit for unit in run.reads.units if unit.table == source)
            parts[table] = [_of_unit(run, cut) for unit in units if (cut := _within(unit, window))]
    return {
        table: (sum(rows for rows, _ in found), add_fingerprints(fingerprint for _, fingerprint in found))
        for table, found in parts.items()
    }


def _within(unit: Unit, window: Window) -> Unit | None:
    """The unit cut to a window; None when nothing of it is there."""
    if window.start <= unit.window.start and unit.window.end <= window.end:
        return unit
    cut = intersect(unit.window, window)
    if cut is None or unit.part.max_time < cut.start or unit.part.min_time >= cut.end:
        return None
    whole = unit.whole and cut.start <= unit.part.min_time and unit.part.max_time < cut.end
    return replace(unit, window=cut, whole=whole)


def _of_unit(run: RestoreRun, unit: Unit) -> tuple[int, str]:
    if unit.whole and not run.request.tags:
        return unit.part.rows, unit.part.fingerprint
    found = fingerprint_batches(unit.table.measurement, ahead(batches(run, unit)))
    return found.rows, found.hexadecimal
