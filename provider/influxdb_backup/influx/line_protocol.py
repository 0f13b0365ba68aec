"""
Record batches to line protocol, column by column with Arrow's kernels or by a compiled loop, with the same result.

Floats are written as the shortest decimal that reads back to the same bits (``-0``, ``5e-324`` and
``1.7976931348623157e+308`` included) in Arrow's forms, all of which the servers take. A field that is null in a
row is left out of the line; a row without any field is no point and is left out. Tag values that are empty
are the same as absent ones to InfluxDB and are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.columns import batch_columns
from influxdb_backup.errors import UnrepresentableError
from influxdb_backup.fast import why_not_fast
from influxdb_backup.influx import arrow_lines
from influxdb_backup.influx.dialect import (
    KEY_SEPARATOR_BYTES,
    MAX_INTEGER,
    MAX_KEY_BYTES,
    escape_field_key,
    escape_measurement,
    escape_tag,
    name_conflicts,
)
from influxdb_backup.influx.lines import FieldValues, Lines, Points, Render, Runs
from influxdb_backup.influx.protocol import Conflict, Dialect, Unrepresentable, WriteOptions
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Column, InfluxType, Role, encode_name, printable

logger = logger_of(__name__)

_SUFFIXES = {InfluxType.INTEGER: b"i", InfluxType.UNSIGNED: b"u", InfluxType.STRING: b'"'}
_NO_BYTES = pa.scalar(b"", pa.binary())

Renderer = Callable[[Points], Render]


def encode(
    measurement: str, batch: pa.RecordBatch, dialect: Dialect, options: WriteOptions, *, make: Renderer | None = None
) -> Iterator[Lines]:
    """
    The batch's points as stretches of at most ``options.batch_lines`` lines and ``options.batch_bytes`` bytes.

    A line that is longer than ``batch_bytes`` is a stretch of its own. Raises UnrepresentableError when the
    dialect cannot carry a name, a type or a value: nothing is altered or left out for that. ``make`` is the way to
    render, when it is not to be the fastest one there is.
    """
    columns = _written_columns(batch)
    problems = name_conflicts(measurement, [column for column, _ in columns], dialect, options)
    problems += _value_conflicts(measurement, columns, batch.num_rows, dialect)
    if problems:
        raise unrepresentable_error(measurement, problems)
    fields = [(column, array) for column, array in columns if column.role is Role.FIELD]
    filled = _fields_per_row([array for _, array in fields], batch.num_rows)
    if not filled.all():
        yield from encode(measurement, batch.filter(pa.array(filled > 0)), dialect, options, make=make)
        return
    if not batch.num_rows:
        return
    points = Points(
        runs=_series_runs(measurement, [item for item in columns if item[0].role is Role.TAG], batch.num_rows),
        fields=tuple(_as_field(column, array, dialect) for column, array in fields),
        times=_nanoseconds(batch.column(0)),
        filled=filled,
    )
    render = (make or renderer_here())(points)
    for start, stop in pairwise(_cuts(points.bounds, options)):
        yield render(start, stop)


@lru_cache(1)
def renderer_here() -> Renderer:
    """
    Compiled loops where there are any; both make the same bytes.

    They are loaded by the first call: best while few points are in memory beside the compiler.
    """
    reason = why_not_fast()
    if reason:
        logger.info("Line protocol is written without compiled loops: %s", reason)
        return arrow_lines.renderer
    from influxdb_backup.influx import fast_lines

    fast_lines.exercise()
    return fast_lines.renderer


def unrepresentable(
    measurement: str, columns: Sequence[Column], batch: pa.RecordBatch | None, dialect: Dialect, options: WriteOptions
) -> list[Unrepresentable]:
    """What of these names and types, and of the batch's values, the dialect's line protocol cannot carry."""
    found = name_conflicts(measurement, columns, dialect, options)
    if batch is not None:
        found += _value_conflicts(measurement, _written_columns(batch), batch.num_rows, dialect)
    return found


def unrepresentable_error(measurement: str, problems: Sequence[Unrepresentable]) -> UnrepresentableError:
    """The error that names the first few of these problems."""
    shown = "; ".join(f"{item.conflict.value} {printable(item.name)[:200]!r}: {item.reason}" for item in problems[:5])
    more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
    return UnrepresentableError(
        f"Line protocol cannot carry the measurement {printable(measurement)!r}: {shown}{more}.",
        hint="Leave the measurement out, or choose a target of another generation.",
    )


def _written_columns(batch: pa.RecordBatch) -> list[tuple[Column, Any]]:
    columns = zip(batch_columns(batch.schema), batch.columns[1:], strict=True)
    return [(column, array) for column, array in columns if array.null_count < len(array)]


def _fields_per_row(fields: Sequence[Any], rows: int) -> npt.NDArray[np.int64]:
    filled = np.full(rows, sum(1 for array in fields if not array.null_count), dtype=np.int64)
    for array in fields:
        if array.null_count:
            filled += array.is_valid().to_numpy(zero_copy_only=False)
    return filled


def _nanoseconds(times: Any) -> Any:
    if times.null_count:
        raise UnrepresentableError("A point has no time.")
    return times.cast(pa.timestamp("ns", tz="UTC")).view(pa.int64())


# --- tags ---------------------------------------------------------------------------------------------------


def _dictionary(array: Any) -> Any:
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()


def _run_starts(tags: Sequence[Any], rows: int) -> npt.NDArray[np.int64]:
    changed = np.zeros(rows, dtype=bool)
    changed[:1] = True
    for array in tags:
        indices = array.indices
        if indices.null_count:
            indices = indices.cast(pa.int64()).fill_null(-1)
        codes = indices.to_numpy(zero_copy_only=False)
        changed[1:] |= codes[1:] != codes[:-1]
    return np.flatnonzero(changed).astype(np.int64)


def _tag_values(array: Any, rows: npt.NDArray[np.int64]) -> Any:
    """The values of these rows as plain binary, null where there is no tag or an empty one."""
    values = array.take(pa.array(rows)).dictionary_decode().cast(pa.binary())
    return pc.if_else(pc.equal(pc.binary_length(values), 0), pa.scalar(None, pa.binary()), values)


def _series_runs(measurement: str, columns: Sequence[tuple[Column, Any]], rows: int) -> Runs:
    ordered = sorted(columns, key=lambda item: encode_name(item[0].name))
    tags = [(column, _dictionary(array)) for column, array in ordered]
    starts = _run_starts([array for _, array in tags], rows)
    pieces: list[Any] = [pa.array([escape_measurement(measurement)], pa.binary()).take(_zeros(len(starts)))]
    for column, array in tags:
        values = _tag_values(array, starts)
        for special in (b",", b"=", b" "):
            values = _replace(values, special, b"\\" + special)
        key = pa.scalar(b"," + escape_tag(column.name) + b"=", pa.binary())
        pieces.append(pc.binary_join_element_wise(key, values, _NO_BYTES))
    escaped = pc.binary_join_element_wise(*pieces, _NO_BYTES, null_handling="replace", null_replacement="")
    return Runs(starts, escaped, rows)


def _zeros(count: int) -> Any:
    return pa.array(np.zeros(count, dtype=np.int64))


# --- fields -------------------------------------------------------------------------------------------------


def _holds_byte(array: Any, byte: bytes) -> bool:
    """Whether the byte occurs in a binary array's own stretch of its buffer."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return False
    bounds = np.frombuffer(offsets, np.int32)[[array.offset, array.offset + len(array)]]
    stretch = np.frombuffer(data, np.uint8)[int(bounds[0]) : int(bounds[1])]
    return bool((stretch == byte[0]).any())


