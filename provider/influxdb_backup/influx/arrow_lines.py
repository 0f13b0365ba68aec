"""Points to line protocol, column by column with Arrow's kernels: no Python per point or per series."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.influx.lines import FieldValues, Lines, Points, Render
from influxdb_backup.model import InfluxType

_NO_BYTES = pa.scalar(b"", pa.binary())


def renderer(points: Points) -> Render:
    """What renders stretches of these points."""
    times, fields = _binary_text(points.times), points.in_order()

    def render(start: int, stop: int) -> Lines:
        keys, length = points.runs.keys(start, stop), stop - start
        arrays = [field.array.slice(start, length) for field in fields]
        lines = _join(keys, list(zip(fields, arrays, strict=True)), times.slice(start, length))
        _, offsets, data = lines.buffers()
        bounds = np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1].astype(np.int64)
        body = memoryview(data).cast("B")[int(bounds[0]) : int(bounds[-1])]
        return Lines(body, bounds[1:] - bounds[0], points.filled[start:stop], points.instants[start:stop])

    return render


def _binary_text(array: Any) -> Any:
    return array.cast(pa.string()).view(pa.binary())


def _text(field: FieldValues, array: Any) -> Any:
    """Values as line protocol spells them, without quotes and suffix."""
    return array if field.type is InfluxType.STRING else _binary_text(array)


def _join(keys: Any, fields: list[tuple[FieldValues, Any]], times: Any) -> Any:
    always = [item for item in fields if not item[0].array.null_count]
    sometimes = [item for item in fields if item[0].array.null_count]
    pieces: list[Any] = [keys]
    constant = b" "
    for field, array in always:
        pieces += [constant + field.opening, _text(field, array)]
        constant = field.suffix + b","
    if always:
        constant = constant[:-1]
        for field, array in sometimes:
            pieces += [constant, _optional(field, array, b",")]
            constant = b""
    else:
        optional = [_optional(field, array, b"") for field, array in sometimes]
        comma = pa.scalar(b",", pa.binary())
        pieces += [constant, pc.binary_join_element_wise(*optional, comma, null_handling="skip")]
        constant = b""
    pieces += [constant + b" ", times, b"\n"]
    scalars = [pa.scalar(piece, pa.binary()) if isinstance(piece, bytes) else piece for piece in pieces if piece != b""]
    return pc.binary_join_element_wise(*scalars, _NO_BYTES, null_handling="replace", null_replacement="")


def _optional(field: FieldValues, array: Any, separator: bytes) -> Any:
    """``separator key=value`` of each row, null where the field is null."""
    opening = pa.scalar(separator + field.opening, pa.binary())
    return pc.binary_join_element_wise(opening, _text(field, array), pa.scalar(field.suffix, pa.binary()), _NO_BYTES)
