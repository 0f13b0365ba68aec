"""
Databases with their policies and shard groups, as the backup port of 1.x takes and gives them: protobuf ``meta.Data``.

Written and read by hand, since it is a dozen fields of two wire types (source: ``services/meta/internal/meta.proto`` of
1.12.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from influxdb_backup.model import RetentionPolicy, Window, decode_name, encode_name

_VARINT, _BYTES = 0, 2
MAGIC = 0x59590101
"""what every reply about metadata begins with, in 8 bytes"""


def metadata(
    database: str, policies: Sequence[RetentionPolicy], groups: Mapping[str, Sequence[tuple[Window, int]]]
) -> bytes:
    """
    One database. ``groups``: by policy each group's window with the number that its one shard has in this message.

    Durations and times in ns; of the policies the first default one, or the first, is the database's default.
    """
    default = next((policy for policy in policies if policy.default), policies[0])
    encoded = b"".join(_field(3, _policy(policy, groups.get(policy.name, ()))) for policy in policies)
    info = _field(1, encode_name(database)) + _field(2, encode_name(default.name)) + encoded
    numbers = [number for listed in groups.values() for _, number in listed]
    last = max(numbers, default=0)
    head = b"".join(_number(field, 1) for field in (1, 2, 3))
    return head + _field(5, info) + _number(7, 1) + _number(8, last) + _number(9, last)


def _policy(policy: RetentionPolicy, groups: Sequence[tuple[Window, int]]) -> bytes:
    encoded = _field(1, encode_name(policy.name)) + _number(2, policy.duration) + _number(3, policy.shard_duration)
    encoded += _number(4, policy.replication)
    for group, number in groups:
        shard = _field(5, _number(1, number))
        times = _number(2, group.start) + _number(3, group.end)
        encoded += _field(5, _number(1, number) + times + _number(4, 0) + shard)
    return encoded


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def described_shards(reply: bytes) -> dict[str, dict[tuple[str, int], int]]:
    """
    By database, and in it by policy and number of each shard, the first instant (ns) of its group.

    From the metadata of a server; also of groups that retention has dropped. ``reply`` holds secrets besides. Raises
    ValueError for another form.
    """
    size = int.from_bytes(reply[8:16], "big")
    if int.from_bytes(reply[:8], "big") != MAGIC:
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
