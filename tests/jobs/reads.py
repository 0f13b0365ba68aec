"""Small backups of a few tables in which the value of each point is the number of the read that it is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from influxdb_backup.archive.commit import ManifestDraft
from influxdb_backup.archive.parts import table_entry
from influxdb_backup.archive.repository import Repository
from influxdb_backup.columns import arrow_schema
from influxdb_backup.jobs.scope import table_in_scope
from influxdb_backup.model import (
    Column,
    Evidence,
    InfluxType,
    RetentionPolicy,
    Role,
    Scope,
    Source,
    Table,
    UnreadableTable,
)
from tests.archive.build import batch
from tests.jobs.support import window

FIELD = Column(role=Role.FIELD, name="v", type=InfluxType.INTEGER)
POLICIES = ("autogen", "week")
TABLES = tuple(
    Table(retention_policy=p, measurement=m) for p, m in (("autogen", "cpu"), ("autogen", "mem"), ("week", "cpu"))
)
BASE = 1_700_000_000 * 10**9
LENGTH = 10


@dataclass(frozen=True)
class Read:
    """One backup: which instants, which scope, which tables could not be read, which policies were visible."""

    start: int
    end: int
    scope: Scope
    unreadable: frozenset[Table] = frozenset()
    policies: tuple[str, ...] = POLICIES
    holes: frozenset[tuple[Table, int]] = frozenset()
    partly: frozenset[Table] = frozenset()
    """tables of which some series could not be read"""

    def looked_at(self, table: Table) -> bool:
        """Whether the backup says anything of the table."""
        seen = table_in_scope(self.scope, table) and table.retention_policy in self.policies
        return seen and table not in self.unreadable


def commit(repository: Repository, reads: Sequence[Read]) -> None:
    """Commits the reads in order; the value of each point is the number of its read."""
    for number, read in enumerate(reads):
        span = window(BASE + read.start, BASE + read.end)
        with repository.begin("telemetry", span) as attempt:
            entries = []
            for table in TABLES:
                if not read.looked_at(table):
                    continue
                rows = [
                    (BASE + instant, number)
                    for instant in range(read.start, read.end)
                    if (table, instant) not in read.holes
                ]
                writer = attempt.part_writer(len(entries), table, arrow_schema([FIELD]), span)
                if rows:
                    writer.write(batch([FIELD], rows))
                entries.append(table_entry(len(entries), table, (FIELD,), writer.close()))
            attempt.commit(
                ManifestDraft(
                    source=Source(
                        product="influxdb",
                        version="1.8.10",
                        generation=1,
                        database="telemetry",
                        retention_policies=tuple(
                            RetentionPolicy(name=name, duration=0, shard_duration=0) for name in read.policies
                        ),
                    ),
                    scope=read.scope,
                    evidence=Evidence(
                        predicate="",
                        read_start=BASE * 2 + number,
                        read_end=BASE * 2 + number,
                        settle=0,
                        open=False,
                        pieces=(),
                        counts=(),
                        unreadable=tuple(
                            UnreadableTable(table=table, reason="no") for table in {*read.unreadable, *read.partly}
                        ),
                    ),
                    tables=tuple(entries),
                )
            )
