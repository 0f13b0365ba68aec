"""Puts one TSM file together: header, blocks as they are encoded, index, footer."""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from influxdb_backup.errors import UnrepresentableError
from influxdb_backup.influx.pooled import pooled_bytes
from influxdb_backup.influx.tsm import encode_series as kernels
from influxdb_backup.influx.tsm.format import HEADER_BYTES, MAGIC, MAX_BLOCKS_PER_KEY, POINTS_PER_BLOCK, VERSION

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

TEXT_BYTES = 4 * 2**20
"""a block of strings ends before it would hold more than this, uncompressed: each thread holds that three times"""
MAX_FILE_BYTES = 2048 * 2**20
"""the servers' own bound of a TSM file"""
_OUT_BYTES = 4 * 2**20


@dataclass(frozen=True)
class TableRows:
    """The points of one measurement in one file; shapes and meaning as encode_series takes them."""

    starts: I64
    order: I64
    times: I64
    cells: U64
    cell_of: I64
    mask_of: I64
    masks: U8
    kinds: I64
    pool: U8
    longest_text: int
    series_bytes: U8
    series_offsets: I64
    field_bytes: U8
    field_offsets: I64

    def of_fields(self, first: int, until: int) -> TableRows:
        """The same rows with the fields from ``first`` to before ``until`` alone, without a copy."""
        return replace(
            self,
            kinds=self.kinds[first:until],
            cell_of=self.cell_of[first:until],
            mask_of=self.mask_of[first:until],
            field_offsets=self.field_offsets[first : until + 1],
        )


class TsmWriter:
    """
    Streams blocks to ``stream`` and keeps the index in ``spool`` (an empty file) until ``finish`` puts it behind them.

    Series must be given in the order of their keys' bytes, each once.
    """

    def __init__(self, stream: BinaryIO, spool: BinaryIO) -> None:
        self._stream = stream
        self._spool = spool
        self._out = np.empty(_OUT_BYTES, np.uint8)
        self._index = np.empty(2 * kernels.KEY_INDEX_BYTES, np.uint8)
        self._state = np.zeros(kernels.STATE_SIZE, np.int64)
        self._stream.write(struct.pack(">IB", MAGIC, VERSION))
        self._state[kernels.BASE] = HEADER_BYTES
        self._index_size = 0

    @property
    def values(self) -> int:
        """How many values were written."""
        return int(self._state[kernels.VALUES])

    @property
    def keys(self) -> int:
        """How many keys were written: fields of series."""
        return int(self._state[kernels.KEYS])

    def write(self, rows: TableRows, first: int, until: int) -> None:
        """Writes the series from ``first`` to before ``until``. Raises UnrepresentableError for a key too long."""
        most_texts = min(TEXT_BYTES, POINTS_PER_BLOCK * rows.longest_text)
        room = kernels.room_for_block(rows.longest_text, most_texts)
        if room > len(self._out):
            self._flush_out()
            self._out = pooled_bytes(room)
        state = self._state
        state[kernels.SERIES], state[kernels.FIELD], state[kernels.ROW] = first, 0, -1
        while True:
            status = self._encode(rows, until, most_texts)
            if status == kernels.DONE:
                return
            if status == kernels.TOO_MANY_BLOCKS:
                raise UnrepresentableError(
                    f"A field of a series has more than {MAX_BLOCKS_PER_KEY * POINTS_PER_BLOCK:,} values in a file.",
                    hint="Build smaller files.",
                )
            if status == kernels.OUT_FULL:
                self._flush_out()
            else:
                self._flush_index()

    def _encode(self, rows: TableRows, until: int, most_texts: int) -> int:
        return kernels.encode_series(
            self._state,
            until,
            rows.starts,
            rows.order,
            rows.times,
            rows.cells,
            rows.cell_of,
            rows.mask_of,
            rows.masks,
            rows.kinds,
            rows.pool,
            rows.longest_text,
            most_texts,
            rows.series_bytes,
            rows.series_offsets,
            rows.field_bytes,
            rows.field_offsets,
            self._out,
            self._index,
        )

    def _flush_out(self) -> None:
        size = int(self._state[kernels.OUT])
        self._stream.write(self._out[:size].data)
        self._state[kernels.BASE] += size
        self._state[kernels.OUT] = 0

    def _flush_index(self) -> None:
        size = int(self._state[kernels.INDEX])
        self._spool.write(self._index[:size].data)
        self._index_size += size
        self._state[kernels.INDEX] = 0

    def finish(self) -> int:
        """Writes index and footer and returns the file's size in bytes. Raises UnrepresentableError above 2 GiB."""
        self._flush_out()
        self._flush_index()
        place = int(self._state[kernels.BASE])
        size = place + self._index_size + 8
        if size > MAX_FILE_BYTES:
            raise UnrepresentableError(
                f"A TSM file of {size:,} bytes is larger than the servers take ({MAX_FILE_BYTES:,}).",
                hint="Build smaller files.",
            )
        self._spool.seek(0)
        shutil.copyfileobj(self._spool, self._stream, 2**20)
        self._stream.write(struct.pack(">Q", place))
        return size
