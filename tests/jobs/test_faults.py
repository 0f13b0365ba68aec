"""Killed servers, killed processes, full disks, racing exporters and servers with limits: nothing is half done."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_plus, urlsplit

import pyarrow as pa
import pytest
import urllib3

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.errors import (
    ConflictError,
    IncompleteReadError,
    InfluxdbBackupError,
    StoreError,
    SupersededError,
    TargetError,
)
from influxdb_backup.fast import why_not_fast
from influxdb_backup.influx.http import Http
from influxdb_backup.influx.protocol import PointWriter, ReadOptions, Server, WriteOptions
from influxdb_backup.influx.server1 import Server1
from influxdb_backup.jobs.drill import Cleaned, clean
from influxdb_backup.jobs.export import ExportResult
from influxdb_backup.jobs.verify import verify
from influxdb_backup.model import ServerInfo, TableSchema, VerifyLevel, Window
from tests.jobs.support import (
    DAY,
    HOUR,
    SECOND,
    Later,
    Wrapped,
    archived,
    back_up,
    create_policy,
    lines,
    local_repository,
    manifest_of,
    new_database,
    new_name,
    opened,
    plan,
    restore_into,
    rows_of,
    settings_of,
)
from tests.listening import QuietHandler, listening
from tests.servers import RunningServer, find_influxd1, start_influxdb1

ROOT = Path(__file__).parents[2]


def fill(running: RunningServer, database: str) -> None:
    """Two tables of a hundred points each, and a second policy with one point."""
    for measurement in ("cpu", "mem"):
        running.write(lines((measurement, f"v={n}", DAY.start + n * SECOND) for n in range(100)), database)


@contextmanager
def impatient(running: RunningServer) -> Iterator[Server]:
    """The product's view of a 1.x server, giving a lost one up after a second."""
    settings = replace(settings_of(running), timeout=5)
    http = Http(settings, retry_seconds=1)
    try:
        yield Server1(http, ServerInfo(product="influxdb", version="1.6.7", generation=1), settings)
    finally:
        http.close()


@contextmanager
def own_server(folder: Path, extra: str = "") -> Iterator[RunningServer]:
    """A 1.x server of the test's own, that it may kill; started again in the same folder it has the same data."""
    binary = find_influxd1()
    assert binary is not None
    with start_influxdb1(folder / "influxd", binary, extra) as running:
        yield running


