"""Whatever bytes a server or its disk hands out: a right value, or an error that names file and place."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.run import NUMBERS
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, check_file

corpora = cache(seeds)
EDITS = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([0, 0, 1, 2, 8]),
    st.sampled_from([bytes([number]) for number in NUMBERS]) | st.binary(max_size=10),
)


@st.composite
def mutants(draw: st.DrawFn, target: str) -> bytes:
    """Real bytes with a few edits, near the end (where the index is) as often as anywhere."""
    data = bytearray(draw(st.sampled_from(corpora()[target])))
    near = draw(st.booleans())
    for share, taken, given_bytes in draw(st.lists(EDITS, min_size=1, max_size=4)):
        begin = max(0, len(data) - 200) if near else 0
        place = begin + int(share * (len(data) - begin))
        data[place : place + taken] = given_bytes
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_bytes(target: str) -> None:
    """Files with right checksums, their parts, tombstones and archives: the promises of each target hold."""

    @settings(max_examples=200 if target == "file" else 400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutants(target) | st.binary(max_size=80))
    def tried(data: bytes) -> None:
        TARGETS[target](data)

    tried()


def test_the_beginnings_are_sound() -> None:
    """The files that are mutated can be read, so that a mutation is what makes an error."""
    assert all(check_file(data) for data in corpora()["file"])
