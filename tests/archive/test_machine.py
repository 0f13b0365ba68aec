"""A random life of a repository: exports, retries, crashes, races, lost refs. What is visible always holds."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.errors import ConflictError, InfluxdbBackupError, SupersededError
from influxdb_backup.model import VerifyLevel
from tests.archive.build import COLUMNS, DAY, backup, batch, draft, rows, write_table
from tests.archive.faulty import FaultyStore, Killed

seeds = st.integers(0, 3)
clocks = st.integers(1, 50)


class Life(RuleBasedStateMachine):
    """One window of one plan."""

    @initialize()
    def begin(self) -> None:
        """An empty repository."""
        self.folder = Path(tempfile.mkdtemp(prefix="life-"))
        self.store = open_store(str(self.folder / "r"))
        self.repository = Repository.init(self.store)
        self.ever_used = -1
        self.dropped: set[int] = set()

    def teardown(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def revisions(self) -> list[int]:
        """What is visible."""
        return [ref.revision for ref in self.repository.refs("p")]

    @rule(seed=seeds, clock=clocks, open_=st.booleans())
    def export(self, seed: int, clock: int, open_: bool) -> None:
        """An export ends with its own content as the latest, or is refused because a later read stands."""
        before = self.repository.refs("p")
        try:
            done = backup(self.repository, seed, plan="p", read_start=clock, open=open_, count=2)
        except SupersededError:
            assert before[-1].read_start > clock
            return
        assert done.ref == self.repository.refs("p")[-1]
        assert done.created == (done.ref not in before)
        assert done.ref.rows == 4 and (open_ or not done.ref.open)
        if done.created:
            assert done.ref.revision == self.ever_used + 1

    @rule(
        seed=seeds, clock=clocks, at=st.integers(0, 12), when=st.sampled_from(["before", "after"]), dead=st.booleans()
    )
    def export_that_fails(self, seed: int, clock: int, at: int, when: str, dead: bool) -> None:
        """At some call, for a moment or for ever."""
        faulty = FaultyStore(self.store, at=at, when=when, lasting=dead)
        with suppress(InfluxdbBackupError, Killed):
            backup(Repository.open(faulty), seed, plan="p", read_start=clock, count=2)

    @rule(first=seeds, second=seeds, clock=clocks)
    def two_at_once(self, first: int, second: int, clock: int) -> None:
        """Both write, then both commit: the second sees the first, or is told."""
        with self.repository.begin("p", DAY) as one, self.repository.begin("p", DAY) as two:
            for attempt, seed in ((one, first), (two, second)):
                entry = write_table(attempt, [batch(COLUMNS, rows(seed, 2))])
                try:
                    attempt.commit(draft(entry, read_start=clock))
                except (ConflictError, SupersededError):
                    continue

    @rule()
    def drop_the_oldest(self) -> None:
        """As retention will: the ref goes, a tombstone stays."""
        visible = self.revisions()
        if visible:
            self.store.create(layout.tombstone_key("p", DAY, visible[0]), b"{}\n")
            self.store.delete(layout.ref_key("p", DAY, visible[0]))
            self.dropped.add(visible[0])

    @invariant()
    def what_is_visible_holds(self) -> None:
        """Every ref is valid, revisions only grow, and no number is used twice."""
        visible = self.revisions()
        assert visible == sorted(set(visible))
        assert not set(visible) & self.dropped
        if visible:
            assert visible[-1] >= self.ever_used or visible[-1] < self.ever_used in self.dropped
            self.ever_used = max(self.ever_used, visible[-1])
        for ref in self.repository.refs("p"):
            report = verify_ref(self.repository, ref, VerifyLevel.VALID)
            assert report.ok, report.problems

    @invariant()
    def nothing_newer_is_below_something_older(self) -> None:
        """Revisions are in the order of their reads."""
        starts = [ref.read_start for ref in self.repository.refs("p")]
        assert starts == sorted(starts)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=10, stateful_step_count=10, deadline=None)
