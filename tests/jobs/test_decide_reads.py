"""At every instant and for every table the newest read that looked at it wins: proved on real small backups."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import BackupNotFoundError, UsageError
from influxdb_backup.jobs.restore_request import Reads, RestoreRequest, decide_reads
from influxdb_backup.model import (
    Scope,
    Table,
    TableSchema,
)
from tests.jobs.reads import BASE, FIELD, LENGTH, POLICIES, TABLES, Read, commit
from tests.jobs.support import memory_repository, window


def restored(repository: Repository, reads: Reads) -> dict[tuple[Table, int], int]:
    """What a writer would be given, every point once."""
    points: dict[tuple[Table, int], int] = {}
    for unit in reads.units:
        for one in repository.read_part(unit.part, window=None if unit.whole else unit.window):
            for time, value in zip(one.column(0).cast("int64").to_pylist(), one.column(1).to_pylist(), strict=True):
                key = unit.table, time - BASE
                assert key not in points, f"{key} would be written twice"
                points[key] = value
    return points


SPAN = st.tuples(st.integers(0, LENGTH - 1), st.integers(1, LENGTH)).map(lambda p: (p[0], min(LENGTH, p[0] + p[1])))
SCOPES = st.sampled_from(
    [
        Scope(),
        Scope(measurements=("cpu",)),
        Scope(measurements=("mem",)),
        Scope(retention_policies=("autogen",)),
        Scope(exclude_measurements=("m*",)),
    ]
)
READS = st.lists(
    st.builds(
        lambda span, scope, unreadable, policies, holes: Read(span[0], span[1], scope, unreadable, policies, holes),
        SPAN,
        SCOPES,
        st.frozensets(st.sampled_from(TABLES), max_size=1),
        st.sampled_from([POLICIES, POLICIES, ("autogen",)]),
        st.frozensets(st.tuples(st.sampled_from(TABLES), st.integers(0, LENGTH - 1)), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=300)
@given(READS, SPAN)
def test_newest_read_wins_and_a_ref_never_blanks_a_table_it_did_not_look_at(
    made: list[Read], span: tuple[int, int]
) -> None:
    """
    For every table and instant exactly the point of the newest backup that looked at it is restored, none when that
    backup saw none there, also with unreadable tables, hidden policies and windows of all sizes.
    """
    repository = memory_repository()
    commit(repository, made)
    request = RestoreRequest(plan="telemetry", window=window(BASE + span[0], BASE + span[1]), allow_gaps=True)
    expected: dict[tuple[Table, int], int] = {}
    for table in TABLES:
        for instant in range(*span):
            looked = [n for n, read in enumerate(made) if read.looked_at(table) and read.start <= instant < read.end]
            if looked and (table, instant) not in made[looked[-1]].holes:
                expected[table, instant] = looked[-1]
    try:
        found = restored(repository, decide_reads(request, repository, None))
    except BackupNotFoundError:
        found = {}
    assert found == expected


ALL = Scope()


def test_newest_read_wins_over_a_higher_revision_of_another_window() -> None:
    """How often a window was backed up says nothing against a later read of a longer one."""
    repository = memory_repository()
    commit(repository, [Read(2, 4, ALL), Read(2, 4, ALL), Read(0, 6, ALL)])
    reads = decide_reads(RestoreRequest(plan="telemetry", window=window(BASE, BASE + 6)), repository, None)
    assert set(restored(repository, reads).values()) == {2}


def test_a_backup_that_did_not_see_a_policy_never_blanks_it() -> None:
    """A token that lost the right to a bucket makes a newer backup, which says nothing of that bucket."""
    repository = memory_repository()
    commit(repository, [Read(0, 6, ALL), Read(0, 6, ALL, policies=("autogen",))])
    reads = decide_reads(RestoreRequest(plan="telemetry", window=window(BASE, BASE + 6)), repository, ALL)
    newest = {(table, read) for (table, _), read in restored(repository, reads).items()}
    assert newest == {(TABLES[0], 1), (TABLES[1], 1), (TABLES[2], 0)}


def test_restore_over_gap_is_an_error_that_names_the_gap() -> None:
    """A stretch without a backup fails, unless gaps are allowed."""
    repository = memory_repository()
    commit(repository, [Read(0, 3, ALL), Read(5, 8, ALL)])
    request = RestoreRequest(plan="telemetry", window=window(BASE, BASE + 8))
    with pytest.raises(
        BackupNotFoundError, match=r"2023-11-14T22:13:20\.000000003Z to 2023-11-14T22:13:20\.000000005Z"
    ) as caught:
        decide_reads(request, repository, None)
    assert caught.value.kind == "gap"
    reads = decide_reads(request.model_copy(update={"allow_gaps": True}), repository, None)
    assert len(reads.gaps) == 1
    assert len(restored(repository, reads)) == 6 * len(TABLES)


def test_restore_over_gap_at_the_edges_is_an_error() -> None:
    """A range that reaches beyond the first or the last backup has gaps too."""
    repository = memory_repository()
    commit(repository, [Read(1, 3, ALL)])
    for start, end in ((0, 3), (1, 4)):
        with pytest.raises(BackupNotFoundError, match="There is no backup of"):
            decide_reads(RestoreRequest(plan="telemetry", window=window(BASE + start, BASE + end)), repository, ALL)


def test_restore_over_gap_of_one_table_is_an_error() -> None:
    """A table that the only backup of a stretch did not look at is a gap of that table."""
    repository = memory_repository()
    commit(repository, [Read(0, 6, Scope(measurements=("cpu",))), Read(0, 4, ALL)])
    with pytest.raises(BackupNotFoundError, match=r"autogen\.mem"):
        decide_reads(RestoreRequest(plan="telemetry", window=window(BASE, BASE + 6)), repository, None)
    only = RestoreRequest(plan="telemetry", window=window(BASE, BASE + 6), measurements=("cpu",))
    assert len(restored(repository, decide_reads(only, repository, None))) == 12


def test_restore_over_gap_lists_every_gap_of_every_table() -> None:
    """With gaps allowed the result says all that is missing, tables of a narrower backup included."""
    repository = memory_repository()
    cpu, mem = (Scope(measurements=(name,)) for name in ("cpu", "mem"))
    commit(repository, [Read(0, 4, ALL), Read(4, 6, cpu), Read(6, 8, mem)])
    request = RestoreRequest(plan="telemetry", window=window(BASE, BASE + 9), allow_gaps=True)
    gaps = [gap.replace("2023-11-14T22:13:20.00000000", "") for gap in decide_reads(request, repository, None).gaps]
    assert gaps == ["8Z to 9Z", "autogen.cpu: 6Z to 8Z", "autogen.mem: 4Z to 6Z", "week.cpu: 6Z to 8Z"]


def test_restore_over_gap_of_the_plans_present_scope_is_an_error() -> None:
    """When the plan now asks for more than any backup of a stretch held, that stretch is a gap."""
    repository = memory_repository()
    commit(repository, [Read(0, 6, Scope(measurements=("cpu",)))])
    request = RestoreRequest(plan="telemetry", window=window(BASE, BASE + 6))
    with pytest.raises(BackupNotFoundError):
        decide_reads(request, repository, Scope(measurements=("cpu", "mem")))
    assert decide_reads(request, repository, Scope(measurements=("cpu",))).units


def test_what_was_read_of_a_table_with_hidden_series_is_restored() -> None:
    """A table of which a server hides some series (2.9.1: those of an escaped name) has a backup of the others."""
    repository = memory_repository()
    commit(repository, [Read(0, 6, ALL, partly=frozenset({TABLES[1]}))])
    reads = decide_reads(RestoreRequest(plan="telemetry", window=window(BASE, BASE + 6)), repository, ALL)
    assert {(TABLES[1], instant) for instant in range(6)} <= set(restored(repository, reads))


def test_unreadable_table_in_the_only_backup_is_a_gap_of_that_table() -> None:
    """What a backup could not read is not restored as if it had been empty."""
    repository = memory_repository()
    commit(repository, [Read(0, 6, ALL), Read(0, 8, ALL, unreadable=frozenset({TABLES[1]}))])
    with pytest.raises(BackupNotFoundError, match=r"autogen\.mem"):
        decide_reads(RestoreRequest(plan="telemetry", window=window(BASE, BASE + 8)), repository, ALL)


def test_named_refs_are_the_only_ones_read() -> None:
    """With refs, other backups of the plan do not win, however new they are."""
    repository = memory_repository()
    commit(repository, [Read(0, 6, ALL), Read(2, 4, ALL)])
    first = repository.refs("telemetry", window(BASE, BASE + 1))[0]
    reads = decide_reads(RestoreRequest(refs=(first.id,)), repository, None)
    assert set(restored(repository, reads).values()) == {0}
    assert [ref.id for ref in reads.refs] == [first.id]


def test_a_request_without_plan_refs_or_range_is_refused() -> None:
    """Nothing is restored by accident."""
    repository = memory_repository()
    commit(repository, [Read(0, 6, ALL)])
    with pytest.raises(UsageError):
        decide_reads(RestoreRequest(), repository, None)
    with pytest.raises(UsageError, match="needs a range"):
        decide_reads(RestoreRequest(plan="telemetry"), repository, None)
    with pytest.raises(BackupNotFoundError):
        decide_reads(RestoreRequest(plan="other", window=window(BASE, BASE + 1)), repository, None)
    with pytest.raises(BackupNotFoundError, match="No table"):
        decide_reads(
            RestoreRequest(plan="telemetry", window=window(BASE, BASE + 6), measurements=("nope",)), repository, None
        )


def test_a_named_measurement_that_no_backup_holds_is_refused() -> None:
    """A wrong name among right ones is not passed over."""
    repository = memory_repository()
    commit(repository, [Read(0, 6, ALL)])
    for wrong in ({"measurements": ("cpu", "nope")}, {"retention_policies": ("autogen", "nope")}):
        request = RestoreRequest.model_validate({"plan": "telemetry", "window": window(BASE, BASE + 6), **wrong})
        with pytest.raises(BackupNotFoundError, match="nope"):
            decide_reads(request, repository, None)


def test_columns_are_those_of_the_parts() -> None:
    """What is checked against line protocol is what will be written."""
    repository = memory_repository()
    commit(repository, [Read(0, 6, ALL)])
    reads = decide_reads(RestoreRequest(plan="telemetry", window=window(BASE, BASE + 6)), repository, None)
    assert set(reads.columns) == set(TABLES)
    assert all(columns == (FIELD,) for columns in reads.columns.values())
    assert reads.rows == 18
    assert reads.policies.keys() == set(POLICIES)
    assert TableSchema(table=TABLES[0], columns=reads.columns[TABLES[0]]).fields == (FIELD,)
