"""A copy of one shard on this machine, read as tables."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial, reduce
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.columns import arrow_schema, batch_columns, binary_columns
from influxdb_backup.errors import IncompleteReadError, ServerUnavailableError
from influxdb_backup.influx import shard_files
from influxdb_backup.influx.overlap import OverlappingShards
from influxdb_backup.influx.pieces import overlaps
from influxdb_backup.influx.protocol import ReadOptions, Sample, Server, ShardCopy, ShardReport
from influxdb_backup.influx.shard_batches import ShardFile, ShardPoints
from influxdb_backup.influx.shard_door import (
    HotShardError,
    ShardDoor,
    ShardInfo,
    ShardNotOpenError,
    ShardRefusedError,
    Spooled,
    SpooledFile,
)
from influxdb_backup.influx.shard_sample import choose_sample
from influxdb_backup.influx.tsm.index import CorruptShardError
from influxdb_backup.messages import logger_of
from influxdb_backup.model import MAX_END, MIN_TIME, Column, Role, Table, TableSchema, Window, printable
from influxdb_backup.temporary import temporary_folder

logger = logger_of(__name__)

_EVER = Window(start=MIN_TIME, end=MAX_END)
_REPLIES = 5
"""of the door for one shard, until two in a row are quick"""
_PAUSES = (0.2, 1.0)
"""seconds before a reply that broke off is asked for again"""
_REFUSED_PAUSES = (0.2, 1.0, 2.0, 4.0, 6.0)
"""the same after a refusal: more than the ten seconds after which a server lets a shard's cache be written again"""
_TOLD = 10
"""damaged blocks of a shard that are logged one by one"""
_MARGIN = 10 * 10**9
"""before the first reply: the stamps of the server's files are taken from its clock, which may be set"""


