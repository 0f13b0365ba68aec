"""A repository that is unmounted, renamed or removed under a running job: never a backup that nobody finds."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.archive.store_local import LocalStore
from influxdb_backup.errors import CommitStateUnknownError, StoreError
from influxdb_backup.jobs.verify import verify
from influxdb_backup.model import PlanIdentity, VerifyLevel
from tests.archive.build import COLUMNS, DAY, TABLE, backup, batch, draft, rows, write_table

Vanish = Callable[[Path], None]


def remove(root: Path) -> None:
    """As ``rm -rf`` does, called again where a file came between the last look into a folder and its removal."""
    while root.exists():
        shutil.rmtree(root, ignore_errors=True)


def rename(root: Path) -> None:
    """Moved away."""
    root.rename(root.with_name(f"moved-{uuid4().hex}"))


def replace_it(root: Path) -> None:
    """Another repository stands at the place."""
    rename(root)
    Repository.init(open_store(str(root)))


def unmount(root: Path) -> None:
    """The empty mount point stays."""
    subprocess.run(["umount", "-l", str(root)], check=True)


def empty_it(root: Path) -> None:
    """The folder stays, as a mount point does, while others write into it."""
    for _ in range(100):
        shutil.rmtree(root, ignore_errors=True)
        if not root.exists():
            break
    root.mkdir()


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty folder; a file system of its own where the test unmounts it."""
    folder = tmp_path / "repository"
    folder.mkdir()
    mounts = "vanish" in request.fixturenames and request.getfixturevalue("vanish") is unmount
    if mounts:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting needs root: {done.stderr.strip()}")
    yield folder
    if mounts:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@pytest.fixture(params=[remove, rename, replace_it, unmount, empty_it], ids=lambda act: str(act.__name__))
def vanish(request: pytest.FixtureRequest) -> Vanish:
    """One way to be gone."""
    act: Vanish = request.param
    return act


class Vanishing(LocalStore):
    """Its folder vanishes right before or after a kind of object is created."""

    def __init__(self, root: Path, point: str, vanish: Vanish) -> None:
        super().__init__(root)
        self.point, self._vanish, self.fired = point, vanish, False

    def _act(self, moment: str, key: str) -> None:
        if f"{moment} {key.partition('/')[0]}" == self.point and not self.fired:
            self.fired = True
            self._vanish(self.root)

    def create(self, key: str, data: bytes) -> None:
        """As a local store, and the folder goes."""
        self._act("before", key)
        super().create(key, data)
        self._act("after", key)

    def upload(self, local: Path, key: str) -> None:
        """As a local store, and the folder goes."""
        self._act("before", key)
        super().upload(local, key)
        self._act("after", key)


def files(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "point", ["before data", "after data", "before manifests", "after manifests", "before refs", "after refs"]
)
def test_no_export_says_that_it_backed_up(root: Path, vanish: Vanish, point: str) -> None:
    """Whenever the place vanishes the commit is an error that can be tried again, and no new root is made."""
    store = Vanishing(root, point, vanish)
    repository = Repository.init(store)
    with (
        pytest.raises(
            (StoreError, CommitStateUnknownError), match=r"any more|no folder|is not known|holds nothing"
        ) as caught,
        repository.begin("telemetry", DAY) as attempt,
    ):
        entry = write_table(attempt, [batch(COLUMNS, rows())])
        attempt.commit(draft(entry))
    assert store.fired and caught.value.retryable
    assert root.exists() == (vanish not in {remove, rename})
    if vanish in {unmount, empty_it} and "refs" not in point:
        assert not [name for name in files(root) if name.startswith("refs/")]


def test_parts_do_not_fill_the_disk_under_an_unmounted_folder(root: Path, vanish: Vanish) -> None:
    """Each upload asks first; what came before it is withdrawn."""
    store = Vanishing(root, "after data", vanish)
    repository = Repository.init(store)
    with pytest.raises(StoreError), repository.begin("telemetry", DAY) as attempt:
        tables = [TABLE.model_copy(update={"measurement": f"m{number}"}) for number in range(80)]
        entries = [write_table(attempt, [batch(COLUMNS, rows())], n, table) for n, table in enumerate(tables)]
        attempt.commit(draft(*entries))
    if root.exists():
        assert not [name for name in files(root) if name.startswith("data/")]


@pytest.mark.parametrize("point", ["before checks", "after checks"])
def test_no_report_is_kept_elsewhere(root: Path, vanish: Vanish, point: str) -> None:
    """A verification whose result has no place is an error."""
    store = Vanishing(root, point, vanish)
    ref = backup(Repository.init(LocalStore(root))).ref
    repository = Repository.open(store)
    with pytest.raises(StoreError, match="the result cannot be kept"):
        verify(repository, ref, VerifyLevel.PRESENT)
    assert store.fired


def test_the_folder_of_a_job_that_begins_without_it_is_not_made(root: Path, vanish: Vanish) -> None:
    """A document has no place, and the place is not made for it."""
    repository = Repository.init(LocalStore(root))
    vanish(root)
    identity = PlanIdentity(plan="p", database="d", generation=1, instance_id=None, source=None)
    with pytest.raises(StoreError, match=r"is not at file://.* any more|no folder"):
        repository.put_document(layout.restore_key("r"), identity)
    assert root.exists() == (vanish not in {remove, rename})
