"""A slow, plain reading of TSM files, written from the format and not from the product's code."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pyarrow as pa

_COUNTS = (240, 120, 60, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1)
_WIDTHS = (0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 60)
_WORD = 2**64


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def _words(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 8}Q", data))


def _simple8b(data: bytes) -> list[int]:
    numbers = []
    for word in _words(data):
        count, width = _COUNTS[word >> 60], _WIDTHS[word >> 60]
        numbers += [word >> (i * width) & ((1 << width) - 1) for i in range(count)] if width else [1] * count
    return numbers


def _deltas(data: bytes, *, scaled: bool) -> list[int]:
    """The first word and the differences behind it, of a time or integer section."""
    scale = 10 ** (data[0] & 15) if scaled else 1
    if data[0] >> 4 == 0:
        return _words(data[1:])
    first = _words(data[1:9])
    if data[0] >> 4 == 1:
        return first + [number * scale for number in _simple8b(data[9:])]
    delta, at = _uvarint(data, 9)
    count, _ = _uvarint(data, at)
    return first + [delta * scale] * (count - 1 if scaled else count)


def _signed(value: int) -> int:
    return (value + 2**63) % _WORD - 2**63


def _times(data: bytes) -> list[int]:
    total, found = 0, []
    for delta in _deltas(data, scaled=True):
        total = (total + delta) % _WORD
        found.append(_signed(total))
    return found


def _integers(data: bytes) -> list[int]:
    total, found = 0, []
    for zigzag in _deltas(data, scaled=False):
        total = (total + ((zigzag >> 1) ^ -(zigzag & 1))) % _WORD
        found.append(total)
    return found


def _floats(data: bytes) -> list[int]:
    bits = "".join(f"{byte:08b}" for byte in data[1:])
    value, at, leading, trailing = int(bits[:64], 2), 64, 0, 0
    found = []
    while value != 0x7FF8000000000001:
        found.append(value)
        at += 1
        if bits[at - 1] == "0":
            continue
        at += 1
        if bits[at - 1] == "1":
            leading, size = int(bits[at : at + 5], 2), int(bits[at + 5 : at + 11], 2) or 64
            trailing = 64 - leading - size
            at += 11
        size = 64 - leading - trailing
        value ^= int(bits[at : at + size], 2) << trailing
        at += size
    return found


def _values(kind: int, data: bytes) -> list[object]:
    if kind == 0:
        return [struct.unpack(">d", struct.pack(">Q", value))[0] for value in _floats(data)]
    if kind == 1:
        return [_signed(value) for value in _integers(data)]
    if kind == 2:
        count, at = _uvarint(data, 1)
        return [bool(data[at + i // 8] & (128 >> (i % 8))) for i in range(count)]
    if kind == 4:
        return list(_integers(data))
    size, _ = _uvarint(data, 1)
    plain = pa.decompress(data[1:], size, "snappy").to_pybytes() if size else b""
    found, at = [], 0
    while at < size:
        length, at = _uvarint(plain, at)
        found.append(plain[at : at + length])
        at += length
    return list(found)


def read_file(path: Path) -> dict[bytes, tuple[int, list[list[tuple[int, object]]]]]:
    """Each key of a file with its type and its blocks; asserts checksums, sizes, bounds and the order of keys."""
    data = path.read_bytes()
    assert data[:5] == bytes.fromhex("16d116d101")
    (at,) = struct.unpack(">Q", data[-8:])
    end, expected, keys = len(data) - 8, 5, {}
    while at < end:
        (length,) = struct.unpack(">H", data[at : at + 2])
        key = data[at + 2 : at + 2 + length]
        kind, count = struct.unpack(">BH", data[at + 2 + length : at + 5 + length])
        at += 5 + length
        assert not keys or key > max(keys)
        blocks = []
        for _ in range(count):
            first, last, place, size = struct.unpack(">qqqI", data[at : at + 28])
            at += 28
            assert place == expected
            expected = place + size
            block = data[place + 4 : place + size]
            assert struct.unpack(">I", data[place : place + 4])[0] == zlib.crc32(block)
            assert block[0] == kind
            stamps, begin = _uvarint(block, 1)
            times = _times(block[begin : begin + stamps])
            values = _values(kind, block[begin + stamps :])
            if kind == 1 or kind == 4:
                values = values[: len(times)]
            assert (times[0], times[-1]) == (first, last)
            assert len(times) == len(values)
            blocks.append(list(zip(times, values, strict=True)))
        keys[key] = (kind, blocks)
    assert expected == struct.unpack(">Q", data[-8:])[0]
    return keys


def points_of(path: Path) -> dict[bytes, list[tuple[int, object]]]:
    """Each key's points, and that their times ascend without a repetition."""
    found = {}
    for key, (_, blocks) in read_file(path).items():
        points = [point for block in blocks for point in block]
        times = [time for time, _ in points]
        assert times == sorted(set(times))
        found[key] = points
    return found
