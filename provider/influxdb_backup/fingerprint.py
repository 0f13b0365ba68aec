"""
An order-independent fingerprint of a table's content, equal for equal points wherever they are read from.

It is the sum modulo 2^128 of one 128-bit hash for each value. All integers are unsigned, ``LP(x)`` is the
length of ``x`` as 4 bytes little endian followed by ``x``, ``XXH3`` is XXH3-128 with seed 0 and ``lo``/``hi`` are
its low and high 64 bits; ``t`` is the point's time in ns as 64 bits two's complement; arithmetic is modulo 2^64::

    series = LP(measurement) then, for each tag with a value that is not empty,
             in the order of the key's bytes: LP(key) LP(value)
    column = one byte of type (f float, i integer, u unsigned, s string, b boolean) then LP(field name)
    S = XXH3(series)        C = XXH3(column)
    V0 = V1 = the 64 bits of the value (float: IEEE 754 bits; integer: two's complement; boolean: 0 or 1)
              for a string V0 = lo(XXH3(bytes)), V1 = hi(XXH3(bytes))
    mix(x): x ^= x >> 33; x *= 0xff51afd7ed558ccd; x ^= x >> 33; x *= 0xc4ceb9fe1a85ec53; x ^= x >> 33
    R0 = mix(lo(S) ^ t)     H0 = mix(R0 ^ lo(C) ^ V0)
    R1 = mix(hi(S) + t)     H1 = mix(R1 + hi(C) + V1)
    hash of the value = H1 * 2^64 + H0

A field that a point does not have adds nothing. Database, retention policy and server are not part of it. It
finds corruption and loss, not forgery: whoever can choose values can construct collisions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from influxdb_backup.columns import batch_columns
from influxdb_backup.fast import pays, why_not_fast
from influxdb_backup.model import Column, FieldCount, InfluxType, Role, encode_name

_MODULUS = 1 << 128
_TYPE_CODES = {
    InfluxType.FLOAT: b"f",
    InfluxType.INTEGER: b"i",
    InfluxType.UNSIGNED: b"u",
    InfluxType.STRING: b"s",
    InfluxType.BOOLEAN: b"b",
}
Words = NDArray[np.uint64]
Word = int | np.uint64


class Loops(Protocol):
    """The two loops over all values, in numpy or compiled; see ``fingerprint_loops``."""

    def mix_rows(self, times: Words, low: Words, high: Words) -> None:
        """``low`` and ``high`` words of S, one for each row, become R0 and R1."""

    def sum_column(self, low: Words, high: Words, values: tuple[Words, Words], seed: Words) -> tuple[Word, Word]:
        """Low and high word of the sum of a column's hashes modulo 2^128."""


@lru_cache(1)
def default_loops() -> Loops:
    """The compiled loops where they may be used, else numpy's."""
    if why_not_fast():
        from influxdb_backup import fingerprint_loops

        return fingerprint_loops
    from influxdb_backup import fingerprint_kernels

    fingerprint_kernels.exercise()  # loads them now, while no points are in memory beside the compiler
    return fingerprint_kernels


def loops_for(values: int) -> Loops:
    """The compiled loops where they may be used and so many values are worth loading them, else numpy's."""
    if pays(values):
        return default_loops()
    from influxdb_backup import fingerprint_loops

    return fingerprint_loops


def format_fingerprint(value: int) -> str:
    """The 32 hexadecimal digits of a fingerprint."""
    return f"{value % _MODULUS:032x}"


def add_fingerprints(parts: Iterable[str]) -> str:
    """The fingerprint of the union of disjoint sets of points, from the sets' own fingerprints."""
    return format_fingerprint(sum(int(part, 16) for part in parts))


def _length_prefixed(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "little") + raw


def _digests(keys: Iterable[bytes | memoryview]) -> tuple[Words, Words]:
    """Low and high words of XXH3-128 of each key."""
    digest = xxhash.xxh3_128_digest
    both = np.frombuffer(b"".join([digest(key) for key in keys]), dtype=">u8").reshape(-1, 2)
    return both[:, 1].astype(np.uint64), both[:, 0].astype(np.uint64)


def _dictionary_fragments(array: pa.DictionaryArray, key: bytes) -> list[bytes]:
    """For each entry of a tag's dictionary its part of the series key; empty for an empty or missing value."""
    prefix = _length_prefixed(key)
    fragments = []
    for value in array.dictionary.cast(pa.binary()).to_pylist():
        fragments.append(prefix + _length_prefixed(value) if value else b"")
    fragments.append(b"")  # index -1, a null
    return fragments


def _series_words(measurement: bytes, batch: pa.RecordBatch, columns: tuple[Column, ...]) -> tuple[Words, Words]:
    """S of the definition for each row: low and high words."""
    tags = sorted(
        (
            (encode_name(column.name), batch.column(position + 1))
            for position, column in enumerate(columns)
            if column.role is Role.TAG
        ),
        key=lambda pair: pair[0],
    )
    rows = batch.num_rows
    starts_mask = np.zeros(rows, dtype=bool)
    starts_mask[0] = True
    codes, fragments = [], []
    for key, array in tags:
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()  # noqa: PLW2901
        indices = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        starts_mask[1:] |= indices[1:] != indices[:-1]
        codes.append(indices)
        fragments.append(_dictionary_fragments(array, key))
    starts = np.flatnonzero(starts_mask)
    prefix = _length_prefixed(measurement)
    parts = [
        [entries[code] for code in indices[starts].tolist()] for indices, entries in zip(codes, fragments, strict=True)
    ]
    keys = [b"".join((prefix, *row)) for row in zip(*parts, strict=True)] if parts else [prefix]
    low, high = _digests(keys)
    lengths = np.diff(np.append(starts, rows))
    return np.repeat(low, lengths), np.repeat(high, lengths)


