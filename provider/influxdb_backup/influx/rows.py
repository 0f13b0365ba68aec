"""
Rows of an InfluxQL answer as Arrow arrays: a vectorised way for rows of numbers of one width, and the general one.

A row is a msgpack array. Where every row of a stretch has the same width and the same markers, numpy decodes it
without a Python object per value; the markers of every row are compared, so a row that differs is never misread:
row k+1 starts where row k ends because row k was shown to have the width of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.columns import ARROW_TYPES
from influxdb_backup.model import InfluxType

_FLOAT = 0xCB
_NIL = 0xC0
_FALSE = 0xC2
_TRUE = 0xC3
_WIDTHS = {0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FORMATS = {
    0xCB: ">f8",
    0xCC: "u1",
    0xCD: ">u2",
    0xCE: ">u4",
    0xCF: ">u8",
    0xD0: "i1",
    0xD1: ">i2",
    0xD2: ">i4",
    0xD3: ">i8",
}
_PYTHON_TYPES: dict[InfluxType, type] = {
    InfluxType.FLOAT: float,
    InfluxType.INTEGER: int,
    InfluxType.UNSIGNED: int,
    InfluxType.STRING: bytes,
    InfluxType.BOOLEAN: bool,
}
_NUMPY_TYPES = {InfluxType.FLOAT: np.float64, InfluxType.INTEGER: np.int64, InfluxType.UNSIGNED: np.uint64}

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]


class OtherTypeError(ValueError):
    """A value is not of the type that its field has; ``column`` is the position."""

    def __init__(self, column: int, found: str) -> None:
        super().__init__(f"column {column} holds {found}")
        self.column = column
        self.found = found


class NotUtf8Error(ValueError):
    """A text is not UTF-8 and the column is not binary; ``column`` is the position."""

    def __init__(self, column: int) -> None:
        super().__init__(f"column {column} holds text that is not UTF-8")
        self.column = column


@dataclass(frozen=True)
class Layout:
    """Where the values of a row of one width stand: the marker's offset and the marker (None: one-byte values)."""

    width: int
    header: int
    offsets: tuple[int, ...]
    markers: tuple[int | None, ...]


def layout_of(data: bytes, columns: int) -> Layout | None:
    """The layout of the row at the start of ``data``; None when it holds text, is cut or has other columns."""
    if not data:
        return None
    if data[0] & 0xF0 == 0x90:
        count, position = data[0] & 0x0F, 1
    elif data[0] == 0xDC and len(data) >= 3:
        count, position = int.from_bytes(data[1:3], "big"), 3
    else:
        return None
    if count != columns:
        return None
    header = position
    offsets: list[int] = []
    markers: list[int | None] = []
    for _ in range(count):
        if position >= len(data):
            return None
        marker = data[position]
        offsets.append(position)
        if _is_one_byte(marker):
            markers.append(None)
            position += 1
        elif marker in _WIDTHS:
            markers.append(marker)
            position += 1 + _WIDTHS[marker]
        else:
            return None
    return Layout(position, header, tuple(offsets), tuple(markers))


def _is_one_byte(marker: int) -> bool:
    return marker <= 0x7F or marker >= 0xE0 or marker in (_NIL, _FALSE, _TRUE)


def fixed_rows(data: bytes, layout: Layout, limit: int) -> int:
    """How many rows from the start of ``data``, at most ``limit``, all have this layout."""
    count = min(limit, len(data) // layout.width)
    if count == 0:
        return 0
    table: Bytes = np.frombuffer(data, np.uint8, count * layout.width).reshape(count, layout.width)
    good = np.ones(count, np.bool_)
    for position in range(layout.header):
        good &= table[:, position] == table[0, position]
    for offset, marker in zip(layout.offsets, layout.markers, strict=True):
        column = table[:, offset]
        if marker is None:
            good &= (column <= 0x7F) | (column >= 0xE0) | (column == _NIL) | (column == _FALSE) | (column == _TRUE)
        else:
            good &= column == marker
    return count if good.all() else int(np.argmin(good))


def fixed_times(data: bytes, layout: Layout, rows: int) -> npt.NDArray[np.int64]:
    """The first column of verified rows as int64."""
    marker = layout.markers[0]
    if marker is None or marker == _FLOAT:
        raise OtherTypeError(0, "no time")
    return _column(data, layout, rows, 0).astype(np.int64)


def fixed_array(data: bytes, layout: Layout, rows: int, column: int, kind: InfluxType) -> pa.Array:
    """One field column of verified rows. Raises OtherTypeError when its values are of another type."""
    marker = layout.markers[column]
    values = _column(data, layout, rows, column)
    if marker is None:
        return _one_byte_array(values, column, kind)
    if (marker == _FLOAT) != (kind is InfluxType.FLOAT) or kind not in _NUMPY_TYPES:
        raise OtherTypeError(column, "float" if marker == _FLOAT else "integer")
    if kind is InfluxType.INTEGER and marker == 0xCF and bool((values > np.uint64(2**63 - 1)).any()):
        raise OtherTypeError(column, "unsigned")
    if kind is InfluxType.UNSIGNED and marker >= 0xD0 and bool((values < 0).any()):
        raise OtherTypeError(column, "integer")
    return pa.array(values.astype(_NUMPY_TYPES[kind]))


def _column(data: bytes, layout: Layout, rows: int, column: int) -> Numbers:
    marker = layout.markers[column]
    offset = layout.offsets[column]
    form = "u1" if marker is None else _FORMATS[marker]
    return np.ndarray((rows,), form, data, offset + (marker is not None), (layout.width,))


def _one_byte_array(raw: Numbers, column: int, kind: InfluxType) -> pa.Array:
    values: Bytes = np.ascontiguousarray(raw, np.uint8)
    null = values == _NIL
    if null.all():
        return pa.nulls(len(values), ARROW_TYPES[kind])
    boolean = (values == _FALSE) | (values == _TRUE)
    if kind is InfluxType.BOOLEAN:
        if not (boolean | null).all():
            raise OtherTypeError(column, "integer")
        return pa.array(values == _TRUE, mask=null)
    if boolean.any():
        raise OtherTypeError(column, "boolean")
    if kind is InfluxType.INTEGER:
        return pa.array(values.view(np.int8).astype(np.int64), mask=null)
    if kind is InfluxType.UNSIGNED and not (values[~null] >= 0xE0).any():
        return pa.array(values.astype(np.uint64), mask=null)
    raise OtherTypeError(column, "integer")


def value_array(values: Sequence[object], column: int, kind: InfluxType, *, binary: bool) -> pa.Array:
    """
    One field column of decoded values, None = no value.

    Raises OtherTypeError when a value has another type (an integer is no float here), NotUtf8Error when a text
    is not UTF-8 and the column is not ``binary``.
    """
    wanted = _PYTHON_TYPES[kind]
    strangers = set(map(type, values)) - {wanted, type(None)}
    if strangers:
        raise OtherTypeError(column, _name_of(next(iter(strangers))))
    if kind is not InfluxType.STRING:
        try:
            return pa.array(values, ARROW_TYPES[kind])
        except (OverflowError, pa.ArrowInvalid):
            raise OtherTypeError(column, "integers of another range") from None
    raw = pa.array(values, pa.binary())
    if binary:
        return raw
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        raise NotUtf8Error(column) from None


def _name_of(kind: type) -> str:
    return {float: "float", int: "integer", bytes: "string", bool: "boolean"}.get(kind, kind.__name__)
