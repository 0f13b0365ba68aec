"""What a restore has read to check it is not read again for the write, as far as memory goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.columns import row_bytes
from influxdb_backup.errors import IntegrityError
from influxdb_backup.jobs.kept_points import KeptPoints
from influxdb_backup.jobs.restore_request import RestoreRequest, Unit, decide_reads
from influxdb_backup.model import Scope
from tests.jobs.reads import LENGTH, TABLES, Read, commit
from tests.jobs.support import local_repository


class Reader:
    """Reads units, and remembers which."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.read: list[Unit] = []

    def __call__(self, unit: Unit) -> Iterator[pa.RecordBatch]:
        """The unit's points."""
        self.read.append(unit)
        return self.repository.read_part(unit.part)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Over a backup of a few tables, each a unit of its own."""
    repository = local_repository(tmp_path)
    commit(repository, [Read(0, LENGTH, Scope())])
    return Reader(repository)


def units_of(reader: Reader) -> tuple[Unit, ...]:
    """All units of the backup."""
    (ref,) = reader.repository.refs("telemetry")
    units = decide_reads(RestoreRequest(refs=(ref.id,)), reader.repository, None).units
    assert len(units) == len(TABLES)
    return units


def damage(unit: Unit, folder: Path) -> None:
    """Flips a bit of the unit's part."""
    part = folder / "repository" / unit.part.path
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.chmod(0o600)
    part.write_bytes(data)


def test_what_fits_is_read_once(reader: Reader, tmp_path: Path) -> None:
    """The points that were proved are those that are written, whatever happens to the store in between."""
    units = units_of(reader)
    kept = KeptPoints(reader)
    checked = [list(kept.checked(unit)) for unit in units]
    for unit in units:
        damage(unit, tmp_path)
    assert [list(kept.taken(unit)) for unit in reversed(units)] == checked[::-1]
    assert reader.read == list(units)
    with pytest.raises(IntegrityError):
        list(kept.taken(units[0]))


def test_what_does_not_fit_is_proved_again(reader: Reader, tmp_path: Path) -> None:
    """Memory is for as many whole units as fit; of the others the bytes are proved again before a point is written."""
    units = units_of(reader)
    sizes = [sum(row_bytes(batch) for batch in reader.repository.read_part(unit.part)) for unit in units]
    kept = KeptPoints(reader, limit=sizes[0] + sizes[1] - 1)
    checked = [list(kept.checked(unit)) for unit in units[:2]]
    assert [list(kept.taken(unit)) for unit in units[:2]] == checked
    assert reader.read == [units[0], units[1], units[1]]
    damage(units[1], tmp_path)
    with pytest.raises(IntegrityError, match=units[1].part.path):
        list(kept.taken(units[1]))


def test_a_unit_that_was_not_read_to_its_end_is_read_again(reader: Reader) -> None:
    """Points of which the rest was never seen are not taken for all there is."""
    unit = units_of(reader)[0]
    kept = KeptPoints(reader)
    next(kept.checked(unit))
    assert sum(batch.num_rows for batch in kept.taken(unit)) == LENGTH
    assert reader.read == [unit, unit]
