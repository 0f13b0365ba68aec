"""The commit: one winner, three outcomes, and nothing half-true at any crash point."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.commit import Committed
from influxdb_backup.archive.documents import load, seal, to_bytes
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import Store, open_store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.errors import (
    BackupNotFoundError,
    CommitStateUnknownError,
    ConflictError,
    FormatError,
    InfluxdbBackupError,
    IntegrityError,
    StoreError,
    SupersededError,
    UsageError,
)
from influxdb_backup.jobs.verify import verify
from influxdb_backup.model import PlanIdentity, Table, VerifyLevel, Window
from influxdb_backup.windows import parse_window
from tests.archive.build import (
    COLUMNS,
    DAY,
    SECOND,
    TABLE,
    backup,
    batch,
    draft,
    rows,
    wait_for_upload,
    write_table,
)
from tests.archive.faulty import FaultyStore, Killed

LATER = 1_900_000_000 * SECOND


def data_objects(store: Store) -> set[str]:
    """Everything below data/ and manifests/."""
    return {key for key, _ in store.list(layout.DATA)} | {key for key, _ in store.list(layout.MANIFESTS)}


def referenced(repository: Repository) -> set[str]:
    """Every object that a ref leads to."""
    keys = set()
    for plan in repository.plans():
        for ref in repository.refs(plan):
            keys.add(layout.manifest_key(ref.manifest))
            keys |= {part.path for entry in repository.manifest(ref).tables for part in entry.parts}
    return keys


def test_a_backup_in_every_store(store: Store) -> None:
    """Written, found by name, read back and valid; a second client sees the same."""
    repository = Repository.init(store)
    done = backup(repository)
    assert done.created and done.ref.revision == 0
    other = Repository.open(store.again())
    assert other.repository_id == repository.repository_id
    assert other.plans() == ("telemetry",)
    assert other.refs("telemetry") == (done.ref,)
    for text in ("telemetry@latest", done.ref.id, done.ref.id.rsplit("/", 1)[0]):
        assert other.ref(text) == done.ref
    assert verify_ref(other, done.ref, VerifyLevel.VALID).problems == ()
    assert data_objects(store) == referenced(repository)


def test_equal_content_makes_no_new_revision(repository: Repository) -> None:
    """Decision: the same rows read again are done, and the second attempt's parts are removed."""
    first = backup(repository)
    again = backup(repository, read_start=LATER)
    assert (again.created, again.ref) == (False, first.ref)
    assert data_objects(repository.store) == referenced(repository)


def two_tables(repository: Repository, seeds: tuple[int, int], read_start: int) -> Committed:
    """A backup of two tables, made from the window's last revision, as exports make it."""
    refs = repository.refs("telemetry")
    earlier = repository.manifest(refs[-1]) if refs else None
    with repository.begin("telemetry", DAY, earlier) as attempt:
        entries = [
            write_table(
                attempt, [batch(COLUMNS, rows(seed))], number, Table(retention_policy="autogen", measurement=name)
            )
            for number, (name, seed) in enumerate(zip("ab", seeds, strict=True))
        ]
        return attempt.commit(draft(*entries, read_start=read_start))


def test_an_equal_table_of_the_next_revision_is_not_stored_again(store: Store) -> None:
    """Its parts are named by both revisions, both are valid, and a third that is given up removes neither."""
    repository = Repository.init(store)
    first = two_tables(repository, (1, 2), 1_800_000_000 * SECOND).ref
    second = two_tables(repository, (1, 3), LATER).ref
    paths = [
        [part.path for entry in repository.manifest(ref).tables for part in entry.parts] for ref in (first, second)
    ]
    assert paths[0][0] == paths[1][0] and paths[0][1] != paths[1][1]
    assert second.revision == 1 and len(repository.store.list(layout.DATA)) == 3
    again = two_tables(repository, (1, 3), LATER + 1)
    assert (again.created, again.ref) == (False, second)
    with repository.begin("telemetry", DAY, repository.manifest(second)) as attempt:
        entry = write_table(attempt, [batch(COLUMNS, rows(1))], 0, Table(retention_policy="autogen", measurement="a"))
        assert entry.parts[0].path == paths[0][0]
        attempt.withdraw(entry.parts)
    assert all(verify_ref(repository, ref, VerifyLevel.VALID).ok for ref in (first, second))
    assert data_objects(store) == referenced(repository)


