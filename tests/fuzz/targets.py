"""
What must hold for any bytes: a value that the format's plain reading gives too, or an error that names file and place.

With NUMBA_DISABLE_JIT=1 the loops are plain Python, and every place that they touch is checked, negative ones too.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.shard_batches import ShardFile, ShardPoints
from influxdb_backup.influx.tar import TarError, members
from influxdb_backup.influx.tsm import decode_numbers, decode_snappy, decode_words, index
from influxdb_backup.influx.tsm.index import CorruptShardError
from influxdb_backup.influx.tsm.tombstones import read_tombstones
from influxdb_backup.model import MAX_END, MIN_TIME, Window
from tests.tsm_write import reference

NAME = "000000001-000000001.tsm"
EVER = Window(start=MIN_TIME, end=MAX_END)
ROOM, GUARD = 1 << 14, 64
CANARY = 0xA5A5A5A5A5A5A5A5
INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT") == "1"


class Guarded(np.ndarray):
    """An array whose elements are only found where they are: no place counts from the end."""

    def __getitem__(self, place):
        if isinstance(place, (int, np.integer)) and place < 0:
            raise IndexError(f"negative place {place}")
        return super().__getitem__(place)

    def __setitem__(self, place, value) -> None:
        if isinstance(place, (int, np.integer)) and place < 0:
            raise IndexError(f"negative place {place}")
        super().__setitem__(place, value)


def _bytes(data: bytes) -> np.ndarray:
    array = np.frombuffer(data, np.uint8)
    return array.view(Guarded) if INTERPRETED else array


def _room(size: int, kind: type) -> np.ndarray:
    """Space with a margin on both sides that nothing may write to."""
    array = np.full(size + 2 * GUARD, CANARY & 0xFF if kind is np.uint8 else CANARY, kind)
    return array.view(Guarded) if INTERPRETED else array


def _untouched(room: np.ndarray, until: int) -> None:
    value = room.dtype.type(CANARY & 0xFF if room.dtype == np.uint8 else CANARY)
    assert (np.asarray(room)[:GUARD] == value).all(), "written before its place"
    assert (np.asarray(room)[until:] == value).all(), "written behind its place"


def _surrounded(data: bytes) -> tuple[np.ndarray, int, int]:
    """A section between other bytes, as it stands in a file."""
    return _bytes(b"\xff" * 9 + data + b"\xff" * 9), 9, 9 + len(data)


def _numbers(kernel: Callable[..., int], plain: Callable[[bytes], list[int]], data: bytes, limit: int) -> None:
    array, at, stop = _surrounded(data)
    out = _room(ROOM, np.uint64)
    count = kernel(array, at, stop, out, GUARD, GUARD + limit)
    _untouched(out, GUARD + limit)
    assert -1 <= count <= limit
    if count >= 0:
        assert np.asarray(out[GUARD : GUARD + count]).tolist() == [value % 2**64 for value in plain(data)]


def check_times(data: bytes) -> None:
    """Times have the values of the plain reading, or are refused."""
    array, at, stop = _surrounded(data)
    count = decode_numbers.count_times(array, at, stop)
    assert -1 <= count <= 1 << 20
    if count <= ROOM:
        _numbers(decode_numbers.get_times, reference._times, data, max(count, 0))


def check_integers(data: bytes) -> None:
    """Integers have the values of the plain reading, or are refused."""
    _numbers(decode_numbers.get_integers, reference._integers, data, ROOM)
    _numbers(decode_numbers.get_integers, reference._integers, data, 3)


def check_floats(data: bytes) -> None:
    """Floats have the values of the plain reading, or are refused."""
    _numbers(decode_numbers.get_floats, reference._floats, data, ROOM)
    _numbers(decode_numbers.get_floats, reference._floats, data, 3)


def check_booleans(data: bytes) -> None:
    """Booleans have the values of the plain reading, or are refused."""
    _numbers(decode_numbers.get_booleans, lambda raw: [int(value) for value in reference._values(2, raw)], data, ROOM)


def check_snappy(data: bytes) -> None:
    """What Arrow's own snappy takes gives the same bytes; the rest is refused."""
    array, at, stop = _surrounded(data)
    size = decode_snappy.plain_size(array, at, stop)
    assert -1 <= size <= 64 * len(data)
    if size > ROOM:
        return
    out = _room(ROOM, np.uint8)
    end = decode_snappy.decompress(array, at, stop, out, GUARD, GUARD + max(size, 0))
    _untouched(out, GUARD + max(size, 0))
    try:
        plain = pa.decompress(data, max(size, 0), "snappy").to_pybytes() if size >= 0 else None
    except (OSError, pa.ArrowInvalid):
        plain = None
    assert (end >= 0) == (plain is not None), f"{end}, {plain!r}"
    if plain is not None:
        assert np.asarray(out[GUARD:end]).tobytes() == plain


def check_strings(data: bytes) -> None:
    """Strings have the values of the plain reading, or are refused."""
    check_snappy(data[1:])
    array = _bytes(data)
    size = decode_snappy.plain_size(array, 1, len(data)) if data else -1
    if not 0 <= size <= ROOM:
        return
    texts, starts = _room(ROOM, np.uint8), _room(ROOM, np.uint64)
    end = decode_snappy.decompress(array, 1, len(data), texts, 0, size)
    if end < 0:
        return
    count = decode_snappy.split_texts(texts, 0, end, starts.view(np.int64), GUARD, GUARD + size)
    _untouched(starts, GUARD + size)
    if count >= 0:
        plain = reference._values(3, data)
        assert count == len(plain)
        for start, text in zip(np.asarray(starts[GUARD : GUARD + count]).tolist(), plain, strict=True):
            length, place = reference._uvarint(np.asarray(texts).tobytes(), start)
            assert np.asarray(texts[place : place + length]).tobytes() == text


