"""Shard groups that hold the same times: what they hold is backed up whole, or the export says what it cannot know."""

from __future__ import annotations

from pathlib import Path

import pytest

from influxdb_backup.errors import SourceError, TargetError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.drill import drill
from influxdb_backup.jobs.recheck import recheck
from tests.jobs.support import (
    archived,
    back_up,
    local_repository,
    manifest_of,
    new_name,
    opened,
    plan,
    restore_into,
    window,
)
from tests.servers import RunningServer
from tests.shard_reading.overlapping import BEFORE, BEHIND, KINDS, MONTH, SHARED, overlapping

pytestmark = pytest.mark.usefixtures("compiled")
READERS = ("shard", "query")


def door(running: RunningServer) -> dict[str, str | None]:
    """How to reach its backup door."""
    return {"snapshot_address": running.backup_address}


def refusal(tmp_path: Path, server: Server, database: str, reader: str) -> SourceError:
    """The error of an export that must not be made."""
    repository = local_repository(tmp_path / "r")
    with pytest.raises(SourceError) as found:
        back_up(repository, server, plan(database, reader=reader, hot_shards="allow"), MONTH)
    assert not repository.refs("telemetry")
    return found.value


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_types_that_differ_end_the_export(kind: str, reader: str, tmp_path: Path) -> None:
    """An integer in the one group and a string in the other at the same time: no server could take both back."""
    with (
        overlapping(
            kind, tmp_path / "s", f"cpu,host=abc value=111i {SHARED}", f'cpu,host=abc value="333" {SHARED}'
        ) as (
            running,
            database,
        ),
        opened(running, **door(running)) as server,
    ):
        error = refusal(tmp_path, server, database, reader)
    assert error.kind == "overlapping-groups"
    for word in ("autogen.cpu", "value", "2022-01-03", "2022-01-10", "2021-12-27", "2022-01-06"):
        assert word in error.message
    assert "exclude_measurements" in error.hint


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_differ_end_the_export(kind: str, reader: str, tmp_path: Path) -> None:
    """Two values of one point: which is the newer one is not known, so neither becomes the backup."""
    with (
        overlapping(kind, tmp_path / "s", f"cpu,host=abc v=1 {SHARED}", f"cpu,host=abc v=2 {SHARED}") as (
            running,
            database,
        ),
        opened(running, **door(running)) as server,
    ):
        error = refusal(tmp_path, server, database, reader)
    assert error.kind == "overlapping-groups"
    for word in ("autogen.cpu", "2022-01-03", "2022-01-10", "2021-12-27", "2022-01-06"):
        assert word in error.message
    assert "DELETE" in error.hint


OLD_LINES = "\n".join(
    [
        f"cpu,host=a v=1,i=1i {SHARED}",
        f"cpu,host=a v=1 {SHARED + 5}",
        f"cpu,host=b v=4 {SHARED + 1}",
        f"cpu,host=a v=5 {BEHIND}",
        f'log,host=a text="old" {SHARED}',
    ]
)
NEW_LINES = "\n".join(
    [
        f"cpu,host=a w=true {SHARED}",
        f"cpu,host=a v=2 {SHARED + 2}",
        f"cpu,host=c v=3 {SHARED + 1}",
        f"cpu,host=a v=6 {BEFORE}",
        f'log,host=a text="new" {SHARED + 1}',
    ]
)
POINTS = {
    ("cpu", "a", SHARED, "v"): 1.0,
    ("cpu", "a", SHARED, "i"): 1,
    ("cpu", "a", SHARED, "w"): True,
    ("cpu", "a", SHARED + 5, "v"): 1.0,
    ("cpu", "a", SHARED + 2, "v"): 2.0,
    ("cpu", "b", SHARED + 1, "v"): 4.0,
    ("cpu", "c", SHARED + 1, "v"): 3.0,
    ("cpu", "a", BEHIND, "v"): 5.0,
    ("cpu", "a", BEFORE, "v"): 6.0,
    ("log", "a", SHARED, "text"): "old",
    ("log", "a", SHARED + 1, "text"): "new",
    ("maker", None, BEFORE, "v"): 1.0,
}


