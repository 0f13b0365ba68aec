"""
The series part of TSM keys from tag columns, once for each distinct series of a batch.

A key is ``measurement,tag=value,...`` as line protocol escapes it, ``#!~#`` and the plain field name. Tags are sorted
by their escaped names, as the servers do when they parse a line. 2.x has the same keys as 1.x (run: write-ahead log of
2.9.1); the buckets' ids of its earlier test releases are not in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.influx.dialect import escape_measurement, escape_tag
from influxdb_backup.influx.tsm.format import SEPARATOR
from influxdb_backup.model import Column

I64 = npt.NDArray[np.int64]
_NO_BYTES = pa.scalar(b"", pa.binary())
_RADIX_LIMIT = 2**62


def distinct_rows(codes: Sequence[I64], sizes: Sequence[int], rows: int) -> tuple[I64, I64]:
    """
    One row of each combination of codes, and for each row the position of its combination.

    ``codes[i]`` holds numbers from -1 (absent) to before ``sizes[i]``. Rows that equal the row before are cheap.
    """
    if not rows:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    changed = np.zeros(rows, bool)
    changed[0] = True
    for column in codes:
        changed[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(changed).astype(np.int64)
    runs = np.repeat(np.arange(len(starts)), np.diff(starts, append=rows))
    if not codes:
        return starts, runs
    combined, radix = np.zeros(len(starts), np.int64), 1
    for column, size in zip(codes, sizes, strict=True):
        if radix > _RADIX_LIMIT // (size + 1):
            values, combined = np.unique(combined, return_inverse=True)
            radix = len(values)
        combined = combined * (size + 1) + column[starts] + 1
        radix *= size + 1
    _, first, which = np.unique(combined, return_index=True, return_inverse=True)
    if len(first) == len(starts):
        return starts, runs
    return starts[first], which[runs].astype(np.int64)


def tag_codes(array: Any) -> tuple[I64, Any]:
    """A tag column as codes (-1: absent) and their values as binary."""
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    codes = array.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return codes, array.dictionary.cast(pa.binary())


def series_keys(measurement: str, tags: Sequence[tuple[Column, I64, Any]], rows: I64) -> Any:
    """
    The binary array of ``measurement,tag=value,...#!~#`` of these rows; empty and absent tag values are left out.

    ``tags`` has each column with its codes and its values as tag_codes returns them.
    """
    pieces: list[Any] = [pa.array([escape_measurement(measurement)], pa.binary()).take(_zeros(len(rows)))]
    for column, codes, values in sorted(tags, key=lambda tag: escape_tag(tag[0].name)):
        opening = pa.scalar(b"," + escape_tag(column.name) + b"=", pa.binary())
        texts = pc.binary_join_element_wise(opening, _escaped(values), _NO_BYTES)
        texts = pc.if_else(pc.equal(pc.binary_length(values), 0), pa.scalar(None, pa.binary()), texts)
        own = codes[rows]
        pieces.append(texts.take(pa.array(own, mask=own < 0)))
    end = pa.scalar(SEPARATOR, pa.binary())
    return pc.binary_join_element_wise(*pieces, end, _NO_BYTES, null_handling="replace", null_replacement="")


def _escaped(values: Any) -> Any:
    data = values.buffers()[2]
    held = b"" if data is None else data.to_pybytes()
    for special in (b",", b"=", b" "):
        if special in held:  # replacing costs more than all the rest, where there is nothing to replace
            values = pc.replace_substring(values, special, b"\\" + special)
    return values


def _zeros(count: int) -> Any:
    return pa.array(np.zeros(count, dtype=np.int64))