def test_a_damaged_part_is_not_named_again(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    """The same points are stored anew, which heals the window, and the log names the damaged object."""
    first = two_tables(repository, (1, 2), 1_800_000_000 * SECOND).ref
    damaged = repository.manifest(first).tables[0].parts[0].path
    path = repository.store.local_path(damaged)
    assert path is not None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    second = two_tables(repository, (1, 2), LATER)
    assert second.created and damaged in caplog.text
    assert verify_ref(repository, second.ref, VerifyLevel.VALID).ok


def test_other_content_makes_the_next_revision(repository: Repository) -> None:
    """Late data: both revisions stay readable, and the newer one links to the older."""
    first = backup(repository, seed=1).ref
    second = backup(repository, seed=2, read_start=LATER).ref
    assert (first.revision, second.revision) == (0, 1)
    assert repository.manifest(second).previous_revision == 0
    assert repository.refs("telemetry") == (first, second)
    assert repository.ref("telemetry@latest") == second
    assert all(verify_ref(repository, ref, VerifyLevel.VALID).ok for ref in (first, second))


def test_an_older_read_cannot_go_on_top(repository: Repository) -> None:
    """A read that began before the latest revision's is refused, and leaves nothing behind."""
    backup(repository, seed=1, read_start=LATER)
    with pytest.raises(SupersededError, match="older data"):
        backup(repository, seed=2, read_start=LATER - 1)
    assert len(repository.refs("telemetry")) == 1
    assert data_objects(repository.store) == referenced(repository)


def test_an_open_revision_gives_way_to_a_closed_one_of_equal_content(repository: Repository) -> None:
    """Else the window would stay open for ever; a closed one is not replaced by an open one."""
    opened = backup(repository, open=True)
    closed = backup(repository, read_start=LATER)
    assert closed.created and closed.ref.revision == 1 and not closed.ref.open
    assert not backup(repository, read_start=LATER + 1, open=True).created
    assert opened.ref.content_id == closed.ref.content_id


def test_latest_skips_open_windows(repository: Repository) -> None:
    """``@latest`` is the newest closed window; with open ones only there is none, and the message says why."""
    tomorrow = Window(start=DAY.end, end=DAY.end + 60 * SECOND)
    backup(repository, window=tomorrow, open=True)
    with pytest.raises(BackupNotFoundError, match="still open"):
        repository.ref("telemetry@latest")
    closed = backup(repository)
    assert repository.ref("telemetry@latest") == closed.ref


def test_revision_numbers_are_never_used_again(repository: Repository) -> None:
    """The next revision is the highest ever used plus one, also when only a tombstone tells of it."""
    first = backup(repository, seed=1).ref
    repository.store.delete(layout.ref_key("telemetry", DAY, 0))
    repository.store.create(layout.tombstone_key("telemetry", DAY, 0), b"{}\n")
    second = backup(repository, seed=1).ref
    assert (first.revision, second.revision) == (0, 1)
    assert repository.refs("telemetry") == (second,)


def test_a_revision_with_a_changed_byte_is_not_relied_on(tmp_path: Path) -> None:
    """The sizes are right, but a digest is not: an export heals the window instead of saying that nothing is new."""
    repository = Repository.init(open_store(tmp_path.as_uri()))
    first = backup(repository).ref
    part = tmp_path / repository.manifest(first).tables[0].parts[0].path
    whole = part.read_bytes()
    part.chmod(0o644)
    part.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    healed = backup(repository, read_start=LATER)
    assert (healed.created, healed.ref.revision) == (True, 1)
    assert verify_ref(repository, healed.ref, VerifyLevel.VALID).ok
    assert backup(repository, read_start=LATER + SECOND).created is False


def test_a_damaged_ref_says_what_to_do_and_keeps_no_other_window_from_being_read(repository: Repository) -> None:
    """The hint names the ways out; a range that does not touch the damaged window is read as ever."""
    damaged = backup(repository).ref
    other = backup(repository, window=Window(start=DAY.end, end=2 * DAY.end - DAY.start)).ref
    key = layout.ref_key("telemetry", DAY, 0)
    repository.store.delete(key)
    repository.store.create(key, b"")
    with pytest.raises(FormatError, match="copy of the repository") as caught:
        repository.refs("telemetry")
    assert key in caught.value.message
    assert repository.refs("telemetry", other.window) == (other,)
    assert damaged.window == DAY


def test_a_revision_that_lost_a_part_is_not_relied_on(repository: Repository) -> None:
    """Equal content, but the standing backup is damaged: the attempt becomes a new revision that heals it."""
    first = backup(repository).ref
    repository.store.delete(repository.manifest(first).tables[0].parts[0].path)
    healed = backup(repository, read_start=LATER)
    assert healed.created and healed.ref.revision == 1
    assert verify_ref(repository, healed.ref, VerifyLevel.VALID).ok


def test_a_verification_that_cannot_be_kept_tells_what_it_found(repository: Repository) -> None:
    """A repository on a read-only disk: the finding and the way to do without keeping it are in the error."""
    ref = backup(repository).ref
    repository.store.delete(repository.manifest(ref).tables[0].parts[0].path)
    faulty = Repository.open(FaultyStore(repository.store, verb="create", key="checks/"))
    with pytest.raises(StoreError, match="does NOT hold") as caught:
        verify(faulty, ref, VerifyLevel.PRESENT)
    assert "--no-record" in caught.value.hint
    assert not verify(faulty, ref, VerifyLevel.PRESENT, record=False).ok


@pytest.mark.parametrize("same", [True, False])
def test_racing_commits(store: Store, same: bool) -> None:
    """Of racing exports one makes the revision; equal ones agree on it, others are told to try again."""
    Repository.init(store)
    barrier = threading.Barrier(3)

    def run(seed: int) -> str:
        repository = Repository.open(store.again())
        with repository.begin("telemetry", DAY) as attempt:
            entry = write_table(attempt, [batch(COLUMNS, rows(0 if same else seed))])
            barrier.wait()
            try:
                return "created" if attempt.commit(draft(entry)).created else "same"
            except ConflictError as conflict:
                assert conflict.retryable
                return "conflict"

    with ThreadPoolExecutor(3) as pool:
        outcomes = sorted(pool.map(run, range(3)))
    repository = Repository.open(store)
    refs = repository.refs("telemetry")
    assert [ref.revision for ref in refs] == list(range(len(refs)))
    assert outcomes.count("created") == len(refs) >= 1
    if same:
        assert outcomes == ["created", "same", "same"]
    assert all(verify_ref(repository, ref, VerifyLevel.VALID).ok for ref in refs)


def test_a_lost_reply_of_our_own_commit_is_recognised(repository: Repository) -> None:
    """The ref landed, the client's own retry found it there: it is ours by its write id."""
    for number, error in enumerate([StoreError("reset"), FileExistsError("exists")]):
        faulty = FaultyStore(repository.store, verb="create", key="refs/", when="after", error=lambda e=error: e)
        done = backup(Repository.open(faulty), seed=number, read_start=LATER + number)
        assert faulty.fired and done.created and done.ref.revision == number


def test_an_unknown_outcome_is_said_to_be_unknown(repository: Repository) -> None:
    """The ref may have landed and cannot be read back: nothing is removed, and the same again is safe."""

    class LostAndUnreadable(FaultyStore):
        def read(self, key: str) -> bytes:
            if self.fired and key.startswith("refs/"):
                raise StoreError("connection reset by peer")
            return super().read(key)

    faulty = LostAndUnreadable(repository.store, verb="create", key="refs/", when="after")
    with pytest.raises(CommitStateUnknownError, match="same again") as unknown:
        backup(Repository.open(faulty))
    assert unknown.value.retryable
    ref = repository.ref("telemetry@latest")
    assert verify_ref(repository, ref, VerifyLevel.VALID).ok
    assert backup(repository, read_start=LATER).ref == ref


def test_a_lost_request_is_unknown_too(repository: Repository) -> None:
    """The create failed before it landed: reading back finds nothing, which proves nothing."""
    faulty = FaultyStore(repository.store, verb="create", key="refs/", when="before")
    with pytest.raises(CommitStateUnknownError):
        backup(Repository.open(faulty))
    assert repository.refs("telemetry") == ()
    assert backup(repository).ref.revision == 0


def test_a_power_cut_after_the_commit_loses_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part, and each folder that names it, is on the disk before the manifest is; and each ref at the end."""
    on_disk: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        on_disk.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    root = tmp_path / "repository"
    repository = Repository.init(open_store(f"file://{root}"))
    on_disk.clear()
    done = backup(repository)
    part = root / repository.manifest(done.ref).tables[0].parts[0].path
    first_document = next(number for number, name in enumerate(on_disk) if "/manifests" in name)
    before = set(on_disk[:first_document])
    assert {str(path) for path in (part, part.parent, part.parent.parent, root / "data", root)} <= before
    ref = root / layout.ref_key(done.ref.plan, done.ref.window, done.ref.revision)
    assert on_disk[-1] == str(ref.parent)
    assert any(name.startswith(f"{ref.parent}/.tmp-") for name in on_disk[first_document:])


def _calls_of_a_backup(tmp_path: Path, prepared: bool) -> int:
    store = open_store(f"file://{tmp_path}/count")
    Repository.init(store)
    if prepared:
        backup(Repository.open(store), seed=7)
    counting = FaultyStore(store)
    backup(Repository.open(counting), read_start=LATER)
    return len(counting.trace)


@pytest.mark.parametrize("fault", ["before", "after", "killed before", "killed after"])
@pytest.mark.parametrize("prepared", [False, True])
def test_every_crash_point(tmp_path: Path, fault: str, prepared: bool) -> None:
    """
    Whatever call fails, whenever, for a moment or for ever: what is visible is whole, and the retry commits once.
    """
    older = 1 if prepared else 0
    calls = _calls_of_a_backup(tmp_path, prepared)
    assert calls >= 6
    for at in range(calls):
        store = open_store(f"file://{tmp_path}/{at}")
        healthy = Repository.init(store)
        if prepared:
            backup(healthy, seed=7)
        faulty = FaultyStore(store, at=at, when=fault.rpartition(" ")[2], lasting=fault.startswith("killed"))
        try:
            done = backup(Repository.open(faulty), read_start=LATER)
            assert done.created
        except (InfluxdbBackupError, Killed) as error:
            assert isinstance(error, Killed) or error.retryable
        assert faulty.fired
        assert len(healthy.refs("telemetry")) <= older + 1
        assert all(verify_ref(healthy, ref, VerifyLevel.VALID).ok for ref in healthy.refs("telemetry"))
        assert backup(healthy, read_start=LATER).ref.revision == older
        assert len(healthy.refs("telemetry")) == older + 1
        assert referenced(healthy) <= data_objects(store)


def test_leaving_by_an_error_removes_what_was_uploaded(repository: Repository) -> None:
    """And the temporary folder, always."""
    with pytest.raises(RuntimeError), repository.begin("telemetry", DAY) as attempt:
        wait_for_upload(repository, write_table(attempt, [batch(COLUMNS, rows())]).parts)
        folder = Path(attempt._folder.name)
        assert data_objects(repository.store) and folder.exists()
        raise RuntimeError
    assert data_objects(repository.store) == set()
    assert not folder.exists()


def test_a_discarded_writer_leaves_nothing(repository: Repository) -> None:
    """A piece that is read again gets new keys, and the first try's objects are gone."""
    with repository.begin("telemetry", DAY) as attempt:
        writer = attempt.part_writer(0, TABLE, batch(COLUMNS, rows()).schema, DAY)
        writer.write(batch(COLUMNS, rows()))
        writer.close()
        writer.discard()
        entry = write_table(attempt, [batch(COLUMNS, rows())])
        assert entry.parts[0].path.endswith("/0001.parquet")
        attempt.commit(draft(entry))
    assert data_objects(repository.store) == referenced(repository)


def test_a_part_that_the_store_lost_fails_the_commit(repository: Repository) -> None:
    """Every part is asked for before the manifest is written."""
    with pytest.raises(StoreError, match="holds nothing"), repository.begin("telemetry", DAY) as attempt:
        entry = write_table(attempt, [batch(COLUMNS, rows())])
        wait_for_upload(repository, entry.parts)
        repository.store.delete(entry.parts[0].path)
        attempt.commit(draft(entry))
    with pytest.raises(StoreError, match="holds 3 bytes"), repository.begin("telemetry", DAY) as attempt:
        entry = write_table(attempt, [batch(COLUMNS, rows())])
        wait_for_upload(repository, entry.parts)
        repository.store.delete(entry.parts[0].path)
        repository.store.create(entry.parts[0].path, b"cut")
        attempt.commit(draft(entry))
    assert repository.refs("telemetry") == ()


def test_parts_of_another_attempt_are_refused(repository: Repository) -> None:
    """No object is ever shared by two backups."""
    with repository.begin("telemetry", DAY) as first, repository.begin("telemetry", DAY) as second:
        entry = write_table(first, [batch(COLUMNS, rows())])
        with pytest.raises(UsageError, match="attempt's own"):
            second.commit(draft(entry))
        with pytest.raises(UsageError, match="once each"):
            first.commit(draft(entry, entry))


def test_points_outside_of_the_piece_are_refused(repository: Repository) -> None:
    """A reader that returns what it was not asked for is not believed."""
    with repository.begin("telemetry", DAY) as attempt:
        writer = attempt.part_writer(0, TABLE, batch(COLUMNS, rows()).schema, DAY)
        writer.write(batch(COLUMNS, rows(start=DAY.end - SECOND)))
        with pytest.raises(IntegrityError, match="outside of the piece"):
            writer.close()
    with pytest.raises(UsageError, match="not within"), repository.begin("telemetry", DAY) as attempt:
        attempt.part_writer(0, TABLE, batch(COLUMNS, rows()).schema, Window(start=0, end=1))


def test_an_empty_window_is_a_backup(repository: Repository) -> None:
    """Zero rows, committed, listed and valid; its tables are listed without parts."""
    with repository.begin("telemetry", DAY) as attempt:
        entry = write_table(attempt, [batch(COLUMNS, [])])
        done = attempt.commit(draft(entry))
    assert (done.created, done.ref.rows, entry.parts, entry.min_time) == (True, 0, (), None)
    assert verify_ref(repository, done.ref, VerifyLevel.VALID).ok
    assert repository.manifest(done.ref).tables[0].table == TABLE


def test_opening_what_is_no_repository(local_store: Store) -> None:
    """The message says how to create one; a folder of another version or feature is refused."""
    with pytest.raises(BackupNotFoundError, match="repo init"):
        Repository.open(local_store)
    Repository.init(local_store)
    good = load(local_store.read(layout.REPOSITORY), layout.REPOSITORY)
    newer = str(good["media_type"]).replace(".v1+json", ".v2+json")
    for bad, reason in [
        (seal({**good, "media_type": newer}), "another version"),
        (seal({**good, "format_version": 2}), "format version 2"),
        (seal({**good, "features_required": ["encryption"]}), "encryption"),
        (b"\xff", "not a JSON document"),
        (b"[]", "not a JSON object"),
        (b"{}", "another kind"),
    ]:
        local_store.delete(layout.REPOSITORY)
        local_store.create(layout.REPOSITORY, bad)
        with pytest.raises(FormatError, match=reason):
            Repository.open(local_store)


def test_init_is_idempotent_also_in_a_race(store: Store) -> None:
    """Everybody gets the same repository id, and the README is there."""
    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(lambda _: Repository.init(store.again()).repository_id, range(4)))
    assert ids == {Repository.open(store).repository_id}
    assert b"How to restore by hand" in store.read(layout.README)


