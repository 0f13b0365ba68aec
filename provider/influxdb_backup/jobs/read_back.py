"""Proof that a restore arrived: the target's own counts, table by table and piece by piece."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from influxdb_backup.errors import TargetError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.progress import Progress, ProgressCallback, silent
from influxdb_backup.model import Column, Role, Table, Window, printable

_PATIENCE = 10.0
"""seconds that points may take to become visible after a partial refusal (run on 2.9.1: half a second)"""

_NONE: Mapping[Table, int] = MappingProxyType({})


@dataclass
class Expected:
    """Values that a target must hold, by table of the target and field."""

    counts: dict[tuple[Table, str], int] = field(default_factory=dict)

    def add(self, table: Table, name: str, count: int) -> None:
        """Adds values of one field."""
        key = table, name
        self.counts[key] = self.counts.get(key, 0) + count

    def of(self, table: Table) -> dict[str, int]:
        """Values by field of one table."""
        return {name: count for (owner, name), count in self.counts.items() if owner == table and count}

    def absorb(self, other: Expected) -> None:
        """Adds all of another."""
        for (table, name), count in other.counts.items():
            self.add(table, name, count)

    def minus(self, other: Expected) -> dict[tuple[Table, str], int]:
        """What this has more than the other."""
        rest = {key: count - other.counts.get(key, 0) for key, count in self.counts.items()}
        return {key: count for key, count in rest.items() if count}

    def tables(self) -> tuple[Table, ...]:
        """The tables that have any values."""
        return tuple(dict.fromkeys(table for (table, _), count in self.counts.items() if count))


def has_mixed_types(columns: Sequence[Column]) -> bool:
    """Whether a field occurs with more than one type."""
    fields = [column.name for column in columns if column.role is Role.FIELD]
    return len(fields) != len(set(fields))


def read_back(
    server: Server,
    database: str,
    window: Window,
    expected: Expected,
    *,
    mixed: frozenset[Table],
    exact: bool,
    missing_allowed: Mapping[Table, int] = _NONE,
    patient: bool = False,
    progress: ProgressCallback = silent,
) -> None:
    """
    Compares the target's counts with what was written.

    Tables in ``mixed`` have fields of several types and are counted one shard group at a time, since a count over
    several groups leaves out strings and booleans (run on 1.6.7, 1.12.4 and 2.9.1).
    ``exact``: the range was empty before, so the counts must be equal; otherwise they must not be fewer.
    Of a table ``missing_allowed`` points may be missing of each field, since they were refused. Raises TargetError
    (``read-back-differs``) with the first differences.
    """
    deadline = time.monotonic() + (_PATIENCE if patient else 2.0)
    while True:
        differences = _differences(server, database, window, expected, mixed, exact, missing_allowed, progress)
        if not differences:
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    raise TargetError(
        f"The target {printable(database)!r} on {server.name} does not hold what was written: "
        f"{'; '.join(differences[:5])}{' and more' if len(differences) > 5 else ''}.",
        kind="read-back-differs",
        hint="Look at the server's log and limits, then run the restore again with the same --restore-id.",
    )


def _differences(
    server: Server,
    database: str,
    window: Window,
    expected: Expected,
    mixed: frozenset[Table],
    exact: bool,
    missing_allowed: Mapping[Table, int],
    progress: ProgressCallback,
) -> list[str]:
    differences = []
    pieces: dict[str, tuple[Window, ...]] = {}
    tables = expected.tables()
    for position, table in enumerate(tables):
        policy = table.retention_policy
        if (table in mixed or not exact) and policy not in pieces:
            pieces[policy] = server.pieces(database, policy, window)
        wanted = expected.of(table)
        found = _found(server, database, table, pieces.get(policy, (window,)), wanted)
        for name, count in wanted.items():
            short, long = (
                found.get(name, 0) < count - missing_allowed.get(table, 0),
                exact and found.get(name, 0) > count,
            )
            if short or long:
                differences.append(f"{table}, field {printable(name)!r}: {count} written, {found.get(name, 0)} there")
        progress(Progress("read-back", position + 1, len(tables), 0, 0, str(table)))
    return differences


def _found(
    server: Server, database: str, table: Table, pieces: tuple[Window, ...], wanted: Mapping[str, int]
) -> dict[str, int]:
    found: dict[str, int] = {}
    for piece in pieces:
        counts = server.counts(database, table.retention_policy, table.measurement, piece, sorted(wanted))
        for name, count in counts.items():
            found[name] = found.get(name, 0) + count
    return found
