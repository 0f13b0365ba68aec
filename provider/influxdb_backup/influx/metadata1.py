"""
Databases with their policies and shard groups, as the backup port of 1.x gives them: protobuf ``meta.Data``.

Read by hand, since it is a dozen fields of two wire types (source: ``services/meta/internal/meta.proto`` of
1.12.4).
"""

from __future__ import annotations

from collections.abc import Iterator

from influxdb_backup.model import decode_name

_VARINT, _BYTES = 0, 2
_MAGIC = 0x59590101
"""what every reply about metadata begins with, in 8 bytes"""


def described_shards(reply: bytes) -> dict[str, dict[tuple[str, int], int]]:
    """
    By database, and in it by policy and number of each shard, the first instant (ns) of its group.

    From the metadata of a server; also of groups that retention has dropped. ``reply`` holds secrets besides. Raises
    ValueError for another form.
    """
    size = int.from_bytes(reply[8:16], "big")
    if int.from_bytes(reply[:8], "big") != _MAGIC:
        raise ValueError("no metadata of InfluxDB 1.x")
    if size > len(reply) - 16:
        raise ValueError("its metadata ends early")
    return {_name(info): _shards_of(info) for info in _messages(reply[16 : 16 + size], 5)}


def _shards_of(info: bytes) -> dict[tuple[str, int], int]:
    found = {}
    for policy in _messages(info, 3):
        for group in _messages(policy, 5):
            start = next(_numbers(group, 2), 0)
            for shard in _messages(group, 5):
                found[_name(policy), next(_numbers(shard, 1), 0)] = start - (start >> 63 << 64)
    return found


def _name(message: bytes) -> str:
    return decode_name(next(_messages(message, 1), b""))


def _messages(message: bytes, wanted: int) -> Iterator[bytes]:
    return (value for field, value in _fields(message) if field == wanted and isinstance(value, bytes))


def _numbers(message: bytes, wanted: int) -> Iterator[int]:
    return (value for field, value in _fields(message) if field == wanted and isinstance(value, int))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        key, at = _get_varint(message, at)
        value, at = _get_varint(message, at)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _BYTES and value <= len(message) - at:
            yield key >> 3, message[at : at + value]
            at += value
        else:
            raise ValueError("no field of meta.Data")


def _get_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
    raise ValueError("no number of meta.Data")
