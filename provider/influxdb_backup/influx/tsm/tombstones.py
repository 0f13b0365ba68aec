"""Deleted ranges, which stand beside a file and of which the servers' own restores know nothing."""

from __future__ import annotations

import gzip
import zlib

from influxdb_backup.influx.tsm.index import corrupt

_V2, _V3, _V4 = 0x1502, 0x1503, 0x1504
_EVER = (-(2**63), 2**63 - 1)
Deleted = list[tuple[bytes, int, int]]
"""composite key, first and last deleted instant (ns, both deleted)"""


def read_tombstones(name: str, data: bytes) -> Deleted:
    """
    What a tombstone file of any version deletes from the file it belongs to.

    Version 1 has no header and a key in each line; 2 has entries, 3 and 4 the same compressed (4: in several members).
    Raises CorruptShardError.
    """
    version = int.from_bytes(data[:4], "big")
    if version == _V2:
        return _entries(name, data[4:])
    if version in (_V3, _V4):
        try:
            return _entries(name, gzip.decompress(data[4:]) if len(data) > 4 else b"")
        except (OSError, EOFError, zlib.error) as error:
            raise corrupt(name, f"its compressed entries cannot be read ({error})", place=4) from error
    return [(line, *_EVER) for line in data.split(b"\n") if line]


def _entries(name: str, data: bytes) -> Deleted:
    found: Deleted = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 4 + size + 16
        if end > len(data):
            raise corrupt(name, "an entry ends too soon", place=at)
        low = int.from_bytes(data[end - 16 : end - 8], "big", signed=True)
        high = int.from_bytes(data[end - 8 : end], "big", signed=True)
        found.append((data[at + 4 : end - 16], low, high))
        at = end
    return found
