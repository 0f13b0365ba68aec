"""
Rows of an InfluxQL answer as Arrow arrays, without a Python object per value.

A row is a msgpack array; where each value stands is found for all rows at once, column after column. A row starts
with the array's header and the marker of its time. These bytes may also stand inside of a value, so such places are
only candidates: from each one the widths of its values are walked, and the rows are the chain that begins at the
first byte and goes on where the row before ends. The chain is exact, whatever the candidates were.

Markers tell the types: a float is never taken for an integer, nor the other way round.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.columns import ARROW_TYPES, null_column
from influxdb_backup.model import InfluxType

_NIL, _FALSE, _TRUE, _FLOAT, _UINT64, _INT8 = 0xC0, 0xC2, 0xC3, 0xCB, 0xCF, 0xD0
_LAST_POSITIVE, _FIRST_NEGATIVE = 0x7F, 0xE0
_FIXSTR, _AFTER_FIXSTR = 0xA0, 0xC0
_NUMBERS = {
    _FLOAT: ">f8",
    0xCC: "u1",
    0xCD: ">u2",
    0xCE: ">u4",
    _UINT64: ">u8",
    _INT8: "i1",
    0xD1: ">i2",
    0xD2: ">i4",
    0xD3: ">i8",
}
_TEXTS = {0xD9: ("u1", 2), 0xDA: (">u2", 3), 0xDB: (">u4", 5)}
"""the form of the length, and the bytes before the text"""
_LONG_TEXT = -1
_NOWHERE = -(2**62)
_PYTHON_TYPES: dict[InfluxType, type] = {
    InfluxType.FLOAT: float,
    InfluxType.INTEGER: int,
    InfluxType.UNSIGNED: int,
    InfluxType.STRING: bytes,
    InfluxType.BOOLEAN: bool,
}

Places = npt.NDArray[np.int64]
Markers = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]


class OtherTypeError(ValueError):
    """A value is not of the type that its field has; ``column`` is the position in the row."""

    def __init__(self, column: int, found: str) -> None:
        super().__init__(f"column {column} holds {found}")
        self.column = column
        self.found = found


class NotUtf8Error(ValueError):
    """A text is not UTF-8 and its column is not binary; ``column`` is the position in the row, tags are negative."""

    def __init__(self, column: int) -> None:
        super().__init__(f"column {column} holds text that is not UTF-8")
        self.column = column


def _width_table() -> Places:
    """Width of a value by its marker: 0 for what no row holds, _LONG_TEXT where the length stands behind it."""
    widths = np.zeros(256, np.int64)
    widths[: _LAST_POSITIVE + 1] = 1
    widths[_FIRST_NEGATIVE:] = 1
    widths[[_NIL, _FALSE, _TRUE]] = 1
    for marker, form in _NUMBERS.items():
        widths[marker] = 1 + np.dtype(form).itemsize
    widths[_FIXSTR:_AFTER_FIXSTR] = 1 + np.arange(32)
    widths[list(_TEXTS)] = _LONG_TEXT
    return widths


_WIDTHS = _width_table()


def _view(data: bytes, form: str) -> Numbers:
    """Element k is the number in this form at byte k."""
    size = np.dtype(form).itemsize
    return np.ndarray((max(0, len(data) - size + 1),), form, data, 0, (1,))


@dataclass(frozen=True)
class Rows:
    """Whole rows: ``starts[column][row]`` is the place of a value's marker, ``end`` the place after the last row."""

    data: bytes
    count: int
    end: int
    starts: Places

    def array(self, column: int, kind: InfluxType, *, binary: bool = False) -> pa.Array:
        """
        One column as an Arrow array, nil as null.

        Raises OtherTypeError when a value has another type, NotUtf8Error for such text unless ``binary``.
        """
        starts = self.starts[column]
        markers: Markers = np.frombuffer(self.data, np.uint8).take(starts)
        present = [int(marker) for marker in np.flatnonzero(np.bincount(markers, minlength=256))]
        nulls = markers == _NIL if _NIL in present else None
        values = [marker for marker in present if marker != _NIL]
        if not values:
            return _nulls(kind, len(starts), binary=binary)
        if kind is InfluxType.STRING:
            return self._texts(column, starts, markers, values, nulls, binary=binary)
        if kind is InfluxType.BOOLEAN:
            if set(values) - {_FALSE, _TRUE}:
                raise OtherTypeError(column, "a value that is no boolean")
            return pa.array(markers == _TRUE, mask=nulls)
        if kind is InfluxType.FLOAT:
            return pa.array(self._floats(column, starts, markers, values), mask=nulls)
        return pa.array(self._integers(column, kind, starts, markers, values), mask=nulls)

    def _floats(self, column: int, starts: Places, markers: Markers, present: list[int]) -> Numbers:
        if set(present) - {_FLOAT}:
            raise OtherTypeError(column, "a value that is no float")
        bits = _view(self.data, "<u8")
        if len(present) == 1 and bool((markers == _FLOAT).all()):
            return bits[starts + 1].byteswap().view(np.float64)
        values = np.zeros(len(starts), np.float64)
        where = np.flatnonzero(markers == _FLOAT)
        values[where] = bits[starts[where] + 1].byteswap().view(np.float64)
        return values

    def _integers(self, column: int, kind: InfluxType, starts: Places, markers: Markers, present: list[int]) -> Numbers:
        target = np.int64 if kind is InfluxType.INTEGER else np.uint64
        values = markers.view(np.int8).astype(target)
        for marker in present:
            if marker <= _LAST_POSITIVE:
                continue
            if marker >= _FIRST_NEGATIVE and kind is InfluxType.INTEGER:
                continue
            if marker == _FLOAT or marker not in _NUMBERS:
                raise OtherTypeError(column, "a value that is no integer of its range")
            where = np.flatnonzero(markers == marker)
            found = _view(self.data, _NUMBERS[marker])[starts[where] + 1]
            if kind is InfluxType.INTEGER and marker == _UINT64 and bool((found > np.uint64(2**63 - 1)).any()):
                raise OtherTypeError(column, "an unsigned value")
            if kind is InfluxType.UNSIGNED and marker >= _INT8 and bool((found < 0).any()):
                raise OtherTypeError(column, "a negative value")
            values[where] = found.astype(target)
        return values

    def _texts(
        self,
        column: int,
        starts: Places,
        markers: Markers,
        present: list[int],
        nulls: npt.NDArray[np.bool_] | None,
        *,
        binary: bool,
    ) -> pa.Array:
        first = starts + 1
        lengths = (
            np.where(nulls, 0, markers & 31).astype(np.int64) if nulls is not None else (markers & 31).astype(np.int64)
        )
        for marker in present:
            if _FIXSTR <= marker < _AFTER_FIXSTR:
                continue
            if marker not in _TEXTS:
                raise OtherTypeError(column, "a value that is no string")
            form, head = _TEXTS[marker]
            where = np.flatnonzero(markers == marker)
            lengths[where] = _view(self.data, form)[starts[where] + 1]
            first[where] = starts[where] + head
        bounds = np.empty(2 * len(starts), np.int32)
        bounds[0::2] = first
        bounds[1::2] = first + lengths
        raw = texts_between(self.data, bounds, nulls)
        return raw if binary else as_text(raw, column)


