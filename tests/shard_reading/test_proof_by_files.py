"""A copy of a shard is proved by the server's own number and size of its files, and a count of a part of its values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.archive.repository import Repository
from influxdb_backup.influx.http import Http
from influxdb_backup.influx.protocol import Server, ShardCopy
from influxdb_backup.influx.query import QueryApi
from influxdb_backup.influx.shard_door import ShardInfo, Spooled, SpooledFile, StoredFiles
from influxdb_backup.influx.shard_sample import FEW_BLOCKS, BlockExtents, choose_sample
from influxdb_backup.influx.snapshot1 import SnapshotDoor
from influxdb_backup.influx.snapshot_port1 import SnapshotPort
from influxdb_backup.model import SourceCount, Window
from tests.jobs.support import (
    DAY,
    SECOND,
    Wrapped,
    back_up,
    lines,
    manifest_of,
    new_database,
    opened,
    plan,
    rows_of,
    settings_of,
)
from tests.servers import RunningServer

pytestmark = pytest.mark.usefixtures("compiled")

SERIES, POINTS = 100, 200
"""each series and field is a block of its own, so that these are many"""


def fill(running: RunningServer, database: str, series: Sequence[int] = range(SERIES)) -> None:
    """Points of these series, all over the day; returns when the server has them in files."""
    points = (
        (f"m,s={number:03d}", f"a={place},b={place}i", DAY.start + (place * 400 + number) * SECOND)
        for number in series
        for place in range(POINTS)
    )
    running.write(lines(points), database)
    running.wait_until_cold()


def only_count(repository: Repository, ref: str) -> SourceCount:
    """What the server counted for a backup of one table in one piece with points."""
    (count,) = [count for count in manifest_of(repository, ref).evidence.counts if count.counts]
    return count


def test_a_part_of_many_values_is_counted(any_influx: RunningServer, server: Server, repository: Repository) -> None:
    """The backup has all points, and the manifest names the stretch of which the server counted as many as it holds."""
    database = new_database(any_influx)
    fill(any_influx, database)
    result = back_up(repository, server, plan(database, reader="shard"))
    assert (result.rows, result.values) == (SERIES * POINTS, 2 * SERIES * POINTS)
    count = only_count(repository, result.ref)
    assert (count.reader, count.moved) == ("shard", False)
    assert DAY.start <= count.window.start < count.window.end <= DAY.end
    assert count.window.end - count.window.start < (DAY.end - DAY.start) / 30
    ((field, number),) = count.counts
    within = f"time >= {count.window.start} AND time < {count.window.end}"
    assert rows_of(any_influx, f"SELECT count({field}) FROM m WHERE {within}", database)[0][1] == number
    assert field in {"a", "b"}
    assert 0 < number < SERIES * POINTS / 20


def test_all_of_few_values_are_counted(any_influx: RunningServer, server: Server, repository: Repository) -> None:
    """A table of few blocks is counted whole, as it costs nothing."""
    database = new_database(any_influx)
    fill(any_influx, database, range(5))
    result = back_up(repository, server, plan(database, reader="shard"))
    assert dict(only_count(repository, result.ref).counts) == {"a": 5 * POINTS, "b": 5 * POINTS}


class LosingDoor(SnapshotDoor):
    """Copies come without the last file, and nothing else tells."""

    def fetch(self, database: str, retention_policy: str, shard: ShardInfo, since: int | None, path: Path) -> Spooled:
        """The copy, which says that it is whole."""
        spooled = super().fetch(database, retention_policy, shard, since, path)
        return replace(spooled, files=spooled.files[:-1])


class Losing(Wrapped):
    """A 1.x server whose copies lack a file."""

    def __init__(self, server: Server, door: SnapshotDoor) -> None:
        super().__init__(server)
        self.door = door

    @contextmanager
    def copy_shard(
        self, database: str, retention_policy: str, piece: Window, least_share: float, allow_hot: bool
    ) -> Iterator[ShardCopy | None]:
        """The copy that the door gives."""
        from influxdb_backup.influx.shard_copy import copied

        found = copied(self.server, self.door, database, retention_policy, piece, least_share, allow_hot)
        with found as copy:
            yield copy


def test_a_copy_that_lacks_a_file_is_not_believed(
    influx1: RunningServer, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """All values are counted where the server has more files than came, and queries read what is missing."""
    database = new_database(influx1)
    fill(influx1, database)
    fill(influx1, database, range(SERIES, SERIES + 1))
    reached = settings_of(influx1)
    address = influx1.backup_address
    assert address
    with opened(influx1, snapshot_address=address) as server, closing(Http(reached)) as http:
        losing = Losing(server, LosingDoor(QueryApi(http), SnapshotPort(address, 30, "tests"), "tests"))
        result = back_up(repository, losing, plan(database, reader="shard"))  # type: ignore[arg-type]
    assert result.rows == (SERIES + 1) * POINTS
    count = only_count(repository, result.ref)
    assert (count.reader, count.window) == ("query", DAY)
    assert f"{SERIES * POINTS} read, {result.rows} counted" in caplog.text


def spooled(name: str, size: int) -> SpooledFile:
    """A file of a copy."""
    return SpooledFile(name, Path("copy"), 0, size)


def test_files_are_compared_by_number_and_size() -> None:
    """Every TSM file counts; tombstones may be in the server's sum or not, since it adds them up when files change."""
    copied = [spooled("1-1.tsm", 100), spooled("1-1.tombstone", 7), spooled("2-1.tsm", 50)]
    for size in (150, 151, 157):
        assert StoredFiles(2, size).are(copied)
    for stored in (StoredFiles(1, 150), StoredFiles(3, 150), StoredFiles(2, 149), StoredFiles(2, 158)):
        assert not stored.are(copied)
    assert StoredFiles(0, 0).are([])


BLOCKS = st.lists(st.tuples(st.integers(-1000, 1000), st.integers(0, 300), st.integers(0, 2)), max_size=300)


def extents(blocks: Sequence[tuple[int, int, int]]) -> BlockExtents:
    """Of blocks as (first time, time to the last, field)."""
    first, length, field = np.array(blocks, np.int64).reshape(-1, 3).T
    return BlockExtents(first, first + length, field, ("a", "b", "c"))


@given(BLOCKS, st.integers(-900, 900), st.integers(1, 1500), st.integers(0, 2**32))
def test_a_sample_lies_in_the_piece_and_in_a_block_of_its_field(
    blocks: list[tuple[int, int, int]], start: int, length: int, seed: int
) -> None:
    """What is counted is a short part of the piece in which its field has a block; for few blocks all is counted."""
    piece = Window(start=start, end=start + length)
    half = len(blocks) // 2
    found = choose_sample([extents(blocks[:half]), extents(blocks[half:])], piece, Random(seed))
    inside = [block for block in blocks if block[0] < piece.end and block[0] + block[1] >= piece.start]
    if len(inside) <= FEW_BLOCKS:
        assert found is None
        return
    assert found is not None
    window = found.window
    assert piece.start <= window.start < window.end <= piece.end
    assert window.end - window.start <= length // 64 + 1
    assert any(
        first < window.end and first + length >= window.start
        for first, length, field in inside
        if "abc"[field] == found.field
    )
