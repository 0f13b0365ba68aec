"""What a copy of a shard holds and the server does not count: an error, never a smaller backup."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.protocol import Server, ShardCopy
from influxdb_backup.model import Window
from tests.jobs.support import DAY, Wrapped, back_up, manifest_of, new_database, plan
from tests.servers import RunningServer

pytestmark = pytest.mark.usefixtures("compiled")


class AroundTheCopy(Wrapped):
    """Something happens at the source right before, and right after a shard is copied."""

    def __init__(self, server: Server, before: Callable[[], None], after: Callable[[], None]) -> None:
        super().__init__(server)
        self.before, self.after = before, after

    @contextmanager
    def copy_shard(
        self, database: str, retention_policy: str, piece: Window, least_share: float, allow_hot: bool
    ) -> Iterator[ShardCopy | None]:
        """Copies, between the two."""
        self.before()
        with self.server.copy_shard(database, retention_policy, piece, least_share, allow_hot) as copy:
            self.after()
            yield copy


def nothing() -> None:
    """Nothing happens."""


def deleting(running: RunningServer, database: str, statement: str) -> Callable[[], None]:
    """The points go, by a statement."""

    def delete() -> None:
        running.query(statement, db=database, rp="autogen")

    return delete


def test_a_lower_count_than_that_of_a_copy_is_never_believed(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """Values that were deleted once they were copied end the export, by table and field; the next one is whole."""
    database = new_database(any_influx)
    any_influx.write(f"m,k=a v=1 {DAY.start}\nm,k=b v=2 {DAY.start}", database)
    striking = AroundTheCopy(server, nothing, deleting(any_influx, database, "DELETE FROM m WHERE k = 'b'"))
    with pytest.raises(IncompleteReadError) as found:
        back_up(repository, striking, plan(database, hot_shards="allow"), DAY)
    assert (found.value.kind, found.value.retryable) == ("hidden-values", True)
    assert "autogen.m" in found.value.message
    assert "'v': 2 in the files, 1 counted" in found.value.message
    assert "reader: query" in found.value.hint
    assert not repository.refs("telemetry")
    result = back_up(repository, server, plan(database, hot_shards="allow"), DAY)
    assert result.rows == 1


def test_a_measurement_that_the_server_does_not_list_is_named(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """Points that only the files of a shard have end the export; of another scope they are nobody's concern."""
    database = new_database(any_influx)
    any_influx.write(f"m v=1 {DAY.start}", database)

    def write() -> None:
        any_influx.write(f"ghost v=1 {DAY.start}", database)

    striking = AroundTheCopy(server, write, deleting(any_influx, database, "DROP MEASUREMENT ghost"))
    with pytest.raises(IncompleteReadError) as found:
        back_up(repository, striking, plan(database, hot_shards="allow"), DAY)
    assert found.value.kind == "hidden-values"
    assert "autogen.ghost" in found.value.message
    result = back_up(repository, striking, plan(database, hot_shards="allow", measurements=["m"]), DAY)
    assert {count.reader for count in manifest_of(repository, result.ref).evidence.counts} == {"shard"}