def test_a_plan_is_claimed_once(store: Store) -> None:
    """The first export decides what a plan backs up; later ones are told what stands."""
    repository = Repository.init(store)
    assert repository.plan_identity("telemetry") is None
    mine = PlanIdentity(plan="telemetry", database="telemetry", generation=1, instance_id=None, source=None)
    assert repository.claim_plan(mine) == mine
    other = mine.model_copy(update={"database": "db\udcff"})
    assert repository.claim_plan(other) == mine
    assert repository.plan_identity("telemetry") == mine
    assert repository.plans() == ("telemetry",)


def test_documents_are_published_once(repository: Repository) -> None:
    """Reports are create-only, and reading them tells kinds apart and fails on what cannot be read."""
    ref = backup(repository).ref
    report = verify_ref(repository, ref, VerifyLevel.VALID)
    key = layout.check_report_key("telemetry", DAY, 0, 1, "a")
    repository.put_document(key, report)
    repository.put_document(key, report)
    with pytest.raises(FileExistsError):
        repository.put_document(key, report.model_copy(update={"seconds": report.seconds + 1}))
    repository.put_document(layout.check_report_key("telemetry", DAY, 0, 2, "b"), ref)
    assert repository.read_documents(layout.CHECKS, type(report)) == [(key, report)]
    repository.store.create(layout.check_report_key("telemetry", DAY, 0, 3, "c"), b"{")
    with pytest.raises(FormatError, match=r"_c\.json"):
        repository.read_documents(layout.CHECKS, type(report))


