"""A shard's own files give the points that queries of the server give, to the bit, or an error that names the place."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influxdb_backup.fingerprint import TableFingerprint, fingerprint_batches
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.shard_batches import ShardFile, ShardPoints
from influxdb_backup.influx.shard_files import ShardFileBuilder
from influxdb_backup.influx.tsm.index import CorruptShardError, read_index
from influxdb_backup.model import InfluxType, Window
from tests.influx_read.support import opened, rows_of
from tests.servers import (
    DEBIANS,
    NEWER,
    TWO,
    RunningServer,
    daemon,
    start_influxdb1,
    start_influxdb2,
)
from tests.tsm_write.tables import DAY, GROUP, START, batch, every_encoding

OPTIONS = ReadOptions()
COLD = '  cache-snapshot-write-cold-duration = "1s"\n  compact-full-write-cold-duration = "100h"\n'


def opened_files(paths: Sequence[Path]) -> ShardPoints:
    """The points of these files and of the tombstones beside them."""
    files = []
    for path in paths:
        grave = path.with_suffix(".tombstone")
        data = np.frombuffer(path.read_bytes(), np.uint8)
        files.append(ShardFile(path.name, data, grave.read_bytes() if grave.exists() else None))
    return ShardPoints(files)


@pytest.fixture(params=[DEBIANS, NEWER, TWO])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningServer]:
    """A server that writes its cache to files at once and leaves the files as they are."""
    binary = daemon(request.param)
    if request.param == TWO:
        with start_influxdb2(tmp_path / "server", binary, "--storage-cache-snapshot-write-cold-duration=1s") as running:
            yield running
    else:
        with start_influxdb1(tmp_path / "server", binary, data_options=COLD) as running:
            yield running


def settled(running: RunningServer, folder: Path) -> dict[Path, list[Path]]:
    """The files of each shard, once nothing is left in a write-ahead log."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        logs = [path for path in folder.rglob("*.wal") if path.stat().st_size]
        files = list(folder.rglob("*.tsm"))
        if files and not logs:
            shards: dict[Path, list[Path]] = {}
            for path in files:
                shards.setdefault(path.parent, []).append(path)
            return shards
        time.sleep(0.2)
    raise AssertionError(f"the server keeps {logs}")


def hostile(generation: int) -> list[str]:
    """Names, values and times that are easily got wrong."""
    lines = [
        f'plain,host=a f={n / 7},i={n - 500}i,b={"true" if n % 3 else "false"},s="text {n}" {START + n * 10**9}'
        for n in range(1500)
    ]
    lines += [
        rf"we\ ird\,name,ta\ g\=x=va\,l\=ue\ é field\ key\,x=1 {START}",
        f'plain,host=b s="quote\\" back\\\\ newline\nend" {START + 1}',
        f"plain,host=c f=-0.0,i=-9223372036854775808i {START + 2}",
        f"plain,host=c f=5e-324,i=9223372036854775807i {START + 3}",
        f"plain f=1.7976931348623157e308 {START + 4}",
        f"plain,other=tag,host=d new=1i {START + DAY - 1}",
        f"m#,a=b f=1 {START}",
        f"m$x f=2 {START}",
        f"same,host=x host=1 {START}",
        f'long s="{"é" * 30_000}" {START + 5}',
    ]
    lines += [f"sparse,n={n % 7} f{n % 5}={n} {START + n}" for n in range(300)]
    if generation == 2:
        lines += [f"unsigned v={2**64 - 1 - n}u {START + n}" for n in range(5)]
    return lines


