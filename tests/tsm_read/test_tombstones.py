"""Deleted points stay deleted, whatever version of tombstone says so; a damaged tombstone is an error, never a guess."""

from __future__ import annotations

import gzip
import struct
import time
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influxdb_backup.columns import arrow_schema
from influxdb_backup.influx import shard_cells
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.shard_batches import ShardFile, ShardPoints
from influxdb_backup.influx.shard_files import ShardFileBuilder
from influxdb_backup.influx.tsm import tombstones
from influxdb_backup.influx.tsm.index import CorruptShardError, read_index
from influxdb_backup.influx.tsm.tombstones import read_tombstones
from influxdb_backup.model import Column, InfluxType, Role
from tests.influx_read.support import rows_of
from tests.tsm_write.tables import GROUP, START, batch

NAME = "000000001-000000001.tsm"
EVER = (-(2**63), 2**63 - 1)
Entry = tuple[bytes, int, int]
KEYS = [b"m,t=a#!~#i", b"m,t=a#!~#s", b"m,t=b#!~#i", b"m,t=b#!~#s"]
POINTS = 20


def entry(key: bytes, low: int, high: int) -> bytes:
    """One deletion as versions 2 to 4 have it."""
    return struct.pack(">I", len(key)) + key + struct.pack(">qq", low, high)


def tombstone(version: int, deletions: Sequence[Sequence[Entry]]) -> bytes:
    """A file of the version after these delete statements; version 1 knows no times."""
    if version == 1:
        return b"\n".join(key for part in deletions for key, _, _ in part)
    parts = [b"".join(entry(*item) for item in part) for part in deletions]
    head = struct.pack(">I", 0x1500 + version)
    if version == 4:
        return head + b"".join(gzip.compress(part, mtime=0) for part in parts)
    return head + (b"".join(parts) if version == 2 else gzip.compress(b"".join(parts), mtime=0))


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Two series with two fields of twenty points."""
    builder = ShardFileBuilder(tmp_path_factory.mktemp("shard"), GROUP, generation=1)
    for host in "ab":
        times = [START + 10 * position for position in range(POINTS)]
        fields = {
            "i": (InfluxType.INTEGER, list(range(POINTS))),
            "s": (InfluxType.STRING, [str(position) for position in range(POINTS)]),
        }
        builder.add("m", batch(times, {"t": [host] * POINTS}, fields))
    (path,) = builder.finish()
    return np.frombuffer(path.read_bytes(), np.uint8)


def remaining(shard: np.ndarray, deleted: bytes) -> set[tuple[bytes, int]]:
    """Keys and times of the points that are read."""
    found = set()
    for rows in ShardPoints([ShardFile(NAME, shard, deleted)]).batches("m", GROUP, ReadOptions()):
        for row in rows_of(rows):
            for field in "is":
                if row.get(field) is not None:
                    found.add((f"m,t={row['@t']}#!~#{field}".encode(), row["time"]))
    return found


RANGES = st.tuples(
    st.sampled_from([*KEYS, b"m,t=c#!~#i", b"m#!~#i", b"", b"z" * 300]),
    st.integers(START - 15, START + 10 * POINTS + 15) | st.sampled_from(EVER),
    st.integers(START - 15, START + 10 * POINTS + 15) | st.sampled_from(EVER),
)


@settings(max_examples=150, deadline=None)
@given(version=st.sampled_from([2, 3, 4]), deletions=st.lists(st.lists(RANGES, max_size=8), max_size=5))
def test_ranges_are_deleted_to_both_ends(shard: np.ndarray, version: int, deletions: list[list[Entry]]) -> None:
    """Ranges in any order, overlapping, backwards, of keys that are not there: exactly the points in one are gone."""
    everything = {(key, START + 10 * position) for key in KEYS for position in range(POINTS)}
    entries = [item for part in deletions for item in part]
    gone = {
        (key, moment)
        for key, moment in everything
        for other, low, high in entries
        if other == key and low <= moment <= high
    }
    assert remaining(shard, tombstone(version, deletions)) == everything - gone


@pytest.mark.parametrize("text", [b"%s", b"%s\n", b"\n%s\r\n\n", b"other#!~#x\n%s\nm,t=a#!~#ii"])
def test_version_1_deletes_whole_keys(shard: np.ndarray, text: bytes) -> None:
    """A line for each key, with or without an end, as servers before 0.13 wrote them."""
    found = {key for key, _ in remaining(shard, text % KEYS[2])}
    assert found == set(KEYS) - {KEYS[2]}


@pytest.mark.parametrize("deleted", [b"", *(tombstone(version, []) for version in (2, 3, 4))], ids=["nothing", 2, 3, 4])
def test_an_empty_tombstone_deletes_nothing(shard: np.ndarray, deleted: bytes) -> None:
    """Also one of no bytes, which an old error of the server left behind."""
    assert len(remaining(shard, deleted)) == len(KEYS) * POINTS


def test_entries_on_both_sides_of_a_piece_are_read(shard: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tombstones are read in pieces of bounded size, and entries need not end where those do."""
    monkeypatch.setattr(tombstones, "_PIECE", 7)
    monkeypatch.setattr(tombstones, "_COMPRESSED_PIECE", 3)
    deletions = [[(KEYS[0], START + 10 * n, START + 10 * n + 5) for n in range(9)], [(KEYS[3], *EVER)]]
    for version in (2, 3, 4):
        assert len(remaining(shard, tombstone(version, deletions))) == 3 * POINTS - 9
    assert {key for key, _ in remaining(shard, tombstone(1, deletions))} == set(KEYS[1:3])