class FetchedShard:
    """
    The ``ShardCopy`` of fetched files; of none: a stretch of time that no shard holds.

    ``are_all``: the server says that it answers queries from these files and no others.
    """

    def __init__(self, points: Sequence[ShardPoints], *, are_all: bool = False) -> None:
        self._points = points
        self._are_all = are_all

    @property
    def files(self) -> int:
        """See ``ShardCopy.files``."""
        return sum(points.files for points in self._points)

    def scrub(self) -> ShardReport:
        """See ``ShardCopy.scrub``."""
        rows = 0
        damages: dict[str, None] = {}
        for points in self._points:
            damages.update(dict.fromkeys(error.message for error in points.damages(None)))
            for measurement in points.tables:
                try:
                    for batch in points.batches(measurement, _EVER, ReadOptions()):
                        rows += batch.num_rows
                except CorruptShardError as error:
                    damages[error.message] = None
        return ShardReport(rows, tuple(damages))

    def measurements(self) -> frozenset[str]:
        """See ``ShardCopy.measurements``."""
        return frozenset(name for points in self._points for name in points.tables)

    def holds(self, measurement: str, piece: Window) -> bool:
        """See ``ShardCopy.holds``."""
        return any(
            _points_of(batch).num_rows
            for points in self._points
            for batch in points.batches(measurement, piece, ReadOptions())
        )

    def sample(self, measurement: str, piece: Window) -> Sample | None:
        """See ``ShardCopy.sample``."""
        if not self._are_all:
            return None
        blocks = [extents for points in self._points if (extents := points.extents(measurement))]
        return choose_sample(blocks, piece, Random())  # noqa: S311 - no secret

    def stored(self, schema: TableSchema, piece: Window) -> None:  # noqa: ARG002 - one shard holds each value once
        """See ``ShardCopy.stored``."""
        return

    def read(self, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """See ``ShardCopy.read``."""
        for points in self._points:
            unknown = set(points.tables.get(schema.table.measurement, ())) - set(schema.columns)
            batches = points.batches(schema.table.measurement, piece, options)
            yield from _without(batches, unknown, schema.table) if unknown else batches


def _without(batches: Iterator[pa.RecordBatch], unknown: Set[Column], table: Table) -> Iterator[pa.RecordBatch]:
    """
    The batches without columns that the server does not list, since all their points are deleted.

    A field named time has values all the same: servers say that they strip it, and keep it where no query finds it
    (run on 1.12.4 and 2.9.1; 1.6.7 keeps nothing). It is told.
    """
    values = 0
    for batch in batches:
        columns = enumerate(batch_columns(batch.schema), start=1)
        stripped = [position for position, column in columns if column in unknown and _is_stripped(column)]
        values += sum(batch.num_rows - batch.column(position).null_count for position in stripped)
        listed = _of_listed(batch, unknown, table)
        yield _points_of(listed) if stripped else listed
    if values:
        logger.warning(
            "%s: its shard has %d values of a field named time, which no query of the server returns. They are not "
            "backed up.",
            table,
            values,
        )


def _is_stripped(column: Column) -> bool:
    return column.role is Role.FIELD and column.name == "time"


def _points_of(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that have a field which queries find."""
    columns = enumerate(batch_columns(batch.schema), start=1)
    fields = [
        batch.column(position).is_valid()
        for position, column in columns
        if column.role is Role.FIELD and not _is_stripped(column)
    ]
    return batch.filter(reduce(pc.or_, fields)) if fields else batch.slice(0, 0)


def _of_listed(batch: pa.RecordBatch, unknown: Set[Column], table: Table) -> pa.RecordBatch:
    """
    The batch without columns that the server does not list.

    Files keep the keys of deleted series until a compaction. Raises IncompleteReadError when one has a value that a
    query would find.
    """
    columns = batch_columns(batch.schema)
    for position, column in enumerate(columns, start=1):
        has_values = batch.column(position).null_count < batch.num_rows
        if column in unknown and has_values and not _is_stripped(column):
            raise IncompleteReadError(
                f"{table}: its shard has the {column.role.value} {printable(column.name)} "
                f"({column.type.value}), which is not in the schema that was read.",
                hint="Read the schema and then this piece again.",
                kind="schema-changed",
            )
    kept = {position: column for position, column in enumerate(columns, start=1) if column not in unknown}
    arrays = [batch.column(position) for position in (0, *kept)]
    binary = binary_columns(batch.schema) - unknown
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(tuple(kept.values()), binary))


@contextmanager
def copied(
    server: Server,
    door: ShardDoor,
    database: str,
    retention_policy: str,
    piece: Window,
    least_share: float,
    allow_hot: bool = False,
) -> Iterator[ShardCopy | None]:
    """See ``Server.copy_shard``. The files are removed when the context ends."""
    shards = [
        shard
        for shard in door.shards(database, retention_policy)
        if shard.group.start < piece.end and piece.start < shard.group.end
    ]
    shared = overlaps(shards, piece)
    if not shared and any(
        piece.end - piece.start < least_share * (shard.group.end - shard.group.start) for shard in shards
    ):
        yield None
        return
    with temporary_folder("shard") as folder:

        def fetched(shard: ShardInfo, attempt: int) -> _Fetched:
            own = Path(folder) / f"{shard.id}-{attempt}"
            own.mkdir()
            if allow_hot:
                return _Fetched(opened(fetch_settled(door, database, retention_policy, shard, server.now, own)), False)
            files = fetch_cold(door, database, retention_policy, shard, own)
            stored = door.stored_files(database, retention_policy, shard)
            return _Fetched(opened(files), stored is not None and stored.are(files))

        found = [_sound(fetched, shard, piece) for shard in shards]
        points = [one.points for one in found]
        if shared:
            yield _overlapping(shards, points)
        else:
            yield FetchedShard(points, are_all=bool(found) and all(one.are_all for one in found))


@dataclass(frozen=True)
class _Fetched:
    points: ShardPoints
    are_all: bool
    """whether the server's cache of the shard was empty before, and it says after that it has these files"""


def _overlapping(shards: Sequence[ShardInfo], points: Sequence[ShardPoints]) -> OverlappingShards:
    def joined(last: int) -> FetchedShard:
        ranks = {shard: (shard == last, shard) for shard in range(len(points))}
        order = sorted(ranks, key=lambda shard: ranks[shard])
        files = [replace(file, rank=rank) for rank, shard in enumerate(order) for file in points[shard].sources]
        return FetchedShard([ShardPoints(files)])

    return OverlappingShards(shards, [FetchedShard([own]) for own in points], cache(joined))


def _sound(fetched: Callable[[ShardInfo, int], _Fetched], shard: ShardInfo, piece: Window) -> _Fetched:
    """The points of a shard, fetched again when the copy is damaged, since it may be the copy alone."""
    try:
        found = fetched(shard, 1)
        damages = found.points.damages(piece)
    except CorruptShardError as error:
        logger.warning("A copy of shard %d is fetched again: %s", shard.id, error.message)
        return fetched(shard, 2)
    if damages:
        found = fetched(shard, 2)
        _tell(found.points.damages(None))
    return found


def _tell(damages: Sequence[CorruptShardError]) -> None:
    for damage in damages[:_TOLD]:
        logger.warning("%s", damage.message)
    if len(damages) > _TOLD:
        logger.warning("%d more blocks are damaged; influxdb-backup scrub-server lists them all.", len(damages) - _TOLD)


def fetch_cold(
    door: ShardDoor,
    database: str,
    retention_policy: str,
    shard: ShardInfo,
    folder: Path,
) -> list[SpooledFile]:
    """
    All files of a shard that has no writes in its cache, which is asked right before each request.

    One reply holds everything then. Raises HotShardError, and IncompleteReadError when the reply is not whole.
    """

    def fetch() -> Spooled:
        door.refuse_hot(database, retention_policy, shard)
        return door.fetch(database, retention_policy, shard, None, folder / "0.tar")

    return list(_fetched(fetch, shard).files)


def fetch_settled(
    door: ShardDoor, database: str, retention_policy: str, shard: ShardInfo, now: Callable[[], int], folder: Path
) -> list[SpooledFile]:
    """
    All files of a shard, the server's cache among them.

    A server that is busy writing its cache leaves that out of its reply, and one that once failed to writes only the
    older half; so it is asked for what changed until two replies in a row began quickly. Raises IncompleteReadError
    when they never do.
    """
    began = now()
    files: dict[str, SpooledFile] = {}
    quick = False
    for number in range(_REPLIES):
        since = began - _MARGIN if number else None
        path = folder / f"{number}.tar"
        spooled = _fetched(partial(door.fetch, database, retention_policy, shard, since, path), shard)
        files.update({file.name: file for file in spooled.files})
        if quick and spooled.quick:
            return list(files.values())
        quick = spooled.quick
    raise IncompleteReadError(
        f"The server is too busy to write the cache of shard {shard.id} ({printable(database)}) to its files.",
        hint="Back up at a quieter time, or set reader: query in the plan.",
        kind="shard-copy",
    )


def _fetched(fetch: Callable[[], Spooled], shard: ShardInfo) -> Spooled:
    """
    A whole reply, asked for again when it broke off.

    A server that is just writing the shard's cache may refuse (run on 1.6.7: the connection ends; 2.9.1: status 500),
    and so does one that took the shard for idle while its first points came, until it looks again, every ten seconds.
    It is worth the wait, since a refusal leaves the cache set aside until the next copy, and deletions pass that by
    (run on 2.9.1 and 1.12.4: the points stay; 1.6.7: they are back after a restart).
    """
    asked = 0
    while True:
        try:
            return fetch()
        except (IncompleteReadError, ServerUnavailableError) as error:
            pauses = _REFUSED_PAUSES if isinstance(error, ShardRefusedError) else _PAUSES
            if error.kind == "spool" or isinstance(error, HotShardError | ShardNotOpenError) or asked >= len(pauses):
                raise
            logger.info("Shard %d is asked for again: %s", shard.id, error.message)
            pause = pauses[asked]
        time.sleep(pause)
        asked += 1


def opened(files: Sequence[SpooledFile]) -> ShardPoints:
    """The points of spooled files. Raises CorruptShardError."""
    tombstones = {file.name.removesuffix(".tombstone"): file for file in files if file.name.endswith(".tombstone")}
    found = []
    for file in files:
        if file.name.endswith(".tsm"):
            grave = tombstones.get(file.name.removesuffix(".tsm"))
            found.append(ShardFile(file.name, _mapped(file), _mapped(grave) if grave else None))
    return ShardPoints(found)


def _mapped(file: SpooledFile) -> npt.NDArray[np.uint8]:
    if not file.size:
        return np.empty(0, np.uint8)
    return np.memmap(file.path, np.uint8, mode="r", offset=file.offset, shape=(file.size,))


def exercise() -> None:
    """Runs every loop that encodes or decodes shards once, so that numba compiles it and keeps the machine code."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for value in (1, 2):
            name = f"{value:09d}-000000001.tsm"
            path = shard_files.exercise(Path(folder), name, value)
            files.append(SpooledFile(name, path, 0, path.stat().st_size))
        entry = b"\0\0\0\x0em,t=a#!~#float" + bytes(16)
        for number, content in ((1, b"m,t=a#!~#boolean\n"), (2, b"\0\0\x15\2" + entry)):
            grave = Path(folder) / f"{number:09d}-000000001.tombstone"
            grave.write_bytes(content)
            files.append(SpooledFile(grave.name, grave, 0, grave.stat().st_size))
        found = [
            [
                value
                for batch in points.batches("m", Window(start=0, end=2), ReadOptions())
                for value in batch.column("integer").to_pylist()
            ]
            for points in (opened(files), opened(files[:1]))
        ]
    if found != [[2], [1]]:
        raise AssertionError(f"the compiled loops read {found}")
