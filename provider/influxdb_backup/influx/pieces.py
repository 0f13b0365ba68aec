"""
Where a policy's shard groups begin and end: asked from the server, never computed from a duration.

A duration that was altered leaves groups of other sizes behind, so only a listing (``SHOW SHARDS``, which needs
administrator rights) or ``EXPLAIN`` (which needs none) tells. A field has one type within a group and may have
another in the next one, which makes the boundaries matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from influxdb_backup.errors import QueryError
from influxdb_backup.influx.influxql import between, every_source
from influxdb_backup.influx.query import QueryApi, entries
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.model import MAX_END, MIN_TIME, Window, decode_name, printable
from influxdb_backup.windows import format_window, intersect, tile

_SECOND = 1_000_000_000
_STAMP = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?Z\Z")
_LAST_SECOND = MAX_END // _SECOND
_SHARDS = re.compile(rb"NUMBER OF SHARDS: (\d+)\Z")


def bound_of(text: str) -> int:
    """
    A group's bound in ns, clamped to what InfluxDB can hold.

    The first group of the extreme past starts before int64, and the end of the last one is cut to whole seconds on
    1.x, so that its last instants seem to be outside: it ends at the maximum.
    """
    found = _STAMP.match(text)
    if not found:
        raise QueryError(f"{printable(text)!r} is no time of a shard group.")
    try:
        moment = datetime.fromisoformat(found[1])
    except ValueError:
        raise QueryError(f"{printable(text)!r} is no time of a shard group.") from None
    delta = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = delta.days * 86400 + delta.seconds
    if seconds >= _LAST_SECOND:
        return MAX_END
    return max(MIN_TIME, seconds * _SECOND + int((found[2] or "").ljust(9, "0")))


def group_window(start: str, end: str) -> Window | None:
    """A group's window from the server's two stamps; None when nothing of it can hold a point."""
    first, last = bound_of(start), bound_of(end)
    return Window(start=first, end=last) if first < last else None


def listed_groups(api: QueryApi, database: str, retention_policy: str) -> list[Window]:
    """The shard groups by ``SHOW SHARDS``. Raises AccessError without administrator rights."""
    return [shard.group for shard in listed_shards(api).get(database, {}).get(retention_policy, ())]


def listed_shards(api: QueryApi) -> dict[str, dict[str, tuple[ShardInfo, ...]]]:
    """
    By database and policy the shards of ``SHOW SHARDS``, which names databases without shards too.

    Raises AccessError without administrator rights.
    """
    found: dict[str, dict[str, tuple[ShardInfo, ...]]] = {}
    answer = api.rows("SHOW SHARDS", subject="shards")
    for series in answer:
        found.setdefault(decode_name(series.name), {})
    for entry in entries(answer, b"id", b"database", b"retention_policy", b"start_time", b"end_time"):
        group = group_window(_text(entry, b"start_time"), _text(entry, b"end_time"))
        number = entry[b"id"]
        if type(number) is not int:
            raise QueryError(f"The server lists a shard whose number is none: {printable(str(number))[:100]}.")
        if group is not None:
            policies = found.setdefault(_text(entry, b"database"), {})
            policy = _text(entry, b"retention_policy")
            policies[policy] = (*policies.get(policy, ()), ShardInfo(number, group))
    return found


def overlaps(shards: Iterable[ShardInfo], window: Window) -> dict[Window, tuple[ShardInfo, ...]]:
    """
    The stretches of the window that more than one shard holds, with those shards in the order of their numbers.

    Servers of 1.x before 1.9 make such groups when a policy's shard duration becomes no multiple of what it was: a new
    group ends inside of an old one. Newer servers keep what they find so (1.12.4, and 2.9.1 after an upgrade or a
    restore of metadata), and a group that was truncated still seems to go on to its end.
    """
    shards = sorted(shards, key=lambda shard: shard.id)
    found = {}
    for piece in tile(window, [shard.group for shard in shards]):
        held = tuple(shard for shard in shards if intersect(shard.group, piece))
        if len(held) > 1:
            found[piece] = held
    return found


def named(shards: Sequence[ShardInfo]) -> str:
    """Shards with their groups' times, in words."""
    return ", ".join(f"{shard.id} ({format_window(shard.group)})" for shard in shards)


def _text(entry: Mapping[bytes, object], key: bytes) -> str:
    value = entry[key]
    return decode_name(value) if isinstance(value, bytes) else str(value)


def explained_boundaries(api: QueryApi, database: str, retention_policy: str, window: Window) -> list[int]:
    """
    The starts of shard groups with points inside of the window, found by ``EXPLAIN``.

    The number of shards that a plan names grows exactly where the window's end passes the start of another group
    that holds points, so a search by halves finds every start; groups without points need no cut.
    """

    def shards(end: int) -> int:
        part = Window(start=window.start, end=end)
        answer = api.rows(
            f"EXPLAIN SELECT * FROM {every_source(retention_policy)} WHERE {between(part)}",
            database=database,
            retention_policy=retention_policy,
            subject="shard groups",
        )
        return sum(_counted(value for series in answer for row in series.values for value in row))

    return list(steps(shards, window.start + 1, window.end))


def _counted(lines: Iterable[object]) -> Iterator[int]:
    for line in lines:
        found = _SHARDS.match(line) if isinstance(line, bytes) else None
        if found:
            yield int(found[1])


def steps(count: Callable[[int], int], low: int, high: int) -> Iterator[int]:
    """
    Every instant t in [low, high) at whole seconds with ``count(t) < count(t + 1)``, for a count that never falls.

    ``count(x)`` is asked about ends x, so an instant t is where a group starts when ``[.., t + 1)`` sees one more.
    """
    waiting = [(low, count(low), high, count(high))]
    while waiting:
        first, before, last, after = waiting.pop()
        if before == after:
            continue
        # Groups start at whole seconds: the candidates are the seconds s with first <= s < last.
        lowest, highest = -(-first // _SECOND), (last - 1) // _SECOND
        if lowest > highest:
            raise QueryError("The server's shard groups do not start at whole seconds.")
        if lowest == highest:
            yield lowest * _SECOND
            continue
        middle = (lowest + highest) // 2 * _SECOND + 1
        between_them = count(middle)
        waiting.append((middle, between_them, last, after))
        waiting.append((first, before, middle, between_them))
