"""
What a retention policy holds: measurements, tag keys, and fields with every type, over all of its shards.

``SHOW MEASUREMENTS`` does not obey the policy (1.x: never on the default index; 2.9.1: not with parameters), so
measurements are taken from ``SHOW FIELD KEYS FROM "rp"./.*/``, which does. ``SHOW TAG KEYS`` may name keys that only
another policy's points of the measurement have (1.x): the list is complete, not minimal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from influxdb_backup.errors import QueryError
from influxdb_backup.influx.influxql import (
    UNQUERYABLE_MEASUREMENTS,
    as_matched,
    every_source,
    is_nameable,
    source,
)
from influxdb_backup.influx.protocol import PolicySchema
from influxdb_backup.influx.query import QueryApi
from influxdb_backup.model import (
    Column,
    InfluxType,
    Role,
    Table,
    TableSchema,
    UnreadableTable,
    decode_name,
    printable,
)

_GHOST = re.compile(r'\\[, ="]')
"""A backslash before a character that line protocol escapes: such series are stored under a key no query makes."""


TagKeys = Callable[[str, TableSchema], Sequence[str]]
"""The tag keys of one readable table of a database, whose schema has the fields only."""


class SchemaReader:
    """
    Reads schemas through a QueryApi; the same for every generation that speaks InfluxQL.

    ``tag_keys`` replaces ``SHOW TAG KEYS`` where that does not obey the policy.
    """

    def __init__(self, api: QueryApi) -> None:
        self._api = api

    def read(self, database: str, retention_policy: str, tag_keys: TagKeys | None = None) -> PolicySchema:
        """See ``Server.schema``."""
        fields = self._keys(database, retention_policy, "FIELD")
        tags = {} if tag_keys else self._keys(database, retention_policy, "TAG")
        names = sorted(fields)
        doubles = Counter(as_matched(name) for name in names)
        tables, unreadable = [], []
        for name in names:
            table = Table(retention_policy=retention_policy, measurement=name)
            reason = self._reason(database, table, ambiguous=doubles[as_matched(name)] > 1)
            if reason:
                unreadable.append(UnreadableTable(table=table, reason=reason))
                continue
            columns = tuple(Column(role=Role.FIELD, name=key[0], type=_type(table, key[1])) for key in fields[name])
            keys = [key[0] for key in tags.get(name, [])]
            if tag_keys:
                keys = list(tag_keys(database, TableSchema(table=table, columns=columns)))
            tag_columns = tuple(Column(role=Role.TAG, name=key, type=InfluxType.TAG) for key in keys)
            tables.append(TableSchema(table=table, columns=tag_columns + columns))
        return PolicySchema(tables=tuple(tables), unreadable=tuple(unreadable))

    def holds_any(self, database: str, retention_policy: str) -> bool:
        """Whether the policy has any measurement."""
        return bool(self._keys(database, retention_policy, "FIELD"))

    def _keys(self, database: str, retention_policy: str, kind: str) -> Mapping[str, list[list[str]]]:
        answer = self._api.rows(
            f"SHOW {kind} KEYS FROM {every_source(retention_policy)}",
            database=database,
            retention_policy=retention_policy,
            subject=f"{kind.lower()} keys of {printable(database)}.{printable(retention_policy)}",
        )
        keys: dict[str, list[list[str]]] = {}
        for series in answer:
            keys.setdefault(decode_name(series.name), []).extend(
                [decode_name(value) for value in row if isinstance(value, bytes)] for row in series.values
            )
        return keys

    def _reason(self, database: str, table: Table, *, ambiguous: bool) -> str | None:
        """Why no query can read the measurement; None when one can."""
        name = table.measurement
        if name in UNQUERYABLE_MEASUREMENTS:
            return "The server takes this name for a system source, and no InfluxQL query reads it."
        if not is_nameable(name) and ambiguous:
            return "Its name is not UTF-8, and another measurement's name differs only in such bytes."
        if _GHOST.search(name) and not self._has_points(database, table):
            return 'Its name holds a backslash before a comma, space, = or ", and the server finds no points by it.'
        return None

    def _has_points(self, database: str, table: Table) -> bool:
        answer = self._api.rows(
            f"SELECT * FROM {source(table.retention_policy, table.measurement)} LIMIT 1",
            database=database,
            retention_policy=table.retention_policy,
            subject=str(table),
        )
        return any(series.values for series in answer)


def _type(table: Table, text: str) -> InfluxType:
    try:
        return InfluxType(text)
    except ValueError:
        raise QueryError(f"{table} has a field of the unknown type {printable(text)}.") from None


def names(rows: Iterable[tuple[object, ...]], position: int = 0) -> list[str]:
    """One text column of an answer as names."""
    return [decode_name(row[position]) for row in rows if isinstance(row[position], bytes)]  # type: ignore[arg-type]