def kill(running: RunningServer) -> None:
    """Kills a server that this test started, and waits until it is gone."""
    os.kill(running.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            running.get("/ping")
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError("The server still answers.")


# --- the server dies


def test_a_server_killed_during_the_export_commits_nothing_and_a_retry_commits_once(tmp_path: Path) -> None:
    """The error says that trying again may help; when the server is back, the same call makes the one revision."""
    repository = local_repository(tmp_path)

    class Dying(Wrapped):
        def read(
            self, database: str, schema: TableSchema, piece: Window, options: ReadOptions
        ) -> Iterator[pa.RecordBatch]:
            for batch in self.server.read(database, schema, piece, options):
                yield batch
                if schema.table.measurement == "mem":
                    kill(running)

    with own_server(tmp_path) as running, impatient(running) as server:
        database = new_database(running)
        fill(running, database)
        with pytest.raises(InfluxdbBackupError) as caught:
            back_up(repository, Dying(server), plan(database, concurrency=1))
    assert caught.value.retryable, repr(caught.value)
    assert repository.refs("telemetry") == ()
    assert repository.store.list("data/") == []
    with own_server(tmp_path) as running, impatient(running) as server:
        assert back_up(repository, server, plan(database)).revision == 0
        assert back_up(repository, server, plan(database)).created is False
    assert len(repository.refs("telemetry")) == 1
    assert len(archived(repository, repository.ref("telemetry@latest"))) == 200


def test_a_server_killed_during_the_restore_is_retryable_and_the_restore_continues(tmp_path: Path) -> None:
    """The same id goes on when the server is back, and ends with every point proved."""
    repository = local_repository(tmp_path)
    target = new_name("target")

    class Dying(Wrapped):
        def writer(self, database: str, retention_policy: str, options: WriteOptions) -> PointWriter:
            if retention_policy == "other":
                kill(running)
            return self.server.writer(database, retention_policy, replace(options, retry_seconds=1))

    with own_server(tmp_path) as running, impatient(running) as server:
        database = new_database(running)
        create_policy(running, database, "other", "DURATION INF REPLICATION 1")
        running.write(f"cpu v=1 {DAY.start}", database, "other")
        fill(running, database)
        back_up(repository, server, plan(database))
        with pytest.raises(InfluxdbBackupError) as caught:
            restore_into(repository, Dying(server), target, plan="telemetry", window=DAY, restore_id="run 1")
    assert caught.value.retryable, repr(caught.value)
    with own_server(tmp_path) as running, impatient(running) as server:
        report = restore_into(repository, server, target, plan="telemetry", window=DAY, restore_id="run 1")
        assert (report.rows, report.continued_units) == (201, 2)
        assert rows_of(running, 'SELECT v FROM "other"."cpu"', target) == [[DAY.start, 1]]


def test_a_server_killed_while_points_are_written_is_retryable(tmp_path: Path) -> None:
    """Batches that were not confirmed are not taken for written, and the retry writes them again."""
    repository = local_repository(tmp_path)
    target = new_name("target")

    class DyingWriter:
        def __init__(self, writer: PointWriter) -> None:
            self.writer = writer

        def __enter__(self) -> DyingWriter:
            self.writer.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self.writer.__exit__(*error)  # type: ignore[arg-type]

        def write(self, measurement: str, batch: pa.RecordBatch) -> None:
            self.writer.write(measurement, batch)
            kill(running)

        def __getattr__(self, name: str) -> object:
            return getattr(self.writer, name)

    class Dying(Wrapped):
        def writer(self, database: str, retention_policy: str, options: WriteOptions) -> DyingWriter:
            return DyingWriter(self.server.writer(database, retention_policy, replace(options, retry_seconds=1)))

    with own_server(tmp_path) as running, impatient(running) as server:
        database = new_database(running)
        fill(running, database)
        back_up(repository, server, plan(database))
        with pytest.raises(InfluxdbBackupError) as caught:
            restore_into(repository, Dying(server), target, plan="telemetry", window=DAY, restore_id="run 1")
    assert caught.value.retryable, repr(caught.value)
    with own_server(tmp_path) as running, impatient(running) as server:
        assert restore_into(repository, server, target, plan="telemetry", window=DAY, restore_id="run 1").rows == 200
        assert len(rows_of(running, "SELECT v FROM cpu", target)) == 100


# --- our own process dies


def run_killed(job: str, point: str, running: RunningServer, folder: Path, database: str, target: str = "") -> None:
    """Runs a job in a process of its own, which must have been killed at the point."""
    command = [sys.executable, str(ROOT / "tests" / "jobs" / "killed.py"), job, point, running.url]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'provider'}:{ROOT}", "TMPDIR": str(folder)}
    done = subprocess.run(
        [*command, str(folder / "repository"), database, target or "none"],
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize(
    ("point", "visible"),
    [("read", False), ("after data", False), ("after manifests", False), ("before refs", False), ("after refs", True)],
)
def test_a_killed_export_leaves_nothing_visible_and_the_retry_commits_one_revision(
    influx1: RunningServer, server1: Server, tmp_path: Path, point: str, visible: bool
) -> None:
    """SIGKILL at any point: either the whole backup stands or none, and after the retry there is exactly one."""
    repository = local_repository(tmp_path)
    database = new_database(influx1)
    fill(influx1, database)
    run_killed("export", point, influx1, tmp_path, database)
    assert len(repository.refs("telemetry")) == int(visible)
    result = back_up(repository, server1, plan(database))
    assert (result.revision, result.created) == (0, not visible)
    refs = repository.refs("telemetry")
    assert len(refs) == 1
    assert verify(repository, refs[0], VerifyLevel.VALID).ok
    assert len(archived(repository, refs[0])) == 200


@pytest.mark.parametrize("point", ["writer", "before restores", "after restores"])
def test_retried_restore_continues_after_a_kill_and_another_id_meets_on_conflict(
    influx1: RunningServer, server1: Server, tmp_path: Path, point: str
) -> None:
    """A restore that was killed anywhere goes on under its id, and ends with every point exactly once."""
    repository = local_repository(tmp_path)
    database = new_database(influx1)
    create_policy(influx1, database, "other", "DURATION INF REPLICATION 1")
    influx1.write(f"cpu v=1 {DAY.start}", database, "other")
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    target = new_name("target")
    run_killed("restore", point, influx1, tmp_path, database, target)
    if point == "writer":
        with pytest.raises(TargetError) as caught:
            restore_into(repository, server1, target, plan="telemetry", window=DAY, restore_id="run 2")
        assert caught.value.kind == "target-not-empty"
    report = restore_into(repository, server1, target, plan="telemetry", window=DAY, restore_id="run 1")
    assert (report.rows, report.continued_units) == (201, 2 if point == "writer" else 0)
    again = back_up(repository, server1, plan(target, name="again"))
    first, second = manifest_of(repository, "telemetry@latest"), manifest_of(repository, again.ref)
    assert [(t.table, t.fingerprint) for t in first.tables] == [(t.table, t.fingerprint) for t in second.tables]


def test_scratch_of_a_killed_drill_is_dropped_by_clean(influx1: RunningServer, server1: Server, tmp_path: Path) -> None:
    """A drill that was killed in the middle leaves a recorded scratch, and only that is dropped, minutes afterwards."""
    repository = local_repository(tmp_path)
    database = new_database(influx1)
    create_policy(influx1, database, "other", "DURATION INF REPLICATION 1")
    influx1.write(f"cpu v=1 {DAY.start}", database, "other")
    fill(influx1, database)
    back_up(repository, server1, plan(database))
    before = server1.databases()
    run_killed("drill", "writer", influx1, tmp_path, database)
    left = set(server1.databases()) - set(before)
    assert len(left) == 1
    assert clean("telemetry", repository=repository, server=server1) == Cleaned(running=tuple(left))
    assert clean("telemetry", repository=repository, server=Later(server1)) == Cleaned(dropped=tuple(left))
    assert server1.databases() == before


# --- full disks


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("lacks the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def noise(running: RunningServer, database: str) -> None:
    """About a megabyte that does not compress."""
    body = lines(("log", f'v="{os.urandom(500).hex()}"', DAY.start + n) for n in range(1000))
    running.write(body, database)


class CuttingOnce(QuietHandler):
    """Passes everything on to a server; of each statement, whatever its times, the first reply ends in its middle."""

    upstream = ""
    lock = threading.Lock()
    pool = urllib3.PoolManager(maxsize=8, retries=False)
    cut: set[str]

    def answer(self) -> None:
        """The server's own answer, or the first half of it and the end of the connection."""
        kind, body = type(self), self.body()
        headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
        reply = kind.pool.request(
            self.command, kind.upstream + self.path, body=body or None, headers=headers, decode_content=False
        )
        asked = re.sub(r"\d+", "", f"{urlsplit(self.path).path} {unquote_plus(body.decode())}")
        with kind.lock:
            is_first = asked not in kind.cut and len(reply.data) > 1
            kind.cut |= {asked} if is_first else set()
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.data)))
        self.end_headers()
        self.wfile.write(reply.data[: len(reply.data) // 2] if is_first else reply.data)
        self.close_connection = is_first


def test_a_reply_of_each_kind_that_is_cut_once_costs_no_backup(
    any_influx: RunningServer, repository: Repository
) -> None:
    """Listings, counts and points on every server: what broke off is asked for again, and all of it is there."""
    database = new_database(any_influx)
    fill(any_influx, database)
    handler = type("Cut", (CuttingOnce,), {"upstream": any_influx.url, "cut": set()})
    with listening(handler) as url, opened(any_influx, url=url) as server:
        result = back_up(repository, server, plan(database, reader="query"))
    assert result.rows == 200
    assert verify(repository, repository.ref(result.ref), VerifyLevel.VALID).ok
    assert len(handler.cut) > 5


def test_a_full_disk_of_the_repository_is_named_and_nothing_is_committed(
    influx1: RunningServer, server1: Server, tiny_disk: Path
) -> None:
    """The error says where no space is left; with space the same call succeeds."""
    database = new_database(influx1)
    noise(influx1, database)
    repository = local_repository(tiny_disk)
    with pytest.raises(StoreError, match=r"No space is left.*tiny") as caught:
        back_up(repository, server1, plan(database))
    assert caught.value.kind == "disk-full"
    assert repository.refs("telemetry") == ()
    assert repository.store.list("data/") == []
    subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
    assert back_up(repository, server1, plan(database)).rows == 1000


def test_a_full_temporary_folder_is_named_and_nothing_is_committed(
    influx1: RunningServer, server1: Server, tiny_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error tells the temporary folder from the repository and says how to choose another."""
    database = new_database(influx1)
    noise(influx1, database)
    repository = local_repository(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tiny_disk))
    with pytest.raises(StoreError, match=r"temporary folder .*tiny") as caught:
        back_up(repository, server1, plan(database))
    assert caught.value.kind == "disk-full"
    assert "TMPDIR" in caught.value.hint
    monkeypatch.undo()
    assert repository.refs("telemetry") == ()
    assert list(tiny_disk.iterdir()) == []
    assert back_up(repository, server1, plan(database)).rows == 1000


# --- two at once


class Together(Wrapped):
    """Lets the exports meet after each has read, so that both commit at the same time."""

    def __init__(self, server: Server, barrier: threading.Barrier) -> None:
        super().__init__(server)
        self.barrier = barrier

    def pieces(self, database: str, retention_policy: str, span: Window) -> tuple[Window, ...]:
        """The last thing that an export asks before it commits, and one before that: both wait for the other."""
        found = self.server.pieces(database, retention_policy, span)
        self.barrier.wait(20)
        return found


def race(folder: Path, running: RunningServer, database: str, *between: str) -> list[ExportResult | BaseException]:
    """Two exports of one window with clients of their own; a line of ``between`` is written before the second reads."""
    repository = Repository.init(open_store(f"file://{folder}/repository"))
    barrier = threading.Barrier(2)
    outcomes: list[ExportResult | BaseException] = []

    def run(number: int) -> None:
        mine = Repository.open(repository.store.again())
        with opened(running) as server:
            try:
                together = Together(server, barrier)
                if number and between:
                    together = Late(server, barrier, running, database, *between)
                outcomes.append(back_up(mine, together, plan(database)))
            except InfluxdbBackupError as error:
                outcomes.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


class Late(Together):
    """The second exporter: a point arrives after the first one has read the table, and before this one does."""

    def __init__(
        self, server: Server, barrier: threading.Barrier, running: RunningServer, database: str, *body: str
    ) -> None:
        super().__init__(server, barrier)
        self.running, self.database, self.body = running, database, body

    def read(self, database: str, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """Waits half a second, in which the first one reads all."""
        time.sleep(0.5)
        self.running.write("\n".join(self.body), self.database)
        yield from self.server.read(database, schema, piece, options)


def test_two_exports_of_a_window_at_the_same_time_make_one_revision(influx1: RunningServer, tmp_path: Path) -> None:
    """Equal content is committed once, and both say which revision holds it."""
    database = new_database(influx1)
    fill(influx1, database)
    outcomes = race(tmp_path, influx1, database)
    results = [outcome for outcome in outcomes if isinstance(outcome, ExportResult)]
    assert len(results) == 2, outcomes
    assert {result.ref for result in results} == {results[0].ref}
    repository = local_repository(tmp_path)
    assert len(repository.refs("telemetry")) == 1
    assert verify(repository, repository.ref(results[0].ref), VerifyLevel.VALID).ok


def test_two_exports_with_other_content_never_overwrite_each_other(
    influx1: RunningServer, server1: Server, tmp_path: Path
) -> None:
    """The loser of the race fails, and the next export holds all that there is; no revision is lost or mixed."""
    database = new_database(influx1)
    fill(influx1, database)
    outcomes = race(tmp_path, influx1, database, f"cpu v=5 {DAY.end - 1}")
    results = [outcome for outcome in outcomes if isinstance(outcome, ExportResult)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    repository = local_repository(tmp_path)
    refs = repository.refs("telemetry")
    assert len(results) == len(refs)
    assert all(isinstance(error, ConflictError | SupersededError) for error in errors)
    back_up(repository, server1, plan(database), accept_shrink=True)
    assert len(archived(repository, repository.ref("telemetry@latest"))) == 201
    assert all(verify(repository, ref, VerifyLevel.VALID).ok for ref in repository.refs("telemetry"))


# --- servers with limits


@pytest.mark.parametrize("limit", ['query-timeout = "1s"', "max-select-point = 500"])
def test_a_server_with_limits_is_read_in_shorter_pieces(tmp_path: Path, limit: str) -> None:
    """A query that a limit of the server ends in the middle is never taken for whole; shorter pieces are."""
    repository = local_repository(tmp_path)

    class Slow(Wrapped):
        """Takes its time with a read of the whole day, so that the server, which looks once a second, ends it."""

        def read(
            self, database: str, schema: TableSchema, piece: Window, options: ReadOptions
        ) -> Iterator[pa.RecordBatch]:
            for number, batch in enumerate(self.server.read(database, schema, piece, options)):
                yield batch
                if number == 0 and piece == DAY:
                    time.sleep(2)

    with own_server(tmp_path, f"[coordinator]\n  {limit}\n") as running, opened(running) as server:
        database = new_database(running)
        for part in range(4):
            rows = (
                (f"log,n={n % 2}", f'v="{part}-{n}-{"x" * 20_000}"', DAY.start + (part * 1000 + n) * 20 * SECOND)
                for n in range(1000)
            )
            running.write(lines(rows), database)
        result = back_up(repository, Slow(server), plan(database))
        assert result.rows == 4000
        counts = manifest_of(repository, result.ref).evidence.counts
        assert len(counts) >= 2
        assert sum(dict(count.counts)["v"] for count in counts) == 4000
        assert len(archived(repository, repository.ref(result.ref))) == 4000


def test_counts_that_hit_a_limit_are_asked_of_shorter_pieces_too(
    influx1: RunningServer, server1: Server, tmp_path: Path
) -> None:
    """A count that the server ends is no reason to fail, and what was read for it does not stay behind."""
    repository = local_repository(tmp_path)

    class Limited(Wrapped):
        def counts(
            self, database: str, retention_policy: str, measurement: str, span: Window, fields: Sequence[str]
        ) -> Mapping[str, int]:
            if span.end - span.start > 6 * HOUR:
                raise IncompleteReadError("max-select-point limit exceeded", kind="read-limit")
            return self.server.counts(database, retention_policy, measurement, span, fields)

    database = new_database(influx1)
    influx1.write(lines(("cpu", f"v={n}", DAY.start + n * HOUR) for n in range(24)), database)
    result = back_up(repository, Limited(server1), plan(database))
    assert result.rows == 24
    parts = [part.path for entry in manifest_of(repository, result.ref).tables for part in entry.parts]
    assert len(parts) == 4
    assert sorted(key for key, _ in repository.store.list("data/")) == sorted(parts)


def test_shard_files_that_do_not_fit_are_written_by_lines(
    influx2: RunningServer, server2: Server, tiny_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long strings that repeat take little in the archive and much in a shard: nothing is left of the attempt."""
    if why_not_fast() is not None:
        pytest.skip(f"lacks compiled loops: {why_not_fast()}")
    database, target = new_database(influx2), new_name("target")
    words = [os.urandom(500).hex() for _ in range(20)]
    influx2.write(lines(("log", f'v="{words[n * n % 19]}"', DAY.start + n) for n in range(4000)), database)
    repository = local_repository(tmp_path)
    first = back_up(repository, server2, plan(database))
    monkeypatch.setattr("tempfile.tempdir", str(tiny_disk))
    with pytest.raises(TargetError, match="No space left") as caught:
        restore_into(repository, server2, target, refs=(first.ref,), writer="shard")
    assert caught.value.kind == "shard-writer"
    assert restore_into(repository, server2, target, refs=(first.ref,)).rows == 4000
    assert list(tiny_disk.iterdir()) == []
