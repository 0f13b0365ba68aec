"""Which pieces of an export are read from copies of their shards, and why the others are read by queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property

from influxdb_backup.errors import ServerError, SourceError
from influxdb_backup.fast import is_installed, why_not_fast
from influxdb_backup.influx.protocol import Server, ShardCopy
from influxdb_backup.influx.shard_door import HotShardError, ShardNotOpenError
from influxdb_backup.jobs.earlier_backups import EarlierBackups, read_order
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Ref, Window, printable
from influxdb_backup.windows import format_instant, format_window, intersect

logger = logger_of(__name__)

LEAST_SHARE = 1 / 20
"""of a shard's duration: a piece that covers less is read by queries, since a copy brings the whole shard"""


class ShardReading:
    """
    Decides once for an export whether shards can be copied, and copies them piece by piece.

    ``reader`` is the plan's key.
    """

    def __init__(
        self,
        server: Server,
        database: str,
        reader: str,
        least_share: float = LEAST_SHARE,
        *,
        allow_hot: bool = False,
        backup_with: Callable[[str, Window], Ref | None] | None = None,
        because: str = "the plan says reader: query",
    ) -> None:
        """
        ``because`` is why nothing but queries is wanted, where the reader is ``query``.
        ``allow_hot`` copies shards with writes in their caches too. ``backup_with`` finds a backup that has points of a
        policy in some times, if there is one.
        """
        self._server = server
        self._backup_with = backup_with
        self._because = because
        self._least_share = least_share
        self._database = database
        self._reader = reader
        self._allow_hot = allow_hot
        self.by_query: dict[tuple[str, Window], str] = {}
        """by policy and piece why no copy was taken of its shard, of the last try of each"""
        self._closed = self._why_closed()
        if reader == "shard" and self.reason:
            raise SourceError(
                f"Shards of {printable(database)} cannot be copied from {server.name}: {self.reason}.",
                kind="shard-reader",
                hint="Change that, or set reader: auto in the plan.",
            )

    def _why_closed(self) -> str | None:
        if self._reader == "query":
            return self._because
        return self._server.shard_door_closed() if is_installed() else why_not_fast()

    @cached_property
    def reason(self) -> str | None:
        """Why nothing is read from shards; None when it is. To look at the compiled loops loads a part of them."""
        found = self._closed or why_not_fast()
        if found:
            logger.info("%s is read from %s by queries: %s.", printable(self._database), self._server.name, found)
        return found

    def is_small(self, retention_policy: str, piece: Window) -> bool:
        """Whether the piece is too small a part of its shard to copy that, as far as the server lists the groups."""
        listed = self._server.listed_groups(self._database, retention_policy) or ()
        held = [group for group in listed if intersect(group, piece)]
        least = self._least_share * (held[0].end - held[0].start) if len(held) == 1 else 0
        return piece.end - piece.start < least

    @contextmanager
    def opened(
        self, retention_policy: str, piece: Window, *, however_small: bool = False
    ) -> Iterator[ShardCopy | None]:
        """
        The copy of the shard that holds the piece, None where the piece is read by queries.

        ``however_small``: also when the piece is a small part of its shard, since queries cannot read all of it.

        Raises SourceError: ``source-damaged`` for a shard that is not open and of which a backup has points, and
        ``shard-hot`` for one with writes in its cache where nothing but shards is to be read.
        """
        if self.reason:
            yield None
            return
        if not however_small and self.is_small(retention_policy, piece):  # before what copies shards is loaded
            self.by_query.pop((retention_policy, piece), None)
            logger.info("%s is too small a part of its shard to copy that.", format_window(piece))
            yield None
            return
        with ExitStack() as stack:
            copy, why = None, None
            try:
                copy = stack.enter_context(
                    self._server.copy_shard(
                        self._database,
                        retention_policy,
                        piece,
                        0 if however_small else self._least_share,
                        self._allow_hot,
                    )
                )
            except HotShardError as error:
                if self._reader == "shard":
                    raise SourceError(
                        error.message, kind=error.kind, hint=f"{error.hint} With reader: auto it is read by queries."
                    ) from error
                why = error.message
                logger.info("%s is read by queries: %s", format_window(piece), error)
            except ServerError as error:
                if isinstance(error, ShardNotOpenError):
                    self._refuse_lost(retention_policy, error)
                why = error.message
                logger.warning("%s is read by queries: %s", format_window(piece), error)
            else:
                if copy is None:
                    logger.info("%s is too small a part of its shard to copy that.", format_window(piece))
            if why:
                self.by_query[retention_policy, piece] = why
            else:
                self.by_query.pop((retention_policy, piece), None)
            yield copy

    def _refuse_lost(self, retention_policy: str, error: ShardNotOpenError) -> None:
        ref = self._backup_with(retention_policy, error.group) if self._backup_with else None
        if ref is not None:
            raise SourceError(
                f"{error.message} The backup {ref.id} has points of it, so its files are lost or damaged.",
                kind="source-damaged",
                hint=f"{error.hint} With reader: query the plan backs up what the server still answers.",
            ) from error


@contextmanager
def telling_last_backup(earlier: EarlierBackups, window: Window) -> Iterator[None]:
    """Adds to an error about damage on the server what the newest backup of that time is."""
    try:
        yield
    except SourceError as error:
        if error.kind != "source-damaged":
            raise
        newest = next(reversed(read_order(earlier.touching(window))), None)
        told = (
            f"The last backup with times of {format_window(window)} is {newest.id}, "
            f"read {format_instant(newest.read_start)}."
            if newest
            else f"No backup of this plan holds times of {format_window(window)}."
        )
        raise SourceError(f"{error.message} {told}", kind=error.kind, hint=error.hint) from error
