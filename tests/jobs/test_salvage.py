"""A damaged part: a restore refuses it before its first change, and with ``salvage`` writes what is whole and names the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import IntegrityError, UsageError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_request import RestoreRequest
from tests.jobs.support import DAY, SECOND, back_up, local_repository, new_database, new_name, plan
from tests.servers import RunningServer

ROWS = 20_000
"""in one row group of one page a column"""


@pytest.fixture
def repository(folder: Path) -> Repository:
    """In a folder, whose files a test can damage."""
    return local_repository(folder)


def damaged(any_influx: RunningServer, server: Server, repository: Repository, column: int) -> tuple[str, str]:
    """A backup of one table of two fields, with one bit of a column's first page changed; its database and ref."""
    import pyarrow.parquet as pq

    database = new_database(any_influx)
    lines = [f"cpu,host=a v={n}.5,s={n}i {DAY.start + n * SECOND}" for n in range(ROWS)]
    any_influx.write("\n".join(lines), database)
    made = back_up(repository, server, plan(database, reader="query"))
    (entry,) = repository.manifest(repository.ref(made.ref)).tables
    path = repository.store.local_path(entry.parts[0].path)
    assert path is not None
    chunk = pq.read_metadata(path).row_group(0).column(column)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 10] ^= 4
    path.write_bytes(content)
    return database, made.ref


def counted(running: RunningServer, database: str, field: str) -> int:
    """Values of a field, by the server's own count."""
    answer = running.query(f'SELECT count("{field}") FROM cpu', db=database)
    return int(answer["results"][0]["series"][0]["values"][0][1])  # type: ignore[index]


def test_salvage_restores_what_is_whole_and_names_what_is_not(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Without it nothing is changed, and the error says what is lost and that there is a last way out."""
    _, ref = damaged(any_influx, any_server, repository, 3)
    target = new_name("salvaged")
    request = RestoreRequest(refs=(ref,), target_database=target)
    with pytest.raises(IntegrityError, match=r"field 'v' of rows") as caught:
        restore(request, repository=repository, target=any_server)
    assert "--salvage" in caught.value.hint
    assert target not in any_server.databases()

    report = restore(request.model_copy(update={"salvage": True}), repository=repository, target=any_server)
    lost = [(entry.column, entry.first_row, entry.rows) for entry in report.lost]
    assert {column for column, _, _ in lost} == {"v"}
    gone = sum(rows for _, _, rows in lost)
    assert (report.rows, report.values, report.writer) == (ROWS, 2 * ROWS - gone, "lines")
    assert (counted(any_influx, target, "s"), counted(any_influx, target, "v")) == (ROWS, ROWS - gone)


def test_salvage_of_a_killed_restore_goes_on(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """The same call again finds what it wrote, and tells the same rows to be lost."""
    _, ref = damaged(any_influx, any_server, repository, 2)
    target = new_name("salvaged")
    request = RestoreRequest(refs=(ref,), target_database=target, salvage=True, restore_id=new_name("id"))
    first = restore(request, repository=repository, target=any_server)
    again = restore(request, repository=repository, target=any_server)
    assert first.lost == again.lost != ()
    assert (again.rows, again.values) == (first.rows, first.values)


@pytest.mark.parametrize("more", [{"fingerprints": True}, {"writer": "shard"}])
def test_salvage_promises_no_more_than_counts(
    influx1: RunningServer, server1: Server, repository: Repository, more: dict[str, object]
) -> None:
    """What is left of a part has not its fingerprint, and fills no whole shard: a request for both is a mistake."""
    _, ref = damaged(influx1, server1, repository, 3)
    request = RestoreRequest.model_validate({"refs": (ref,), "salvage": True, **more})
    with pytest.raises(UsageError, match="damaged parts"):
        restore(request, repository=repository, target=server1)