def _replace(array: Any, pattern: bytes, replacement: bytes) -> Any:
    return pc.replace_substring(array, pattern, replacement) if _holds_byte(array, pattern) else array


def _escaped(texts: Any) -> Any:
    """String values as they stand between quotes."""
    return _replace(_replace(texts.cast(pa.binary()), b"\\", b"\\\\"), b'"', b'\\"')


def _as_field(column: Column, array: Any, dialect: Dialect) -> FieldValues:
    text = column.type is InfluxType.STRING
    suffix = _SUFFIXES.get(column.type, b"")
    if column.type is InfluxType.UNSIGNED and not dialect.unsigned:
        suffix = _SUFFIXES[InfluxType.INTEGER]
    opening = escape_field_key(column.name) + (b'="' if text else b"=")
    return FieldValues(column.type, opening, suffix, _escaped(array) if text else array)


# --- stretches ----------------------------------------------------------------------------------------------


def _cuts(sizes: npt.NDArray[np.int64], options: WriteOptions) -> list[int]:
    """Row numbers at which stretches begin, and the number of rows; lines are spread evenly over stretches."""
    rows = len(sizes)
    stretches = -(-rows // options.batch_lines)
    longest = -(-rows // stretches)
    total = np.cumsum(sizes)
    cuts = [0]
    while cuts[-1] < rows:
        start = cuts[-1]
        before = int(total[start - 1]) if start else 0
        fitting = int(np.searchsorted(total, before + options.batch_bytes, side="right"))
        cuts.append(min(max(fitting, start + 1), start + longest, rows))
    return cuts


# --- what cannot be carried ---------------------------------------------------------------------------------


def _value_conflicts(
    measurement: str, written: Sequence[tuple[Column, Any]], rows: int, dialect: Dialect
) -> list[Unrepresentable]:
    found: list[Unrepresentable] = []
    tags = [item for item in written if item[0].role is Role.TAG]
    fields = [item for item in written if item[0].role is Role.FIELD]
    for column, array in tags:
        found.extend(_tag_value_conflicts(column, array))
    for column, array in fields:
        found.extend(_field_value_conflicts(column, array, dialect))
    found.extend(_duplicate_conflicts(written))
    found.extend(_key_length_conflicts(measurement, tags, [column for column, _ in fields], rows))
    return found


def _used_values(array: Any) -> Any:
    """The distinct tag values that occur in the rows, as binary."""
    array = _dictionary(array)
    codes = array.indices.drop_null().unique()
    return array.dictionary.take(codes).cast(pa.binary())


def _candidates(array: Any) -> Any:
    """Tag values among which are all that occur in the rows, as binary; cheaper than to know which do."""
    array = _dictionary(array)
    return array.dictionary.cast(pa.binary()) if len(array.dictionary) <= len(array) else _used_values(array)


def _tag_value_conflicts(column: Column, array: Any) -> Iterator[Unrepresentable]:
    candidates = _candidates(array)
    for is_wrong, pattern, reason in (
        (pc.match_substring, "\n", "a tag value with a newline cannot be written"),
        (pc.ends_with, "\\", "a tag value that ends in a backslash cannot be written"),
    ):
        if not pc.any(is_wrong(candidates, pattern)).as_py():
            continue
        values = _used_values(array)
        for value in values.filter(is_wrong(values, pattern)).slice(0, 3).to_pylist():
            shown = printable(value[:100].decode("utf-8", "surrogateescape"))
            yield Unrepresentable(Conflict.TAG_VALUE, column.name, f"{reason}: {shown!r}")


def _field_value_conflicts(column: Column, array: Any, dialect: Dialect) -> Iterator[Unrepresentable]:
    if column.type is InfluxType.STRING:
        longest, limit = pc.max(pc.binary_length(array)).as_py(), dialect.max_string_bytes
        if limit is not None and longest > limit:
            reason = f"a string of {longest} bytes is longer than InfluxDB {dialect.name} takes ({limit})"
            yield Unrepresentable(Conflict.FIELD_VALUE, column.name, reason)
    elif column.type is InfluxType.FLOAT:
        if not np.isfinite(array.drop_null().to_numpy(zero_copy_only=False)).all():
            yield Unrepresentable(Conflict.FIELD_VALUE, column.name, "NaN and infinity cannot be written")
    elif column.type is InfluxType.UNSIGNED and not dialect.unsigned:
        largest = pc.max(array).as_py()
        if largest > MAX_INTEGER:
            reason = f"{largest} does not fit into an integer, and InfluxDB {dialect.name} has no unsigned fields"
            yield Unrepresentable(Conflict.FIELD_VALUE, column.name, reason)


def _duplicate_conflicts(written: Sequence[tuple[Column, Any]]) -> Iterator[Unrepresentable]:
    """A field in two types, or a tag key twice, of which only one could be kept."""
    counts = Counter((column.role, column.name) for column, _ in written)
    for (role, name), count in counts.items():
        if count < 2:
            continue
        arrays = [array for column, array in written if (column.role, column.name) == (role, name)]
        if role is Role.TAG:
            yield Unrepresentable(Conflict.TAG_KEY, name, "the tag key occurs twice")
        elif _fields_per_row(arrays, len(arrays[0])).max(initial=0) > 1:
            yield Unrepresentable(Conflict.FIELD_TYPE, name, "one point has the field in two types")


def _key_length_conflicts(
    measurement: str, tags: Sequence[tuple[Column, Any]], fields: Sequence[Column], rows: int
) -> Iterator[Unrepresentable]:
    if not rows or not fields:
        return
    field = max((len(escape_field_key(column.name)) for column in fields), default=0)
    bound = len(escape_measurement(measurement)) + KEY_SEPARATOR_BYTES + field
    for column, array in tags:
        longest = pc.max(pc.binary_length(_candidates(array))).as_py() or 0
        bound += 2 + len(escape_tag(column.name)) + 2 * longest
    if bound <= MAX_KEY_BYTES:
        return
    series = pc.max(pc.binary_length(_series_runs(measurement, tags, rows).escaped)).as_py()
    length = series + KEY_SEPARATOR_BYTES + field
    if length > MAX_KEY_BYTES:
        reason = f"measurement, tags and the longest field key have {length} bytes; InfluxDB takes {MAX_KEY_BYTES}"
        yield Unrepresentable(Conflict.MEASUREMENT, measurement, reason)
