"""Servers at which something happens while they are asked, and what stands in their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from influxdb_backup.influx.protocol import ReadOptions, Server
from influxdb_backup.model import TableSchema, Window
from tests.jobs.support import (
    DAY,
    MINUTE,
    Wrapped,
    lines,
)
from tests.servers import RunningServer


def fill(
    running: RunningServer, database: str, measurement: str = "cpu", start: int = DAY.start, count: int = 10
) -> None:
    """One point a minute of one series."""
    running.write(lines((f"{measurement},host=a", f"v={n}", start + n * MINUTE) for n in range(count)), database)


class Clock(Wrapped):
    """A server whose clock says what the test wants, one instant after the other; the last one stays."""

    def __init__(self, server: Server, *instants: int) -> None:
        super().__init__(server)
        self.instants = list(instants)

    def now(self) -> int:
        """The next instant."""
        return self.instants.pop(0) if len(self.instants) > 1 else self.instants[0]


class Meanwhile(Wrapped):
    """Something happens at the source while a table is being read, once for each of the actions."""

    def __init__(self, server: Server, *actions: Callable[[], None]) -> None:
        super().__init__(server)
        self.actions = list(actions)

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """Reads all, and then lets the next thing happen before the read returns."""
        yield from self.server.read(database, schema, piece, options)
        if self.actions:
            self.actions.pop(0)()


class Watched(Wrapped):
    """A server that writes down which windows are read."""

    def __init__(self, server: Server, reads: list[Window]) -> None:
        super().__init__(server)
        self.reads = reads

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """Reads, and writes it down."""
        self.reads.append(piece)
        return self.server.read(database, schema, piece, options)
