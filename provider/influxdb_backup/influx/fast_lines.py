"""``arrow_lines.py`` with a compiled loop: the same bytes, written line by line. Needs numba."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.influx import digit_kernels, line_kernels
from influxdb_backup.influx.lines import FieldValues, Lines, Points, Render, Runs
from influxdb_backup.model import InfluxType

_KINDS: dict[InfluxType, tuple[int, pa.DataType, npt.DTypeLike]] = {
    InfluxType.FLOAT: (digit_kernels.FLOAT, pa.float64(), np.uint64),
    InfluxType.INTEGER: (digit_kernels.SIGNED, pa.int64(), np.uint64),
    InfluxType.UNSIGNED: (digit_kernels.UNSIGNED, pa.uint64(), np.uint64),
    InfluxType.BOOLEAN: (digit_kernels.BOOLEAN, pa.uint8(), np.uint8),
}


def renderer(points: Points) -> Render:
    """What renders stretches of these points."""
    fields, bounds = points.in_order(), points.bounds
    runs, columns = _runs(points.runs), _columns(fields)
    words, texts = _cells(fields)
    if any(len(array) < len(bounds) for array in words):  # the loop gets addresses, and reads what lies behind them
        raise ValueError("a field has fewer values than there are points")
    masked = [_is_valid(field.array) for field in fields if field.array.null_count]
    present = np.vstack(masked) if masked else np.empty((0, 0), np.bool_)
    instants = points.instants
    times = _frozen(instants.view(np.uint64))
    scanned = len(fields), digit_kernels.SCANNED_ROWS
    seen = np.zeros(len(fields), np.int64), np.empty(scanned, np.uint64), np.empty(scanned, np.int64)

    def render(start: int, stop: int) -> Lines:
        room = int(bounds[start:stop].sum()) + line_kernels.SPARE_BYTES
        out, ends = np.frombuffer(pa.allocate_buffer(room), np.uint8), np.empty(stop - start, np.int64)
        rows = start, stop, points.runs.of(start)
        cells = np.array([array.ctypes.data for array in words], np.uint64), present
        size = line_kernels.put_lines(out, ends, rows, runs, columns, cells, texts, times, seen)
        return Lines(out[:size].data, ends, points.filled[start:stop], instants[start:stop])

    return render


def _runs(runs: Runs) -> line_kernels.Runs:
    texts, bounds = _texts(runs.escaped)
    return _spared([texts]), bounds, np.append(runs.starts, runs.rows)


def _columns(fields: Sequence[FieldValues]) -> line_kernels.Columns:
    kinds = [digit_kernels.TEXT if field.type is InfluxType.STRING else _KINDS[field.type][0] for field in fields]
    nullable = np.array([field.array.null_count > 0 for field in fields])
    suffixes = [field.suffix for field in fields]
    openings = [b"," + field.opening for field in fields]
    for number in range(1, int(np.argmax(np.append(nullable, True)))):
        # what lies between two values that every point has is the same in all lines
        openings[number], suffixes[number - 1] = suffixes[number - 1] + openings[number], b""
    return (
        np.array(kinds, np.int64),
        np.array([ord(suffix or b"\0") for suffix in suffixes], np.uint8),
        np.where(nullable, np.cumsum(nullable) - 1, -1),
        _spared([np.frombuffer(opening, np.uint8) for opening in openings]),
        np.cumsum([0, *(len(opening) for opening in openings)]),
    )


def _cells(fields: Sequence[FieldValues]) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.uint8]]:
    """The words of each column, in place where they are words, and the bytes that those of texts point into."""
    words: list[npt.NDArray[Any]] = []
    texts: list[npt.NDArray[np.uint8]] = []
    before = 0
    for field in fields:
        if field.type is InfluxType.STRING:
            data, bounds = _texts(field.array)
            words.append(bounds + before)
            texts.append(data)
            before += len(data)
        else:
            _, kind, stored = _KINDS[field.type]
            array = field.array if field.array.type == kind else field.array.cast(kind)
            words.append(_values(array, stored).astype(np.uint64, copy=False))
    return words, _spared(texts)


def _spared(texts: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    return np.concatenate([*texts, np.zeros(line_kernels.SPARE_BYTES, np.uint8)])


def _values(array: Any, words: npt.DTypeLike) -> npt.NDArray[Any]:
    """The values of an array of numbers, whatever they are where it is null."""
    return np.frombuffer(array.buffers()[1], words)[array.offset : array.offset + len(array)]


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array as the loop was compiled for it: aligned and read-only, whoever made it."""
    array = np.require(array, requirements="A").view()
    array.flags.writeable = False
    return array


def _texts(array: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of a binary array and where each value begins in them, with one more at the end."""
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    return np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]], bounds - bounds[0]


def _is_valid(array: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def exercise() -> None:
    """Runs every loop of this module once, which compiles it."""
    values = {
        InfluxType.FLOAT: (pa.array([0.1, -1e-300]), b"", b"0.1 -1e-300"),
        InfluxType.INTEGER: (pa.array([-1, 1]), b"i", b"-1i 1i"),
        InfluxType.STRING: (pa.array([b"x", None]), b'"', b'"x" '),
    }
    fields = tuple(
        FieldValues(kind, b'v="' if suffix == b'"' else b"v=", suffix, array)
        for kind, (array, suffix, _) in values.items()
    )
    runs = Runs(np.zeros(1, np.int64), pa.array([b"m"]), 2)
    points = Points(runs, fields, pa.array([1, -2]), np.array([3, 2]))
    found = renderer(points)(0, 2).body
    if bytes(found) != b'm v=0.1,v=-1i,v="x" 1\nm v=-1e-300,v=1i -2\n':
        raise AssertionError(f"the compiled loops write {bytes(found)!r}")
