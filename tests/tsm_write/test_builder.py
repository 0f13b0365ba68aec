"""What ShardFileBuilder promises of its files, read back by a plain reader of the format."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.errors import TargetError, UnrepresentableError
from influxdb_backup.influx import shard_cells
from influxdb_backup.influx.shard_cells import Chunk, SpareCells, Table
from influxdb_backup.influx.shard_files import ShardFileBuilder, exercise
from influxdb_backup.influx.tsm import encode_series
from influxdb_backup.model import InfluxType
from tests.servers import CACHE, lacks
from tests.tsm_write.reference import points_of, read_file
from tests.tsm_write.tables import GROUP, START, batch, every_encoding

FLOAT, INTEGER, STRING = InfluxType.FLOAT, InfluxType.INTEGER, InfluxType.STRING
VALUES = {
    FLOAT: st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 5e-324, 1.5]),
    INTEGER: st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9),
    InfluxType.UNSIGNED: st.integers(0, 2**64 - 1) | st.integers(0, 9),
    InfluxType.BOOLEAN: st.booleans(),
    STRING: st.text(max_size=40),
}
NAMES = ["host", "a b", "aXb", "=,é"]


def _key(tags: dict[str, str | None], field: str) -> bytes:
    def escape(text: str) -> bytes:
        return "".join("\\" + letter if letter in ",= " else letter for letter in text).encode()

    pairs = sorted((escape(name), escape(value)) for name, value in tags.items() if value)
    return b"m" + b"".join(b"," + name + b"=" + value for name, value in pairs) + b"#!~#" + field.encode()


@st.composite
def _rows(draw: st.DrawFn) -> list[tuple[int, dict[str, str | None], dict[str, object]]]:
    kinds = list(VALUES)
    tags = st.fixed_dictionaries({name: st.sampled_from([None, "", "1", "x y", "é!"]) for name in NAMES})
    fields = st.fixed_dictionaries({kind.value: st.none() | VALUES[kind] for kind in kinds})
    return draw(st.lists(st.tuples(st.integers(0, 30), tags, fields), min_size=1, max_size=60))


def _exact(value: object) -> object:
    return (value.hex(), "f") if isinstance(value, float) else value.encode() if isinstance(value, str) else value


@given(rows=_rows(), cut=st.integers(0, 60))
def test_any_rows_in_any_order(tmp_path_factory: pytest.TempPathFactory, rows: list, cut: int) -> None:
    """Whatever the rows' order, the file has each series' points once, the last given value of each time and field."""
    builder = ShardFileBuilder(tmp_path_factory.mktemp("shard"), GROUP, generation=2)
    for part in (rows[:cut], rows[cut:]):
        if part:
            tags = {name: [row[1][name] for row in part] for name in NAMES}
            fields = {kind.value: (kind, [row[2][kind.value] for row in part]) for kind in VALUES}
            builder.add("m", batch([START + row[0] for row in part], tags, fields))
    expected: dict[bytes, dict[int, object]] = {}
    for offset, tags, fields in rows:
        for name, value in fields.items():
            if value is not None:
                expected.setdefault(_key(tags, name), {})[START + offset] = _exact(value)
    files = builder.finish()
    found = {
        key: [(time, _exact(value)) for time, value in points]
        for file in files
        for key, points in points_of(file).items()
    }
    assert found == {key: sorted(points.items()) for key, points in expected.items()}
    assert builder.values == sum(len(points) for points in expected.values())


def test_rows_by_time_give_the_same_file_as_rows_by_series(folder: Path) -> None:
    """Shuffled rows of many blocks end in the very bytes that rows in order give, also where a field is often null."""
    whole = every_encoding(list(VALUES), [2500, 1001])
    files = []
    for number, shuffled in enumerate((False, True)):
        (folder / str(number)).mkdir()
        builder = ShardFileBuilder(folder / str(number), GROUP, generation=2)
        for item in whole:
            order = list(range(item.num_rows))
            if shuffled:
                random.Random(7).shuffle(order)
            builder.add("m", item.take(order))
        files.append(builder.finish()[0].read_bytes())
    assert files[0] == files[1]


def test_memory_that_other_points_had_changes_no_file(folder: Path) -> None:
    """Builders that follow each other share the memory of their cells; tables that grow, also by fields, are the same."""
    spare = SpareCells(20_000)
    kinds = list(VALUES)
    for turn in range(3):
        contents = []
        for name, shared in (("own", None), ("shared", spare)):
            place = folder / f"{name}{turn}"
            place.mkdir()
            builder = ShardFileBuilder(place, GROUP, generation=2, spare=shared)
            for number in range(1, 2 + len(kinds)):
                for item in every_encoding(kinds[:number], [400 * (turn + 1), 30]):
                    builder.add("m", item)
            contents.append([file.read_bytes() for file in builder.finish()])
        assert contents[0] == contents[1]
        assert sum(map(len, contents[0])) > 1000


def test_keys_of_interleaving_measurements_are_in_order(folder: Path) -> None:
    """Measurements whose keys interleave (``m``, ``m!``, ``m#x``, ``m,``) stand in the order of their bytes."""
    builder = ShardFileBuilder(folder, GROUP, generation=1)
    names = ["m", "m!", "m#x", "m$x", "m x", "M", "mé"]
    for name in names:
        values = ["a", "b", None]
        builder.add(
            name, batch([START] * 3, {"t": values}, {"v": (FLOAT, [1.0, 2.0, 3.0]), "V": (FLOAT, [None, 1.0, 2.0])})
        )
    (file,) = builder.finish()
    assert len(read_file(file)) == 5 * len(names)


def test_later_points_go_to_files_of_later_generations(folder: Path) -> None:
    """A builder that may hold little makes several files, and what came later stands in the later one."""
    builder = ShardFileBuilder(folder, GROUP, generation=1, buffer_bytes=1)
    for value in (1, 2, 3):
        builder.add("m", batch([START], {"t": ["x"]}, {"v": (INTEGER, [value])}))
    files = builder.finish()
    assert [file.name for file in files] == [f"00000000{number}-000000001.tsm" for number in (1, 2, 3)]
    assert [points_of(file)[b"m,t=x#!~#v"] for file in files] == [[(START, 1)], [(START, 2)], [(START, 3)]]
    assert sorted(folder.iterdir()) == list(files)


@given(
    st.sampled_from([0, 50, 200, 1000, 5000]),
    st.lists(st.tuples(st.integers(1, 12), st.sets(st.integers(0, 40), min_size=1)), min_size=1, max_size=30),
)
def test_cells_stay_what_they_are_while_their_table_grows(words: int, chunks: list[tuple[int, set[int]]]) -> None:
    """By rows, fields or both, in the same memory or another; and it takes no more than it needs or is kept."""
    spare, table, written = SpareCells(words), Table(), []
    for rows, fields in chunks:
        numbers = {f"f{field}": np.arange(rows) + 1000 * (field + len(written)) for field in fields}
        written += [(table.rows, name, values) for name, values in numbers.items()]
        same = np.zeros(rows, np.int64)
        columns = tuple((name, pa.array(values)) for name, values in numbers.items())
        table.add(Chunk(same, same, pa.array(["k"]), columns), spare)
    _, cells, lines = table.taken()
    assert cells.size <= max(words, 2 * table.rows * len(lines))
    assert all((cells[lines[name], at : at + len(values)] == values).all() for at, name, values in written)


class CountedCells(SpareCells):
    """Tells the most that was taken at once."""

    most = 0

    def take(self, count: int) -> shard_cells.U64:
        """As it is, and noted."""
        taken = super().take(count)
        self.most = max(self.most, len(taken))
        return taken


def test_points_of_many_sparse_fields_end_a_file_early(folder: Path) -> None:
    """200 series with a field of their own have 32 MB of cells side by side: the table is cut, and has 4 MB of them."""
    spare = CountedCells((4 << 20) // 8)
    builder = ShardFileBuilder(folder, GROUP, generation=1, buffer_bytes=4 << 20, spare=spare)
    times = [START + number for number in range(100)]
    for number in range(200):
        builder.add("m", batch(times, {"t": ["x"] * 100}, {f"f{number:03d}": (INTEGER, times)}))
    files = builder.finish()
    assert 3 <= len(files) <= 20
    assert spare.most == spare.words
    found = [key for file in files for key, points in points_of(file).items() if points == [(t, t) for t in times]]
    assert sorted(found) == [_key({"t": "x"}, f"f{number:03d}") for number in range(200)]


class HeldCells(SpareCells):
    """Tells the most that was held at once, of memory that is taken as it is needed."""

    held = most = 0

    def take(self, count: int) -> shard_cells.U64:
        """As it is, and noted."""
        taken = super().take(count)
        self.held += len(taken)
        self.most = max(self.most, self.held)
        return taken

    def give(self, words: shard_cells.U64) -> None:
        """As it is, and noted."""
        super().give(words)
        self.held -= len(words)


def test_sparse_fields_of_many_tables_end_a_file_early(folder: Path) -> None:
    """20 tables with 0.6 MB of cells each, of which most are empty, are cut as one table with all of them would be."""
    spare = HeldCells(0)
    builder = ShardFileBuilder(folder, GROUP, generation=1, buffer_bytes=1 << 20, spare=spare)
    for table in range(20):
        for number in range(20):
            times = [START + 20 * number + row for row in range(20)]
            builder.add(f"m{table}", batch(times, {}, {f"f{number}-{field}": (INTEGER, times) for field in range(10)}))
    files = builder.finish()
    assert 4 <= len(files) <= 20
    assert 8 * spare.most <= 2 << 20  # a table that moves is held twice
    found = [(key, time) for file in files for key, points in points_of(file).items() for time, _ in points]
    assert len(found) == len(set(found)) == builder.values == 20 * 20 * 20 * 10


def test_fields_that_come_one_by_one_are_introduced_in_files_that_hold_little(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 fields with a point of their own would have 1.3 MB of cells in one file that has each of them once."""
    monkeypatch.setattr(shard_cells, "_LED_FROM_SERIES", 2)
    monkeypatch.setattr(shard_cells, "_LED_FROM_FIELDS", 2)
    spare = HeldCells(0)
    builder = ShardFileBuilder(folder, GROUP, generation=1, buffer_bytes=1 << 18, spare=spare)
    for number in range(400):
        builder.add("m", batch([START], {"t": [f"s{number}"]}, {f"f{number}": (INTEGER, [number])}))
    files = builder.finish()
    assert 8 * spare.most <= 2 << 18
    introduced = [key for file in files if file in builder.leading for key in points_of(file)]
    assert {key.partition(b"#!~#")[2] for key in introduced} == {b"f%d" % number for number in range(400)}
    assert {key: points for file in files for key, points in points_of(file).items()} == {
        _key({"t": f"s{number}"}, f"f{number}"): [(START, number)] for number in range(400)
    }


def test_many_series_are_introduced_by_one_field(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The field with most values gets files of its own, to be sent first; it keeps them, and later points still win.

    Before them come files in which every field of every table is found: two, where one may hold next to nothing.
    """
    monkeypatch.setattr(shard_cells, "_LED_FROM_SERIES", 500)
    builder = ShardFileBuilder(folder, GROUP, generation=1, buffer_bytes=1)
    hosts = [f"h{number:05d}" for number in range(500)]
    expected: dict[bytes, list[tuple[int, int]]] = {}
    for value, some in ((1, hosts), (2, hosts[::50]), (3, hosts[:1])):
        present = {name: [value if (n + 1) % 7 or name == "c" else None for n in range(len(some))] for name in "abcde"}
        if value == 3:
            del present["c"]
        fields = {name: (INTEGER, values) for name, values in present.items()}
        builder.add("m", batch([START] * len(some), {"t": some}, fields))
        for name, values in present.items():
            for host, own in zip(some, values, strict=True):
                if own is not None:
                    expected[f"m,t={host}#!~#{name}".encode()] = [(START, own)]
        if value == 2:
            builder.add("small", batch([START], {}, {"late": (INTEGER, [7])}))
            expected[b"small#!~#late"] = [(START, 7)]
    files = builder.finish()
    introduction = points_of(files[0]) | points_of(files[1])
    assert {key.rpartition(b"#")[2] for key in introduction} == {b"a", b"b", b"c", b"d", b"e", b"late"}
    assert len(introduction) == 6
    found = dict(introduction)
    for file in files[2:]:
        points = points_of(file)
        assert {key.endswith(b"#c") for key in points} == {file in builder.leading}
        found |= points
    assert found == expected
    assert [file in builder.leading for file in files] == [True, True, True, False, True, False, False, False]
    assert [file.name for file in files] == [f"00000000{number}-000000001.tsm" for number in range(1, 9)]
    assert builder.keys == builder.values == sum(len(points_of(file)) for file in files)


def test_few_series_stay_together(folder: Path) -> None:
    """A table that began with few series is never divided, whatever comes later: a key has its files in one order."""
    builder = ShardFileBuilder(folder, GROUP, generation=1, buffer_bytes=1)
    for some in (["a"], [f"h{number:05d}" for number in range(10_000)]):
        fields = {name: (INTEGER, [1] * len(some)) for name in "abcde"}
        builder.add("m", batch([START] * len(some), {"t": some}, fields))
    assert len(builder.finish()) == 2
    assert not builder.leading


def test_long_strings_end_a_block_early(folder: Path) -> None:
    """A block of strings is bounded by bytes as well, and a string of 5 MB is a block of its own."""
    texts = ["x" * 1_250_000, "y" * 5_000_000, "z" * 3_750_000, "", "short"]
    builder = ShardFileBuilder(folder, GROUP, generation=1)
    builder.add("m", batch([START + i for i in range(5)], {}, {"v": (STRING, texts)}))
    kind, blocks = read_file(builder.finish()[0])[b"m#!~#v"]
    assert kind == 3
    assert [len(block) for block in blocks] == [1, 1, 3]
    assert [value for block in blocks for _, value in block] == [text.encode() for text in texts]


def test_nothing_makes_no_file(folder: Path) -> None:
    """Rows without any field are no points, and without points there is no file."""
    builder = ShardFileBuilder(folder, GROUP, generation=1)
    builder.add("m", batch([START], {"t": ["x"]}, {"v": (FLOAT, [None])}))
    assert builder.finish() == ()


ONE = {"v": (FLOAT, [1.0])}


@pytest.mark.parametrize(
    ("measurement", "tags", "fields", "words"),
    [
        ("", {}, ONE, "empty name"),
        ("m#!~#", {}, ONE, "#!~#"),
        ("m#!~", {}, ONE, "#!~"),
        ("m\\", {}, ONE, "backslash"),
        ("m\\,x", {}, ONE, "backslash"),
        ("m", {"t": ["x\\"]}, ONE, "ends in a backslash"),
        ("m", {"t": ["x#!~#y"]}, ONE, "#!~#"),
        ("m", {"t": ["x#!~"]}, ONE, "#!~"),
        ("m", {"t#!~#": ["x"]}, ONE, "#!~#"),
        ("m", {"t": ["x" * 65_536]}, ONE, "bytes"),
        ("m", {"t": ["," * 32_800]}, ONE, "bytes"),
        ("m", {}, {"v": (FLOAT, [float("nan")])}, "NaN"),
        ("m", {}, {"v": (FLOAT, [float("-inf")])}, "infinity"),
        ("m", {}, {"v": (InfluxType.UNSIGNED, [1])}, "unsigned"),
        ("m", {}, {"": (FLOAT, [1.0])}, "empty name"),
    ],
)
def test_what_a_shard_cannot_hold_is_refused_by_name(
    folder: Path, measurement: str, tags: dict, fields: dict, words: str
) -> None:
    """Names and values that a server would take and then serve wrongly or not at all end in an error, and no file."""
    builder = ShardFileBuilder(folder, GROUP, generation=1)
    with pytest.raises(UnrepresentableError, match=words):
        builder.add(measurement, batch([START], tags, fields))
    assert builder.finish() == ()


@pytest.mark.parametrize("moment", [START - 1, GROUP.end])
def test_points_outside_of_the_group_are_refused(folder: Path, moment: int) -> None:
    """A point that the server would store and never find is an error."""
    builder = ShardFileBuilder(folder, GROUP, generation=1)
    with pytest.raises(TargetError, match="outside of the shard group"):
        builder.add("m", batch([START, moment], {}, {"v": (FLOAT, [1.0, 2.0])}))


def test_a_field_with_two_types_is_refused_also_after_a_file_was_finished(folder: Path) -> None:
    """The whole group is one shard, so that a type counts for all of its files."""
    builder = ShardFileBuilder(folder, GROUP, generation=1, buffer_bytes=1)
    builder.add("m", batch([START], {}, ONE))
    with pytest.raises(UnrepresentableError, match="float and string"):
        builder.add("m", batch([START + 1], {}, {"v": (STRING, ["1"])}))


def test_the_servers_own_tool_calls_the_files_healthy(folder: Path) -> None:
    """influx_inspect verify reads every block of a file with every type and encoding."""
    tool = sorted(CACHE.glob("influx_inspect-1.*"))
    if not tool:
        lacks("influx_inspect-1.* (the tool of a newer 1.x)")
    builder = ShardFileBuilder(folder, GROUP, generation=2)
    for item in every_encoding(list(VALUES), [1, 2, 999, 1001, 2500]):
        builder.add("m x", item)
    (file,) = builder.finish()
    answer = subprocess.run([tool[-1], "verify", "-dir", folder], capture_output=True, text=True, check=True)
    assert f"{file.name}: healthy" in answer.stdout
    assert "Broken Blocks: 0 /" in answer.stdout


def test_after_a_file_failed_nothing_more_is_given(folder: Path) -> None:
    """A builder whose file could not be written never returns files without those points."""
    builder = ShardFileBuilder(folder / "absent", GROUP, generation=1)
    builder.add("m", batch([START], {}, ONE))
    with pytest.raises(FileNotFoundError):
        builder.finish()
    (folder / "absent").mkdir()
    with pytest.raises(TargetError, match="Build the group anew"):
        builder.finish()


def test_exercise_compiles_all_that_a_restore_uses(folder: Path) -> None:
    """After exercise no kernel is compiled again, whatever the points are."""
    exercise(folder, "000000001-000000001.tsm", 1)
    kernels = (encode_series.encode_series, encode_series.put_pool, encode_series.series_order)
    before = [len(kernel.signatures) for kernel in kernels]
    for number, kinds in enumerate(([FLOAT], [STRING], list(VALUES))):
        (folder / str(number)).mkdir()
        builder = ShardFileBuilder(folder / str(number), GROUP, generation=2)
        for item in every_encoding(kinds, [1, 5]):
            builder.add("m", item)
            builder.add("n", item.take(list(range(item.num_rows))[::-1]))
        builder.finish()
    assert [len(kernel.signatures) for kernel in kernels] == before
