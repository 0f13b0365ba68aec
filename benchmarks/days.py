"""Restore of many shards against the server's own restore: seconds, the room that it takes, and the cores it uses."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import psutil

from benchmarks import archives, command, native
from benchmarks.archives import Shape
from benchmarks.command import Called, Site
from benchmarks.data import START
from benchmarks.shards import ShardBed
from benchmarks.table import Result, ratio, seconds

_MOST_TIMES, _MOST_SHARDS, _LEAST_CORES = 3.5, 3, 1.5
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
    theirs, ours, inner, rooms, cores, alone = [], [], [], [], [], []
    for number in range(runs):
        theirs.append(native.restore(bed, bed.folder / "raw", "days", f"native_{number}"))
        bed.drop(f"native_{number}")
        server = native.processor_seconds(bed.running.pid)
        called, room = _restored(site, shape, f"days_{number}", bed.folder / "room")
        server = native.processor_seconds(bed.running.pid) - server
        bed.drop(f"days_{number}")
        ours.append(called.seconds)
        inner.append(called.inner)
        rooms.append(room / shard)
        alone.append(called.processor / called.seconds)
        cores.append((called.processor + server) / called.seconds)
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
            for path in [*self._folder.rglob("*"), *self._held_open()]:
                try:
                    told = path.stat()
                except OSError:  # it went while it was looked for
                    continue
                if path.is_file():
                    found[told.st_dev, told.st_ino] = min(told.st_size, told.st_blocks * 512)
            self.most = max(self.most, sum(found.values()))

    def _held_open(self) -> list[Path]:
        found = []
        for child in psutil.Process().children():
            try:
                descriptors = list(Path(f"/proc/{child.pid}/fd").iterdir())
                found += [one for one in descriptors if str(one.readlink()).startswith(str(self._folder))]
            except OSError:  # it closed one meanwhile
                continue
        return found
