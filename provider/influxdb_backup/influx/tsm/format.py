"""The fixed numbers of the TSM format, version 1, as 1.x and 2.x write it."""

from __future__ import annotations

from enum import IntEnum

MAGIC = 0x16D116D1
VERSION = 1
HEADER_BYTES = 5
"""magic and version"""
FOOTER_BYTES = 8
"""the place of the index"""
CRC_BYTES = 4
"""before each block"""
ENTRY_BYTES = 28
"""one block in the index: first time, last time, place, size"""
POINTS_PER_BLOCK = 1000
"""points of a block that the compactor fills"""
MAX_BLOCKS_PER_KEY = 65_535
MAX_KEY_BYTES = 65_535
SEPARATOR = b"#!~#"
"""between the series and the field in a key"""


class BlockType(IntEnum):
    """The first byte of a block after its checksum, and of its key in the index."""

    FLOAT = 0
    INTEGER = 1
    BOOLEAN = 2
    STRING = 3
    UNSIGNED = 4
