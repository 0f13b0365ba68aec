"""Fields that queries answer from the server's index: read and restored by the backup door, named where queries read."""

from __future__ import annotations

from pathlib import Path

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import SourceError
from influxdb_backup.influx.influxql import INDEX_FIELDS
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.drill import drill
from influxdb_backup.jobs.recheck import recheck
from tests.jobs.support import (
    archived,
    back_up,
    local_repository,
    new_database,
    new_name,
    opened,
    plan,
    restore_into,
    window,
)
from tests.servers import RunningServer

pytestmark = pytest.mark.usefixtures("compiled")
NAMES = sorted(INDEX_FIELDS)
ORDINARY = ("_fieldType", "_measurement", "_tags", "_time", "_field", "_value", "_id", "_series", "_source")
REFUSED_TAGS = ("_field", "_measurement")
"""that 2.x does not take"""
NEW_YEAR = 1767225600 * 10**9
WHOLE = window(NEW_YEAR - 10, NEW_YEAR + 10)
EPOCH = window(-10, 10)


def filled(running: RunningServer, start: int) -> tuple[str, dict[tuple[object, ...], object], int]:
    """Such fields, tags and measurements beside ordinary ones: the database, its values, how many the door alone has."""
    database, found, hidden = new_database(running), {}, 0
    for number, name in enumerate([*NAMES, *ORDINARY]):
        for kind, value, text in (("i", 7, "7i"), ("s", ("text"), '"text"')):
            table = f"{kind}{number}"
            running.write(f"{table},k=a {name}={text},other={number}i {start}\n{table},k=b other=2i {start}", database)
            found[table, "a", start, name] = value
            found[table, "a", start, "other"] = number
            found[table, "b", start, "other"] = 2
            hidden += name in INDEX_FIELDS
        tag = "plain" if running.generation == 2 and name in REFUSED_TAGS else name
        running.write(f"only{number},k=a {name}=true {start + 1}\ntag{number},k=a,{tag}=x v=1i {start}", database)
        found[f"only{number}", "a", start + 1, name] = True
        found[f"tag{number}", "a", start, "v"] = 1
        hidden += name in INDEX_FIELDS
    running.write(f"_name,k=a v=1i {start}\nplain,k=a v=1i {start}", database)
    found |= {("_name", "a", start, "v"): 1, ("plain", "a", start, "v"): 1}
    return database, found, hidden


def values(repository: Repository, ref: str) -> dict[tuple[object, ...], object]:
    """Every value of a backup."""
    found = archived(repository, repository.ref(ref))
    return {(key[1], dict(key[2])["k"], key[3], key[4]): value[1] for key, value in found.items()}


@pytest.mark.parametrize("span", [WHOLE, EPOCH], ids=["2026", "epoch"])
def test_the_door_reads_and_restores_them(
    any_influx: RunningServer, server: Server, repository: Repository, tmp_path: Path, span: object
) -> None:
    """Every value as it was written, at the epoch too; a drill holds, and restores by shards and by lines bring them."""
    database, expected, _ = filled(any_influx, span.start + 10)
    chosen = plan(database, reader="shard", hot_shards="allow")
    result = back_up(repository, server, chosen, span)
    assert values(repository, result.ref) == expected
    assert not result.unreadable
    report = drill(chosen, repository=repository, server=server, ref=repository.ref(result.ref))
    assert report.ok, report
    for writer in ("shard", "lines"):
        copy = new_name()
        restore_into(repository, server, copy, refs=(result.ref,), writer=writer)
        other = local_repository(tmp_path / writer)
        assert (
            values(other, back_up(other, server, plan(copy, reader="shard", hot_shards="allow"), span).ref) == expected
        )
    judged = recheck(chosen, repository.refs(chosen.name), repository=repository, server=server)
    assert not judged.changes
    assert any("_name" in one.reason for one in judged.unjudged)


@pytest.mark.parametrize("span", [WHOLE, EPOCH], ids=["2026", "epoch"])
def test_queries_leave_them_out_by_name(
    any_influx: RunningServer, server: Server, repository: Repository, span: object
) -> None:
    """All else is backed up, none of the index's answers is, and the table is unreadable with its field's name."""
    database, expected, hidden = filled(any_influx, span.start + 10)
    result = back_up(repository, server, plan(database, reader="query"), span)
    assert values(repository, result.ref) == {
        key: value for key, value in expected.items() if key[3] not in INDEX_FIELDS
    }
    assert len(result.unreadable) == hidden
    for entry in result.unreadable:
        assert any(name in entry.reason for name in NAMES)
    with pytest.raises(SourceError) as refused:
        back_up(repository, server, plan(database, reader="query", unreadable="fail"), span)
    assert refused.value.kind == "unreadable"
    assert "reader: shard" in refused.value.message


def test_a_drill_without_the_door_says_what_it_cannot_read(
    any_influx: RunningServer, server: Server, repository: Repository
) -> None:
    """The field is named: a drill that reads by queries alone does not hold, and nothing of the index is compared."""
    database = new_database(any_influx)
    any_influx.write(f"m,k=a _name=6,other=1i {NEW_YEAR}", database)
    chosen = plan(database, reader="shard", hot_shards="allow")
    result = back_up(repository, server, chosen, WHOLE)
    assert result.values == 2
    if any_influx.generation == 1:
        with opened(any_influx) as blind:
            report = drill(chosen, repository=repository, server=blind)
        assert not report.ok
        assert "_name" in str(report)
