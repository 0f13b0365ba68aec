"""Bytes of answers that change between a server and the product end the read, and what is backed up is right."""

from __future__ import annotations

import itertools
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.model import Window
from tests.influx_read.support import rows_of
from tests.jobs.support import DAY, SECOND, archived, back_up, lines, memory_repository, new_database, opened, plan
from tests.servers import RunningServer
from tests.wire import relayed

ROWS = 3000
FLIPS = 25
ELSEWHERE = "0.0.0.0"  # reaches this machine, and is none of its loopback addresses


@contextmanager
def flipping(url: str, places: Iterator[float | None]) -> Iterator[str]:
    """The URL of a relay that flips a bit in each long answer to a SELECT, where the next of ``places`` says."""
    parts = urlsplit(url)
    chance = random.Random(16)

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection((parts.hostname, parts.port)) as upstream:
            selects = [False]

            def pass_on() -> None:
                with suppress(OSError):
                    while request := client.recv(1 << 16):
                        if b"q=" in request:
                            selects[0] = b"q=SELECT" in request
                        upstream.sendall(request)
                    upstream.shutdown(socket.SHUT_WR)

            threading.Thread(target=pass_on, daemon=True).start()
            while answer := bytearray(upstream.recv(1 << 20)):
                head = answer.find(b"\r\n\r\n") + 4 if answer.startswith(b"HTTP/") else 0
                if selects[0] and len(answer) > head + 1000 and (place := next(places)) is not None:
                    answer[head + int(place * (len(answer) - head))] ^= 1 << chance.randrange(8)
                client.sendall(answer)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def fill(running: RunningServer) -> str:
    """A database of one table."""
    database = new_database(running)
    running.write(
        lines((f"cpu,n=a{n % 7}", f"v={n * 0.37},i={n}i", DAY.start + n * SECOND) for n in range(ROWS)), database
    )
    return database


def test_a_flipped_bit_in_an_answer_ends_the_read(any_influx: RunningServer) -> None:
    """Wherever the bit is, the rows that come are right, or the read is incomplete; mostly it is."""
    database = fill(any_influx)
    randomness = random.Random(5)
    armed: list[float | None] = [None]
    with (
        flipping(any_influx.url, (armed[0] for _ in itertools.count())) as url,
        opened(any_influx, url=url, compress=True, timeout=1) as server,
    ):
        (table,) = server.schema(database, "autogen").tables
        piece = Window(start=DAY.start, end=DAY.start + 2 * ROWS * SECOND)

        def read() -> list[dict[str, object]]:
            return [row for batch in server.read(database, table, piece, ReadOptions()) for row in rows_of(batch)]

        right = read()
        assert len(right) == ROWS
        refused = 0
        for _ in range(FLIPS):
            armed[0] = randomness.random()
            try:
                assert read() == right
            except IncompleteReadError:
                refused += 1
        assert refused > FLIPS // 2


def test_an_export_reads_again_what_changed_on_the_way(any_influx: RunningServer) -> None:
    """One flipped bit costs no backup, and every value of the backup is the server's."""
    database = fill(any_influx)
    with opened(any_influx) as server:
        repository = memory_repository()
        right = archived(repository, repository.ref(back_up(repository, server, plan(database, reader="query")).ref))
    with (
        flipping(any_influx.url, itertools.chain([0.5], itertools.repeat(None))) as url,
        opened(any_influx, url=url, compress=True, timeout=1) as server,
    ):
        repository = memory_repository()
        found = archived(repository, repository.ref(back_up(repository, server, plan(database, reader="query")).ref))
    assert found == right and len(right) == 2 * ROWS


@pytest.mark.parametrize(
    ("host", "compress", "compressed"),
    [("127.0.0.1", None, False), (ELSEWHERE, None, True), ("127.0.0.1", True, True), (ELSEWHERE, False, False)],
)
def test_answers_have_a_checksum_where_they_come_from_elsewhere(
    any_influx: RunningServer, host: str, compress: bool | None, compressed: bool
) -> None:
    """Unless told otherwise queries are answered as gzip over plain HTTP from another machine."""
    database = fill(any_influx)
    with (
        relayed(any_influx.url) as wire,
        opened(any_influx, url=f"http://{host}:{wire.port}", compress=compress) as server,
    ):
        repository = memory_repository()
        assert back_up(repository, server, plan(database, reader="query")).rows == ROWS
    heads = wire.of("/query")
    assert heads and all((b"\r\nAccept-Encoding: gzip\r\n" in head) == compressed for head in heads)
