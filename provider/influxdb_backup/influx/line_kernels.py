"""
Compiled loops that render line protocol; ``influx/fast_lines.py`` calls them. Needs numba.

A float is rendered as the shortest decimal that reads back to the same bits. Most stored floats are short decimals:
when ``digits / 10**places`` with less than 16 digits, one correctly rounded division of two exact doubles, is the
float, those digits are the answer, since no two decimals of at most 15 digits are the same double. All others
are found as in Raffaele Giulietti's "The Schubfach way to render doubles".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.digit_kernels import (
    BOOLEAN,
    EIGHT,
    EIGHT_DIGITS,
    FLOAT,
    FLOAT_TENS,
    PLACES,
    SCANNED_ROWS,
    SIGNED,
    UNSIGNED,
    ZEROS,
    Bytes,
    Numbers,
    Words,
    eight_digits,
    put_scanned,
    scan,
)
from influxdb_backup.influx.word_kernels import float_at, high_word, high_zeros, load, low_zeros, store, word_at
from influxdb_backup.jit import inlined, kernel

Flags = npt.NDArray[np.bool_]
Runs = tuple[Bytes, Numbers, Numbers]
Columns = tuple[Numbers, Bytes, Numbers, Bytes, Numbers]
Cells = tuple[Words, Flags]
Seen = tuple[Numbers, Words, Numbers]

SPARE_BYTES = 16
"""bytes that must follow the bytes of keys, openings and texts, and the room for all lines: words are moved"""

_FIFTEEN_DIGITS = 1e15
_LOWEST_POWER, _HIGHEST_POWER = -292, 324
_TENS = np.array([10**power for power in range(9)], np.uint64)
_LAST_BIT = np.uint64(2**63)
_SMALL = np.uint64(int.from_bytes(b"0.000000", "little"))
_TRUE = np.uint64(int.from_bytes(b"true", "little"))
_FALSE = np.uint64(int.from_bytes(b"false", "little"))
_SIGNIFICAND = np.uint64(2**52 - 1)
_HIDDEN = np.uint64(2**52)


def _power(exponent: int) -> int:
    """``10**exponent`` times the power of two that makes it 128 bits wide, rounded up."""
    value: int = 10 ** abs(exponent)
    if exponent >= 0:
        shift = 128 - value.bit_length()
        return value << shift if shift >= 0 else -(-value >> -shift)
    return -((-1 << (127 + value.bit_length())) // value)


_POWERS = [_power(exponent) for exponent in range(_LOWEST_POWER, _HIGHEST_POWER + 1)]
_POWERS_HIGH = np.array([power >> 64 for power in _POWERS], np.uint64)
_POWERS_LOW = np.array([power & (2**64 - 1) for power in _POWERS], np.uint64)


@inlined
def rounded_to_odd(power: int, factor: np.uint64) -> np.uint64:
    """The upper 64 bits of ``factor`` times the 128 bits of a power of ten; the lowest one says that more follows."""
    high, low = _POWERS_HIGH[power], _POWERS_LOW[power]
    carried = high_word(low, factor)
    rest = high * factor + carried
    whole = high_word(high, factor)
    if rest < carried:
        whole += np.uint64(1)
    if rest > np.uint64(1):
        whole |= np.uint64(1)
    return whole


@kernel
def shortest(bits: np.uint64) -> tuple[np.uint64, int]:
    """Digits and power of ten of the shortest decimal of a finite positive float, the nearest one of these."""
    significand = bits & _SIGNIFICAND
    biased = int((bits >> np.uint64(52)) & np.uint64(0x7FF))
    if biased != 0:
        whole = significand | _HIDDEN
        exponent = biased - 1075
        if -52 <= exponent <= 0:
            cut = np.uint64(-exponent)
            if (whole >> cut) << cut == whole:
                return whole >> cut, 0
    else:
        whole = significand
        exponent = -1074
    closer = significand == np.uint64(0) and biased > 1
    odd = whole & np.uint64(1)
    below = np.uint64(4) * whole - (np.uint64(1) if closer else np.uint64(2))
    ten = (exponent * 1262611 - (524031 if closer else 0)) >> 22
    shift = np.uint64(exponent + ((-ten * 1741647) >> 19) + 1)
    power = -ten - _LOWEST_POWER
    lower = rounded_to_odd(power, below << shift) + odd
    value = rounded_to_odd(power, (np.uint64(4) * whole) << shift)
    upper = rounded_to_odd(power, (np.uint64(4) * whole + np.uint64(2)) << shift) - odd
    digits = value >> np.uint64(2)
    if digits >= np.uint64(10):
        fewer = digits // np.uint64(10)
        down = lower <= np.uint64(40) * fewer
        up = np.uint64(40) * fewer + np.uint64(40) <= upper
        if down != up:
            return fewer + (np.uint64(1) if up else np.uint64(0)), ten + 1
    down = lower <= np.uint64(4) * digits
    up = np.uint64(4) * digits + np.uint64(4) <= upper
    if down == up:
        middle = np.uint64(4) * digits + np.uint64(2)
        up = value > middle or (value == middle and (digits & np.uint64(1)) != np.uint64(0))
    return digits + (np.uint64(1) if up else np.uint64(0)), ten


@kernel
def without_zeros(digits: np.uint64, ten: int) -> tuple[np.uint64, int]:
    """The same decimal with a last digit other than zero."""
    while digits % np.uint64(10) == np.uint64(0):
        digits //= np.uint64(10)
        ten += 1
    return digits, ten


@inlined
def put_head(out: Bytes, place: int, value: np.uint64) -> int:
    """A number below 10**8. Returns the place after it, as all of these do."""
    digits = eight_digits(value)
    leading = low_zeros(digits | _LAST_BIT) >> 3
    store(out, place, (digits | ZEROS) >> np.uint64(leading << 3))
    return place + 8 - leading


@kernel
def put_number(out: Bytes, place: int, value: np.uint64) -> int:
    """A number."""
    if value < EIGHT:
        return put_head(out, place, value)
    upper = value // EIGHT
    if upper < EIGHT:
        place = put_head(out, place, upper)
    else:
        first = upper // EIGHT
        place = put_head(out, place, first)
        store(out, place, eight_digits(upper - first * EIGHT) | ZEROS)
        place += 8
    store(out, place, eight_digits(value - upper * EIGHT) | ZEROS)
    return place + 8


@inlined
def put_integer(out: Bytes, place: int, bits: np.uint64, signed: bool) -> int:
    """An integer; a signed one is given in two's complement."""
    if signed and bits >> np.uint64(63):
        out[place] = 45
        place += 1
        bits = ~bits + np.uint64(1)
    if bits < EIGHT:
        return put_head(out, place, bits)
    return put_number(out, place, bits)


