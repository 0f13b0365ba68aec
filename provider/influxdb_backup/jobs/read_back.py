"""Proof that a restore arrived: the target's own counts, table by table and piece by piece."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from influxdb_backup.errors import TargetError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.progress import Progress, ProgressCallback, silent
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Column, Role, Table, Window, printable

logger = logger_of(__name__)

_PATIENCE = 10.0
"""seconds that points may take to become visible after a partial refusal (run on 2.9.1: half a second)"""


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


@dataclass(frozen=True)
class Difference:
    """One field of which the target holds more or fewer values than were written."""

    table: Table
    field: str
    written: int
    there: int

    @property
    def is_short(self) -> bool:
        """Whether values are missing."""
        return self.there < self.written

    def __str__(self) -> str:
        return f"{self.table}, field {printable(self.field)!r}: {self.written} written, {self.there} there"


def has_mixed_types(columns: Sequence[Column]) -> bool:
    """Whether a field occurs with more than one type."""
    fields = [column.name for column in columns if column.role is Role.FIELD]
    return len(fields) != len(set(fields))


@dataclass(frozen=True)
class ReadBack:
    """What a target is asked for after the last point, and how exactly it must agree."""

    server: Server
    database: str
    window: Window
    expected: Expected
    mixed: frozenset[Table]
    """
    tables with fields of several types: counted one shard group at a time, since a count over several groups leaves
    out strings and booleans (run on 1.6.7, 1.12.4 and 2.9.1)
    """
    exact: bool
    """the range was empty before, so the counts must be equal; otherwise they must not be fewer"""
    missing_allowed: Mapping[Table, int] = field(default_factory=dict)
    """of a table so many points may be missing of each field, since they were refused"""
    patient: bool = False
    """whether points may become visible only a moment later"""
    progress: ProgressCallback = silent

    def prove(self) -> None:
        """Raises TargetError (``read-back-differs``) with the first differences."""
        self.refuse(self.differences())

    def refuse(self, differences: Sequence[Difference]) -> None:
        """Raises TargetError as ``prove`` does when there are any."""
        if differences:
            raise TargetError(
                f"The target {printable(self.database)!r} on {self.server.name} does not hold what was written: "
                f"{some_of(differences)}.",
                kind="read-back-differs",
                hint="Look at the server's log and limits, then run the restore again with the same --restore-id.",
            )

    def differences(self) -> tuple[Difference, ...]:
        """What is there now, or after a while still, and is not what was written."""
        deadline = time.monotonic() + (_PATIENCE if self.patient else 2.0)
        while True:
            found = tuple(self._differences())
            if not found or time.monotonic() >= deadline:
                return found
            time.sleep(0.5)

    def _differences(self) -> Iterator[Difference]:
        pieces: dict[str, tuple[Window, ...]] = {}
        tables = self.expected.tables()
        for position, table in enumerate(tables):
            policy = table.retention_policy
            if (table in self.mixed or not self.exact) and policy not in pieces:
                pieces[policy] = self.server.pieces(self.database, policy, self.window)
            wanted = self.expected.of(table)
            found = self._found(table, pieces.get(policy, (self.window,)), wanted)
            for name in self.server.dialect.index_fields & wanted.keys():
                logger.warning(
                    "%d values of the field %s of %s were written, and are not counted: queries of %s answer such a "
                    "field from its index. A drill with a backup door reads them back.",
                    wanted.pop(name),
                    printable(name),
                    table,
                    self.server.name,
                )
            for name, count in wanted.items():
                there = found.get(name, 0)
                if there < count - self.missing_allowed.get(table, 0) or (self.exact and there > count):
                    yield Difference(table, name, count, there)
            self.progress(Progress("read-back", position + 1, len(tables), 0, 0, str(table)))

    def _found(self, table: Table, pieces: tuple[Window, ...], wanted: Collection[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for piece in pieces:
            counts = self.server.counts(self.database, table.retention_policy, table.measurement, piece, sorted(wanted))
            for name, count in counts.items():
                found[name] = found.get(name, 0) + count
        return found


def some_of(differences: Sequence[Difference]) -> str:
    """The first few, for a message."""
    return f"{'; '.join(map(str, differences[:5]))}{' and more' if len(differences) > 5 else ''}"
