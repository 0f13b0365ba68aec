"""
The line protocols of InfluxDB 1.x and 2.x, and what their syntax can and cannot carry.

The escaping is the same in both; what differs is the unsigned suffix and the reserved names. All rules were
run on 1.6.7, 1.12.4 and 2.9.1. A backslash is never doubled except in string values: the servers take a
backslash that does not stand before a special character as itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from influxdb_backup.influx.influxql import INDEX_FIELDS
from influxdb_backup.influx.protocol import Conflict, Dialect, Unrepresentable, WriteOptions
from influxdb_backup.model import Column, InfluxType, Role, encode_name, is_utf8

DIALECT_1X = Dialect(
    name="1.x",
    unsigned=False,
    reserved_tag_keys=frozenset({"time"}),
    reserved_measurements=frozenset({"_series", "_fieldKeys", "_tagKeys"}),
    index_fields=INDEX_FIELDS,
)
DIALECT_2X = Dialect(
    name="2.x",
    unsigned=True,
    reserved_tag_keys=frozenset({"time", "_field", "_measurement", "\x00", "\udcff"}),
    reserved_measurements=DIALECT_1X.reserved_measurements,
    index_fields=INDEX_FIELDS,
)

_FIRST_WITH_STRING_LIMIT = (1, 9, 4)
_FIRST_WITH_ANY_NAMES = (1, 12)

MAX_KEY_BYTES = 65535
"""Bytes that measurement, tags, a separator of four and a field key may have together, escaped."""
KEY_SEPARATOR_BYTES = 4
MAX_INTEGER = 2**63 - 1

_MEASUREMENT_SPECIALS = re.compile(rb"([, ])")
_TAG_SPECIALS = re.compile(rb"([,= ])")
_FIELD_SPECIALS = re.compile(rb'([,= "])')
_GHOST = re.compile(rb'\\[, ="]')
_ODD_BACKSLASHES = re.compile(rb"(?<!\\)(?:\\\\)*\\[,= ]")
_STRIPPED = (b"\t", b"\x00")


def dialect_1x(version: str) -> Dialect:
    """
    The dialect of one 1.x version: up to 1.8 strings of any length are taken (run on 1.6.7 and 1.8.10: more than
    1 MiB).

    A measurement or field key that is not UTF-8 has 1.6.7 (Debian's) hide the whole shard from its next start on: its
    list of fields cannot be written any more. 1.12.4 has no such trouble; what lies between was not run. A version that
    is not plain numbers counts as a new one.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    numbers = tuple(int(part or 0) for part in found.groups()) if found else _FIRST_WITH_ANY_NAMES
    longest = DIALECT_1X.max_string_bytes if numbers >= _FIRST_WITH_STRING_LIMIT else None
    return replace(DIALECT_1X, max_string_bytes=longest, utf8_names=numbers < _FIRST_WITH_ANY_NAMES)


def escape_measurement(name: str) -> bytes:
    """A measurement as line protocol spells it."""
    return _MEASUREMENT_SPECIALS.sub(rb"\\\1", encode_name(name))


def escape_tag(name: str) -> bytes:
    """A tag key or tag value as line protocol spells it."""
    return _TAG_SPECIALS.sub(rb"\\\1", encode_name(name))


def escape_field_key(name: str) -> bytes:
    """A field key as line protocol spells it."""
    return _FIELD_SPECIALS.sub(rb"\\\1", encode_name(name))


def name_conflicts(
    measurement: str, columns: Sequence[Column], dialect: Dialect, options: WriteOptions
) -> list[Unrepresentable]:
    """What of a table's names and types a dialect cannot carry; values are not looked at."""
    found = [
        Unrepresentable(Conflict.MEASUREMENT, measurement, reason)
        for reason in _measurement_reasons(measurement, dialect)
    ]
    for column in columns:
        if column.role is Role.TAG:
            found.extend(
                Unrepresentable(Conflict.TAG_KEY, column.name, reason)
                for reason in _tag_key_reasons(column.name, dialect)
            )
        elif column.role is Role.FIELD:
            found.extend(
                Unrepresentable(Conflict.FIELD_KEY, column.name, reason)
                for reason in _field_key_reasons(column.name, dialect)
            )
            if column.type is InfluxType.UNSIGNED and not dialect.unsigned and not options.unsigned_as_integer:
                reason = (
                    f"InfluxDB {dialect.name} has no unsigned fields; --unsigned-as-integer writes them as integers"
                )
                found.append(Unrepresentable(Conflict.FIELD_TYPE, column.name, reason))
    return found


def _common_reasons(raw: bytes) -> list[str]:
    reasons = []
    if not raw:
        reasons.append("an empty name cannot be written")
    if b"\n" in raw:
        reasons.append("a name with a newline cannot be written")
    if raw.endswith(b"\\"):
        reasons.append("a name that ends in a backslash cannot be written")
    return reasons


def _measurement_reasons(name: str, dialect: Dialect) -> list[str]:
    raw = encode_name(name)
    reasons = _common_reasons(raw)
    if raw.startswith(b"#"):
        reasons.append("a line that starts with # is a comment: its point would be lost without a word")
    if raw.startswith(_STRIPPED):
        reasons.append("a tab or NUL at the start is stripped from the name")
    if _GHOST.search(raw):
        reasons.append('a backslash before a comma, space, = or " makes points that no query can read')
    if name in dialect.reserved_measurements:
        reasons.append("the name is reserved: its points could not be read back")
    return reasons + _utf8_reasons(name, dialect)


def _tag_key_reasons(name: str, dialect: Dialect) -> list[str]:
    reasons = _common_reasons(encode_name(name))
    if name in dialect.reserved_tag_keys:
        reasons.append(f"InfluxDB {dialect.name} refuses this tag key")
    return reasons


def _utf8_reasons(name: str, dialect: Dialect) -> list[str]:
    if not dialect.utf8_names or is_utf8(name):
        return []
    return ["it is not UTF-8, and versions before 1.12 can hide the whole shard from their next start on"]


def _field_key_reasons(name: str, dialect: Dialect) -> list[str]:
    raw = encode_name(name)
    reasons = _common_reasons(raw)
    if name == "time":
        reasons.append("a field named time is dropped")
    if raw.startswith(_STRIPPED):
        reasons.append("a tab or NUL at the start is stripped from the name")
    if _ODD_BACKSLASHES.search(raw):
        reasons.append("an odd number of backslashes before a comma, = or space cannot be written")
    return reasons + _utf8_reasons(name, dialect)
