"""CRC-32 (IEEE 802.3), as each block of a TSM file begins with it, eight bytes at a step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.jit import kernel

U8 = npt.NDArray[np.uint8]
_POLYNOMIAL = 0xEDB88320


def _tables() -> npt.NDArray[np.uint32]:
    tables = np.zeros((8, 256), np.uint32)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        tables[0, byte] = value
    for step in range(1, 8):
        tables[step] = (tables[step - 1] >> 8) ^ tables[0, tables[step - 1] & 0xFF]
    return tables


_TABLES = _tables()
_ALL = np.uint32(0xFFFFFFFF)
_BYTE = np.uint32(0xFF)
_EIGHT = np.uint32(8)
_SIXTEEN = np.uint32(16)
_TWENTY_FOUR = np.uint32(24)


@kernel
def crc32(data: U8, start: int, stop: int) -> int:
    """The checksum of ``data[start:stop]``; the caller has bounded both."""
    value = _ALL
    at = start
    while at + 8 <= stop:
        low = (
            np.uint32(data[at])
            | (np.uint32(data[at + 1]) << _EIGHT)
            | (np.uint32(data[at + 2]) << _SIXTEEN)
            | (np.uint32(data[at + 3]) << _TWENTY_FOUR)
        )
        low = np.uint32(low ^ value)
        value = np.uint32(
            _TABLES[7, low & _BYTE]
            ^ _TABLES[6, (low >> _EIGHT) & _BYTE]
            ^ _TABLES[5, (low >> _SIXTEEN) & _BYTE]
            ^ _TABLES[4, low >> _TWENTY_FOUR]
            ^ _TABLES[3, data[at + 4]]
            ^ _TABLES[2, data[at + 5]]
            ^ _TABLES[1, data[at + 6]]
            ^ _TABLES[0, data[at + 7]]
        )
        at += 8
    while at < stop:
        value = np.uint32((value >> _EIGHT) ^ _TABLES[0, (value ^ np.uint32(data[at])) & _BYTE])
        at += 1
    return int(np.int64(value ^ _ALL))