def texts_between(data: bytes, bounds: npt.NDArray[np.int32], nulls: npt.NDArray[np.bool_] | None) -> pa.Array:
    """Value k is what stands from ``bounds[2 * k]`` to ``bounds[2 * k + 1]``; the bounds ascend. Binary."""
    # An array over the reply's own bytes: every second element is a value, the others are what separates values.
    both = pa.BinaryArray.from_buffers(pa.binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(data)])
    return both.take(pa.array(np.arange(0, len(bounds), 2, dtype=np.int32), mask=nulls))


def join(pieces: Sequence[Rows]) -> Rows:
    """The rows of several pieces of equal columns, as if they had come in one: converting few costs as much."""
    if len(pieces) == 1:
        return pieces[0]
    offsets = [0, *itertools.accumulate(piece.end for piece in pieces)]
    starts = np.concatenate([piece.starts + offset for piece, offset in zip(pieces, offsets[:-1], strict=True)], axis=1)
    data = b"".join(piece.data[: piece.end] for piece in pieces)
    count = sum(piece.count for piece in pieces)
    return replace(pieces[0], data=data, count=count, end=offsets[-1], starts=starts)


def as_text(raw: pa.Array, column: int) -> pa.Array:
    """Binary values as strings. Raises NotUtf8Error."""
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        raise NotUtf8Error(column) from None


