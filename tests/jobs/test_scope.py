"""What is in a scope, and which scope holds another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.jobs.scope import contains, policy_in_scope, table_in_scope
from influxdb_backup.model import Scope, Table

POLICIES = ("autogen", "week")
MEASUREMENTS = ("cpu", "cpu_tmp", "mem", "tmp_x")
TABLES = [Table(retention_policy=p, measurement=m) for p in POLICIES for m in MEASUREMENTS]
SCOPES = st.builds(
    Scope,
    retention_policies=st.none() | st.lists(st.sampled_from(POLICIES), unique=True).map(tuple),
    measurements=st.none() | st.lists(st.sampled_from(MEASUREMENTS), unique=True).map(tuple),
    exclude_measurements=st.lists(st.sampled_from([*MEASUREMENTS, "tmp_*", "*_tmp", "c?u"]), unique=True).map(tuple),
)


@given(SCOPES, SCOPES)
def test_a_scope_that_contains_another_holds_all_of_its_tables(outer: Scope, inner: Scope) -> None:
    """Nothing that the inner scope asks for is missing from a backup of the outer one."""
    if contains(outer, inner):
        for table in TABLES:
            assert not table_in_scope(inner, table) or table_in_scope(outer, table)


@given(SCOPES)
def test_every_scope_contains_itself_and_is_contained_in_all(scope: Scope) -> None:
    """A plan that did not change is covered by its own backups, and by backups of everything."""
    assert contains(scope, scope)
    assert contains(Scope(), scope)


def test_excludes_win_and_may_be_globs() -> None:
    """A glob leaves out what it matches, also when the name holds characters that are special in a pattern."""
    scope = Scope(retention_policies=("autogen",), exclude_measurements=("tmp_*", "a[b]"))
    assert table_in_scope(scope, Table(retention_policy="autogen", measurement="cpu"))
    assert not table_in_scope(scope, Table(retention_policy="autogen", measurement="tmp_x"))
    assert not table_in_scope(scope, Table(retention_policy="autogen", measurement="a[b]"))
    assert not table_in_scope(scope, Table(retention_policy="week", measurement="cpu"))


def test_named_measurements_are_no_globs() -> None:
    """A measurement named with a star is that one measurement."""
    scope = Scope(measurements=("c*",))
    assert table_in_scope(scope, Table(retention_policy="autogen", measurement="c*"))
    assert not table_in_scope(scope, Table(retention_policy="autogen", measurement="cpu"))


def test_a_policy_created_later_is_in_the_scope_of_all() -> None:
    """None means all, also what does not exist yet."""
    assert policy_in_scope(Scope(), "new")
    assert not policy_in_scope(Scope(retention_policies=("autogen",)), "new")
