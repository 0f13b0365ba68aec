"""What the seam between server and archive promises of its column names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.columns import arrow_names, arrow_schema, batch_columns
from influxdb_backup.model import Column, InfluxType, Role

names = st.sampled_from(["host", "Host", "HOST", "time", "Time", "x", "field:host", "a\x00b", "b\udcff", "host#2", "é"])
columns = st.lists(
    st.one_of(
        names.map(lambda name: Column(role=Role.TAG, name=name, type=InfluxType.TAG)),
        names.map(lambda name: Column(role=Role.FIELD, name=name, type=InfluxType.FLOAT)),
    ),
    max_size=10,
    unique=True,
)


@given(columns)
def test_column_names_are_distinct_without_regard_to_case(chosen: list[Column]) -> None:
    """No two columns of a file have names that a reader without regard to case takes for one."""
    lowered = [name.lower() for name in arrow_names(chosen)]
    assert len({"time", *lowered}) == len(chosen) + 1


@given(columns)
def test_a_schema_says_what_its_columns_are(chosen: list[Column]) -> None:
    """Role, exact name and type come back from the metadata whatever the names are."""
    assert batch_columns(arrow_schema(chosen)) == tuple(chosen)
