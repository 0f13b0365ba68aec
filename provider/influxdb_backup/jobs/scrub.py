"""Reads every block of a server's shards and names those that are damaged, which no server does for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from influxdb_backup.config.names import listed, suggestion
from influxdb_backup.errors import SourceError, UsageError
from influxdb_backup.fast import why_not_fast
from influxdb_backup.influx.protocol import Server, ShardReport
from influxdb_backup.influx.shard_door import HotShardError, ShardNotOpenError
from influxdb_backup.jobs.progress import Progress, ProgressCallback, silent
from influxdb_backup.messages import logger_of
from influxdb_backup.model import MAX_END, MIN_TIME, Window, printable

logger = logger_of(__name__)

_EVER = Window(start=MIN_TIME, end=MAX_END)


@dataclass(frozen=True)
class ScrubbedPolicy:
    """What was found in the shards of one retention policy."""

    database: str
    retention_policy: str
    shard_groups: int
    rows: int
    """that could be read"""
    damages: tuple[str, ...]
    """file, series, place and times of each"""
    hot: tuple[str, ...] = ()
    """shards that were not read, since they have writes in their caches"""


def scrub(
    server: Server,
    databases: Sequence[str] | None = None,
    progress: ProgressCallback = silent,
    *,
    allow_hot: bool = False,
) -> list[ScrubbedPolicy]:
    """
    Copies the shards of these databases (None: of all) and reads each block: checksum, encoding, order of times.

    A shard with writes in its cache is left out and named, unless ``allow_hot``: to copy it would change the server.

    Raises SourceError when shards cannot be copied, UsageError for an unknown database and the server's errors.
    """
    reason = why_not_fast() or server.shard_door_closed()
    if reason:
        raise SourceError(
            f"The shards of {server.name} cannot be read: {reason}.",
            kind="shard-reader",
            hint="Change that and run the same again; docs/how-to/shards.md tells how.",
        )
    known = server.databases()
    for name in databases or ():
        if name not in known:
            raise UsageError(
                f"{server.name} has no database {printable(name)!r}, or does not show it.{suggestion(name, known)}",
                hint=f"It shows {listed(map(printable, known))}.",
            )
    work = [
        (database, policy.name, server.pieces(database, policy.name, _EVER))
        for database in (databases if databases is not None else known)
        for policy in server.retention_policies(database)
    ]
    total = sum(len(pieces) for _, _, pieces in work)
    found = []
    done = 0
    for database, policy, pieces in work:
        reports: list[ShardReport | None] = []
        hot = []
        for piece in pieces:
            try:
                reports.append(_scrubbed(server, database, policy, piece, allow_hot))
            except HotShardError as error:
                hot.append(error.message)
            done += 1
            rows = sum(report.rows for report in reports if report)
            progress(Progress(stage="check", done=done, total=total, rows=rows, bytes=0, table=printable(database)))
        held = [report for report in reports if report]
        damages = tuple(damage for report in held for damage in report.damages)
        found.append(
            ScrubbedPolicy(database, policy, len(held), sum(report.rows for report in held), damages, tuple(hot))
        )
    return found


def _scrubbed(server: Server, database: str, policy: str, piece: Window, allow_hot: bool) -> ShardReport | None:
    """
    None for a stretch of time that has no files, or none that the server has open, which is logged.

    Raises HotShardError unless ``allow_hot``.
    """
    try:
        with server.copy_shard(database, policy, piece, 0, allow_hot) as copy:
            return copy.scrub() if copy is not None and copy.files else None
    except ShardNotOpenError as error:
        logger.warning("%s", error)
        return None
    except SourceError as error:
        if error.kind != "source-damaged":
            raise
        return ShardReport(0, (error.message,))
