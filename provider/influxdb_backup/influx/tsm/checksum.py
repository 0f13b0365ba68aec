"""CRC-32 (IEEE 802.3), as each block of a TSM file begins with it, sixteen bytes at a step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.jit import inlined, kernel

U8 = npt.NDArray[np.uint8]
_POLYNOMIAL = 0xEDB88320
_STEP = 16


def _tables() -> npt.NDArray[np.uint32]:
    tables = np.zeros((_STEP, 256), np.uint32)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        tables[0, byte] = value
    for step in range(1, _STEP):
        tables[step] = (tables[step - 1] >> 8) ^ tables[0, tables[step - 1] & 0xFF]
    return tables


_TABLES = _tables()
_ALL = np.uint32(0xFFFFFFFF)
_BYTE = np.uint32(0xFF)
_EIGHT = np.uint32(8)
_SIXTEEN = np.uint32(16)
_TWENTY_FOUR = np.uint32(24)


@inlined
def _four(data: U8, at: int) -> np.uint32:
    return np.uint32(
        np.uint32(data[at])
        | (np.uint32(data[at + 1]) << _EIGHT)
        | (np.uint32(data[at + 2]) << _SIXTEEN)
        | (np.uint32(data[at + 3]) << _TWENTY_FOUR)
    )


@inlined
def _looked_up(word: np.uint32, table: int) -> np.uint32:
    return np.uint32(
        _TABLES[table + 3, word & _BYTE]
        ^ _TABLES[table + 2, (word >> _EIGHT) & _BYTE]
        ^ _TABLES[table + 1, (word >> _SIXTEEN) & _BYTE]
        ^ _TABLES[table, word >> _TWENTY_FOUR]
    )


@kernel
def crc32(data: U8, start: int, stop: int) -> int:
    """The checksum of ``data[start:stop]``; the caller has bounded both."""
    value = _ALL
    at = start
    while at + _STEP <= stop:
        value = np.uint32(
            _looked_up(np.uint32(_four(data, at) ^ value), 12)
            ^ _looked_up(_four(data, at + 4), 8)
            ^ _looked_up(_four(data, at + 8), 4)
            ^ _looked_up(_four(data, at + 12), 0)
        )
        at += _STEP
    while at < stop:
        value = np.uint32((value >> _EIGHT) ^ _TABLES[0, (value ^ np.uint32(data[at])) & _BYTE])
        at += 1
    return int(np.int64(value ^ _ALL))
