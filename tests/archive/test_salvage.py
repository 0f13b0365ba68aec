"""What is whole of a damaged part is told page by page, and nothing wrong is ever taken for whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from influxdb_backup.archive.compact_thrift import ThriftError, read_struct
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.salvage import LostRows, describe_damage, find_lost_rows, read_salvaged
from influxdb_backup.archive.store import open_store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.errors import IntegrityError
from influxdb_backup.model import Part, Ref, VerifyLevel, Window
from tests.archive.build import COLUMNS, DAY, TABLE, batch, draft, rows, write_table

Points = dict[tuple[int, bytes | None], tuple[object, ...]]


def points_of(batches: Sequence[pa.RecordBatch]) -> Points:
    """By time and tag, the fields' values; text as bytes, so that damage shows."""
    found: Points = {}
    for one in batches:
        columns = [
            one.column(0).cast(pa.int64()).to_pylist(),
            one.column(1).cast(pa.string()).cast(pa.binary()).to_pylist(),
        ]
        for column in one.columns[2:]:
            columns.append((column.cast(pa.binary()) if pa.types.is_string(column.type) else column).to_pylist())
        for time, host, *values in zip(*columns, strict=True):
            assert (time, host) not in found
            found[time, host] = tuple(values)
    return found


class Stored:
    """One backup of one part, whose file a test damages."""

    def __init__(self, folder: Path, count: int) -> None:
        self.repository = Repository.init(open_store(f"file://{folder / 'repository'}"))
        with self.repository.begin("telemetry", DAY) as attempt:
            entry = write_table(attempt, [batch(COLUMNS, rows(0, count))])
            self.ref: Ref = attempt.commit(draft(entry)).ref
        self.part: Part = entry.parts[0]
        self.path = folder / "repository" / self.part.path
        self.content = self.path.read_bytes()
        self.points = points_of(list(self.repository.read_part(self.part)))
        self._scratch = folder / "scratch.parquet"

    def salvage(self) -> tuple[Points, list[LostRows]]:
        """What comes back of the file as it is now, and what is said to be lost."""
        self._scratch.unlink(missing_ok=True)
        lost: list[LostRows] = []
        left = points_of(list(read_salvaged(self.path, self.part, TABLE.measurement, self._scratch, lost.append)))
        return left, lost

    def flip(self, place: int, bit: int = 0) -> None:
        """The file as it was written, with one bit changed."""
        content = bytearray(self.content)
        content[place] ^= 1 << bit
        self.path.write_bytes(content)

    def place_of(self, group: int, column: int, share: float) -> int:
        """A byte of a column's pages in a row group."""
        import pyarrow.parquet as pq

        chunk = pq.ParquetFile(pa.BufferReader(self.content)).metadata.row_group(group).column(column)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        return int(start + (chunk.total_compressed_size - 1) * share)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """60,000 rows: two row groups, the second of three pages."""
    return Stored(tmp_path_factory.mktemp("large"), 30_000)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """200 rows in one row group."""
    return Stored(tmp_path_factory.mktemp("small"), 100)


def test_a_whole_part_has_no_lost_rows(large: Stored) -> None:
    """Its pages hold, and what is read is what was written."""
    large.path.write_bytes(large.content)
    assert find_lost_rows(large.path, large.part) == ()
    assert large.salvage() == (large.points, [])


def test_a_damaged_page_of_a_field_costs_its_rows_that_field_only(large: Stored) -> None:
    """The rows, their times and the field are named exactly; every other value comes back."""
    large.flip(large.place_of(1, 5, 0.5))  # v string
    left, (lost,) = large.salvage()
    assert (lost.column, lost.rows) == ("v string", 20_000)
    assert left.keys() == large.points.keys()
    order = list(large.points)
    gone = set(order[lost.first_row : lost.first_row + lost.rows])
    assert (lost.min_time, lost.max_time) == (min(time for time, _ in gone), max(time for time, _ in gone))
    for key, values in large.points.items():
        expected = (*values[:3], None, values[4]) if key in gone else values
        assert left[key] == expected