@kernel
def put_decimal(out: Bytes, place: int, digits: np.uint64, ten: int) -> int:
    """``digits * 10**ten`` as Arrow writes it: with an exponent from 1e10 on and below 1e-6."""
    end = put_number(out, place + 1, digits)
    width = end - place - 1
    point = width + ten
    if -6 < point <= 0:
        store(out, place, _SMALL)  # 0.00000
        return put_number(out, place + 2 - point, digits)
    plain = 0 < point <= 10
    before = min(point, width) if plain else 1
    for at in range(place, place + before):
        out[at] = out[at + 1]
    if width > before:
        out[place + before] = 46
    else:
        end -= 1
    if plain:
        store(out, end, ZEROS)
        store(out, end + 8, ZEROS)
        return end + max(point - width, 0)
    power = point - 1
    out[end] = 101
    out[end + 1] = 45 if power < 0 else 43
    return put_number(out, end + 2, np.uint64(abs(power)))


@inlined
def put_short(out: Bytes, place: int, value: float, scaled: np.uint64, places: int) -> int:
    """The decimal ``scaled / 10**places``, which is at least 1e-6 and below 10**8, with at most 8 places."""
    whole = np.uint64(np.int64(value))
    rest = scaled - whole * _TENS[places]
    place = put_head(out, place, whole)
    if rest != np.uint64(0):
        digits = eight_digits(rest * _TENS[8 - places])
        out[place] = 46
        store(out, place + 1, digits | ZEROS)
        place += 9 - (high_zeros(digits) >> 3)
    return place


