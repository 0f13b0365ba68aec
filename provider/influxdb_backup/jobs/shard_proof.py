"""
Proof that the shards of a restore arrived and answer queries.

Every field of every table in every shard group is counted by the server (``count(*)``). Where that would take longer
than to fetch the files again, the files prove the counts: they must be the very ones that were sent, byte for byte,
the server must list every field with its type, and it must count all rows of each table by a field that all rows have;
a table without such a field is counted in every field.
"""

from __future__ import annotations

import logging

from influxdb_backup.errors import ServerError
from influxdb_backup.influx.protocol import NewShards, Server
from influxdb_backup.jobs.read_back import read_back
from influxdb_backup.jobs.restore_run import RestoreRun
from influxdb_backup.jobs.shard_building import BuiltGroup
from influxdb_backup.model import Column, Table, Window, printable
from influxdb_backup.windows import intersect

logger = logging.getLogger(__name__)

COUNTED_PER_SECOND = 20_000_000
"""values that a server counts in a second at best, about (1.6.7: 10 million, 2.9.1: 50 million, two cores)"""


def prove(run: RestoreRun, made: NewShards, built: tuple[BuiltGroup, ...], seconds_sent: float) -> None:
    """Raises TargetError (``read-back-differs``) and the errors of a request when something did not arrive."""
    by_files = seconds_sent * COUNTED_PER_SECOND < sum(group.totals.values for group in built)
    listed: dict[str, dict[Table, frozenset[Column]]] = {}
    for group in built:
        window = intersect(group.window, run.reads.window)
        if window is None:
            continue
        if by_files and _has_the_files(made, group):
            if group.policy not in listed:
                listed[group.policy] = _fields(run.target.server, run.target.database, group.policy)
            if _answers(run, group, window, listed[group.policy]):
                continue
        read_back(
            run.target.server,
            run.target.database,
            window,
            group.totals.expected,
            mixed=frozenset(),
            exact=True,
            progress=run.progress,
        )


def _has_the_files(made: NewShards, group: BuiltGroup) -> bool:
    try:
        held = made.digests(group.policy, group.window)
    except ServerError as error:
        logger.info("A shard of %s is counted in every field: %s", printable(group.policy), error)
        return False
    return held == group.digests


def _fields(server: Server, database: str, policy: str) -> dict[Table, frozenset[Column]]:
    return {schema.table: frozenset(schema.fields) for schema in server.schema(database, policy).tables}


def _answers(run: RestoreRun, group: BuiltGroup, window: Window, listed: dict[Table, frozenset[Column]]) -> bool:
    """Whether every table is listed with its fields and counts its rows; False leaves the doubt to a full count."""
    server, database = run.target.server, run.target.database
    for table, rows in group.totals.table_rows.items():
        if not group.totals.table_fields[table] <= listed.get(table, frozenset()):
            return False
        counts = group.totals.expected.of(table)
        always = next((name for name, count in counts.items() if count == rows), None)
        if always is not None:
            counts, found = {always: rows}, {always: server.count(database, table, window, always)}
        else:
            found = dict(server.counts(database, table.retention_policy, table.measurement, window, sorted(counts)))
        if any(found.get(name, 0) != count for name, count in counts.items()):
            return False
    return True
