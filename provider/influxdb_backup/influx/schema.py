"""
What a retention policy holds: measurements, tag keys, and fields with every type, over all of its shards.

``SHOW MEASUREMENTS`` does not obey the policy (1.x: never on the default index; 2.9.1: not with parameters), so
measurements are taken from ``SHOW FIELD KEYS``, which obeys the request's ``rp`` (run on 1.6.7 with both indexes,
1.12.4 and 2.9.1). ``FROM "rp"./.*/`` says the same, in a time that grows with the square of the number of
measurements: 14 s for 1,000 of them where the plain statement takes 0.03 s (1.6.7). ``SHOW TAG KEYS`` may
name keys that only another policy's points of the measurement have (1.x): the list is complete, not minimal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from influxdb_backup.errors import IncompleteReadError, QueryError
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

_NEEDLESS = re.compile(r'\\[, ="]')
_SUSPICIOUS = re.compile(r'\\[, ="]|[="]')
"""
What a needless backslash in line protocol leaves in a name. Series that were written so are stored under a key that no
query makes (2.x and 1.x with tsi1), or without their fields (1.x otherwise), and then no SELECT finds them.
"""
_HIDDEN = "{} of its series hold no points for any query: they were written with a needless backslash in the name."


TagKeys = Callable[[str, TableSchema], Sequence[str]]
"""The tag keys of one readable table of a database, whose schema has the fields only."""


class SchemaReader:
    """
    Reads schemas through a QueryApi; the same for every generation that speaks InfluxQL.

    ``tag_keys`` replaces ``SHOW TAG KEYS`` where that does not obey the policy.
    """

    def __init__(self, api: QueryApi) -> None:
        self._api = api

    def read(
        self,
        database: str,
        retention_policy: str,
        tag_keys: TagKeys | None = None,
        *,
        listing: str | None = None,
        other_policies: Sequence[str] = (),
    ) -> PolicySchema:
        """
        See ``Server.schema``. A table of which only some series can be read is also in ``unreadable``.

        ``listing`` is a SHOW MEASUREMENTS whose names must all be found again, in this policy or in one of
        ``other_policies``, where the server lists a whole database.
        """
        with ThreadPoolExecutor(1) as beside:
            listed = None if tag_keys else beside.submit(self._tag_keys, database, retention_policy)
            fields = self._field_keys(database, retention_policy)
            tags = listed.result() if listed else {}
        doubles = Counter(as_matched(name) for name in fields)
        tables, unreadable = [], []
        for name in sorted(fields):
            table = Table(retention_policy=retention_policy, measurement=name)
            reason = self._reason(database, table, ambiguous=doubles[as_matched(name)] > 1)
            if any(not key[0] for key in fields[name]):
                reason = reason or "It has a field whose key is only NUL: the server gives its values another name."
            if reason:
                unreadable.append(UnreadableTable(table=table, reason=reason))
                continue
            hidden = self._hidden_series(database, table) if _SUSPICIOUS.search(name) else 0
            if hidden:
                unreadable.append(UnreadableTable(table=table, reason=_HIDDEN.format(hidden)))
            columns = tuple(Column(role=Role.FIELD, name=key[0], type=_type(table, key[1])) for key in fields[name])
            keys = [key[0] for key in tags.get(name, [])]
            if tag_keys:
                keys = list(tag_keys(database, TableSchema(table=table, columns=columns)))
            tag_columns = tuple(Column(role=Role.TAG, name=key, type=InfluxType.TAG) for key in keys)
            tables.append(TableSchema(table=table, columns=tag_columns + columns))
        if listing:
            unreadable += self._without_fields(database, retention_policy, set(fields), listing, other_policies)
        return PolicySchema(tables=tuple(tables), unreadable=tuple(unreadable))

    def holds_any(self, database: str, retention_policy: str) -> bool:
        """Whether the policy has any measurement."""
        return bool(self._field_keys(database, retention_policy))

    def _field_keys(self, database: str, retention_policy: str) -> Mapping[str, list[list[str]]]:
        return self._keys(database, retention_policy, "SHOW FIELD KEYS", "field keys", 2)

    def _tag_keys(self, database: str, retention_policy: str) -> Mapping[str, list[list[str]]]:
        return self._keys(
            database, retention_policy, f"SHOW TAG KEYS FROM {every_source(retention_policy)}", "tag keys", 1
        )

    def _keys(
        self, database: str, retention_policy: str, statement: str, what: str, width: int
    ) -> Mapping[str, list[list[str]]]:
        answer = self._api.rows(
            statement,
            database=database,
            retention_policy=retention_policy,
            subject=f"{what} of {printable(database)}.{printable(retention_policy)}",
        )
        keys: dict[str, list[list[str]]] = {}
        for series in answer:
            if not all(isinstance(value, bytes) for row in series.values for value in row):
                raise IncompleteReadError(f"The {what} of {printable(decode_name(series.name))} are no texts.")
            if len(series.columns) != width:
                raise IncompleteReadError(f"The {what} of {printable(decode_name(series.name))} are no {what}.")
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
        if (
            _SUSPICIOUS.search(name)
            and not self._found_series(database, table)
            and (_NEEDLESS.search(name) or self._series(database, table))
        ):
            return "It was written with a needless backslash in the name, and the server finds no points by any."
        return None

    def _without_fields(
        self, database: str, retention_policy: str, known: set[str], listing: str, other_policies: Sequence[str]
    ) -> list[UnreadableTable]:
        """Measurements of this policy that the server lists and of which it knows no field."""
        answer = self._api.rows(listing, database=database, retention_policy=retention_policy, subject="measurements")
        missing = {name for series in answer for name in names(series.values)} - known
        policies = (retention_policy, *other_policies)  # its own again: one may be new since its fields were listed
        for policy in policies if missing else ():
            missing -= set(self._field_keys(database, policy))
        tables = [Table(retention_policy=retention_policy, measurement=name) for name in sorted(missing)]
        return [
            UnreadableTable(table=table, reason="The server lists it, and knows no field that a query could select.")
            for table in tables
            if self._series(database, table)
        ]

    def _series(self, database: str, table: Table) -> int:
        """How many series the server's index holds of one measurement in one policy."""
        answer = self._api.rows(
            f"SHOW SERIES EXACT CARDINALITY FROM {source(table.retention_policy, table.measurement)}",
            database=database,
            retention_policy=table.retention_policy,
            subject=f"series of {table}",
        )
        return sum(value for series in answer for row in series.values for value in row if isinstance(value, int))

    def _found_series(self, database: str, table: Table) -> int:
        """How many series a SELECT finds."""
        answer = self._api.rows(
            f"SELECT * FROM {source(table.retention_policy, table.measurement)} GROUP BY * LIMIT 1",
            database=database,
            retention_policy=table.retention_policy,
            subject=f"series of {table}",
            listing=True,
        )
        return len(answer)

    def _hidden_series(self, database: str, table: Table) -> int:
        """How many of the measurement's series no SELECT finds."""
        return max(0, self._series(database, table) - self._found_series(database, table))


def _type(table: Table, text: str) -> InfluxType:
    try:
        return InfluxType(text)
    except ValueError:
        raise QueryError(f"{table} has a field of the unknown type {printable(text)}.") from None


def names(rows: Iterable[tuple[object, ...]], position: int = 0) -> list[str]:
    """One text column of an answer as names. Raises IncompleteReadError when it has none of texts."""
    found = []
    for row in rows:
        value = row[position] if position < len(row) else None
        if not isinstance(value, bytes):
            raise IncompleteReadError("The answer is not what a server sends: a name that is no text.")
        found.append(decode_name(value))
    return found
