"""Every type and hostile value: server to archive to another database to archive, to the bit, also across generations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.error import HTTPError

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import UnrepresentableError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.model import encode_name
from tests.jobs.support import (
    DAY,
    archived,
    back_up,
    fingerprints,
    manifest_of,
    memory_repository,
    new_database,
    new_name,
    plan,
    restore_into,
    typed,
)
from tests.servers import RunningServer

NAME_ALPHABET = ", =\"'\\ab.é😀/%#:*$"
TEXT_ALPHABET = NAME_ALPHABET + "\n\r\t\x00\x7f\udcff\udc80"
NAMES = st.text(st.sampled_from(NAME_ALPHABET), min_size=1, max_size=6).filter(
    lambda text: not text.endswith("\\") and text[0] not in "# " and not re.search(r'\\[,= "]', text) and text != "time"
)
TAG_VALUES = st.text(st.sampled_from(NAME_ALPHABET + "\x00\udcff"), min_size=1, max_size=6).filter(
    lambda text: not text.endswith("\\") and not re.search(r"\\[,= ]", text)
)
STRINGS = st.text(st.sampled_from(TEXT_ALPHABET), max_size=8) | st.just("x" * 5000)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
UNSIGNED = st.integers(0, 2**64 - 1)
TIMES = st.integers(DAY.start, DAY.end - 1) | st.sampled_from([DAY.start, DAY.start + 1, DAY.end - 1])
KINDS = ("float", "integer", "string", "boolean", "unsigned")


def escape(text: str, characters: str) -> str:
    """Line protocol's escaping of names."""
    return re.sub(f"([{characters}])", r"\\\1", text)


def value_text(kind: str, value: object) -> str:
    """A field value as line protocol writes it."""
    if kind == "string":
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    if kind == "boolean":
        return "true" if value else "false"
    return f"{value!r}" + {"float": "", "integer": "i", "unsigned": "u"}[kind]


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "float": FLOATS,
        "integer": INTEGERS,
        "string": STRINGS,
        "boolean": st.booleans(),
        "unsigned": UNSIGNED,
    },
).filter(bool)
NAME_SETS = st.fixed_dictionaries(
    {
        "measurements": st.lists(NAMES, min_size=3, max_size=3, unique=True),
        "tags": st.lists(NAMES, min_size=3, max_size=3, unique=True),
        "fields": st.lists(NAMES, min_size=5, max_size=5, unique=True),
    }
)
POINTS = st.lists(
    st.tuples(st.integers(0, 2), st.dictionaries(st.integers(0, 2), TAG_VALUES, max_size=3), TIMES, FIELDS),
    min_size=1,
    max_size=40,
)


def expected_and_body(
    points: list[tuple[int, dict[int, str], int, dict[str, object]]],
    names: Mapping[str, list[str]],
    *,
    unsigned: bool,
) -> tuple[dict[tuple[object, ...], object], bytes]:
    """What the server must hold (the last value wins), and the line protocol that writes it; series all told apart."""
    expected: dict[tuple[object, ...], object] = {}
    body = []
    for number, tags, time, fields in points:
        measurement = names["measurements"][number]
        key = tuple(sorted((names["tags"][n], value) for n, value in tags.items()))
        kept = {kind: value for kind, value in fields.items() if unsigned or kind != "unsigned"}
        if not kept:
            continue
        parts = []
        for kind, value in kept.items():
            field = names["fields"][KINDS.index(kind)]
            expected["autogen", measurement, key, time, field] = typed(value)
            parts.append(f"{escape(field, ', =' + chr(34))}={value_text(kind, value)}")
        tag_text = "".join(f",{escape(k, ', =')}={escape(v, ', =')}" for k, v in key)
        body.append(f"{escape(measurement, ', ')}{tag_text} {','.join(parts)} {time}")
    assume(told_apart({(key[1], key[2]) for key in expected}))
    return expected, b"\n".join(encode_name(line) for line in body)


def told_apart(series: Iterable[tuple[object, object]]) -> bool:
    """Whether queries tell these series (measurement, tags) apart, which they do by tag values joined by NUL."""
    known: dict[object, list[dict[str, str]]] = {}
    for measurement, tags in series:
        known.setdefault(measurement, []).append(dict(tags))  # type: ignore[call-overload]
    for listed in known.values():
        names = sorted({name for tags in listed for name in tags})
        if len({"\0".join(tags.get(name, "") for name in names) for tags in listed}) < len(listed):
            return False
    return True


def as_text(found: dict[tuple[object, ...], object]) -> dict[tuple[object, ...], object]:
    """Bytes of columns that are not UTF-8, as the names and values they were written from."""

    def text(value: object) -> object:
        if isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        if isinstance(value, tuple):
            return tuple(text(one) for one in value)
        return value

    plain = {}
    for key, value in found.items():
        kind, content = value  # type: ignore[misc]
        plain[tuple(text(one) for one in key)] = ("str" if kind == "bytes" else kind, text(content))
    return plain


