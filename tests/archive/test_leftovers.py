"""Parts that a killed export left are told, and those of backups and of exports at work are not."""

from __future__ import annotations

import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.leftovers import GRACE, Leftover, leftovers
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import Store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.errors import IntegrityError
from influxdb_backup.model import VerifyLevel
from tests.archive.build import COLUMNS, DAY, backup, batch, rows, write_table


def killed(repository: Repository, plan: str) -> str:
    """What an export that never came to its end uploaded: the key's beginning."""
    attempt = repository.begin(plan, DAY)
    entry = write_table(attempt, [batch(COLUMNS, rows())])
    attempt._uploads.finish()
    attempt._folder.cleanup()
    return entry.parts[0].path.rpartition("/")[0].rpartition("/")[0] + "/"


def test_parts_of_a_killed_export_are_told_and_stay(store: Store) -> None:
    """By attempt, with number and bytes; of a plan without any backup as well, and nothing is removed."""
    repository = Repository.init(store)
    first = backup(repository).ref
    again = backup(repository, seed=1, read_start=1_900_000_000 * 10**9).ref
    prefixes = [killed(repository, "telemetry"), killed(repository, "unborn")]
    now = store.now()
    assert leftovers(repository, now) == ()
    sizes = dict(store.list(layout.DATA))
    expected = tuple(
        Leftover(prefix, 1, sum(size for key, size in sizes.items() if key.startswith(prefix)))
        for prefix in sorted(prefixes)
    )
    assert leftovers(repository, now + GRACE + 60 * 10**9) == expected
    assert dict(store.list(layout.DATA)) == sizes
    for one in expected:
        for key in [key for key in sizes if key.startswith(one.place)]:
            store.delete(key)
    assert leftovers(repository, now + 2 * GRACE) == ()
    assert all(verify_ref(repository, ref, VerifyLevel.VALID).ok for ref in (first, again))


def test_a_backup_that_cannot_be_read_leaves_nothing_to_be_told(repository: Repository) -> None:
    """What its manifest names is not known, so none of its parts is called a leftover."""
    ref = backup(repository).ref
    killed(repository, "telemetry")
    repository.store.delete(layout.manifest_key(ref.manifest))
    with pytest.raises(IntegrityError, match="no longer holds"):
        leftovers(repository, repository.store.now() + 2 * GRACE)


def test_beside_a_part_of_a_backup_each_part_is_named(store: Store) -> None:
    """Whoever removes what is named removes no part of a backup."""
    repository = Repository.init(store)
    ref = backup(repository).ref
    (part,) = repository.manifest(ref).tables[0].parts
    beside = part.path.replace("/0000-", "/0001-")
    assert beside != part.path
    store.create(beside, b"PAR1")
    assert leftovers(repository, store.now() + 2 * GRACE) == (Leftover(beside, 1, 4),)
