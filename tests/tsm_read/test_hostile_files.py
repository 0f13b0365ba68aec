"""Files that are made to be expensive, ambiguous or empty are refused, or read within bounded memory."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from influxdb_backup.fingerprint import fingerprint_batches
from influxdb_backup.influx import shard_stretches, shard_tables
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.shard_batches import ShardFile, ShardPoints
from influxdb_backup.influx.shard_files import ShardFileBuilder
from influxdb_backup.influx.tsm.index import CorruptShardError
from influxdb_backup.model import MAX_END, MIN_TIME, InfluxType, Window
from tests.influx_read.support import rows_of
from tests.tsm_write.tables import GROUP, every_encoding

NAME = "000000001-000000001.tsm"
EVER = Window(start=MIN_TIME, end=MAX_END)
Block = tuple[int, int, bytes]


def uvarint(value: int) -> bytes:
    """Seven bits in each byte, least significant first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def block(kind: int, times: bytes, values: bytes) -> bytes:
    """A block with its checksum."""
    content = bytes([kind]) + uvarint(len(times)) + times + values
    return struct.pack(">I", zlib.crc32(content)) + content


def steady(first: int, step: int, count: int) -> bytes:
    """Times with equal distances."""
    return b"\x20" + struct.pack(">q", first) + uvarint(step) + uvarint(count)


def constant(count: int) -> bytes:
    """Integers that are all 0."""
    return b"\x20" + bytes(8) + uvarint(0) + uvarint(count - 1)


def tsm(keys: Sequence[tuple[bytes, int, Sequence[Block]]]) -> np.ndarray:
    """A file of these keys with their types and blocks (first and last time, bytes)."""
    body, index = bytearray(b"\x16\xd1\x16\xd1\x01"), bytearray()
    for key, kind, blocks in keys:
        index += struct.pack(">H", len(key)) + key + struct.pack(">BH", kind, len(blocks))
        for low, high, content in blocks:
            index += struct.pack(">qqqI", low, high, len(body), len(content))
            body += content
    return np.frombuffer(bytes(body + index) + struct.pack(">Q", len(body)), np.uint8)


def read(data: np.ndarray) -> list[pa.RecordBatch]:
    """All batches of all measurements."""
    points = ShardPoints([ShardFile(NAME, data)])
    return [rows for name in points.tables for rows in points.batches(name, EVER, ReadOptions())]


ONE = block(1, steady(5, 1, 1), constant(1))


def of_one_point(*keys: bytes) -> np.ndarray:
    """A file of keys with one integer each."""
    return tsm([(key, 1, [(5, 5, ONE)]) for key in sorted(keys)])


def test_the_writer_of_these_tests_is_right() -> None:
    """A file of two keys and two blocks is read."""
    pair = [(0, 9, block(1, steady(0, 1, 10), constant(10))), (10, 10, block(1, steady(10, 1, 1), constant(1)))]
    (rows,) = read(tsm([(b"m,t=a#!~#i", 1, pair), (b"m,t=b#!~#i", 1, pair)]))
    assert rows.num_rows == 22


HUGE = 1 << 60
REFUSED = {
    "times without end": block(1, steady(0, 1, HUGE), constant(1)),
    "times that wrap": block(1, steady(0, 2**63, 5), constant(5)),
    "values without end": block(1, steady(0, 1, 1000), constant(HUGE)),
    "values that wrap around": block(1, steady(0, 1, 1000), b"\x20" + bytes(8) + uvarint(0) + uvarint(2**64 - 1)),
    "a varint without end": block(1, b"\x20" + bytes(8) + b"\xff" * 30, constant(1)),
    "booleans without end": block(2, steady(0, 1, 1000), b"\x10" + uvarint(HUGE) + b"\xff"),
    "text of a gigabyte": block(3, steady(0, 1, 1000), b"\x10" + uvarint(1 << 30) + bytes(99)),
    "text of more than it can hold": block(3, steady(0, 1, 1), b"\x10" + uvarint(64) + b"\xfe\1\0"),
    "a length of times beyond the block": struct.pack(
        ">I", zlib.crc32(b"\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\1" + bytes(9))
    )
    + b"\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\1"
    + bytes(9),
}


@pytest.mark.parametrize("case", REFUSED)
def test_claims_that_cannot_be_true_are_refused(case: str) -> None:
    """A count, size or length beyond what a block can hold: an error with file, series and place, before memory."""
    content = REFUSED[case]
    data = tsm([(b"m,t=a#!~#i", content[4], [(0, 999, content)])])
    tracemalloc.start()
    with pytest.raises(CorruptShardError, match=r"series m,t=a#!~#i, at byte 5") as caught:
        read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert NAME in caught.value.message
    assert peak < 8 * 2**20


