"""``rows.py`` with compiled loops: the same rows, values and errors, found in one pass over the bytes. Needs numba."""

from __future__ import annotations

from dataclasses import dataclass

import msgpack
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.columns import ARROW_TYPES, null_column
from influxdb_backup.influx import row_kernels
from influxdb_backup.influx.rows import OtherTypeError, Rows, as_text, texts_between
from influxdb_backup.model import InfluxType


@dataclass(frozen=True)
class FastRows(Rows):
    """Rows whose columns are decoded by compiled loops."""

    def array(self, column: int, kind: InfluxType, *, binary: bool = False) -> pa.Array:
        """See ``Rows.array``."""
        starts, data = self.starts[column], np.frombuffer(self.data, np.uint8)
        nulls = np.empty(len(starts), np.bool_)
        if kind is InfluxType.STRING:
            return self._text(column, data, nulls, binary=binary)
        if kind is InfluxType.BOOLEAN:
            flags = np.empty(len(starts), np.bool_)
            missing, stranger = row_kernels.booleans(data, starts, flags, nulls)
            _refuse(column, stranger, "boolean")
            if missing == len(starts):
                return null_column(pa.bool_(), missing)
            return pa.array(flags, mask=nulls if missing else None)
        bits = np.empty(len(starts), np.uint64)
        values: npt.NDArray[np.float64 | np.int64 | np.uint64]
        if kind is InfluxType.FLOAT:
            missing, stranger = row_kernels.floats(data, starts, bits, nulls)
            _refuse(column, stranger, "float")
            values = bits.view(np.float64)
        else:
            signed = kind is InfluxType.INTEGER
            missing, stranger = row_kernels.integers(data, starts, bits, nulls, signed)
            _refuse(column, stranger, "integer of its range")
            values = bits.view(np.int64) if signed else bits
        if missing == len(starts):
            return null_column(ARROW_TYPES[kind], missing)
        return pa.array(values, mask=nulls if missing else None)

    def _text(
        self, column: int, data: npt.NDArray[np.uint8], nulls: npt.NDArray[np.bool_], *, binary: bool
    ) -> pa.Array:
        bounds = np.empty(2 * len(nulls), np.int32)
        missing, stranger = row_kernels.text_bounds(data, self.starts[column], bounds, nulls)
        _refuse(column, stranger, "string")
        if missing == len(nulls):
            return null_column(pa.binary() if binary else pa.string(), missing)
        raw = texts_between(self.data, bounds, nulls if missing else None)
        return raw if binary else as_text(raw, column)


def _refuse(column: int, stranger: int, wanted: str) -> None:
    if stranger >= 0:
        raise OtherTypeError(column, f"a value that is no {wanted}")


def walk(data: bytes, columns: int, limit: int) -> Rows | None:
    """See ``rows.walk``."""
    starts = np.empty((columns, min(limit, len(data) // (columns + 1) + 1)), np.int64)
    count, end = row_kernels.find_rows(np.frombuffer(data, np.uint8), starts)
    return FastRows(data, count, end, starts[:, :count]) if count else None


def exercise() -> None:
    """Runs every loop of this module once, which compiles it."""
    rows = walk(msgpack.packb([1, 0.5, True, "text"]), 4, 1)
    if rows is None:
        raise AssertionError("the compiled loops find no row")
    kinds = [InfluxType.INTEGER, InfluxType.FLOAT, InfluxType.BOOLEAN, InfluxType.STRING]
    values = [rows.array(column, kind).to_pylist() for column, kind in enumerate(kinds)]
    if values != [[1], [0.5], [True], ["text"]]:
        raise AssertionError(f"the compiled loops read {values}")
