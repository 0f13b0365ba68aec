"""
Shard groups of a new database, which the server makes itself: by points that it maps to them and then drops.

The backup interfaces can make a database with its groups in one go, and the servers' own restores do. But for that they
copy the server's metadata, add to the copy and set the whole of it, without a lock (2.x: ``RestoreBucket`` of
storage/engine.go, 1.x: ``updateMetaStore`` of services/snapshotter; 2.9.1 and 1.12.4). What others do in that moment is
undone: points that were confirmed to them are in no shard group any more (run on 1.6.7, 1.12.4 and 2.9.1: 11 of 960,
14 of 640 and 7 of 1,608, each the first of its group), and two restores are given the same shards, so that one loses
what was proved when the other drops its own (2.9.1: 6 of 20 pairs). A write makes groups under the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from influxdb_backup.errors import ServerError, ServerUnavailableError, TargetError
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.influx.writer import Send, Verdict, judge
from influxdb_backup.messages import quoted
from influxdb_backup.model import Window, printable
from influxdb_backup.windows import format_window, intersect

_DROPPED = "partial write"


def open_groups(send: Send, lines: Sequence[bytes], name: str) -> None:
    """
    Has the server make the shard group of each line's time, and its shard. No line may be one that it stores.

    One at a time: of several a server answers as soon as one was dropped, while it still makes the other shards. Raises
    AccessError, ServerUnavailableError, and TargetError (``shards-refused``) when the server does something else.
    """
    for line in lines:
        answer = send(memoryview(line))
        verdict = judge(answer, name)
        if verdict is Verdict.AGAIN:
            raise ServerUnavailableError(f"{name} makes no shard groups: {answer.status} {printable(answer.reason)}.")
        if verdict is Verdict.WRITTEN:
            raise ServerError(f"{name} says that it stored points which were to be dropped, to make shard groups.")
        if _DROPPED not in answer.reason:
            raise _refused(f"{name} makes no shard groups: {quoted(answer.reason, 300)}")


def numbers_of(
    groups: Iterable[Window], found: Sequence[ShardInfo], name: str, retention_policy: str
) -> Mapping[Window, int]:
    """
    The shard of each group, of those ``found`` in the policy by now.

    Raises TargetError (``shards-refused``) when a group was not made, or the policy has others at the same times.
    """
    numbers: dict[Window, int] = {}
    for group in groups:
        shards = [shard for shard in found if intersect(shard.group, group)]
        if [shard.group for shard in shards] != [group]:
            has = ", ".join(f"shard {shard.id} of {format_window(shard.group)}" for shard in shards) or "none"
            raise _refused(
                f"{name} did not make the shard group {format_window(group)} of {printable(retention_policy)} with one "
                f"shard: it has {has}"
            )
        numbers[group] = shards[0].id
    return numbers


def _refused(what: str) -> TargetError:
    return TargetError(f"{what}.", kind="shards-refused")


def lines_of(groups: Mapping[Window, bytes | None], spell: Callable[[bytes | None], bytes]) -> list[bytes]:
    """
    A line for each group, at its last instant, which no retention drops if there is a point that it keeps.

    ``spell`` gives what stands before the time.
    """
    return [b"%b %d" % (spell(series), group.end - 1) for group, series in groups.items()]
