"""Series and rows of one read gathered into Arrow record batches of bounded size, all of one schema."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.columns import TIME_TYPE, arrow_schema, null_column
from influxdb_backup.influx.rows import NotUtf8Error, OtherTypeError, Rows, join, value_array
from influxdb_backup.model import Column, InfluxType

_JOINED_BYTES = 1 << 20
"""walked rows are converted when they have grown to this size: what is larger gains nothing from being joined"""
MOST_CELLS = 1 << 21
"""rows times columns of a batch, each of which takes 8 bytes when the reply has one for it"""


class NotAscendingError(ValueError):
    """A series has two rows of one time, or one that is earlier than the row before it; ``time`` is the second's."""

    def __init__(self, time: int) -> None:
        super().__init__(f"a row of the time {time} is not behind the one before it")
        self.time = time


class _TagColumn:
    """The values of one tag, a run of rows each."""

    def __init__(self, column: Column, *, binary: bool) -> None:
        self.column = column
        self._binary = binary
        self._codes: dict[bytes, int] = {}
        self._runs: list[int] = []

    def start(self, value: bytes) -> None:
        """The rows that follow have this value; the empty one is no tag."""
        self._runs.append(self._codes.setdefault(value, len(self._codes)) if value else -1)

    def finish(self, lengths: npt.NDArray[np.int64]) -> pa.Array:
        """The dictionary array; afterwards only the last run stands."""
        codes = np.repeat(np.array(self._runs, np.int32), lengths)
        indices = pa.array(codes, mask=codes < 0)
        values: pa.Array = pa.array(list(self._codes), pa.binary())
        if not self._binary:
            values = values.cast(pa.string())
        last = next((value for value, code in self._codes.items() if code == self._runs[-1]), b"")
        self._codes, self._runs = {}, []
        self.start(last)
        return pa.DictionaryArray.from_arrays(indices, values)


class BatchBuilder:
    """
    Gathers rows; ``finish`` makes a batch of what was gathered.

    ``columns`` are the tags and fields of the batches; ``positions`` tells for each field where it stands in a row,
    and ``empty`` the positions of row columns that must hold no value at all.
    """

    def __init__(
        self,
        tags: Sequence[Column],
        fields: Sequence[Column],
        positions: Sequence[int],
        empty: Sequence[int],
        binary: frozenset[Column],
    ) -> None:
        self.schema = arrow_schema([*tags, *fields], binary)
        self._fields = list(zip(fields, positions, strict=True))
        self._empty = tuple(empty)
        self._binary = binary
        self._tags = [_TagColumn(tag, binary=tag in binary) for tag in tags]
        self._lengths: list[int] = []
        self._last: int | None = None
        """the time of the last row of a series that goes on"""
        self._pending: list[tuple[object, ...]] = []
        self._walked: list[Rows] = []
        self._walked_bytes = 0
        self._times: list[pa.Array] = []
        self._values: list[list[pa.Array]] = [[] for _ in fields]
        self.rows = 0

    def start_series(self, values: Sequence[bytes]) -> None:
        """The rows that follow are of the series with these tag values."""
        for tag, value in zip(self._tags, values, strict=True):
            tag.start(value)
        self._lengths.append(0)

    def add_rows(self, rows: list[tuple[object, ...]]) -> None:
        """Decoded rows of the present series. Raises OtherTypeError and NotUtf8Error, for the rows before them."""
        self._convert_walked()
        self._pending.extend(rows)
        self._grow(len(rows))

    def add_walked(self, rows: Rows) -> None:
        """Rows of the present series that were found by ``walk``. Raises OtherTypeError and NotUtf8Error."""
        self._convert_pending()
        self._walked.append(rows)
        self._walked_bytes += len(rows.data)
        if self._walked_bytes >= _JOINED_BYTES:
            self._convert_walked()
        self._grow(rows.count)

    def _convert_walked(self) -> None:
        if not self._walked:
            return
        rows = join(self._walked)
        self._walked, self._walked_bytes = [], 0
        times = rows.array(0, InfluxType.INTEGER)
        if times.null_count:
            raise OtherTypeError(0, "no time")
        self._times.append(times)
        for (field, position), arrays in zip(self._fields, self._values, strict=True):
            arrays.append(rows.array(position, field.type, binary=field in self._binary))
        for position in self._empty:
            if rows.array(position, InfluxType.BOOLEAN).null_count != rows.count:
                raise OtherTypeError(position, "values that the probe did not see")

    def _grow(self, rows: int) -> None:
        self._lengths[-1] += rows
        self.rows += rows

    def _convert_pending(self) -> None:
        if not self._pending:
            return
        columns = list(zip(*self._pending, strict=True))
        self._pending = []
        if set(map(type, columns[0])) != {int}:
            raise OtherTypeError(0, "no time")
        try:
            self._times.append(pa.array(columns[0], pa.int64()))
        except (OverflowError, pa.ArrowInvalid):
            raise OtherTypeError(0, "no time") from None
        for (field, position), arrays in zip(self._fields, self._values, strict=True):
            arrays.append(value_array(columns[position], position, field.type, binary=field in self._binary))
        for position in self._empty:
            if any(value is not None for value in columns[position]):
                raise OtherTypeError(position, "values that the probe did not see")

    def finish(self) -> pa.RecordBatch:
        """
        What was gathered, as one batch; the present series goes on.

        Raises OtherTypeError, NotUtf8Error and NotAscendingError.
        """
        self._convert_walked()
        self._convert_pending()
        lengths = np.array(self._lengths, np.int64)
        times = pa.concat_arrays(self._times)
        self._prove_order(times.to_numpy(), lengths)
        arrays = [times.cast(TIME_TYPE)]
        for tag in self._tags:
            try:
                arrays.append(tag.finish(lengths))
            except pa.ArrowInvalid:
                raise NotUtf8Error(-1 - self._tags.index(tag)) from None
        arrays.extend(_joined(chunks, len(times)) for chunks in self._values)
        self._times = []
        self._values = [[] for _ in self._fields]
        self._last = times[-1].as_py() if self._lengths[-1] else None
        self._lengths = [0]
        self.rows = 0
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _prove_order(self, times: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
        begins = np.cumsum(lengths) - lengths
        if self._last is not None and lengths[0] and times[0] <= self._last:
            raise NotAscendingError(int(times[0]))
        falls = np.flatnonzero(times[1:] <= times[:-1]) + 1
        wrong = falls[~np.isin(falls, begins)] if len(falls) else falls
        if len(wrong):
            raise NotAscendingError(int(times[wrong[0]]))


def _joined(chunks: Sequence[pa.Array], rows: int) -> pa.Array:
    """One field's values; where there are none, of the memory that all such columns share."""
    if all(chunk.null_count == len(chunk) for chunk in chunks):
        return null_column(chunks[0].type, rows)
    return pa.concat_arrays(chunks)
