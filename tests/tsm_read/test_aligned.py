"""Fields that have the same times are decoded to where they stay; those that nearly have are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.shard_aligned import aligned
from influxdb_backup.influx.shard_files import ShardFileBuilder
from influxdb_backup.influx.shard_plan import plan_tables
from influxdb_backup.influx.tsm.index import read_index
from influxdb_backup.model import InfluxType, Window
from tests.influx_read.support import rows_of
from tests.tsm_read.test_shard_points import opened_files
from tests.tsm_write.tables import GROUP, START, batch

VALUES = {
    InfluxType.FLOAT: lambda n: n / 7,
    InfluxType.INTEGER: lambda n: n * (-1) ** n,
    InfluxType.BOOLEAN: lambda n: n % 3 == 0,
    InfluxType.STRING: lambda n: f"text {n}",
}
Points = Mapping[tuple[int, str], Mapping[str, object]]


def rows_with(series: Sequence[str], first: int, count: int, moved: set[tuple[str, str]]) -> Points:
    """Each series with ``count`` instants from ``first`` on; ``moved`` fields have the one in the middle a bit later."""
    points: dict[tuple[int, str], dict[str, object]] = {}
    for host in series:
        for number in range(count):
            for kind, value in VALUES.items():
                late = count > 2 and number == count // 2 and (host, kind.value) in moved
                at = START + first + 10 * number + (5 if late else 0)
                points.setdefault((at, host), {})[kind.value] = value(first + number)
    return points


def added(builder: ShardFileBuilder, points: Points) -> None:
    """The points as one batch."""
    fields = {kind.value: (kind, [values.get(kind.value) for values in points.values()]) for kind in VALUES}
    hosts = [host for _, host in points]
    builder.add("m", batch([at for at, _ in points], {"host": hosts}, fields))


ONE_SERIES = st.sampled_from(["a", "b", "c"])
MOVED = st.sets(st.tuples(ONE_SERIES, st.sampled_from([kind.value for kind in VALUES])), max_size=2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sets(ONE_SERIES, min_size=1), st.integers(0, 3000), st.integers(1, 1200), MOVED),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 16_000),
)
@example([({"a", "b"}, 0, 3, {("b", "boolean")})], 16_000)
@example([({"a", "b"}, 0, 1200, set()), ({"a", "b"}, 12_000, 1200, set())], 16_000)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[set[str], int, int, set[tuple[str, str]]]],
    end: int,
) -> None:
    """One to three files whose fields have all, some or none of their times alike, as a dictionary has them."""
    folder = tmp_path_factory.mktemp("shard")
    window = Window(start=START, end=START + end + 1)
    expected: dict[tuple[int, str], dict[str, object]] = {}
    paths = []
    for number, (series, first, count, moved) in enumerate(files, start=1):
        own = folder / str(number)
        own.mkdir()
        builder = ShardFileBuilder(own, GROUP, generation=1)
        points = rows_with(sorted(series), first, count, moved)
        added(builder, points)
        for (at, host), values in points.items():
            if at < window.end:
                expected.setdefault((at, host), {}).update(values)
        (path,) = builder.finish()
        paths.append(path.rename(folder / f"{number:09d}-000000001.tsm"))
    found = {}
    for part in opened_files(paths).batches("m", window, ReadOptions(batch_rows=700)):
        for row in rows_of(part):
            assert (row["time"], row["@host"]) not in found
            found[row["time"], row["@host"]] = {kind.value: row[kind.value] for kind in VALUES if kind.value in row}
    assert found == expected


def test_plain_tables_are_aligned(tmp_path: Path) -> None:
    """What most tables are: the index alone says that their blocks need no settling."""
    builder = ShardFileBuilder(tmp_path, GROUP, generation=1)
    added(builder, rows_with(["a", "b"], 0, 2500, set()))
    (path,) = builder.finish()
    index = read_index(path.name, np.frombuffer(path.read_bytes(), np.uint8))
    (plan,) = plan_tables([index]).values()
    numbers = plan.block_number
    counts = np.full(len(numbers), 1, np.int64)
    arguments = plan, np.arange(len(numbers)), counts, index.block_min[numbers], index.block_max[numbers]
    places = aligned(*arguments, GROUP)
    assert places is not None
    assert places.rows.tolist() == [3, 3]
    assert aligned(*arguments, Window(start=START + 1, end=GROUP.end)) is None
