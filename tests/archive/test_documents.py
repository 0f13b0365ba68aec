"""Documents: canonical, exact for hostile names, and refused when they are not what they say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.archive.documents import canonical, content_id, parse, scope_hash, to_bytes
from influxdb_backup.errors import FormatError
from influxdb_backup.model import PlanIdentity, Scope, Table, TableEntry, decode_name
from tests.archive.build import DAY, source

names = st.binary(min_size=1, max_size=30).map(decode_name) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30
)


@given(names, names)
def test_any_name_round_trips(database: str, word: str) -> None:
    """Through canonical bytes, whatever its bytes are."""
    identity = PlanIdentity(plan="p", database=database, generation=1, instance_id=None, source=None)
    data = to_bytes(identity)
    assert parse(data, PlanIdentity, "plans/p.json") == identity
    assert data.endswith(b"}\n") and data.count(b"\n") == 1
    assert canonical(json.loads(data)) == data


@given(st.lists(names, max_size=4), st.lists(names, max_size=4))
def test_scope_hash_ignores_order_and_repetition(policies: list[str], measurements: list[str]) -> None:
    """And nothing else."""
    one = Scope(retention_policies=tuple(policies), measurements=tuple(measurements))
    other = Scope(retention_policies=tuple(reversed(policies)), measurements=tuple(measurements * 2))
    assert scope_hash(one) == scope_hash(other)
    assert scope_hash(one) != scope_hash(Scope(measurements=tuple(measurements)))


def entry(number: int, measurement: str, rows: int = 0, fingerprint: str = "0" * 32) -> TableEntry:
    """A table without parts."""
    return TableEntry(
        number=number,
        table=Table(retention_policy="autogen", measurement=measurement),
        columns=(),
        rows=rows,
        counts=(),
        min_time=None,
        max_time=None,
        fingerprint=fingerprint,
        parts=(),
    )


def test_content_id_depends_on_the_content_only() -> None:
    """Not on the order or numbers of tables, on versions or policies; on all that tells one content from another."""
    tables = [entry(0, "a", 1, "1" * 32), entry(1, "b\udcff", 2, "2" * 32)]
    base = content_id(source(), Scope(), DAY, tables)
    swapped = [entry(0, "b\udcff", 2, "2" * 32), entry(1, "a", 1, "1" * 32)]
    assert content_id(source(version="1.8.0"), Scope(), DAY, swapped) == base
    assert content_id(source(), Scope(), DAY, [*tables, entry(2, "empty")]) == base
    others = [
        content_id(source(database="other"), Scope(), DAY, tables),
        content_id(source(generation=2), Scope(), DAY, tables),
        content_id(source(instance_id="x"), Scope(), DAY, tables),
        content_id(source(name="cellar"), Scope(), DAY, tables),
        content_id(source(), Scope(measurements=("a",)), DAY, tables),
        content_id(source(), Scope(), DAY.model_copy(update={"start": DAY.start + 1}), tables),
        content_id(source(), Scope(), DAY, tables[:1]),
        content_id(source(), Scope(), DAY, [tables[0], entry(1, "b\udcff", 3, "2" * 32)]),
        content_id(source(), Scope(), DAY, [tables[0], entry(1, "b\udcff", 2, "3" * 32)]),
    ]
    assert len({base, *others}) == len(others) + 1


@given(st.binary(max_size=200))
def test_garbage_is_a_format_error(data: bytes) -> None:
    """Never another exception, and the key is named."""
    with pytest.raises(FormatError, match=r"plans/p\.json"):
        parse(data, PlanIdentity, "plans/p.json")


def test_a_deep_document_is_a_format_error() -> None:
    """Nesting cannot bring the reader down."""
    with pytest.raises(FormatError):
        parse(b"[" * 200_000, PlanIdentity, "plans/p.json")
