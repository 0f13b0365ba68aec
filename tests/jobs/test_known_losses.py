"""Where InfluxDB's own tools lose data, backup and restore do not: shown on real servers."""

from __future__ import annotations

import math

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.drill import drill
from influxdb_backup.model import MAX_END, MIN_TIME
from tests.jobs.support import (
    DAY,
    DAY_NS,
    HOUR,
    SECOND,
    archived,
    back_up,
    create_policy,
    fingerprints,
    lines,
    manifest_of,
    new_database,
    new_name,
    plan,
    restore_into,
    rows_of,
    window,
)
from tests.servers import RunningServer


def points(running: RunningServer, database: str, source: str) -> list[list[object]]:
    """Every row of a source, as the server itself shows it."""
    return rows_of(running, f"SELECT * FROM {source}", database)


def test_deleted_points_stay_deleted(any_influx: RunningServer, any_server: Server, repository: Repository) -> None:
    """Points that were deleted before the backup, also from files on disk, do not come back with the restore."""
    database = new_database(any_influx)
    any_influx.write(lines(("cpu,host=a", f"v={n}", DAY.start + n * SECOND) for n in range(200)), database)
    any_influx.query(f"DELETE FROM cpu WHERE time < {DAY.start + 150 * SECOND}", db=database)
    back_up(repository, any_server, plan(database))
    target = new_name("target")
    assert restore_into(repository, any_server, target, plan="telemetry", window=DAY).rows == 50
    assert points(any_influx, target, "cpu") == points(any_influx, database, "cpu")
    assert len(points(any_influx, target, "cpu")) == 50


@pytest.mark.parametrize("text", ["a\nb", "# comment\n#", 'say "hi"\\', "\r\n\r\n", "end\n", "\\n", ",= \t", "😀\x00é"])
def test_multi_line_and_special_strings_survive(
    any_influx: RunningServer, any_server: Server, repository: Repository, text: str
) -> None:
    """Strings with line ends, comment signs, quotes, backslashes and NUL come back as the same characters."""
    database = new_database(any_influx)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    any_influx.write(f'log,host=a s="{quoted}",n=1i {DAY.start}', database)
    back_up(repository, any_server, plan(database))
    target = new_name("target")
    restore_into(repository, any_server, target, plan="telemetry", window=DAY)
    assert rows_of(any_influx, "SELECT s FROM log", target) == [[DAY.start, text]]