@settings(max_examples=10, phases=(Phase.explicit, Phase.generate))
@given(
    POINTS,
    NAME_SETS,
)
def test_hostile_points_survive_server_archive_server_archive(
    any_influx: RunningServer,
    any_server: Server,
    points: list[tuple[int, dict[int, str], int, dict[str, object]]],
    names: dict[str, list[str]],
) -> None:
    """Names with every special character and values of every type are in the archive to the bit, and come back."""
    database = new_database(any_influx)
    expected, body = expected_and_body(points, names, unsigned=any_influx.generation == 2)
    assume(expected)
    try:
        any_influx.write(body.decode("utf-8", "surrogateescape"), database)
    except HTTPError as error:
        raise AssertionError(error.read()) from error
    repository = memory_repository()
    first = back_up(repository, any_server, plan(database))
    assert first.unreadable == ()
    assert as_text(archived(repository, repository.ref(first.ref))) == expected
    target = new_name("target")
    restore_into(repository, any_server, target, plan="telemetry", window=DAY)
    second = back_up(repository, any_server, plan(target, name="again"))
    assert fingerprints(manifest_of(repository, second.ref)) == fingerprints(manifest_of(repository, first.ref))


LINES = "\n".join(
    [
        f'log,host=a\\ b,née=\\=x text="two\nlines \\"q\\" \\\\",n=-9223372036854775808i,f=-0.0,b=true {DAY.start}',
        f"log,host=c f=5e-324,b=false,n=1i {DAY.start + 1}",
        f'cpu\\,x,tag=a tag="field",Tag=1 {DAY.end - 1}',
        f"mem v=0.1 {DAY.start}",
    ]
)


def test_from_1x_to_2x_and_back_gives_equal_fingerprints(
    influx1: RunningServer, server1: Server, influx2: RunningServer, server2: Server, repository: Repository
) -> None:
    """1.x to archive to 2.x to archive to 1.x to archive: the fingerprint of every table stays the same."""
    database = new_database(influx1)
    influx1.write(LINES, database)
    first = back_up(repository, server1, plan(database))
    target = new_name("target")
    report = restore_into(repository, server2, target, plan="telemetry", window=DAY)
    assert report.rows == 4
    second = back_up(repository, server2, plan(target, name="second"))
    back = new_name("back")
    restore_into(repository, server1, back, plan="second", window=DAY)
    third = back_up(repository, server1, plan(back, name="third"))
    found = [fingerprints(manifest_of(repository, result.ref)) for result in (first, second, third)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 3


def test_policies_of_1x_become_buckets_of_2x(
    influx1: RunningServer, server1: Server, influx2: RunningServer, server2: Server, repository: Repository
) -> None:
    """Each policy is a bucket of its own with its duration, and the default name stays the database's."""
    from tests.jobs.support import DAY_NS, create_policy

    database = new_database(influx1)
    create_policy(influx1, database, "years", "DURATION 1040w REPLICATION 1 SHARD DURATION 4w")
    influx1.write(LINES, database)
    influx1.write(f"cpu v=1 {DAY.start}", database, "years")
    first = back_up(repository, server1, plan(database))
    target = new_name("target")
    restore_into(repository, server2, target, plan="telemetry", window=DAY)
    durations = {policy.name: policy.duration // DAY_NS for policy in server2.retention_policies(target)}
    assert durations == {"autogen": 0, "years": 7280}
    second = back_up(repository, server2, plan(target, name="second"))
    assert fingerprints(manifest_of(repository, second.ref)) == fingerprints(manifest_of(repository, first.ref))


def test_unsigned_from_2x_to_1x_is_refused_by_name_or_becomes_integer_when_asked(
    influx1: RunningServer, server1: Server, influx2: RunningServer, server2: Server, repository: Repository
) -> None:
    """1.x has no unsigned integers: the field is named, and on request small values are written as integers."""
    database = new_database(influx2)
    influx2.write(f"cpu v=1,small=7u {DAY.start}\nbig huge=18446744073709551615u {DAY.start}", database)
    back_up(repository, server2, plan(database))
    with pytest.raises(UnrepresentableError, match=r"'(small|huge)'"):
        restore_into(repository, server1, new_name(), plan="telemetry", window=DAY)
    target = new_name("target")
    restore_into(
        repository, server1, target, plan="telemetry", window=DAY, measurements=("cpu",), unsigned_as_integer=True
    )
    assert influx1.query("SELECT small, v FROM cpu", db=target)["results"][0]["series"][0]["values"] == [  # type: ignore[index]
        [DAY.start, 7, 1]
    ]
    with pytest.raises(UnrepresentableError, match="huge"):
        restore_into(
            repository,
            server1,
            new_name(),
            plan="telemetry",
            window=DAY,
            measurements=("big",),
            unsigned_as_integer=True,
        )