def named(error: CorruptShardError | IncompleteReadError) -> None:
    """The error names the file, and the series or a place."""
    assert NAME in error.message
    assert "series" in error.message or "byte" in error.message or "ranges" in error.message, error.message


def check_index(data: bytes) -> None:
    """An index is whole and in order, or refused."""
    try:
        found = index.read_index(NAME, _bytes(data))
    except CorruptShardError as error:
        named(error)
        return
    assert (np.diff(found.block_at) > 0).all()
    assert (found.block_at + found.block_size <= len(data)).all()
    keys = [found.key(number) for number in range(len(found.kinds))]
    assert keys == sorted(set(keys))


def repaired(data: bytes) -> bytes:
    """
    The file with the checksums that its blocks should have, as far as its index can be followed.

    Every other file also gets the bounds of its blocks' times into its index, so that their values are decoded.
    """
    out = bytearray(data)
    times_too = zlib.crc32(data) & 1
    stop = len(data) - 8
    at = int.from_bytes(data[-8:], "big")
    while 5 <= at < stop - 3:
        at += 2 + int.from_bytes(data[at : at + 2], "big")
        count = int.from_bytes(data[at + 1 : at + 3], "big")
        for entry in range(at + 3, min(at + 3 + 28 * count, stop - 27), 28):
            place, size = struct.unpack(">qI", data[entry + 16 : entry + 28])
            if 5 <= place < place + size <= stop and size > 4:
                block = bytes(out[place + 4 : place + size])
                out[place : place + 4] = struct.pack(">I", zlib.crc32(block))
                bounds = _bounds(block) if times_too else None
                if bounds:
                    out[entry : entry + 16] = struct.pack(">qq", *bounds)
        at += 3 + 28 * count
    return bytes(out)


def _bounds(block: bytes) -> tuple[int, int] | None:
    """First and last time of a block, when its times can be read and are some thousands at most."""
    array = _bytes(block)
    begin, length = decode_words.get_uvarint(array, 1, len(block))
    if begin < 0 or length > len(block) - begin:
        return None
    stop = begin + int(length)
    count = decode_numbers.count_times(array, begin, stop)
    if not 0 < count <= ROOM:
        return None
    out = np.zeros(count, np.uint64)
    if decode_numbers.get_times(array, begin, stop, out, 0, count) != count:
        return None
    times = out.view(np.int64)
    return int(times[0]), int(times[-1])


def check_file(data: bytes, grave: bytes | None = None) -> bool:
    """A file whose checksums hold gives batches that Arrow calls valid, within the index's times, or an error."""
    try:
        whole = _bytes(repaired(data))
        points = ShardPoints([ShardFile(NAME, whole, grave)])
        own = index.read_index(NAME, whole)
        for measurement in points.tables:
            for batch in points.batches(measurement, EVER, ReadOptions()):
                batch.validate(full=True)
                times = batch.column(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
                assert own.block_min.min() <= times.min() <= times.max() <= own.block_max.max()
    except (CorruptShardError, IncompleteReadError) as error:
        named(error)
        return False
    return True


@cache
def _held() -> index.TsmIndex:
    path = Path(os.environ.get("FUZZ_SEEDS", "")) / "index" / "seed-0"
    if path.exists():
        data = path.read_bytes()
    else:
        from tests.fuzz.seeds import built_file

        data = built_file((3,))
    return index.read_index(NAME, _bytes(data))


def check_tombstone(data: bytes) -> None:
    """Ranges lie within the times of their keys, ascending and apart, or the tombstone is refused."""
    found = _ranges(data)
    for version in (3, 4):
        held = _ranges(struct.pack(">I", 0x1500 + version) + gzip.compress(data[4:], 0))
        if data[:4] == b"\0\0\x15\2":
            assert (held is None) == (found is None), "compressed entries are read as plain ones are"


def _ranges(data: bytes) -> tuple[object, ...] | None:
    held = _held()
    try:
        found = read_tombstones(f"{NAME} (its tombstone)", data, held)
    except CorruptShardError as error:
        named(error)
        return None
    if found is None:
        return ()
    assert len(found.first) == len(held.kinds) + 1
    assert found.first[-1] == len(found.low) == len(found.high)
    keys = np.repeat(np.arange(len(held.kinds)), np.diff(found.first))
    first = held.first_block[keys]
    assert (found.low <= found.high).all()
    assert (held.block_min[first] <= found.low).all()
    same = keys[1:] == keys[:-1]
    assert (found.low[1:][same] > found.high[:-1][same]).all()
    return tuple(found.low.tolist())


def check_tar(data: bytes) -> None:
    """Entries follow each other within the archive, or it is refused."""
    end = 0
    try:
        for member in members(io.BytesIO(data), len(data)):
            assert end < member.offset <= member.offset + member.size <= member.end <= len(data)
            end = member.end
    except TarError:
        return


TARGETS: dict[str, Callable[[bytes], object]] = {
    "index": check_index,
    "file": check_file,
    "times": check_times,
    "floats": check_floats,
    "integers": check_integers,
    "booleans": check_booleans,
    "strings": check_strings,
    "snappy": check_snappy,
    "tombstone": check_tombstone,
    "tar": check_tar,
}
