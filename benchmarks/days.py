"""
Restore of many shards against the server's own restore: seconds, the room that it takes, and the cores it uses.

Beside it stands the floor: what the processor does at the least, when points that stand in Parquet become the server's
files, are sent and read back.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks import archives, command, native
from benchmarks.archives import Shape
from benchmarks.command import Called, Site
from benchmarks.data import START
from benchmarks.shards import ShardBed
from benchmarks.table import Result, ratio, seconds
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.influx.shard_cells import SpareCells
from influxdb_backup.influx.shard_files import ShardFileBuilder

_MOST_TIMES, _MOST_SHARDS, _LEAST_CORES = 3.5, 3, 1.5
_BUFFER_BYTES = 48 << 20
_EVERY = 0.02
"""seconds between two looks"""


def measure(bed: ShardBed, runs: int, *, days: int) -> list[Result]:
    """Of days of 864,000 points, one shard each; whole commands, ours and the native one in turns."""
    shape = archives.daily(days)
    archives.fill(bed.server, bed.repository("fill"), "days", shape)
    shutil.rmtree(bed.folder / "fill")
    shard = _bytes_of_files(bed, "days") / len(shape.pieces)
    site = command.site(bed, "days", start=START)
    site.export(shape.window, "--as-one")
    native.back_up(bed, "days", bed.folder / "raw")
    theirs, ours, inner, rooms, cores, alone, works, floors, parts = [], [], [], [], [], [], [], [], []
    for number in range(runs):
        spent, took = _processor(
            bed, lambda number=number: native.restore(bed, bed.folder / "raw", "days", f"native_{number}")
        )
        theirs.append(took)
        bed.drop(f"native_{number}")
        copied, _ = _processor(bed, lambda: native.copy_shards(bed, "days", bed.folder / "copy"))
        shutil.rmtree(bed.folder / "copy")
        read, built = _built(site.folder / "repository", shape)
        floors.append((built + spent + copied) / spent)
        parts.append((read / spent, (built - read) / spent, copied / spent))
        server = native.processor_seconds(bed.running.pid)
        called, room = _restored(site, shape, f"days_{number}", bed.folder / "room")
        server = native.processor_seconds(bed.running.pid) - server
        bed.drop(f"days_{number}")
        ours.append(called.seconds)
        inner.append(called.inner)
        rooms.append(room / shard)
        alone.append(called.processor / called.seconds)
        cores.append((called.processor + server) / called.seconds)
        works.append((called.processor + server) / spent)
    bed.drop("days")
    shutil.rmtree(bed.folder / "raw")
    what = f"{bed.name}: restore by shards of {shape.name}"
    way, tail = native.RESTORE[bed.running.generation], f"({bed.name})"
    return [
        ratio(
            f"{what} / {way}, whole commands",
            [our / their for our, their in zip(ours, theirs, strict=True)],
            most=_MOST_TIMES,
            short=f"restore by shards of {shape.name} / the server's own restore, whole commands {tail}",
        ),
        ratio(f"{what} / {way}, processor seconds of command and server", works),
        ratio(
            f"{what}: the floor (parts decoded, files encoded, sent and copied back) / {way}, processor seconds", floors
        ),
        *(
            ratio(f"{what}: {part} / {way}, processor seconds", values)
            for part, values in zip(
                ("parts proved and decoded", "files encoded", "files copied back"),
                zip(*parts, strict=True),
                strict=True,
            )
        ),
        ratio(
            f"{what}: most bytes in TMPDIR at once, in shards' files ({shard / 1e6:.1f} MB)",
            rooms,
            most=_MOST_SHARDS,
            short=f"restore by shards of {shape.name}: most in TMPDIR at once, in shards' files {tail}",
        ),
        ratio(
            f"{what}: cores used, the command and the server together, of {os.cpu_count()}",
            cores,
            least=_LEAST_CORES,
            short=f"restore by shards of {shape.name}: cores used, of {os.cpu_count()} {tail}",
        ),
        ratio(f"{what}: cores used by the command alone", alone),
        seconds(f"{what}, whole command", ours),
        seconds(f"{what}, the job alone", inner),
        seconds(f"{bed.name}: {way} of {shape.name}", theirs),
    ]


def _processor(bed: ShardBed, call: Callable[[], float]) -> tuple[float, float]:
    """Seconds that the commands of a call and the server used of the processor, and what the call returns."""
    before = _children() + native.processor_seconds(bed.running.pid)
    returned = call()
    return _children() + native.processor_seconds(bed.running.pid) - before, returned


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _built(folder: Path, shape: Shape) -> tuple[float, float]:
    """
    Processor seconds in which the backup's parts are proved and decoded, and the same with the servers' files made.

    Nothing is sent or compared; all threads are counted.
    """
    repository = Repository.open(open_store(f"file://{folder}"))
    (ref,) = repository.refs("plan")
    parts = [part for table in repository.manifest(ref).tables for part in table.parts]
    began = time.process_time()
    rows = sum(batch.num_rows for part in parts for batch in repository.read_part(part, large=True))
    read = time.process_time() - began
    if rows != shape.rows:
        raise RuntimeError(f"{rows} rows of {shape.rows} were read")
    spare = SpareCells(_BUFFER_BYTES // 8)
    began = time.process_time()
    for day, _ in shape.pieces:
        with tempfile.TemporaryDirectory() as made:
            builder = ShardFileBuilder(Path(made), day, generation=1, buffer_bytes=_BUFFER_BYTES, spare=spare)
            for part in parts:
                if day.start <= part.min_time < day.end:
                    for batch in repository.read_part(part, large=True):
                        builder.add(shape.measurement, batch)
            builder.finish()
    return read, time.process_time() - began


def _bytes_of_files(bed: ShardBed, database: str) -> int:
    folder = bed.running.folder
    assert folder is not None
    if bed.running.generation == 1:
        place = folder / "data" / database
    else:
        place = folder / "engine" / "data" / native.bucket_id(bed, database)
    return sum(file.stat().st_size for file in place.rglob("*.tsm"))


def _restored(site: Site, shape: Shape, name: str, room: Path) -> tuple[Called, int]:
    """Also the most bytes that stood in TMPDIR, files without a name among them."""
    room.mkdir()
    with _Watch(room) as watch:
        options = ("--target-database", name, "--writer", "shard", "--json")
        called = site.call("restore", "plan", *command.between(shape.window), *options, TMPDIR=str(room))
    if called.document["rows"] != shape.rows:
        raise RuntimeError(f"{called.document['rows']} rows of {shape.rows} were restored")
    shutil.rmtree(room)
    return called, watch.most


class _Watch:
    """Looks at a folder again and again while it is entered, and at what the processes of this one hold open there."""

    def __init__(self, folder: Path) -> None:
        self.most = 0
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._ended.wait(_EVERY):
            found: dict[tuple[int, int], int] = {}
            for path in [*self._below(), *self._held_open()]:
                try:
                    told = path.stat()
                except OSError:  # it went while it was looked for
                    continue
                if path.is_file():
                    found[told.st_dev, told.st_ino] = min(told.st_size, told.st_blocks * 512)
            self.most = max(self.most, sum(found.values()))

    def _below(self) -> list[Path]:
        found = []
        for folder, _, names in os.walk(self._folder):  # passes by what went while it was looked for
            found += [Path(folder) / name for name in names]
        return found

    def _held_open(self) -> list[Path]:
        found = []
        for child in psutil.Process().children():
            try:
                descriptors = list(Path(f"/proc/{child.pid}/fd").iterdir())
                found += [one for one in descriptors if str(one.readlink()).startswith(str(self._folder))]
            except OSError:  # it closed one meanwhile
                continue
        return found