def test_the_servers_files_hold_what_it_answers(server: RunningServer) -> None:
    """Hostile names and values, overwritten and deleted points: each table has the fingerprint that a query has."""
    assert server.folder is not None
    server.create_database("db")
    server.write("\n".join(hostile(server.generation)), "db")
    settled(server, server.folder)
    again = [f"plain,host=a f={-n}.5 {START + n * 10**9}" for n in range(100, 200)]
    server.write("\n".join(again), "db")
    settled(server, server.folder)
    if server.generation == 1:
        server.query(f"DELETE FROM plain WHERE time >= {START + 150 * 10**9} AND time < {START + 300 * 10**9}", db="db")
        server.query("DELETE FROM sparse WHERE n = '3'", db="db")
    shards = settled(server, server.folder)
    points = [opened_files(paths) for paths in shards.values()]
    with closing(opened(server)) as product:
        tables = product.schema("db", "autogen").tables
        assert len(tables) >= 7
        for schema in tables:
            asked, own = TableFingerprint(schema.table.measurement), TableFingerprint(schema.table.measurement)
            for piece in product.pieces("db", "autogen", GROUP):
                for rows in product.read("db", schema, piece, OPTIONS):
                    asked.add(rows)
            for shard in points:
                for rows in shard.batches(schema.table.measurement, GROUP, OPTIONS):
                    own.add(rows)
            assert asked.rows > 0
            assert (own.rows, own.counts, own.hexadecimal) == (asked.rows, asked.counts, asked.hexadecimal), (
                schema.table
            )


def test_every_encoding_is_read(tmp_path: Path) -> None:
    """Blocks of all types in all encodings, at the sizes where encodings change, give the columns they were made of."""
    kinds = [kind for kind in InfluxType if kind not in (InfluxType.TAG, InfluxType.TIMESTAMP)]
    batches = every_encoding(kinds, (1, 2, 3, 119, 121, 240, 241, 999, 1000, 1001, 2500))
    builder = ShardFileBuilder(tmp_path, GROUP, generation=2)
    for item in batches:
        builder.add("m x", item)
    points = opened_files(builder.finish())
    found = list(points.batches("m x", GROUP, OPTIONS))
    assert fingerprint_batches("m x", found).hexadecimal == fingerprint_batches("m x", batches).hexadecimal
    for rows in found:
        times = [(row["time"], tuple(sorted(k for k in row if k.startswith("@")))) for row in rows_of(rows)]
        assert len(times) == rows.num_rows <= OPTIONS.batch_rows


@pytest.mark.parametrize("turn", range(4))
def test_files_are_read_in_the_order_of_their_generations(tmp_path: Path, turn: int) -> None:
    """Whatever order they are given in, and also where a number has outgrown its nine digits."""
    names = ["000000002-000000003", "000000002-000000010", "999999999-000000001", "1000000000-000000001"]
    paths = []
    for number, name in enumerate(names):
        own = tmp_path / name
        own.mkdir()
        builder = ShardFileBuilder(own, GROUP, generation=1)
        times = [START + moment for moment in range(number, len(names))]
        builder.add("m", batch(times, {}, {"v": (InfluxType.INTEGER, [number] * len(times))}))
        (path,) = builder.finish()
        paths.append(path.rename(tmp_path / f"{name}.tsm"))
    given_order = [*paths[turn:], *paths[:turn]][::-1]
    (rows,) = opened_files(given_order).batches("m", GROUP, OPTIONS)
    assert [row["v"] for row in rows.to_pylist()] == [0, 1, 2, 3]


