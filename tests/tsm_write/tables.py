"""Record batches for the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from influxdb_backup.columns import ARROW_TYPES, arrow_schema
from influxdb_backup.model import Column, InfluxType, Role, Window

DAY = 86_400_000_000_000
START = 1_700_000_000_000_000_000 // DAY * DAY
GROUP = Window(start=START, end=START + DAY)


def batch(
    times: Sequence[int],
    tags: Mapping[str, Sequence[str | None]],
    fields: Mapping[str, tuple[InfluxType, Sequence[object]]],
) -> pa.RecordBatch:
    """A batch of the seam from plain lists."""
    columns = [Column(role=Role.TAG, name=name, type=InfluxType.TAG) for name in tags]
    columns += [Column(role=Role.FIELD, name=name, type=kind) for name, (kind, _) in fields.items()]
    arrays = [pa.array(times, pa.timestamp("ns", "UTC"))]
    arrays += [pa.array(values, pa.string()).dictionary_encode() for values in tags.values()]
    arrays += [pa.array(values, ARROW_TYPES[kind]) for kind, values in fields.values()]
    return pa.record_batch(arrays, schema=arrow_schema(tuple(columns)))


def _times(rng: np.random.Generator, way: int, rows: int) -> np.ndarray:
    steps = (
        np.full(rows, 10_000_000_000),
        rng.integers(1, 5, rows) * 1_000_000,
        np.ones(rows, np.int64),
        rng.integers(1, 30_000_000_000, rows),
    )
    return START + np.cumsum(steps[way])


def _values(rng: np.random.Generator, kind: InfluxType, way: int, rows: int) -> np.ndarray:
    if kind is InfluxType.FLOAT:
        wild = rng.integers(-(2**63), 2**63 - 1, rows).view(np.float64)
        return (np.round(rng.normal(50, 10, rows), 2), np.full(rows, 1.5), np.where(np.isfinite(wild), wild, 0.0))[way]
    if kind is InfluxType.INTEGER:
        return (rng.integers(0, 100, rows), rng.integers(-(2**63), 2**63 - 1, rows), np.arange(rows) * 7)[way]
    if kind is InfluxType.UNSIGNED:
        wild = rng.integers(0, 2**64 - 1, rows, dtype=np.uint64)
        return (rng.integers(0, 100, rows).astype(np.uint64), wild, np.arange(rows).astype(np.uint64))[way]
    if kind is InfluxType.BOOLEAN:
        return (rng.integers(0, 2, rows) > 0, np.ones(rows, bool), rng.integers(0, 9, rows) > 0)[way]
    words = random.Random(int(rng.integers(0, 2**31)))
    logs = [f'line {words.randint(0, 9)} of the "log"\\ {words.random() if row % 3 else ""}' for row in range(rows)]
    states = [("on", "off")[words.randint(0, 1)] for _ in range(rows)]
    return (np.array(logs), np.array([""] * rows), np.array(states))[way]


def every_encoding(kinds: Sequence[InfluxType], sizes: Sequence[int]) -> list[pa.RecordBatch]:
    """One batch for each series: every type with three kinds of values, some of them with nulls, all kinds of times."""
    rng = np.random.default_rng(1)
    fields = [(f"{kind.value}{way}", kind, way) for kind in kinds for way in range(3)]
    columns = [Column(role=Role.TAG, name=name, type=InfluxType.TAG) for name in ("a b", "aXb")]
    columns += [Column(role=Role.FIELD, name=name, type=kind) for name, kind, _ in fields]
    batches = []
    for number, rows in enumerate(sizes):
        arrays = [pa.array(_times(rng, number % 4, rows), pa.timestamp("ns", "UTC"))]
        arrays += [pa.array([value] * rows).dictionary_encode() for value in (f"h,{number} ", "=é")]
        for _, kind, way in fields:
            nulls = rng.random(rows) < (0.3 if way == 2 else 0)
            arrays.append(pa.array(_values(rng, kind, way, rows), mask=nulls))
        batches.append(pa.record_batch(arrays, schema=arrow_schema(tuple(columns))))
    return batches