def test_mixed_field_types_between_shards_survive(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A field that is float, integer, string and boolean in four shard groups comes back with each type."""
    database = new_database(influx1)
    create_policy(influx1, database, "hours", "DURATION INF REPLICATION 1 SHARD DURATION 1h DEFAULT")
    for hour, value in enumerate(("1", "2i", '"three"', "true")):
        influx1.write(f"cpu v={value} {DAY.start + hour * HOUR}", database, "hours")
    result = back_up(repository, server1, plan(database))
    target = new_name("target")
    assert restore_into(repository, server1, target, plan="telemetry", window=DAY).rows == 4
    again = back_up(repository, server1, plan(target, name="again"))
    first, second = manifest_of(repository, result.ref), manifest_of(repository, again.ref)
    assert [count.type.value for entry in second.tables for count in entry.counts] == [
        "boolean",
        "float",
        "integer",
        "string",
    ]
    assert fingerprints(first) == fingerprints(second)


def test_several_retention_policies_survive_with_their_durations(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """Policies that are not infinite come back with duration and shard duration, the default one as the default."""
    database = new_database(influx1)
    create_policy(influx1, database, "years", "DURATION 1040w REPLICATION 1 SHARD DURATION 4w DEFAULT")
    create_policy(influx1, database, "months", "DURATION 520w REPLICATION 1 SHARD DURATION 2d")
    for policy in ("autogen", "years", "months"):
        influx1.write(f'cpu,policy={policy} v=1,s="{policy}" {DAY.start}', database, policy)
    back_up(repository, server1, plan(database))
    target = new_name("target")
    restore_into(repository, server1, target, plan="telemetry", window=DAY)
    shapes = {
        policy.name: (policy.duration // DAY_NS, policy.shard_duration // DAY_NS, policy.default)
        for policy in server1.retention_policies(target)
    }
    assert shapes == {"autogen": (0, 7, False), "years": (7280, 28, True), "months": (3640, 2, False)}
    for policy in shapes:
        assert points(influx1, target, f'"{policy}"."cpu"') == [[DAY.start, policy, policy, 1]]


def test_equal_measurement_names_in_two_policies_stay_apart(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """The same series at the same time in two policies, with other values and types, is two points."""
    database = new_database(influx1)
    create_policy(influx1, database, "other", "DURATION INF REPLICATION 1")
    influx1.write(f"cpu,host=a v=1 {DAY.start}", database)
    influx1.write(f'cpu,host=a v="text" {DAY.start}', database, "other")
    result = back_up(repository, server1, plan(database))
    assert result.tables == 2
    target = new_name("target")
    restore_into(repository, server1, target, plan="telemetry", window=DAY)
    assert rows_of(influx1, 'SELECT v FROM "autogen"."cpu"', target) == [[DAY.start, 1]]
    assert rows_of(influx1, 'SELECT v FROM "other"."cpu"', target) == [[DAY.start, "text"]]


def test_buckets_of_one_database_stay_apart(influx2: RunningServer, server2: Server, repository: Repository) -> None:
    """On 2.x ``db`` and ``db/rp`` are two policies of one database, and both come back."""
    database = new_database(influx2)
    influx2.create_database(f"{database}/other")
    influx2.write(f"cpu,host=a v=1 {DAY.start}", database)
    influx2.write(f"only,host=a v=2 {DAY.start}", database, "other")
    result = back_up(repository, server2, plan(database))
    assert result.tables == 2
    target = new_name("target")
    restore_into(repository, server2, target, plan="telemetry", window=DAY)
    assert rows_of(influx2, 'SELECT v FROM "other"."only"', target) == [[DAY.start, 2]]
    assert rows_of(influx2, 'SELECT v FROM "autogen"."cpu"', target) == [[DAY.start, 1]]


def test_points_that_were_just_written_are_included(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """What is only in the server's cache, also of a shard that files hold points of, is in the backup."""
    database = new_database(any_influx)
    any_influx.write(lines(("cpu", f"v={n}", DAY.start + n) for n in range(100)), database)
    first = back_up(repository, any_server, plan(database))
    any_influx.write(f"cpu v=1 {DAY.start + 100}", database)
    second = back_up(repository, any_server, plan(database))
    assert (first.rows, second.rows) == (100, 101)


def test_time_ranges_are_exact_to_the_nanosecond(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Neighbours one nanosecond before the start and at the end are not in the window; no block or shard is."""
    database = new_database(any_influx)
    inside = window(DAY.start + 5 * HOUR + 7, DAY.start + 5 * HOUR + 10)
    instants = [DAY.start, *range(inside.start - 3, inside.end + 3), DAY.end]
    any_influx.write(lines(("cpu,host=a", f"v={n}i", instant) for n, instant in enumerate(instants)), database)
    result = back_up(repository, any_server, plan(database), inside)
    found = archived(repository, repository.ref(result.ref))
    assert sorted(key[3] for key in found) == [inside.start, inside.start + 1, inside.start + 2]
    target = new_name("target")
    one = window(inside.start + 1, inside.start + 2)
    assert restore_into(repository, any_server, target, plan="telemetry", window=one).rows == 1
    assert [row[0] for row in points(any_influx, target, "cpu")] == [inside.start + 1]


def test_increments_are_whole_windows_that_add_up(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Backups of neighbouring windows of one shard, made one after the other, restore to all of the points."""
    database = new_database(any_influx)
    hours = [window(DAY.start + n * HOUR, DAY.start + (n + 1) * HOUR) for n in range(3)]
    for number, hour in enumerate(hours):
        any_influx.write(f"cpu v={number} {hour.start}\ncpu v={number} {hour.end - 1}", database)
        back_up(repository, any_server, plan(database), hour)
    target = new_name("target")
    whole = window(hours[0].start, hours[-1].end)
    assert restore_into(repository, any_server, target, plan="telemetry", window=whole).rows == 6
    assert points(any_influx, target, "cpu") == points(any_influx, database, "cpu")


def test_a_second_restore_into_the_same_database_can_merge(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """A backup is restored into a database that exists and has points, twice, with the same result."""
    database = new_database(any_influx)
    any_influx.write(lines(("cpu,host=a", f"v={n}", DAY.start + n) for n in range(20)), database)
    back_up(repository, any_server, plan(database))
    before = points(any_influx, database, "cpu")
    any_influx.query(f"DELETE FROM cpu WHERE time < {DAY.start + 10}", db=database)
    for _ in range(2):
        restore_into(repository, any_server, None, plan="telemetry", window=DAY, on_conflict="merge")
        assert points(any_influx, database, "cpu") == before


def test_numbers_and_times_to_their_limits_survive(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Floats to the bit, integers to their limits, booleans, and the first and last instant of time."""
    database = new_database(any_influx)
    floats = ["-0.0", "5e-324", "1.7976931348623157e308", "-1.7976931348623157e308", "0.1", "1", "1e22"]
    integers = [2**63 - 1, -(2**63), 2**53 + 1, 0]
    times = [MIN_TIME, -1, 0, MAX_END - 1]
    body = [f"f,n=x{n} v={text} {DAY.start}" for n, text in enumerate(floats)]
    body += [f"i,n=x{n} v={number}i {DAY.start}" for n, number in enumerate(integers)]
    body += [f"b,n=x{n} v={text} {DAY.start}" for n, text in enumerate(("true", "false"))]
    body += [f"t v=1i {time}" for time in times]
    if any_influx.generation == 2:
        body += [f"u,n=x{n} v={number}u {DAY.start}" for n, number in enumerate((0, 2**53 + 1, 2**63, 2**64 - 1))]
    any_influx.write("\n".join(body), database)
    whole = window(MIN_TIME, MAX_END)
    result = back_up(repository, any_server, plan(database), whole, force=True)
    found = archived(repository, repository.ref(result.ref))
    expected = {("float", float(text).hex()) for text in floats}
    assert {value for key, value in found.items() if key[1] == "f"} == expected
    assert math.copysign(1, float.fromhex("-0x0.0p+0")) == -1
    assert {value for key, value in found.items() if key[1] == "i"} == {("int", number) for number in integers}
    assert {value for key, value in found.items() if key[1] == "b"} == {("bool", True), ("bool", False)}
    assert {key[3] for key in found if key[1] == "t"} == set(times)
    target = new_name("target")
    restore_into(repository, any_server, target, refs=(result.ref,))
    again = back_up(repository, any_server, plan(target, name="again"), whole, force=True)
    assert fingerprints(manifest_of(repository, again.ref)) == fingerprints(manifest_of(repository, result.ref))


def test_a_tag_and_a_field_of_one_name_and_points_without_tags_survive(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Equal names of a tag and a field, names that differ only in case, and missing tags are told apart."""
    database = new_database(any_influx)
    any_influx.write(
        f'cpu,host=tag,Host=up host="field",HOST=1i {DAY.start}\ncpu host="none" {DAY.start}\n'
        f'cpu,host=tag host="field2" {DAY.start}',
        database,
    )
    result = back_up(repository, any_server, plan(database))
    assert result.rows == 3
    report = drill(plan(database), repository=repository, server=any_server)
    assert report.problems == ()


def test_many_series_and_measurements_survive(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """Hundreds of series over two dozen tables with different columns come back whole."""
    database = new_database(any_influx)
    body = [
        f"m{n % 25},host=h{n % 7},rack=r{n % 5} f{n % 3}={n}.5,common={n}i {DAY.start + (n % 11) * HOUR}"
        for n in range(1000)
    ]
    any_influx.write("\n".join(body), database)
    result = back_up(repository, any_server, plan(database))
    report = drill(plan(database), repository=repository, server=any_server)
    assert report.problems == ()
    assert report.rows == result.rows
    assert len(report.tables) == 25