@pytest.mark.parametrize(
    "text",
    ["", "telemetry", "telemetry/x", "telemetry/a/b/c", "../x@latest", "telemetry/20260101T000000.000000000Z_x/0"],
)
def test_what_is_no_ref_is_a_usage_error(repository: Repository, text: str) -> None:
    """With the form in the message."""
    with pytest.raises(UsageError):
        repository.ref(text)


def test_an_unknown_backup_is_not_found(repository: Repository) -> None:
    """And the hint says how to see what there is."""
    window = parse_window("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    key = layout.format_window_key(window)
    for text in ("telemetry@latest", f"telemetry/{key}", f"telemetry/{key}/3"):
        with pytest.raises(BackupNotFoundError, match="influxdb-backup list telemetry"):
            repository.ref(text)


def test_refs_within_a_range(repository: Repository) -> None:
    """Windows that touch the range, half-open, in order."""
    days = [Window(start=DAY.start + n * 86_400 * SECOND, end=DAY.start + (n + 1) * 86_400 * SECOND) for n in range(4)]
    for day in reversed(days):
        backup(repository, window=day)
    assert [ref.window for ref in repository.refs("telemetry")] == days
    within = Window(start=days[1].start + 5, end=days[2].start + 1)
    assert [ref.window for ref in repository.refs("telemetry", within)] == days[1:3]
    assert [ref.window for ref in repository.refs("telemetry", days[1])] == [days[1]]


def test_a_ref_in_the_wrong_place_is_not_believed(repository: Repository) -> None:
    """A ref that was copied to another window or revision is foreign."""
    ref = backup(repository).ref
    repository.store.create(layout.ref_key("telemetry", DAY, 5), to_bytes(ref))
    with pytest.raises(IntegrityError, match="holds the ref"):
        repository.refs("telemetry")