@pytest.mark.parametrize("kind", KINDS)
def test_groups_that_do_not_contradict_each_other_are_backed_up_whole(kind: str, tmp_path: Path) -> None:
    """By the door every value of both groups, equal points once, fields side by side; drill and restore bring it."""
    repository = local_repository(tmp_path / "r")
    new = f"{NEW_LINES}\ncpu,host=a v=1 {SHARED + 5}"
    with (
        overlapping(kind, tmp_path / "s", OLD_LINES, new) as (running, database),
        opened(running, **door(running)) as server,
    ):
        chosen = plan(database, reader="shard", hot_shards="allow")
        result = back_up(repository, server, chosen, MONTH)
        found = archived(repository, repository.ref(result.ref))
        assert {(key[1], dict(key[2]).get("host"), key[3], key[4]): value[1] for key, value in found.items()} == {
            key: value.hex() if isinstance(value, float) else value for key, value in POINTS.items()
        }
        manifest = manifest_of(repository, result.ref)
        assert {count.reader for count in manifest.evidence.counts} == {"shard"}
        assert result.rows == sum(entry.rows for entry in manifest.tables) == len(POINTS) - 2
        again = back_up(repository, server, chosen, MONTH)
        assert not again.created
        report = drill(chosen, repository=repository, server=server, ref=repository.ref(result.ref))
        assert report.ok, report
        copy = new_name()
        restore_into(repository, server, copy, refs=(result.ref,))
        copied = back_up(local_repository(tmp_path / "c"), server, plan(copy, hot_shards="allow"), MONTH)
        assert copied.rows == result.rows
        judged = recheck(chosen, repository.refs(chosen.name), repository=repository, server=server)
        assert not judged.changes
        assert any("overlap" in one.reason and "2022-01-03" in one.reason for one in judged.unjudged)


@pytest.mark.parametrize("kind", KINDS)
def test_queries_read_groups_in_which_nothing_is_hidden(kind: str, tmp_path: Path) -> None:
    """Without points that both have, and with one type of each field, queries give the same as the door."""
    old = "\n".join(OLD_LINES.splitlines()[1:])
    with (
        overlapping(kind, tmp_path / "s", old, NEW_LINES) as (running, database),
        opened(running, **door(running)) as server,
    ):
        repository = local_repository(tmp_path / "r")
        by_shard = back_up(repository, server, plan(database, reader="shard", hot_shards="allow"), MONTH)
        by_query = back_up(repository, server, plan(database, reader="query"), MONTH)
        assert (by_query.created, by_query.ref) == (False, by_shard.ref)


def test_a_target_whose_groups_hide_points_is_not_taken_for_empty(tmp_path: Path) -> None:
    """A count of 0 where another type would be counted is no proof: the restore is refused before it writes."""
    old, new = f"cpu,host=a v=1 {BEHIND}", f'cpu,host=a v="kept" {SHARED}'
    with (
        overlapping("1.6", tmp_path / "s", old, new) as (running, database),
        opened(running, **door(running)) as server,
    ):
        repository, source = local_repository(tmp_path / "r"), new_name()
        running.create_database(source)
        running.write(f'cpu,host=a v="other" {SHARED}', source)
        chosen = window(SHARED, SHARED + 1000)
        result = back_up(repository, server, plan(source), chosen)
        with pytest.raises(TargetError) as found:
            restore_into(repository, server, database, refs=(result.ref,))
        assert found.value.kind == "target-not-empty"
        assert "2022-01-03" in found.value.message
        answer = running.query("SELECT v::string FROM cpu", db=database)
    assert "kept" in str(answer)
    assert "other" not in str(answer)
