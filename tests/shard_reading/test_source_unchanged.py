"""A backup never changes its source: exports beside writers leave every confirmed value where it is."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import SourceError
from tests.jobs.support import (
    DAY,
    DAY_NS,
    WEEK,
    back_up,
    local_repository,
    manifest_of,
    memory_repository,
    new_database,
    opened,
    plan,
    window,
)
from tests.servers import (
    RunningServer,
    find_influxd1,
    find_influxd2,
    find_newer_influxd1,
    start_influxdb1,
    start_influxdb2,
)

pytestmark = pytest.mark.usefixtures("compiled")

KINDS = ["1", "newer 1", "2"]
SERIES = [f"m,t=s{number}" for number in range(6)]
TIMES = [DAY.start + number * 10**9 for number in range(10_000)]
COPIES = 20
"""exports, or bare requests, of which 40 made 600 to 6,000 of 60,000 values old again (run on 1.6.7 and 1.12.4)"""


def starter(kind: str, folder: Path) -> AbstractContextManager[RunningServer]:
    """A server of this kind that writes its caches as late as servers usually do."""
    find = {"1": find_influxd1, "newer 1": find_newer_influxd1, "2": find_influxd2}[kind]
    binary = find()
    if binary is None:
        pytest.skip(f"no server of the kind {kind} here")
    if kind == "2":
        return start_influxdb2(folder, binary, "--storage-cache-snapshot-write-cold-duration=10m")
    return start_influxdb1(folder, binary, data_options='  cache-snapshot-write-cold-duration = "10m"')


class Overwriting:
    """Two clients that overwrite old points of one shard, and what the server has confirmed of each."""

    def __init__(self, running: RunningServer, database: str) -> None:
        self._running = running
        self._database = database
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(2)]
        self.confirmed: dict[tuple[str, int], int] = {}

    def fill(self) -> None:
        """The points in their first form."""
        for series in SERIES:
            self._running.write("\n".join(f"{series} v=0i {moment}" for moment in TIMES), self._database)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """While the context lasts."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in self._threads:
                thread.join()

    def _write(self, number: int) -> None:
        chance, own, value = random.Random(number), SERIES[number::2], 0
        while not self._stopped.is_set():
            value += 1
            points = {(chance.choice(own), chance.choice(TIMES)) for _ in range(100)}
            body = "\n".join(f"{series} v={value}i {moment}" for series, moment in points)
            self._running.write(body, self._database)  # raises unless the status is 204
            self.confirmed |= dict.fromkeys(points, value)

    def reverted(self) -> int:
        """Of how many points the server has another value than the last one it confirmed."""
        answer = self._running.query("SELECT v FROM m GROUP BY *", db=self._database)
        results = answer["results"]
        assert isinstance(results, list)
        held = {
            (f"m,t={found['tags']['t']}", moment): value
            for found in results[0]["series"]
            for moment, value in found["values"]
        }
        assert len(held) == len(SERIES) * len(TIMES)
        return sum(held[point] != value for point, value in self.confirmed.items())


def bare_copy(running: RunningServer, database: str) -> None:
    """One request to the backup door, as a native backup sends it; its answer is thrown away."""
    if running.generation == 2:
        running.get("/api/v2/backup/shards/1")
        return
    assert running.backup_address
    host, _, port = running.backup_address.rpartition(":")
    request = {"Type": 0, "BackupDatabase": database, "BackupRetentionPolicy": "autogen", "ShardID": 1}
    with socket.create_connection((host, int(port)), timeout=30) as stream:
        stream.sendall(b"\x03\x00" + json.dumps(request).encode() + b"\n")
        while stream.recv(1 << 16):
            pass


