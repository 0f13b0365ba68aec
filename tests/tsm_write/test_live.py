"""Files that are put into the folder of a stopped server's shard are served as the columns they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from influxdb_backup.influx.shard_files import ShardFileBuilder
from influxdb_backup.model import InfluxType
from tests.servers import DEBIANS, NEWER, daemon, start_influxdb1
from tests.tsm_write.tables import GROUP, START, batch, every_encoding

KINDS = (InfluxType.FLOAT, InfluxType.INTEGER, InfluxType.BOOLEAN, InfluxType.STRING)
HOSTILE = ['a,b=c d"e', "back\\slash", "é\U0001f600", "'quote'", "x!", "x#", "tab\there"]


def _serve(folder: Path, binary: str, files: tuple[Path, ...], statements: list[str]) -> list[list[dict]]:
    with start_influxdb1(folder, binary) as server:
        server.create_database("db")
        server.query("ALTER RETENTION POLICY autogen ON db SHARD DURATION 1d")
        server.write(f"made v=1 {START}", "db")
    (shard,) = (path for path in (folder / "data" / "db" / "autogen").iterdir() if path.is_dir())
    for number, file in enumerate(files, 2):
        (shard / f"{number:09d}-000000001.tsm").write_bytes(file.read_bytes())
    with start_influxdb1(folder, binary) as server:
        answers = []
        for statement in statements:
            reply = server.query(statement, db="db")
            answers.append(reply["results"][0].get("series", []))
    return answers


@pytest.fixture(params=[DEBIANS, NEWER])
def binary(request: pytest.FixtureRequest) -> str:
    """A 1.x daemon."""
    return daemon(request.param)


def test_a_server_serves_the_columns(folder: Path, binary: str) -> None:
    """All types in all encodings, over blocks' edges and with nulls, come back from /query exactly."""
    builder = ShardFileBuilder(folder, GROUP, generation=1)
    whole = every_encoding(KINDS, [1, 2, 241, 1001, 2500])
    for item in whole:
        builder.add("m x", item)
    (series,) = _serve(folder / "server", binary, builder.finish(), ['SELECT * FROM "m x" GROUP BY *'])
    assert len(series) == len(whole)
    by_host = {item.column("a b")[0].as_py(): item for item in whole}
    for one in series:
        assert one["tags"]["aXb"] == "=é"
        expected = by_host[one["tags"]["a b"]]
        columns = dict(zip(one["columns"], zip(*one["values"], strict=True), strict=True))
        assert list(columns.pop("time")) == expected.column("time").cast("int64").to_pylist()
        for name, values in columns.items():
            # JSON shows a whole float without a point, by its shortest digits
            read = [float(value) if value is not None and "float" in name else value for value in values]
            assert read == expected.column(name).to_pylist(), name
        assert len(columns) == 3 * len(KINDS)


def test_a_server_finds_hostile_names_and_extremes(folder: Path, binary: str) -> None:
    """Hostile measurements, tags, fields and values are found by name; the largest and smallest numbers are exact."""
    values = [5e-324, -1.7976931348623157e308, 1.7976931348623157e308, 2.2250738585072014e-308, 0.1, -1.5, 0.0]
    numbers = [-(2**63), 2**63 - 1, 0, -1, 1, 2**62, -(2**62)]
    texts = ["", "a\nb", 'q"', "\\", "é", "x" * 70_000, "\x00"]
    times = [START + i for i in range(7)]
    builder = ShardFileBuilder(folder, GROUP, generation=1)
    for name in HOSTILE[:3]:
        fields = {
            HOSTILE[0]: (InfluxType.FLOAT, values),
            "n": (InfluxType.INTEGER, numbers),
            "s": (InfluxType.STRING, texts),
        }
        builder.add(name, batch(times, {HOSTILE[2]: HOSTILE, HOSTILE[3]: [None, "", *HOSTILE[:5]]}, fields))

    def quoted(name: str) -> str:
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'

    statements = [f"SELECT * FROM {quoted(name)}" for name in HOSTILE[:3]]
    for name in HOSTILE[:3]:
        for value in HOSTILE:
            text = value.replace("\\", "\\\\").replace("'", "\\'")
            statements.append(f"SELECT n FROM {quoted(name)} WHERE {quoted(HOSTILE[2])} = '{text}'")
    answers = _serve(folder / "server", binary, builder.finish(), statements)
    for (table,) in answers[:3]:
        columns = dict(zip(table["columns"], map(list, zip(*table["values"], strict=True)), strict=True))
        assert columns[HOSTILE[0]] == values
        assert columns["n"] == numbers
        assert columns["s"] == texts
        assert columns[HOSTILE[2]] == HOSTILE
        assert columns[HOSTILE[3]] == [None, None, *HOSTILE[:5]]
    assert [answer[0]["values"] for answer in answers[3:]] == [
        [[moment, number]] for _ in range(3) for moment, number in zip(times, numbers, strict=True)
    ]


def test_of_two_files_the_later_one_wins(folder: Path, binary: str) -> None:
    """A point that comes again in a later file replaces the first one, for a server as for line protocol."""
    builder = ShardFileBuilder(folder, GROUP, generation=1, buffer_bytes=1)
    times = [START + i for i in range(2000)]
    for value in (1, 2):
        builder.add("m", batch(times[500 * value :], {}, {"v": (InfluxType.INTEGER, [value] * (2000 - 500 * value))}))
    files = builder.finish()
    assert len(files) == 2
    ((table,),) = _serve(folder / "server", binary, files, ["SELECT v FROM m"])
    assert table["values"] == [[time, 1 if time < START + 1000 else 2] for time in times[500:]]
