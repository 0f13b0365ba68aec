"""One table's entry in a manifest, summed from its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from influxdb_backup.fingerprint import add_fingerprints
from influxdb_backup.model import Column, FieldCount, InfluxType, Part, TableEntry, TableSchema, encode_name


def sum_counts(groups: Iterable[Sequence[FieldCount]]) -> tuple[FieldCount, ...]:
    """Counts per (field, type) over all groups, sorted."""
    totals: dict[tuple[str, InfluxType], int] = {}
    for group in groups:
        for count in group:
            key = count.name, count.type
            totals[key] = totals.get(key, 0) + count.count
    return tuple(
        FieldCount(name=name, type=kind, count=total)
        for (name, kind), total in sorted(totals.items(), key=lambda item: (encode_name(item[0][0]), item[0][1]))
    )


def table_entry(number: int, schema: TableSchema, parts: Sequence[Part]) -> TableEntry:
    """The entry of a table with these parts; without parts it is a table that is empty in the window."""
    columns: dict[Column, None] = dict.fromkeys(schema.columns)
    for part in parts:
        columns.update(dict.fromkeys(part.columns))
    return TableEntry(
        number=number,
        table=schema.table,
        columns=tuple(columns),
        rows=sum(part.rows for part in parts),
        counts=sum_counts(part.counts for part in parts),
        min_time=min((part.min_time for part in parts), default=None),
        max_time=max((part.max_time for part in parts), default=None),
        fingerprint=add_fingerprints(part.fingerprint for part in parts),
        parts=tuple(parts),
    )