@pytest.mark.parametrize("kind", KINDS)
def test_exports_beside_overwrites_lose_nothing(kind: str, tmp_path: Path) -> None:
    """No value that the server confirmed turns older, however often the shard it is in is backed up meanwhile."""
    with (
        starter(kind, tmp_path / "server") as running,
        opened(running, snapshot_address=running.backup_address) as server,
    ):
        database = new_database(running)
        clients = Overwriting(running, database)
        clients.fill()
        assert server.shard_door_closed() is None
        with clients.going_on():
            for _ in range(COPIES):
                repository = memory_repository()
                result = back_up(repository, server, plan(database), window(DAY.start, DAY.start + DAY_NS))
                assert result.rows == len(SERIES) * len(TIMES)
        assert len(clients.confirmed) > 10_000
        assert clients.reverted() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_bare_copies_beside_overwrites_lose_values(kind: str, tmp_path: Path) -> None:
    """What the product must not do: the test above would see it. A server without the defect would fail this one."""
    with starter(kind, tmp_path / "server") as running:
        database = new_database(running)
        for attempt in range(5):
            clients = Overwriting(running, database)
            clients.fill()
            with clients.going_on():
                for _ in range(COPIES):
                    bare_copy(running, database)
                    time.sleep(0.3)
            if clients.reverted():
                return
            assert attempt < 4, "no value was lost in five rounds"


def readers_of(repository: Repository, ref: str) -> set[str]:
    """How the pieces of a backup were read."""
    return {count.reader for count in manifest_of(repository, ref).evidence.counts}


@pytest.mark.parametrize("kind", KINDS)
def test_a_hot_shard_is_read_by_queries_and_says_why(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With `auto`, in log and manifest; `reader: shard` refuses by name, and `hot_shards: allow` copies it."""
    repository = local_repository(tmp_path)
    with starter(kind, tmp_path / "server") as running:
        database = new_database(running)
        running.write(f"m v=1 {DAY.start}", database)
        with opened(running, snapshot_address=running.backup_address) as server, caplog.at_level(logging.INFO):
            result = back_up(repository, server, plan(database), WEEK)
            (piece,) = manifest_of(repository, result.ref).evidence.pieces
            assert (readers_of(repository, result.ref), result.rows) == ({"query"}, 1)
            assert "bytes of writes in its cache" in str(piece.by_query)
            assert "bytes of writes in its cache" in caplog.text
            with pytest.raises(SourceError, match=r"hard 1 .* of writes in its cache") as caught:
                back_up(repository, server, plan(database, reader="shard"), WEEK)
            assert caught.value.kind == "shard-hot"
            assert "hot_shards: allow" in caught.value.hint
            allowed = back_up(memory := memory_repository(), server, plan(database, hot_shards="allow"), WEEK)
            assert readers_of(memory, allowed.ref) == {"shard"}
            again = back_up(memory := memory_repository(), server, plan(database, reader="shard"), WEEK)
            (piece,) = manifest_of(memory, again.ref).evidence.pieces
            assert (readers_of(memory, again.ref), piece.by_query) == ({"shard"}, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_that_a_server_took_from_its_log_is_hot(kind: str, tmp_path: Path) -> None:
    """After a restart the writes of before are in the cache again, and count."""
    with starter(kind, tmp_path / "server") as running:
        database = new_database(running, "again")
        running.write(f"m v=1 {DAY.start}", database)
    with (
        starter(kind, tmp_path / "server") as running,
        opened(running, snapshot_address=running.backup_address) as server,
    ):
        result = back_up(repository := memory_repository(), server, plan(database), WEEK)
        assert (readers_of(repository, result.ref), result.rows) == ({"query"}, 1)


def test_a_server_that_does_not_tell_its_caches_has_hot_shards(tmp_path: Path) -> None:
    """``--metrics-disabled``: read by queries, and the manifest says why."""
    binary = find_influxd2()
    if binary is None:
        pytest.skip("no 2.x server here")
    with (
        start_influxdb2(tmp_path / "server", binary, "--metrics-disabled") as running,
        opened(running) as server,
    ):
        database = new_database(running)
        running.write(f"m v=1 {DAY.start}", database)
        result = back_up(repository := memory_repository(), server, plan(database), WEEK)
        (piece,) = manifest_of(repository, result.ref).evidence.pieces
        assert readers_of(repository, result.ref) == {"query"}
        assert "cannot be asked for" in str(piece.by_query)