@pytest.mark.parametrize("column", [0, 1])
def test_a_damaged_page_of_times_or_tags_costs_its_rows(large: Stored, column: int) -> None:
    """Without its time or its series a value is no point; the others of the part come back."""
    large.flip(large.place_of(1, column, 0.9))
    left, lost = large.salvage()
    order = list(large.points)
    gone = {key for entry in lost for key in order[entry.first_row : entry.first_row + entry.rows]}
    assert lost and all(entry.column is None for entry in lost) and len(gone) < len(order)
    assert left == {key: values for key, values in large.points.items() if key not in gone}
    assert all(entry.min_time <= time <= entry.max_time for entry in lost for time, _ in gone if len(lost) == 1)


def test_verify_names_the_rows_and_times_of_a_damaged_page(large: Stored) -> None:
    """Whoever reads the report knows what is lost, and what salvage would bring back."""
    large.flip(large.place_of(1, 2, 0.5))
    report = verify_ref(large.repository, large.ref, VerifyLevel.VALID)
    (problem,) = report.problems
    assert problem.kind == "digest"
    assert "field 'v float' of rows " in problem.message and "2026-01-01T" in problem.message


def test_no_flipped_bit_passes_for_a_value(small: Stored) -> None:
    """Wherever the bit is, every value that comes back is one that was written, and what is missing was told."""
    chosen = random.Random(7)
    outcomes = {"refused": 0, "told": 0, "whole": 0}
    for place in range(0, len(small.content), 3):
        small.flip(place, chosen.randrange(8))
        try:
            left, lost = small.salvage()
        except IntegrityError:
            outcomes["refused"] += 1
            continue
        outcomes["told" if lost else "whole"] += 1
        for key, values in left.items():
            pairs = zip(values, small.points[key], strict=True)
            assert all(found == written or (found is None and lost) for found, written in pairs), place
        if not lost:
            assert left == small.points
    assert min(outcomes.values()) > 50, outcomes


def test_the_repository_reads_what_is_left_of_a_part(large: Stored) -> None:
    """A stretch of it, as from a whole part; of a part that is gone everything is told to be lost, and of a whole one nothing."""
    window = Window(start=DAY.start, end=DAY.start + 10 * 1_000_000_000)
    selected = {key: values for key, values in large.points.items() if key[0] < window.end}
    lost: list[LostRows] = []
    large.path.write_bytes(large.content)
    read = large.repository.read_part_salvaged(large.part, TABLE.measurement, lost.append, window=window)
    assert (points_of(list(read)), lost) == (selected, [])
    large.flip(large.place_of(0, 2, 0.5))  # v float
    read = large.repository.read_part_salvaged(large.part, TABLE.measurement, lost.append, window=window)
    left = points_of(list(read))
    assert left.keys() == selected.keys() and [entry.column for entry in lost] == ["v float"]
    lost.clear()
    large.path.unlink()
    assert list(large.repository.read_part_salvaged(large.part, TABLE.measurement, lost.append)) == []
    assert [(entry.first_row, entry.rows, entry.column) for entry in lost] == [(0, 60_000, None)]


@pytest.mark.parametrize("size", [0, 3, 11, 500])
def test_a_part_without_its_end_gives_nothing(small: Stored, size: int) -> None:
    """What its pages are stands in its footer: without that nothing is taken for a value."""
    small.path.write_bytes(small.content[:size])
    with pytest.raises(IntegrityError, match="footer"):
        small.salvage()
    assert "No row of it can be told to be whole" in describe_damage(small.path, small.part)


@pytest.mark.parametrize(
    "data", [b"", b"\x15", b"\x1c" * 40, b"\x19\xfc\xff\xff\xff\x0f", b"\x16" + b"\xff" * 11, b"\x1d\x00"]
)
def test_bytes_that_are_no_structure_are_refused(data: bytes) -> None:
    """Cut, too deep, too long or of no known type: an error, and no endless loop."""
    with pytest.raises(ThriftError):
        read_struct(data)
