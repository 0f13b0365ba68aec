"""
Compiled loops that find the digits of the short numbers of a column, many at once. Needs numba.

Most stored numbers are decimals of at most 8 digits. What one of them needs is not waited for by the next, as it would
be where each is written at once, and without branches one instruction works on several: a line with ten numbers takes a
sixth less with AVX2, and less than half of the time with AVX-512. ``influx/line_kernels.py`` writes what is found, and
whatever else there is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.word_kernels import float_at, high_zeros, low_zeros, store, word_at
from influxdb_backup.jit import inlined

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

SIGNED, UNSIGNED, FLOAT, BOOLEAN, TEXT = range(5)
"""how the cells of a column are rendered"""
SCANNED_ROWS = 128
"""whose numbers are looked at together"""
PLACES = 15
"""the most decimal places, and digits, that a division of exact floats tells apart"""
FLOAT_TENS = np.array([float(10**power) for power in range(PLACES + 1)])
EIGHT_DIGITS = 1e8
EIGHT = np.uint64(10**8)
ZEROS = np.uint64(int.from_bytes(b"00000000", "little"))
_PLAIN_PLACES = 6
"""the decimal places that no number needs an exponent for"""
_TEN_THOUSANDTH = np.uint64(-(-(2**40) // 10_000))
"""divided by 2**40; exact for what is multiplied by less than 10**8"""


@inlined
def eight_digits(value: np.uint64) -> np.uint64:
    """The digits of a number below 10**8, one a byte, the first one lowest."""
    upper = (value * _TEN_THOUSANDTH) >> np.uint64(40)
    both = upper | ((value - upper * np.uint64(10_000)) << np.uint64(32))
    hundreds = ((both * np.uint64(10_486)) >> np.uint64(20)) & np.uint64(0x7F0000007F)
    pairs = ((both - np.uint64(100) * hundreds) << np.uint64(16)) + hundreds
    tens = ((pairs * np.uint64(103)) >> np.uint64(10)) & np.uint64(0x000F000F000F000F)
    return tens + ((pairs - np.uint64(10) * tens) << np.uint64(8))


@inlined
def scan(digits: Words, spans: Numbers, kind: int, cells: np.uint64, rows: tuple[int, int], places: int) -> None:
    """
    Looks for short numbers in the cells of ``rows`` (first, last + 1) of the column at the address ``cells``.

    ``digits`` are the eight of each, as text, and ``spans`` says which of them count (0: it is no such number):
    bits 0 to 7 the point and those behind it, 8 to 15 those before it, 16 to 23 whether it is negative, 24 and
    up eight times those to leave out in front. Of floats those with ``places`` decimal places at most are found.
    """
    count = rows[1] - rows[0]
    first = cells + np.uint64(8) * np.uint64(rows[0])
    if kind == FLOAT:
        scan_floats(digits, spans, first, count, places)
    elif kind in (SIGNED, UNSIGNED):
        scan_integers(digits, spans, first, count, kind == SIGNED)
    else:
        spans[:count] = 0


@inlined
def scan_floats(digits: Words, spans: Numbers, floats: np.uint64, rows: int, places: int) -> None:
    """Those of floats that need no exponent; there may be others than finite ones."""
    ten, before = FLOAT_TENS[places], 8 - places
    most = EIGHT_DIGITS if places <= _PLAIN_PLACES else 0.0
    for row in range(rows):
        real = float_at(floats, row)
        value = abs(real)
        scaled = np.rint(value * ten)
        held = (scaled < most) & (scaled / ten == value)
        found = eight_digits(np.uint64(np.int64(scaled if held else 0.0)))
        leading = min(low_zeros(found) >> 3, before - 1)
        after = places - (high_zeros(found) >> 3)
        negative = 1 if np.signbit(real) else 0
        span = (leading << 27) | (negative << 16) | ((before - leading) << 8) | (after + 1 if after > 0 else 0)
        digits[row] = found | ZEROS
        spans[row] = span if held else 0


@inlined
def scan_integers(digits: Words, spans: Numbers, integers: np.uint64, rows: int, signed: bool) -> None:
    """Those of integers; signed ones are given in two's complement."""
    for row in range(rows):
        word = word_at(integers, row)
        negative = word >> np.uint64(63) if signed else np.uint64(0)
        value = (word ^ (np.uint64(0) - negative)) + negative
        held = value < EIGHT
        found = eight_digits(value if held else np.uint64(0))
        leading = min(low_zeros(found) >> 3, 7)
        digits[row] = found | ZEROS
        spans[row] = (leading << 27) | (np.int64(negative) << 16) | ((8 - leading) << 8) if held else 0


@inlined
def put_scanned(out: Bytes, place: int, digits: np.uint64, span: int) -> int:
    """A number that ``scan`` found."""
    out[place] = 45
    place += (span >> 16) & 0xFF
    leading, before, after = span >> 24, (span >> 8) & 0xFF, span & 0xFF
    store(out, place, digits >> np.uint64(leading))
    place += before
    if after:
        out[place] = 46
        store(out, place + 1, digits >> np.uint64(leading + 8 * before))
    return place + after