SOUND = tombstone(2, [[(KEYS[0], 1, 2)]])
DAMAGED = {
    "cut entry": (SOUND[:-1], "at byte 4"),
    "cut length": (SOUND + b"\0\0", f"at byte {len(SOUND)}"),
    "key longer than keys are": (SOUND + b"\x80\0\0\5" + SOUND[8:], "2147483653 bytes"),
    "unknown version": (b"\0\0\x15\5" + SOUND[4:], "version"),
    "no gzip": (b"\0\0\x15\3" + SOUND[4:], "compressed"),
    "cut gzip": (tombstone(3, [[(KEYS[0], 1, 2)]])[:-5], "end too soon"),
    "flipped gzip": (bytearray(tombstone(4, [[(KEYS[0], 1, 2)]])), "compressed"),
    "second member cut": (tombstone(4, [[(KEYS[0], 1, 2)], [(KEYS[1], 1, 2)]])[:-9], "end too soon"),
    "words after gzip": (tombstone(4, [[(KEYS[0], 1, 2)]]) + b"disk full", "compressed"),
    "cut entry in gzip": (b"\0\0\x15\4" + gzip.compress(SOUND[4:-1]), "byte 0 of its plain entries"),
    "entry over two members": (b"\0\0\x15\4" + gzip.compress(SOUND[4:9]) + gzip.compress(SOUND[9:]), "plain entries"),
    "line that is no key": (b"m,t=a#!~#i\nsomething else\n", "at byte 11"),
    "line without an end": (b"m,t=a#!~#i\n" + b"x" * 200_000, "at byte 11"),
}
DAMAGED["flipped gzip"][0][-6] ^= 1  # type: ignore[operator]


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_tombstone_is_named(shard: np.ndarray, case: str) -> None:
    """Deletions that cannot be read would bring points back, so they are an error with file and place."""
    data, words = DAMAGED[case]
    with pytest.raises(CorruptShardError, match=words) as caught:
        ShardPoints([ShardFile(NAME, shard, bytes(data))])
    assert f"{NAME} (its tombstone)" in caught.value.message
    assert "at byte" in caught.value.message or "byte 0" in caught.value.message or "plain" in caught.value.message


def test_memory_is_bounded_by_what_is_deleted(shard: np.ndarray) -> None:
    """A hundred million bytes of repeated entries in a small file take no more memory than the ranges that they make."""
    one = b"".join(entry(KEYS[n % 4], START + n, START + n) for n in range(20_000))
    data = b"\0\0\x15\4" + gzip.compress(one * 170, 1)
    index = read_index(NAME, shard)
    tracemalloc.start()
    found = read_tombstones("x", data, index)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None and len(found.low) == 10 * (POINTS - 1) + 1
    assert peak < 250 * 2**20


def test_too_many_ranges_are_refused(shard: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """More separate ranges than can be held are an error, not all of the memory."""
    monkeypatch.setattr(tombstones, "MOST_RANGES", 10)
    entries = [(KEYS[0], START + 3 * n, START + 3 * n) for n in range(11)]
    with pytest.raises(CorruptShardError, match="separate ranges"):
        ShardPoints([ShardFile(NAME, shard, tombstone(4, [entries]))])


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, list[bytes]]:
    """A file of a million series of one point, and its keys."""
    count = 1_000_000
    hosts = [f"{n:07d}" for n in range(count)]
    columns = (
        Column(role=Role.TAG, name="t", type=InfluxType.TAG),
        Column(role=Role.FIELD, name="v", type=InfluxType.INTEGER),
    )
    tags = pa.DictionaryArray.from_arrays(pa.array(np.arange(count, dtype=np.int32)), pa.array(hosts))
    arrays = [pa.array(np.full(count, START)).cast(pa.timestamp("ns", "UTC")), tags, pa.array(np.arange(count))]
    builder = ShardFileBuilder(tmp_path_factory.mktemp("million"), GROUP, generation=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_cells, "_WORTH_A_THREAD", 2**62)  # or there are two files
        builder.add("m", pa.record_batch(arrays, schema=arrow_schema(columns)))
        (path,) = builder.finish()
    return np.frombuffer(path.read_bytes(), np.uint8), [f"m,t={host}#!~#v".encode() for host in hosts]


def test_a_million_keys_and_entries(million: tuple[np.ndarray, list[bytes]]) -> None:
    """Deleting almost all of a million series costs well under a second, and no Python step for each."""
    shard, keys = million
    deleted = tombstone(4, [[(key, *EVER) for number, key in enumerate(keys) if number % 1000]])
    index = read_index(NAME, shard)
    read_tombstones("x", tombstone(4, [[(keys[0], *EVER)]]), index)
    tracemalloc.start()
    read_tombstones("x", deleted, index)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20
    started = time.process_time()
    found = read_tombstones("x", deleted, index)
    assert time.process_time() - started < 1
    assert found is not None and len(found.low) == len(keys) - 1000
    points = ShardPoints([ShardFile(NAME, shard, deleted)])
    assert sum(rows.num_rows for rows in points.batches("m", GROUP, ReadOptions())) == 1000


def test_deletions_in_any_order(million: tuple[np.ndarray, list[bytes]]) -> None:
    """Entries need not be in the order of keys, which is the servers' own."""
    shard, keys = million
    chosen = np.random.default_rng(1).permutation(len(keys))[:100_000].tolist()
    index = read_index(NAME, shard)
    started = time.process_time()
    found = read_tombstones("x", tombstone(3, [[(keys[number], *EVER) for number in chosen]]), index)
    assert time.process_time() - started < 3
    assert found is not None and np.flatnonzero(np.diff(found.first)).tolist() == sorted(chosen)
