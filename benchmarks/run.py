"""
Takes every measurement in one run and prints the table.

``--quick`` takes small sizes and ``--whole`` the largest, ``--only export memory`` some of the measurements;
``--report`` keeps what was measured in benchmarks/results.json, in the place of what was kept of the same measurements,
and writes docs/performance.md, its plots and the README's tables from all that is kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    archive,
    burden,
    commands,
    encoding,
    export,
    growth,
    memory,
    report,
    restore,
    results,
    seconds,
    shards,
    stores,
    strings,
)
from benchmarks import days as many_days
from benchmarks.bed import bed
from benchmarks.results import Taken
from benchmarks.shards import ShardBed
from benchmarks.table import Curve, Result, show


def _each(folder: Path, measure: Callable[[ShardBed], list[Result]], only: Sequence[str] = ()) -> list[Result]:
    """On each kind of server at hand, or of those named, one after the other."""
    folder.mkdir()
    with shards.beds(folder, only) as found:
        return [result for bed in found for result in measure(bed)]


def _export(folder: Path, runs: int) -> list[Result]:
    with bed(folder) as table:
        found = export.measure(table, runs)
    return [*found, *export.measure_newer(folder.with_name("export-2"), runs)]


def _with_bed(folder: Path, measure: Callable[..., list[Result]], runs: int) -> list[Result]:
    with bed(folder) as table:
        return measure(table, runs)


Measured = list[Result] | tuple[list[Result], list[Curve]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    hours: int
    """of 2,000 series with a word, every 10 s"""
    days: int
    """of 864,000 points, one shard each"""
    quick: bool = False


QUICK, USUAL, WHOLE = Sizes(1, 4, quick=True), Sizes(6, 30), Sizes(24, 116)


def _measurements(folder: Path, runs: int, sizes: Sizes) -> dict[str, Callable[[], Measured]]:
    few, quick = (runs + 1) // 2, sizes.quick
    hours, days = sizes.hours, sizes.days
    return {
        "seconds": lambda: _each(folder / "seconds", lambda bed: seconds.measure(bed, few)),
        "export": lambda: _export(folder / "export", runs),
        "strings": lambda: _each(folder / "strings", lambda bed: strings.measure(bed, few, hours=hours)),
        "restore": lambda: _each(folder / "restores", lambda bed: restore.measure(bed, runs)),
        "shards": lambda: _each(folder / "shards", lambda bed: shards.measure(bed, runs)),
        "burden": lambda: _each(
            folder / "burden", lambda bed: burden.measure(bed, few, hours=hours, seconds=4 if quick else 20)
        ),
        "commands": lambda: _each(folder / "commands", lambda bed: commands.measure(bed, few)),
        "windows": lambda: _each(folder / "windows", lambda bed: commands.measure_windows(bed, few, days=days)),
        "days": lambda: _each(folder / "days", lambda bed: many_days.measure(bed, few, days=days)),
        "stores": lambda: _each(folder / "stores", lambda bed: stores.measure(bed, few, folder / "s3"), ["1.6"]),
        "growth": lambda: growth.measure(folder / "growth", quick=quick),
        "memory": lambda: memory.measure(folder / "memory", quick=quick),
        "tables": lambda: _with_bed(folder / "tables", export.measure_small_tables, few),
        "verify": lambda: archive.measure_verify(folder, runs),
        "fingerprint": lambda: archive.measure_fingerprint(runs),
        "encoding": lambda: encoding.measure(folder, runs),
        "plans": lambda: archive.measure_plans(3),
    }


def names() -> list[str]:
    """Of all measurements."""
    return list(_measurements(Path(), 1, QUICK))


def _taken(measure: Callable[[], Measured], runs: int) -> Taken:
    began = results.Watch.read()
    found = measure()
    ended = results.Watch.read()
    rows, curves = found if isinstance(found, tuple) else (found, [])
    return Taken(
        at=results.now(),
        runs=runs,
        machine=results.machine(),
        versions=results.versions(),
        results=tuple(rows),
        curves=tuple(curves),
        seconds=round(ended.at - began.at),
        others=began.others_until(ended),
    )


def main() -> int:
    """Exit status 1 when a figure is not what it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes")
    size.add_argument("--whole", action="store_true", help="116 days and 51.8 million values with strings")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.only) - set(report.MEASUREMENTS)
    if unknown:
        parser.error(f"no measurement {sorted(unknown)}; there are {', '.join(report.MEASUREMENTS)}")
    sizes = QUICK if arguments.quick else WHOLE if arguments.whole else USUAL
    if arguments.quick and arguments.report:
        parser.error("--quick takes sizes that no report is made of")
    taken: dict[str, Taken] = {}
    with tempfile.TemporaryDirectory(prefix="influxdb-backup-bench-") as folder:
        for name, measure in _measurements(Path(folder), arguments.runs, sizes).items():
            if not arguments.only or name in arguments.only:
                print(f"measuring {name} ...", file=sys.stderr, flush=True)
                taken[name] = _taken(measure, arguments.runs)
                print(f"{name}{report.circumstances(taken[name])}", file=sys.stderr, flush=True)
                if arguments.report:
                    report.write(results.keep({name: taken[name]}))
    found = [result for entry in taken.values() for result in entry.results]
    print(show(found))
    return 0 if all(result.ok is not False for result in found) else 1


if __name__ == "__main__":
    sys.exit(main())
