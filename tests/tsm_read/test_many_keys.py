"""Files with more keys than are read at once give the same points as those with few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from influxdb_backup.columns import TIME_TYPE, arrow_schema
from influxdb_backup.fingerprint import fingerprint_batches
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.shard_batches import ShardFile, ShardPoints
from influxdb_backup.influx.shard_files import ShardFileBuilder
from influxdb_backup.influx.tsm.index import MARK_KEYS, CorruptShardError, open_file, read_index
from influxdb_backup.model import Column, InfluxType, Role
from tests.tsm_write.tables import GROUP, START

SERIES = 60_000
OPTIONS = ReadOptions()


def rows(hosts: np.ndarray, tags: tuple[str, ...] = ("host",), **fields: np.ndarray) -> pa.RecordBatch:
    """A point of each host at the same time; further tags have the host's value in the last tenth of the hosts."""
    columns = [Column(role=Role.TAG, name=name, type=InfluxType.TAG) for name in tags]
    columns += [Column(role=Role.FIELD, name=name, type=InfluxType.FLOAT) for name in fields]
    texts = pa.array([f"h{number:07d}" for number in hosts])
    late = pa.array([f"h{number:07d}" if number >= SERIES * 9 // 10 else None for number in hosts])
    arrays = [pa.array(np.full(len(hosts), START)).cast(TIME_TYPE)]
    arrays += [(texts if name == "host" else late).dictionary_encode() for name in tags]
    arrays += [pa.array(values, mask=np.isnan(values)) for values in fields.values()]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(columns))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two files: all series, then every other one again with another field; small tables before, between and behind."""
    builder = ShardFileBuilder(tmp_path_factory.mktemp("many"), GROUP, generation=1)
    hosts = np.arange(SERIES)
    for name in ("a", "m", "m!", "m-", "z"):
        builder.add(name, rows(hosts[: 1000 if name == "m-" else 3], x=hosts[: 1000 if name == "m-" else 3] + 0.25))
    builder.add("m,n", rows(hosts, a=hosts + 0.0))
    first = builder.finish()
    odd = hosts[1::2]
    rare = np.where(odd > SERIES - 10, 1.0, np.nan)
    builder.add("m,n", rows(odd, ("host", "late"), a=odd + 0.5, b=odd + 0.0, rare=rare))
    return (*first, *builder.finish()[len(first) :])


def opened(paths: tuple[Path, ...], tombstone: bytes | None = None) -> ShardPoints:
    """The points; the tombstone is the first file's."""
    contents = [np.frombuffer(path.read_bytes(), np.uint8) for path in paths]
    graves = [tombstone, *[None] * len(paths)]
    return ShardPoints(
        [ShardFile(path.name, data, grave) for path, data, grave in zip(paths, contents, graves, strict=False)]
    )


def expected(deleted: int) -> str:
    """The fingerprint of what remains, when of each so many series the first file's point is deleted."""
    hosts = np.arange(SERIES)
    early, odd = SERIES * 9 // 10, hosts % 2 == 1
    plain = hosts[~(odd & (hosts < early)) & (hosts % deleted != 0)]
    again = hosts[odd]
    batches = [
        rows(plain, a=plain + 0.0),
        rows(again, ("host", "late"), a=again + 0.5, b=again + 0.0, rare=np.where(again > SERIES - 10, 1.0, np.nan)),
    ]
    return fingerprint_batches("m,n", batches).hexadecimal


@pytest.mark.parametrize("deleted", [SERIES, 1000])
def test_all_series_of_all_files_come_once(paths: tuple[Path, ...], deleted: int) -> None:
    """Later files win and deleted points are gone, wherever a series stands among the others; columns are alike."""
    lines = [rf"m\,n,host=h{number:07d}#!~#a" for number in range(0, SERIES, deleted)]
    points = opened(paths, "\n".join(lines).encode())
    batches = list(points.batches("m,n", GROUP, OPTIONS))
    assert len(batches) > 1
    assert {batch.schema.to_string() for batch in batches} == {batches[0].schema.to_string()}
    assert [column.name for column in points.tables["m,n"]] == ["host", "late", "a", "b", "rare"]
    assert fingerprint_batches("m,n", batches).hexadecimal == expected(deleted)


def test_small_tables_between_many_series_are_whole(paths: tuple[Path, ...]) -> None:
    """Each table has its own points and columns, also where its keys stand apart from each other."""
    points = opened(paths)
    assert set(points.tables) == {"a", "m", "m!", "m-", "m,n", "z"}
    for name, count in (("a", 3), ("m", 3), ("m!", 3), ("m-", 1000), ("z", 3)):
        found = [value for batch in points.batches(name, GROUP, OPTIONS) for value in batch.column("x").to_pylist()]
        assert sorted(found) == [number + 0.25 for number in range(count)]


def test_a_damaged_block_far_behind_is_named(paths: tuple[Path, ...]) -> None:
    """The error has the series and place of the one block that was changed, and its points are not read."""
    data = np.frombuffer(paths[0].read_bytes(), np.uint8).copy()
    index = read_index(paths[0].name, data)
    key = next(number for number in range(MARK_KEYS * 3, len(index.kinds)) if b"m\\,n" in index.key(number))
    block = int(index.first_block[key])
    data[index.block_at[block] + index.block_size[block] - 1] ^= 1
    points = ShardPoints([ShardFile(paths[0].name, data)])
    (damage,) = points.damages(None)
    assert index.key(key).decode().replace("\\", "") in damage.message.replace("\\", "")
    assert f"at byte {index.block_at[block]}" in damage.message
    with pytest.raises(CorruptShardError, match="checksum"):
        list(points.batches("m,n", GROUP, OPTIONS))


def test_keys_out_of_order_are_found_between_stretches(paths: tuple[Path, ...]) -> None:
    """The order of keys is also proved from the last key of one stretch to the first of the next."""
    data = np.frombuffer(paths[0].read_bytes(), np.uint8).copy()
    index = read_index(paths[0].name, data)
    first = next(number for number in range(MARK_KEYS, len(index.kinds), MARK_KEYS))
    at = int(index.key_at[first]) + index.key(first).index(b"=h") + 2
    data[at : at + 7] = ord("0")
    with pytest.raises(CorruptShardError, match="not in order"):
        open_file(paths[0].name, data)


def test_a_place_is_found_from_a_mark(paths: tuple[Path, ...]) -> None:
    """Looking for a key gives the first one that is not before it, with what comes before."""
    file = open_file(paths[0].name, np.frombuffer(paths[0].read_bytes(), np.uint8))
    whole = file.index(file.marks[0], file.marks[-1])
    for number in (0, 1, MARK_KEYS - 1, MARK_KEYS, MARK_KEYS + 1, 3 * MARK_KEYS + 5, file.keys - 1):
        mark = file.seek(whole.key(number))
        assert (mark.keys, mark.blocks) == (number, whole.first_block[number])
        assert mark.block_at == whole.block_at[mark.blocks]
        assert file.seek(whole.key(number) + b"!").keys == number + 1
    assert file.seek(b"") == file.marks[0]
