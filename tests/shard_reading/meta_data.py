"""The metadata of a 1.x server, written as it writes them: protobuf ``meta.Data`` (services/meta/internal of 1.12.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from influxdb_backup.model import RetentionPolicy, Window, encode_name

_VARINT, _BYTES = 0, 2


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
