"""Reading ahead changes neither batches nor errors, and leaves nothing open."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from influxdb_backup.jobs.ahead import HUGE, LARGE, ahead


def batch(number: int, size: int) -> pa.RecordBatch:
    """A batch of about so many bytes that holds its number."""
    return pa.record_batch({"n": pa.array([number] * (size // 8), pa.int64())})


class Source:
    """Batches that note who reads them, and when they are closed."""

    def __init__(self, sizes: list[int], fails: bool = False) -> None:
        self.threads: list[str] = []
        self.closed = False
        self.sizes = sizes
        self.fails = fails

    def batches(self) -> Iterator[pa.RecordBatch]:
        """One of each size."""
        try:
            for number, size in enumerate(self.sizes):
                self.threads.append(threading.current_thread().name.split("_")[0])
                yield batch(number, size)
            if self.fails:
                raise ConnectionError("cut")
        finally:
            self.closed = True


def numbers(batches: Iterator[pa.RecordBatch]) -> list[int]:
    """What the batches hold."""
    return [item.column(0)[0].as_py() for item in batches]


def test_large_batches_are_read_in_a_thread_of_their_own() -> None:
    """In their order; what follows a small batch, or one of long texts, is read when it is wanted."""
    source = Source([64, LARGE, LARGE, 64, LARGE, 2 * HUGE, 64])
    assert numbers(ahead(source.batches())) == [0, 1, 2, 3, 4, 5, 6]
    own = ["MainThread"]
    assert source.threads == [*own * 2, "ahead", "ahead", *own, "ahead", *own]
    assert source.closed


def test_small_batches_are_not() -> None:
    """A thread for each small table would cost more than it saves."""
    source = Source([64, 64])
    assert numbers(ahead(source.batches())) == [0, 1]
    assert source.threads == ["MainThread"] * 2
    assert numbers(ahead(Source([]).batches())) == []


@pytest.mark.parametrize("size", [64, LARGE])
def test_an_error_comes_behind_the_batches_before_it(size: int) -> None:
    """A reading that breaks off is no shorter reading."""
    source = Source([size] * 3, fails=True)
    seen = []
    with pytest.raises(ConnectionError, match="cut"):
        for item in ahead(source.batches()):
            seen.append(item.column(0)[0].as_py())
    assert seen == [0, 1, 2]
    assert source.closed


@pytest.mark.parametrize("size", [64, LARGE])
def test_closing_ends_the_reading(size: int) -> None:
    """Whoever stops half-way leaves neither a thread nor an open answer of the server."""
    source = Source([size] * 5)
    reading = ahead(source.batches())
    for _ in range(3):
        next(reading)
    reading.close()
    assert source.closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