@inlined
def put_float(out: Bytes, place: int, bits: np.uint64, value: float, places: Numbers, column: int) -> int:
    """A finite float. ``places[column]`` are the decimal places that are tried first: those that held before."""
    if bits >> np.uint64(63):
        out[place] = 45
        place += 1
        value = -value
        bits &= ~_LAST_BIT
    guess = places[column]
    scaled = np.rint(value * FLOAT_TENS[guess])
    if bits == np.uint64(0):
        out[place] = 48
        place += 1
    elif scaled < _FIFTEEN_DIGITS and scaled / FLOAT_TENS[guess] == value:
        whole = np.uint64(np.int64(scaled))
        if guess <= 8 and 1e-6 <= value < EIGHT_DIGITS:
            place = put_short(out, place, value, whole, guess)
        else:
            digits, ten = without_zeros(whole, -guess)
            place = put_decimal(out, place, digits, ten)
    else:
        digits, ten = shortest(bits)
        digits, ten = without_zeros(digits, ten)
        if -PLACES <= ten <= 0:
            places[column] = -ten
        place = put_decimal(out, place, digits, ten)
    return place


@inlined
def put_boolean(out: Bytes, place: int, value: bool) -> int:
    """``true`` or ``false``."""
    store(out, place, _TRUE if value else _FALSE)
    return place + (4 if value else 5)


@inlined
def put_bytes(out: Bytes, place: int, source: Bytes, first: int, last: int) -> int:
    """A stretch of other bytes; up to seven more are read and written."""
    for at in range(first, last, 8):
        store(out, place + at - first, load(source, at))
    return place + last - first


@inlined
def put_opening(out: Bytes, place: int, source: Bytes, first: int, last: int) -> int:
    """Other bytes, mostly no more than 16; up to 15 more are read and written."""
    store(out, place, load(source, first))
    store(out, place + 8, load(source, first + 8))
    for at in range(first + 16, last, 8):
        store(out, place + at - first, load(source, at))
    return place + last - first


@kernel
def put_lines(
    out: Bytes,
    ends: Numbers,
    rows: tuple[int, int, int],
    runs: Runs,
    columns: Columns,
    cells: Cells,
    texts: Bytes,
    times: Words,
    seen: Seen,
) -> int:
    """
    The lines of ``rows`` (first, last + 1, run of the first); returns how many bytes they have.

    ``runs``: the keys, where each begins, and the first row of each, both with one more at the end.
    ``columns``: kind, suffix (0 for none), column of the mask (-1: no null), opening, where each begins. An opening
    begins with a comma, and where it is the first of a line the comma becomes a space.
    ``cells``: the address of each column's words, one for each row, and masks. Of a text the word is its place in
    ``texts``, and the next one is its end. ``seen``: the decimal places of each column's floats, which one
    call leaves to the next, and room for digits and spans of ``SCANNED_ROWS`` in each. The caller knows that ``out``
    has room for the longest lines.
    """
    keys, key_bounds, run_starts = runs
    kinds, suffixes, masks, openings, opening_bounds = columns
    addresses, present = cells
    places, digits, spans = seen
    run = rows[2]
    place = 0
    for begin in range(rows[0], rows[1], SCANNED_ROWS):
        end = min(begin + SCANNED_ROWS, rows[1])
        for column in range(len(kinds)):
            scan(
                digits[column],
                spans[column],
                kinds[column],
                addresses[column],
                (begin, end),
                places[column],
            )
        for row in range(begin, end):
            while run_starts[run + 1] <= row:
                run += 1
            place = put_bytes(out, place, keys, key_bounds[run], key_bounds[run + 1])
            first = place
            for column in range(len(kinds)):
                if masks[column] >= 0 and not present[masks[column], row]:
                    continue
                place = put_opening(out, place, openings, opening_bounds[column], opening_bounds[column + 1])
                kind, cell = kinds[column], word_at(addresses[column], row)
                if spans[column, row - begin]:
                    place = put_scanned(out, place, digits[column, row - begin], spans[column, row - begin])
                elif kind == FLOAT:
                    place = put_float(out, place, cell, float_at(addresses[column], row), places, column)
                elif kind in (SIGNED, UNSIGNED):
                    place = put_integer(out, place, cell, kind == SIGNED)
                elif kind == BOOLEAN:
                    place = put_boolean(out, place, cell != np.uint64(0))
                else:
                    place = put_bytes(out, place, texts, int(cell), int(word_at(addresses[column], row + 1)))
                if suffixes[column]:
                    out[place] = suffixes[column]
                    place += 1
            out[first] = 32
            out[place] = 32
            place = put_integer(out, place + 1, times[row], True)
            out[place] = 10
            place += 1
            ends[row - rows[0]] = place
    return place
