"""Which tables an export must read, and when it refuses."""

from __future__ import annotations

import pytest

from influxdb_backup.errors import SourceError
from influxdb_backup.influx.protocol import PolicySchema
from influxdb_backup.jobs.selection import missing_at_source, refuse_expired, select_policies, select_tables
from influxdb_backup.model import (
    Column,
    Evidence,
    InfluxType,
    Manifest,
    RetentionPolicy,
    Role,
    Scope,
    Source,
    Table,
    TableEntry,
    TableSchema,
    Tool,
    UnreadableTable,
)
from tests.jobs.support import DAY, DAY_NS, HOUR, plan

FIELD = Column(role=Role.FIELD, name="v", type=InfluxType.FLOAT)
AUTOGEN = RetentionPolicy(name="autogen", duration=0, shard_duration=7 * DAY_NS, default=True)
WEEK = RetentionPolicy(name="week", duration=7 * DAY_NS, shard_duration=DAY_NS)


def table(measurement: str, policy: str = "autogen") -> Table:
    """A table."""
    return Table(retention_policy=policy, measurement=measurement)


def shown(*measurements: str, policy: str = "autogen", unreadable: tuple[str, ...] = ()) -> dict[str, PolicySchema]:
    """What a server lists of one policy."""
    return {
        policy: PolicySchema(
            tables=tuple(TableSchema(table=table(name, policy), columns=(FIELD,)) for name in measurements),
            unreadable=tuple(UnreadableTable(table=table(name, policy), reason="reserved") for name in unreadable),
        )
    }


def manifest(
    *tables: Table, empty: tuple[Table, ...] = (), policies: tuple[RetentionPolicy, ...] = (AUTOGEN,)
) -> Manifest:
    """The plan's last backup."""
    digest = "sha256:" + "0" * 64
    return Manifest(
        repository_id="r",
        plan="telemetry",
        window=DAY,
        attempt="a",
        content_id=digest,
        source=Source(
            product="influxdb", version="1.8.10", generation=1, database="telemetry", retention_policies=policies
        ),
        scope=Scope(),
        evidence=Evidence(
            predicate="", read_start=0, read_end=0, settle=0, open=False, pieces=(), counts=(), unreadable=()
        ),
        tables=tuple(
            TableEntry(
                number=number,
                table=one,
                columns=() if one in empty else (FIELD,),
                rows=0,
                counts=(),
                min_time=None,
                max_time=None,
                fingerprint="0" * 32,
                parts=(),
            )
            for number, one in enumerate((*tables, *empty))
        ),
        tool=Tool(package="p", pyarrow="1", python="3", codec="zstd"),
    )


def test_empty_selection_of_a_policy_is_an_error() -> None:
    """A retention policy that the plan names and the server does not show fails, and the message lists what there is."""
    with pytest.raises(SourceError, match=r"no retention policy 'wek'.*autogen, week") as caught:
        select_policies(plan(retention_policies=["wek"]), [AUTOGEN, WEEK])
    assert caught.value.kind == "empty-selection"


def test_empty_selection_of_a_database_is_an_error_unless_allowed() -> None:
    """A database that shows no measurement is a wrong name or lost rights, unless the plan says allow_empty."""
    with pytest.raises(SourceError) as caught:
        select_tables(plan(), shown(), [])
    assert caught.value.kind == "empty-selection"
    assert not select_tables(plan(allow_empty=True), shown(), []).tables


def test_empty_selection_of_a_measurement_that_never_was_is_an_error() -> None:
    """A measurement that was never in the plan's backups is a wrong name, also with allow_empty."""
    with pytest.raises(SourceError, match="no measurement 'cpuu'") as caught:
        select_tables(plan(measurements=["cpu", "cpuu"], allow_empty=True), shown("cpu"), [])
    assert caught.value.kind == "empty-selection"


def test_a_named_measurement_that_was_backed_up_before_is_recorded_as_empty() -> None:
    """A measurement that the server no longer shows stays in the manifest, without columns."""
    selection = select_tables(plan(measurements=["cpu", "mem"]), shown("cpu"), [table("mem")])
    assert set(selection.tables) == {table("cpu"), table("mem")}
    assert selection.tables[table("mem")].columns == ()


def test_unreadable_measurements_are_in_the_selection_by_name() -> None:
    """What no query can read is not left out in silence, also when it is all that there is."""
    selection = select_tables(plan(), shown(unreadable=("_series",)), [])
    assert [entry.table for entry in selection.unreadable] == [table("_series")]


def test_rights_that_shrink_hide_a_policy() -> None:
    """A policy of the last backup that the server no longer shows is named."""
    previous = manifest(table("cpu"), policies=(AUTOGEN, WEEK))
    selection = select_tables(plan(), shown("cpu"), [])
    assert missing_at_source(plan(), previous, [AUTOGEN], selection) == ("retention policy 'week'",)


def test_rights_that_shrink_hide_a_measurement() -> None:
    """A measurement of the last backup that the server no longer shows is named."""
    previous = manifest(table("cpu"), table("mem"))
    selection = select_tables(plan(), shown("cpu"), [])
    assert missing_at_source(plan(), previous, [AUTOGEN], selection) == ("measurement 'mem' of 'autogen'",)


def test_rights_did_not_shrink_when_a_table_became_unreadable_or_left_the_scope() -> None:
    """An unreadable table is visible, one outside of the present scope is not asked for, one recorded empty is known."""
    previous = manifest(table("cpu"), table("mem"), empty=(table("gone"),))
    selection = select_tables(plan(), shown("cpu", unreadable=("mem",)), [])
    assert missing_at_source(plan(), previous, [AUTOGEN], selection) == ()
    narrow = plan(measurements=["cpu"])
    assert missing_at_source(narrow, previous, [AUTOGEN], select_tables(narrow, shown("cpu"), [])) == ()
    assert missing_at_source(plan(), None, [AUTOGEN], selection) == ()


def test_expired_window_is_refused_to_the_nanosecond() -> None:
    """A window that starts before the policy's edge is refused, one that starts at it is not."""
    edge = DAY.start + 7 * DAY_NS
    refuse_expired([WEEK, AUTOGEN], DAY, edge)
    with pytest.raises(SourceError, match="'week' keeps 1w") as caught:
        refuse_expired([AUTOGEN, WEEK], DAY, edge + 1)
    assert caught.value.kind == "expired-window"
    refuse_expired([AUTOGEN], DAY, edge + 1000 * HOUR)