VALUES = {
    InfluxType.FLOAT: st.floats(allow_nan=False, allow_infinity=False),
    InfluxType.INTEGER: st.integers(-(2**63), 2**63 - 1),
    InfluxType.STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    InfluxType.BOOLEAN: st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.sampled_from([None, "a", "b c", "é,="]),
            *(st.none() | values for values in VALUES.values()),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 60),
    st.integers(0, 41),
    st.integers(0, 41),
)
def test_later_files_win_and_windows_are_exact(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[object, ...]], cut: int, first: int, last: int
) -> None:
    """Points of two files, some of them twice, within a window: the same as a dictionary that is written in order."""
    window = Window(start=START + min(first, last), end=START + max(first, last) + 1)
    expected: dict[tuple[object, ...], object] = {}
    paths = []
    folder = tmp_path_factory.mktemp("shard")
    for number, part in enumerate((rows[:cut], rows[cut:]), start=1):
        for moment, host, *values in part:
            for kind, value in zip(VALUES, values, strict=True):
                if value is not None and window.start <= START + moment < window.end:
                    expected[START + moment, host, kind.value] = value
        own = folder / str(number)
        own.mkdir()
        builder = ShardFileBuilder(own, GROUP, generation=1)
        columns = list(zip(*part, strict=True)) if part else []
        if columns:
            times, hosts, *values = columns
            fields = {kind.value: (kind, list(column)) for kind, column in zip(VALUES, values, strict=True)}
            builder.add("m", batch([START + int(moment) for moment in times], {"host": list(hosts)}, fields))
        for path in builder.finish():
            paths.append(path.rename(folder / f"{number:09d}-000000001.tsm"))
    found = {}
    for part in opened_files(paths).batches("m", window, ReadOptions(batch_rows=7)) if paths else ():
        assert part.num_rows <= 7
        for row in rows_of(part):
            for kind in VALUES:
                if kind.value in row:
                    found[row["time"], row.get("@host"), kind.value] = row[kind.value]
    assert {key: repr(value) for key, value in found.items()} == {key: repr(value) for key, value in expected.items()}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with every type."""
    folder = tmp_path_factory.mktemp("sound")
    builder = ShardFileBuilder(folder, GROUP, generation=2)
    kinds = [kind for kind in InfluxType if kind not in (InfluxType.TAG, InfluxType.TIMESTAMP)]
    for item in every_encoding(kinds, (3, 130)):
        builder.add("m", item)
    (path,) = builder.finish()
    return path.read_bytes()


def content(data: bytes) -> dict[str, str]:
    """The fingerprints of all tables of a file."""
    points = ShardPoints([ShardFile("000000001-000000001.tsm", np.frombuffer(data, np.uint8))])
    return {name: fingerprint_batches(name, points.batches(name, GROUP, OPTIONS)).hexadecimal for name in points.tables}


@pytest.mark.parametrize("seed", range(6))
def test_damage_is_found_or_harmless(sound: bytes, seed: int) -> None:
    """
    A flipped, cut or changed byte never changes a point: it is an error that names the file.

    But for the names in the index, of which the format has no checksum and the server no other copy.
    """
    right = content(sound)
    index = read_index("sound", np.frombuffer(sound, np.uint8))
    named = np.zeros(len(sound), bool)
    for at, size in zip(index.key_at, index.key_size, strict=True):
        named[at : at + size] = True
    chance = random.Random(seed)
    found = 0
    for _ in range(250):
        broken = bytearray(sound)
        place = chance.randrange(len(broken)) if chance.random() < 0.5 else chance.randrange(-2000, 0)
        way = chance.randrange(3)
        if way == 0:
            broken[place] ^= 1 << chance.randrange(8)
        elif way == 1:
            del broken[place:]
        else:
            broken[place] = chance.randrange(256)
        try:
            changed = content(bytes(broken))
        except CorruptShardError as error:
            assert "000000001-000000001.tsm" in error.message
            found += 1
            continue
        assert changed == right or (way != 1 and named[place])
    assert found > 100


def test_a_damaged_block_is_named(sound: bytes) -> None:
    """The error of a flipped bit in a block tells file, series and times, and what to do."""
    broken = bytearray(sound)
    broken[40] ^= 1
    with pytest.raises(CorruptShardError) as caught:
        content(bytes(broken))
    assert "000000001-000000001.tsm" in caught.value.message
    assert "series m" in caught.value.message
    assert "times" in caught.value.message
    assert "backup" in caught.value.hint


@pytest.mark.parametrize("rows", [5, 1000])
def test_damaged_blocks_are_told_from_sound_ones(tmp_path: Path, rows: int) -> None:
    """Of many blocks exactly those with a flipped bit are damaged, wherever in the block it is; short and long ones."""
    chance = np.random.default_rng(rows)
    builder = ShardFileBuilder(tmp_path, GROUP, generation=2)
    for number in range(40):
        values = chance.integers(0, 2**52, rows).astype(float).tolist()
        builder.add(
            "m", batch(range(START, START + rows), {"t": [str(number)] * rows}, {"v": (InfluxType.FLOAT, values)})
        )
    (path,) = builder.finish()
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    index = read_index("long", data)
    assert len(index.damaged) == 0
    assert (index.block_size.mean() > 1024) == (rows == 1000)
    broken = sorted(chance.choice(len(index.block_at), 9, replace=False).tolist())
    for number in broken:
        data[index.block_at[number] + chance.integers(0, index.block_size[number])] ^= 1 << chance.integers(0, 8)
    assert read_index("long", data).damaged.tolist() == broken
