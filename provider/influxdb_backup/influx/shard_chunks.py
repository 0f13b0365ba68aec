"""
A shard's keys in stretches of bounded size, and what its tables have in all of them.

Memory for keys is that of some stretches, however many series the shard has: a million of them in seven files would
otherwise take gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.influx.shard_plan import TablePlan, TagColumn
from influxdb_backup.influx.tsm.format import SEPARATOR
from influxdb_backup.influx.tsm.index import Mark, TsmFile, corrupt
from influxdb_backup.model import Column

CHUNK_KEYS = 1 << 14
"""keys of all files together in one stretch, about"""

Chunk = tuple[tuple[Mark, Mark], ...]
"""for each file where a stretch begins and ends; every series is in one of them as a whole"""


def chunked(files: Sequence[TsmFile]) -> list[Chunk]:
    """The stretches of these files, in the order of their keys."""
    total = sum(file.keys for file in files)
    inside = {_series(file.key(mark)) for file in files for mark in file.marks[1:-1]} if total > CHUNK_KEYS else set()
    step = max(1, len(inside) * CHUNK_KEYS // max(1, total))
    splits = sorted(inside)[step - 1 :: step]
    edges = [[file.marks[0], *(file.seek(split) for split in splits), file.marks[-1]] for file in files]
    return list(zip(*(list(pairwise(own)) for own in edges), strict=True))


def _series(key: bytes) -> bytes:
    """What all keys of the same series begin with, and no other key does."""
    return key.partition(SEPARATOR)[0] + SEPARATOR


@dataclass
class TableOutline:
    """One measurement in a whole shard: its columns, and the stretches in which it has keys."""

    raw: bytes
    tags: dict[str, TagColumn] = field(default_factory=dict)
    """by name; without series"""
    fields: set[tuple[Column, int]] = field(default_factory=set)
    binary: frozenset[Column] = frozenset()
    chunks: list[int] = field(default_factory=list)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Tags and fields in the order of batches."""
        return (*(tag.column for tag in self._tags()), *(column for column, _ in self._fields()))

    def _tags(self) -> list[TagColumn]:
        return sorted(self.tags.values(), key=lambda tag: tag.column.name.encode("utf-8", "surrogateescape"))

    def _fields(self) -> list[tuple[Column, int]]:
        return sorted(self.fields, key=lambda pair: (pair[0].name.encode("utf-8", "surrogateescape"), pair[1]))

    def add(self, number: int, plan: TablePlan, file: str) -> None:
        """What the stretch of this number has of the table."""
        if plan.raw != self.raw:
            raise corrupt(file, "its measurement is written in two ways", key=plan.raw)
        for tag in plan.tags:
            if self.tags.setdefault(tag.column.name, _without_series(tag)).raw != tag.raw:
                raise corrupt(file, "its tag is written in two ways", key=plan.raw)
        self.fields.update(plan.fields)
        self.binary |= plan.binary
        self.chunks.append(number)

    def whole(self, plan: TablePlan) -> TablePlan:
        """The same stretch with all columns of the table, so that all its batches are alike."""
        own = {tag.column.name: tag for tag in plan.tags}
        fields = tuple(self._fields())
        place = {pair: number for number, pair in enumerate(fields)}
        moved = np.array([place[pair] for pair in plan.fields], np.int64)
        return replace(
            plan,
            tags=tuple(own.get(tag.column.name, tag) for tag in self._tags()),
            fields=fields,
            block_field=moved[plan.block_field],
            binary=self.binary,
        )


def _without_series(tag: TagColumn) -> TagColumn:
    nobody = cast("npt.NDArray[np.int32]", np.empty(0, np.int32))
    return replace(tag, owners=nobody, codes=nobody, values=pa.array([], tag.values.type))


def outlines(plans: Iterable[Mapping[bytes, TablePlan]], file: str) -> dict[bytes, TableOutline]:
    """The tables of a shard from those of its stretches. Raises CorruptShardError, which names ``file``."""
    found: dict[bytes, TableOutline] = {}
    for number, tables in enumerate(plans):
        for name, plan in tables.items():
            found.setdefault(name, TableOutline(plan.raw)).add(number, plan, file)
    return found
