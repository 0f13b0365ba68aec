"""The mark by which a server shows that a database was made by us: what is written is what is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.influx.marks import (
    Mark,
    describe,
    described_mark,
    has_form,
    mark_policy,
    new_marked_name,
    policies_mark,
)
from influxdb_backup.model import RetentionPolicy

SECOND = 10**9
AUTOGEN = RetentionPolicy(name="autogen", duration=0, shard_duration=0)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), st.integers(1, 4 * 10**9))
def test_marks_read_back(owner: str, seconds: int) -> None:
    """Any owner and any second go through a policy of 1.x and a description of 2.x."""
    mark = Mark(owner, seconds * SECOND)
    assert policies_mark([AUTOGEN, mark_policy(mark)]) == mark
    assert described_mark(describe("drill", mark), "drill") == mark
    assert described_mark(describe("drill", mark), "restore") is None
    assert described_mark(describe("restore", Mark(owner)), "restore") == Mark(owner)


@pytest.mark.parametrize(
    "text", ["", "Made by influxdb-backup", "our own words", describe("drill", Mark("a", SECOND)) + " Really."]
)
def test_other_descriptions_are_no_mark(text: str) -> None:
    """Only the very words are a mark."""
    assert described_mark(text, "drill") is None


def test_names_have_a_form() -> None:
    """A name with another prefix, a shorter suffix or something behind it is not ours."""
    name = new_marked_name("drill")
    assert has_form(name, "drill")
    assert not has_form(name, "restore")
    for other in (name[:-1], name + "0", "x" + name, name + "\n", "billing", name.upper()):
        assert not has_form(other, "drill")
