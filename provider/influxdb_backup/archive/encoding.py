"""
Which Parquet encoding each column of a part gets: tried out on a sample of the part's first row group.

A choice is only about size and speed. Every encoding holds every value exactly, so a sample that is not like the rest
of the part costs bytes and nothing else. All of them are old enough for readers other than pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from influxdb_backup.columns import TIME, batch_columns
from influxdb_backup.model import InfluxType

CODEC = "zstd-1"
DICTIONARY, DELTA, SPLIT, PLAIN = "DICTIONARY", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", "PLAIN"
LENGTHS = "DELTA_LENGTH_BYTE_ARRAY"
SAMPLE_ROWS = 8192
_FEWEST_ROWS = 4096
"""a smaller first row group is not worth a trial"""
_STRETCHES = 8
_FEW_OF = 2
"""a dictionary is tried when each value of the sample comes this many times on average"""
_AT_ONCE = 8192
"""values that the encoder takes at a time: with pyarrow's 1,024 it takes a tenth longer"""
_WORTH = 0.8
"""``PLAIN`` takes zstd twice the time of the others, and must save a fifth"""
_USUAL = {
    InfluxType.TAG: DICTIONARY,
    InfluxType.FLOAT: SPLIT,
    InfluxType.INTEGER: DELTA,
    InfluxType.UNSIGNED: DELTA,
    InfluxType.STRING: DICTIONARY,
    InfluxType.BOOLEAN: PLAIN,
}
_OTHERS = {
    InfluxType.FLOAT: (DICTIONARY, PLAIN),
    InfluxType.INTEGER: (DICTIONARY,),
    InfluxType.UNSIGNED: (DICTIONARY,),
    InfluxType.STRING: (LENGTHS,),
}

Encodings = Mapping[str, str]
"""by Parquet column"""


def usual_encodings(schema: pa.Schema) -> Encodings:
    """What each column gets without a look at its values."""
    columns = zip(batch_columns(schema), list(schema)[1:], strict=True)
    return {TIME: DELTA, **{field.name: _USUAL[column.type] for column, field in columns}}


def choose_encodings(table: pa.Table) -> Encodings:
    """The encodings for a part whose first row group this is. Tags keep theirs: they are never held as plain text."""
    chosen = dict(usual_encodings(table.schema))
    if table.num_rows < _FEWEST_ROWS:
        return chosen
    fields = zip(batch_columns(table.schema), list(table.schema)[1:], table.columns[1:], strict=True)
    filled = {field.name: column for column, field, values in fields if _count(values) >= _FEWEST_ROWS}
    sample = _sample(table.select(list(filled)))
    for name, column in filled.items():
        values = sample.column(name)
        candidates = [
            encoding
            for encoding in _OTHERS.get(column.type, ())
            if encoding != DICTIONARY or pc.count_distinct(values).as_py() * _FEW_OF <= len(values) - values.null_count
        ]
        if candidates and values.null_count < len(values):
            chosen[name] = _smallest(values, [chosen[name], *candidates])
    return chosen


def _count(values: pa.ChunkedArray) -> int:
    return int(len(values) - values.null_count)


def _sample(table: pa.Table) -> pa.Table:
    """Stretches from all over the row group, since it may begin with a series unlike the others."""
    if table.num_rows <= SAMPLE_ROWS:
        return table
    step, size = table.num_rows // _STRETCHES, SAMPLE_ROWS // _STRETCHES
    return pa.concat_tables([table.slice(number * step, size) for number in range(_STRETCHES)]).combine_chunks()


def _smallest(values: pa.ChunkedArray, candidates: Sequence[str]) -> str:
    table = pa.table({"values": values})
    best, least = candidates[0], _size(table, candidates[0])
    for encoding in candidates[1:]:
        size = _size(table, encoding)
        if size < least * (_WORTH if encoding == PLAIN else 1):
            best, least = encoding, size
    return best


def _size(table: pa.Table, encoding: str) -> int:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **writer_options({"values": encoding}, []), store_schema=False) as writer:
        writer.write_table(table)
    return int(sink.tell())


def writer_options(encodings: Encodings, statistics: Sequence[str]) -> dict[str, object]:
    """What pyarrow's writer is told; ``statistics`` are the columns whose least and greatest value are noted."""
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [name for name, encoding in encodings.items() if encoding == DICTIONARY] or False,
        "column_encoding": {
            name: encoding for name, encoding in encodings.items() if encoding not in {DICTIONARY, PLAIN}
        },
        "write_statistics": list(statistics) or False,
        "write_batch_size": _AT_ONCE,
        "version": "2.6",
        "write_page_checksum": True,  # 17 MB grow by 2 kB, and what is whole of a damaged part can be told
        "write_page_index": True,
    }
