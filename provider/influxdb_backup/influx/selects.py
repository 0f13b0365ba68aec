"""A user's own small SELECT, as rows of a table."""

from __future__ import annotations

from influxdb_backup.errors import UsageError
from influxdb_backup.influx.influxql import is_plain_select
from influxdb_backup.influx.query import QueryApi
from influxdb_backup.model import decode_name

MAX_ROWS = 10_000


def select_rows(api: QueryApi, database: str, retention_policy: str | None, query: str) -> list[dict[str, object]]:
    """
    Rows by column name, tags of a ``GROUP BY`` among them; times in ns.

    Raises UsageError for anything but one SELECT without INTO or one SHOW, QueryError with the server's words, and
    QueryError for more than 10,000 rows.
    """
    if not is_plain_select(query):
        raise UsageError("A check's query must be one SELECT without INTO.", hint="Nothing else is sent to the server.")
    rows: list[dict[str, object]] = []
    answer = api.rows(query, database=database, retention_policy=retention_policy, chunk_size=1000, limit=MAX_ROWS)
    for series in answer:
        tags = {decode_name(key): decode_name(value) for key, value in series.tags.items()}
        columns = [decode_name(column) for column in series.columns]
        rows.extend({**tags, **dict(zip(columns, map(_plain, row), strict=True))} for row in series.values)
    return rows


def _plain(value: object) -> object:
    return decode_name(value) if isinstance(value, bytes) else value