def _string_words(array: pa.Array) -> tuple[Words, Words]:
    encoded = array.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    values = encoded.dictionary.cast(pa.large_binary())
    buffers = values.buffers()
    offsets = np.frombuffer(buffers[1], dtype=np.int64)[values.offset : values.offset + len(values) + 1].tolist()
    data = memoryview(buffers[2]) if buffers[2] is not None else memoryview(b"")
    low, high = _digests(data[a:b] for a, b in itertools.pairwise(offsets))
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return low[codes], high[codes]


def _value_words(array: pa.Array, kind: InfluxType) -> tuple[Words, Words]:
    """V0 and V1 of the values of an array without nulls."""
    if kind is InfluxType.STRING:
        return _string_words(array)
    if kind is InfluxType.BOOLEAN:
        words = array.cast(pa.uint8()).to_numpy(zero_copy_only=False).astype(np.uint64)
    else:
        words = array.to_numpy(zero_copy_only=False).view(np.uint64)
    return words, words


class TableFingerprint:
    """
    Fingerprint, counts and time bounds of one table, fed batch by batch in any order.

    The batches may be cut anywhere; their column sets may differ. Points must be distinct.
    """

    def __init__(self, measurement: str, loops: Loops | None = None) -> None:
        self._measurement = encode_name(measurement)
        self._loops = loops
        self.value = 0
        self.rows = 0
        self.min_time: int | None = None
        self.max_time: int | None = None
        self._counts: dict[tuple[str, InfluxType], int] = {}

    @property
    def hexadecimal(self) -> str:
        """The fingerprint so far, 32 digits."""
        return format_fingerprint(self.value)

    @property
    def counts(self) -> tuple[FieldCount, ...]:
        """Values per (field, type), sorted, without fields that have none."""
        return tuple(
            FieldCount(name=name, type=kind, count=count)
            for (name, kind), count in sorted(
                self._counts.items(), key=lambda item: (encode_name(item[0][0]), item[0][1])
            )
            if count
        )

    @property
    def values(self) -> int:
        """Values of all fields."""
        return sum(self._counts.values())

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds the points of a batch with the seam's schema (``influxdb_backup.columns``)."""
        if batch.num_rows == 0:
            return
        columns = batch_columns(batch.schema)
        signed = batch.column(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
        self._widen(int(signed.min()), int(signed.max()))
        self.rows += batch.num_rows
        rows = _series_words(self._measurement, batch, columns)
        loops = self._loops or loops_for(self.rows * len(columns))
        loops.mix_rows(_read_only(signed.view(np.uint64)), *rows)
        for position, column in enumerate(columns):
            if column.role is Role.FIELD:
                self._add_column(loops, rows, column, batch.column(position + 1))

    def _widen(self, earliest: int, latest: int) -> None:
        self.min_time = earliest if self.min_time is None else min(self.min_time, earliest)
        self.max_time = latest if self.max_time is None else max(self.max_time, latest)

    def _add_column(self, loops: Loops, rows: tuple[Words, Words], column: Column, array: pa.Array) -> None:
        count = len(array) - array.null_count
        key = (column.name, column.type)
        self._counts[key] = self._counts.get(key, 0) + count
        if not count:
            return
        if array.null_count:
            present = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
            rows = rows[0][present], rows[1][present]
            array = array.drop_null()
        values = _value_words(array, column.type)
        seed = np.concatenate(_digests([_TYPE_CODES[column.type] + _length_prefixed(encode_name(column.name))]))
        low, high = loops.sum_column(*rows, (_read_only(values[0]), _read_only(values[1])), seed)
        self.value = (self.value + int(low) + (int(high) << 64)) % _MODULUS


def _read_only(words: Words) -> Words:
    """The same words, so that a loop need not be compiled once more for arrays that can be written to."""
    view = words.view()
    view.flags.writeable = False
    return view


def fingerprint_batches(
    measurement: str, batches: Iterable[pa.RecordBatch], loops: Loops | None = None
) -> TableFingerprint:
    """The fingerprint of a whole table."""
    table = TableFingerprint(measurement, loops)
    for batch in batches:
        table.add(batch)
    return table


def value_hashes(
    measurement: str, batch: pa.RecordBatch, type_of: Callable[[InfluxType], InfluxType] = lambda kind: kind
) -> Iterator[tuple[Words, NDArray[np.int64]]]:
    """
    H0 of the definition for each value of a batch, field by field, each with the position of its row.

    ``type_of`` gives the type that a value of a type is taken for.
    """
    if batch.num_rows == 0:
        return
    columns = batch_columns(batch.schema)
    times = batch.column(0).cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64)
    rows = _series_words(encode_name(measurement), batch, columns)
    loops_for(batch.num_rows * len(columns)).mix_rows(_read_only(times), *rows)
    for position, column in enumerate(columns):
        array = batch.column(position + 1)
        if column.role is not Role.FIELD or array.null_count == len(array):
            continue
        present = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        values, _ = _value_words(array.drop_null(), column.type)
        code = _TYPE_CODES[type_of(column.type)] + _length_prefixed(encode_name(column.name))
        yield _mixed(rows[0][present] ^ _digests([code])[0] ^ values), present


def _mixed(words: Words) -> Words:
    """The mix function of the definition."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        words = (words ^ (words >> np.uint64(33))) * np.uint64(factor)
    return words ^ (words >> np.uint64(33))