def walk(data: bytes, columns: int, limit: int) -> Rows | None:
    """
    The whole rows of ``columns`` values at the start of ``data``, at most ``limit``; what follows them may be anything.

    None when the first row is not whole or no row of InfluxDB's, or the search would cost more than it saves.
    """
    header = bytes([0x90 | columns]) if columns < 16 else b"\xdc" + columns.to_bytes(2, "big")
    if not data.startswith(header) or len(data) <= len(header):
        return None
    candidates = _candidates(np.frombuffer(data, np.uint8), header + data[len(header) : len(header) + 1])
    if len(candidates) > 4 * limit + 64:
        return None
    places = candidates + len(header)
    starts = []
    for _ in range(columns):
        starts.append(places)
        places = np.maximum(places + _widths_at(data, places), _NOWHERE)  # the sum of four would wrap to a place
    chain = _chain(candidates, places, len(data), limit)
    if not len(chain):
        return None
    found = np.array(starts)
    if len(chain) < len(candidates):
        found = found[:, chain]
    return Rows(data, len(chain), int(places[chain[-1]]), found)


def _candidates(data: Markers, opening: bytes) -> Places:
    last = len(opening) - 1
    found = np.flatnonzero((data[last - 1 : -1] == opening[-2]) & (data[last:] == opening[-1]))
    for position in range(last - 1):
        found = found[data[found + position] == opening[position]]
    return found


def _widths_at(data: bytes, places: Places) -> Places:
    """The widths of the values at these places; _NOWHERE for what is none, or whose length is cut off."""
    markers: Markers = np.frombuffer(data, np.uint8).take(places, mode="clip")
    widths: Places = _WIDTHS[markers]
    if widths.min() > 0:
        return widths
    for marker, (form, head) in _TEXTS.items():
        where = np.flatnonzero(markers == marker)
        if where.size:
            lengths = _view(data, form)
            at = places[where] + 1
            inside = (at >= 1) & (at < len(lengths))
            widths[where] = _NOWHERE
            widths[where[inside]] = head + lengths[at[inside]].astype(np.int64)
    widths[widths <= 0] = _NOWHERE
    return widths


def _chain(candidates: Places, ends: Places, size: int, limit: int) -> Places:
    """Positions of the candidates that are rows: the first, and each that starts where a row ends."""
    follows = np.append(ends[:-1] == candidates[1:], False)
    breaks = np.flatnonzero(~follows)
    runs = []
    position, taken = 0, 0
    while taken < limit:
        last = int(breaks[np.searchsorted(breaks, position)])
        run = np.arange(position, min(last + 1, position + limit - taken))
        runs.append(run)
        taken += len(run)
        following = int(np.searchsorted(candidates, ends[last]))
        if following >= len(candidates) or candidates[following] != ends[last] or following <= last:
            break
        position = following
    chain = np.concatenate(runs)
    whole = (ends[chain] > candidates[chain]) & (ends[chain] <= size)
    return chain if whole.all() else chain[: int(np.argmin(whole))]


def _nulls(kind: InfluxType, rows: int, *, binary: bool) -> pa.Array:
    return null_column(pa.binary() if binary and kind is InfluxType.STRING else ARROW_TYPES[kind], rows)


def value_array(values: Sequence[object], column: int, kind: InfluxType, *, binary: bool) -> pa.Array:
    """The same as ``Rows.array`` for values that were decoded one by one, text as ``bytes``."""
    if not any(value is not None for value in values):
        return _nulls(kind, len(values), binary=binary)
    strangers = set(map(type, values)) - {_PYTHON_TYPES[kind], type(None)}
    if strangers:
        raise OtherTypeError(column, f"a {next(iter(strangers)).__name__}")
    if kind is InfluxType.STRING:
        raw = pa.array(values, pa.binary())
        return raw if binary else as_text(raw, column)
    try:
        return pa.array(values, ARROW_TYPES[kind])
    except (OverflowError, pa.ArrowInvalid):
        raise OtherTypeError(column, "an integer of another range") from None