def test_blocks_that_all_overlap_are_refused() -> None:
    """Forty bytes can say a million points, and thousands of such blocks at one time would take all memory."""
    wide = block(1, steady(0, 1, 1 << 20), constant(1 << 20))
    data = tsm([(b"m,t=a#!~#i", 1, [(0, (1 << 20) - 1, wide)] * 300)])
    tracemalloc.start()
    with pytest.raises(CorruptShardError, match="299 more overlap with 314,572,800 values"):
        read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_long_series_of_large_blocks_is_read_in_stretches() -> None:
    """Blocks of a million points, one after the other and of very different sizes, are decoded a few at a time."""
    size = 1 << 20
    blocks, at = [], 0
    for count in [1] * 50 + [size] * 12 + [3] * 50:
        blocks.append((at, at + count - 1, block(1, steady(at, 1, count), constant(count))))
        at += count
    points = ShardPoints([ShardFile(NAME, tsm([(b"m,t=a#!~#i", 1, blocks)]))])
    tracemalloc.start()
    rows = sum(part.num_rows for part in points.batches("m", EVER, ReadOptions()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == at
    assert peak < 120 * 2**20


def long_texts(first: int) -> Block:
    """Eight strings of a mebibyte each, from an instant on, in a block of some hundred kilobytes."""
    text = uvarint(1 << 20) + b"x" * (1 << 20)
    return first, first + 7, block(3, steady(first, 1, 8), b"\x10" + pa.compress(text * 8, "snappy").to_pybytes())


@pytest.mark.parametrize("series", [24, 1])
def test_long_strings_are_decoded_a_few_at_a_time(series: int) -> None:
    """Blocks of long strings, 192 MiB of many series or of one: memory is that of some blocks."""
    blocks = [long_texts(8 * number) for number in range(24)]
    each = 24 // series
    keys = [(b"m,t=%02d#!~#s" % n, 3, blocks[n * each : (n + 1) * each]) for n in range(series)]
    points = ShardPoints([ShardFile(NAME, tsm(keys))])
    tracemalloc.start()
    rows = sum(part.num_rows for part in points.batches("m", EVER, ReadOptions()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 24 * 8
    assert peak < 120 * 2**20


def test_strings_that_all_overlap_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one time that hold more text than one array can: an error before memory is taken for it."""
    monkeypatch.setattr(shard_tables, "MOST_TEXT", 20 << 20)
    with pytest.raises(CorruptShardError, match="2 more overlap with 24 values"):
        read(tsm([(b"m#!~#s", 3, [long_texts(0)] * 3)]))


def test_a_table_with_a_column_for_each_series_takes_memory_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four hundred series, each with a tag and a field of its own: batches are cut by rows times columns."""
    monkeypatch.setattr(shard_tables, "BATCH_CELLS", 40_000)
    data = of_one_point(*(f"m,t{number:04d}=x#!~#f{number:04d}".encode() for number in range(400)))
    tracemalloc.start()
    batches = read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(part.num_rows for part in batches) == 400
    assert max(part.num_rows for part in batches) <= 49
    assert peak < 40 * 2**20
    found = [{key for key in row if key != "time"} for part in batches for row in rows_of(part)]
    assert sorted(map(sorted, found)) == [[f"@t{number:04d}", f"f{number:04d}"] for number in range(400)]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ((b"a b,t=x#!~#f", rb"a\ b,t=y#!~#f"), "measurement is written in two ways"),
        ((b"m,a b=1#!~#f", rb"m,a\ b=2#!~#f"), "tag twice, or written in two ways"),
        ((b"m,t=1,t=2#!~#f",), "tag twice"),
        ((b"m,t#!~#f",), "tag without a value"),
        ((b"m,#!~#f",), "tag without a value"),
        ((b"m,t=1",), "no field"),
    ],
)
def test_keys_that_are_none_are_refused(keys: tuple[bytes, ...], words: str) -> None:
    """Two names that would be one column, or a key of another form, would lose points in silence."""
    with pytest.raises(CorruptShardError, match=words) as caught:
        read(of_one_point(*keys))
    assert "series" in caught.value.message
    assert "at byte" in caught.value.message


def test_the_error_names_the_file_that_has_the_key() -> None:
    """With several files it is not the first one that is damaged."""
    sound, bad = of_one_point(b"m,t=1#!~#f"), of_one_point(b"m,u#!~#f")
    with pytest.raises(CorruptShardError, match=r"000000002-000000001\.tsm"):
        _ = ShardPoints([ShardFile(NAME, sound), ShardFile("000000002-000000001.tsm", bad)]).tables


def test_a_footer_that_hides_all_blocks_is_found() -> None:
    """An index that begins where it ends has no key, and a file without keys is none that a server writes."""
    data = of_one_point(b"m,t=1#!~#f").tobytes()
    hidden = data[:-8] + struct.pack(">Q", len(data) - 8)
    with pytest.raises(CorruptShardError, match="behind its last block"):
        read(np.frombuffer(hidden, np.uint8))


@pytest.mark.parametrize(("values", "keys", "cells"), [(5, 3, 7), (100, 1, 60), (1, 10**6, 10**6), (10**6, 40, 50)])
def test_the_size_of_groups_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, values: int, keys: int, cells: int
) -> None:
    """Series cut at any point of time and row: the same rows in the same order."""
    builder = ShardFileBuilder(tmp_path_factory.mktemp("shard"), GROUP, generation=1)
    kinds = (InfluxType.FLOAT, InfluxType.STRING)
    batches = every_encoding(kinds, (1, 3, 40, 1201))
    for item in batches:
        builder.add("m", item)
    (path,) = builder.finish()
    data = np.frombuffer(path.read_bytes(), np.uint8)
    whole = read(data)
    monkeypatch.setattr(shard_stretches, "GROUP_VALUES", values)
    monkeypatch.setattr(shard_stretches, "GROUP_KEYS", keys)
    monkeypatch.setattr(shard_tables, "BATCH_CELLS", cells)
    cut = read(data)
    assert len(cut) > len(whole)
    assert fingerprint_batches("m", cut).hexadecimal == fingerprint_batches("m", batches).hexadecimal
    assert [row for part in cut for row in rows_of(part)] == [row for part in whole for row in rows_of(part)]


def test_a_block_of_another_type_than_its_key_is_refused_though_its_checksum_holds() -> None:
    """The second of three keys says that its integers are floats: the error names it."""
    keys = [(f"m,t={name}#!~#v".encode(), kind, [(5, 5, ONE)]) for name, kind in (("a", 1), ("b", 0), ("c", 1))]
    with pytest.raises(CorruptShardError, match=r"series m,t=b#!~#v.*a block has another type than its key"):
        read(tsm(keys))
