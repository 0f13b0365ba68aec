"""
Takes every measurement in one run and prints the table.

``--quick`` takes small sizes, ``--only export memory`` some of the measurements; ``--report`` keeps what was measured
in benchmarks/results.json, in the place of what was kept of the same measurements, and writes docs/performance.md, its
plots and the README's table from all that is kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import archive, encoding, export, growth, memory, report, restore, results, shards
from benchmarks.bed import bed
from benchmarks.results import Taken
from benchmarks.table import Curve, Result, show


def _shards(folder: Path, runs: int) -> list[Result]:
    """Whole shards, on each kind of server at hand."""
    folder.mkdir()
    with shards.beds(folder) as found:
        return [result for bed in found for result in shards.measure(bed, runs)]


def _restores(folder: Path, runs: int) -> list[Result]:
    """Restores by line protocol, on each kind of server at hand, one after the other."""
    folder.mkdir()
    with shards.beds(folder) as found:
        return [result for bed in found for result in restore.measure(bed, runs)]


def _export(folder: Path, runs: int) -> list[Result]:
    with bed(folder) as table:
        found = export.measure(table, runs)
    return [*found, *export.measure_newer(folder.with_name("export-2"), runs)]


def _with_bed(folder: Path, measure: Callable[..., list[Result]], runs: int) -> list[Result]:
    with bed(folder) as table:
        return measure(table, runs)


Measured = list[Result] | tuple[list[Result], list[Curve]]


def _measurements(folder: Path, runs: int, *, quick: bool) -> dict[str, Callable[[], Measured]]:
    few = max(3, runs // 2)
    return {
        "export": lambda: _export(folder / "export", runs),
        "restore": lambda: _restores(folder / "restores", runs),
        "shards": lambda: _shards(folder / "shards", runs),
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
    return list(_measurements(Path(), 1, quick=True))


def _taken(measure: Callable[[], Measured], runs: int) -> Taken:
    found = measure()
    rows, curves = found if isinstance(found, tuple) else (found, [])
    return Taken(results.now(), runs, results.machine(), results.versions(), tuple(rows), tuple(curves))


def main() -> int:
    """Exit status 1 when a figure is not what it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.only) - set(report.MEASUREMENTS)
    if unknown:
        parser.error(f"no measurement {sorted(unknown)}; there are {', '.join(report.MEASUREMENTS)}")
    if arguments.quick and arguments.report:
        parser.error("--quick takes sizes that no report is made of")
    taken: dict[str, Taken] = {}
    with tempfile.TemporaryDirectory(prefix="influxdb-backup-bench-") as folder:
        for name, measure in _measurements(Path(folder), arguments.runs, quick=arguments.quick).items():
            if not arguments.only or name in arguments.only:
                print(f"measuring {name} ...", file=sys.stderr, flush=True)
                taken[name] = _taken(measure, arguments.runs)
                if arguments.report:
                    report.write(results.keep({name: taken[name]}))
    found = [result for entry in taken.values() for result in entry.results]
    print(show(found))
    return 0 if all(result.ok is not False for result in found) else 1


if __name__ == "__main__":
    sys.exit(main())
