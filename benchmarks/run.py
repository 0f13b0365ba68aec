"""Takes every measurement in one run and prints the table. ``--quick`` leaves out tenfold data; ``--only export``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import archive, encoding, export, memory, restore, shards
from benchmarks.bed import bed
from benchmarks.table import Result, show


def measure_shards(folder: Path, runs: int) -> list[Result]:
    """Whole shards, on each kind of server at hand."""
    folder.mkdir()
    with shards.beds(folder) as found:
        return [result for bed in found for result in shards.measure(bed, runs)]


def measure_restores(folder: Path, runs: int) -> list[Result]:
    """Restores by line protocol, on each kind of server at hand, one after the other."""
    folder.mkdir()
    with shards.beds(folder) as found:
        return [result for bed in found for result in restore.measure(bed, runs)]


def main() -> int:
    """Exit status 1 when a figure is not what it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="influxdb-backup-bench-") as folder, bed(Path(folder) / "bed") as table:
        measurements: dict[str, Callable[[], list[Result]]] = {
            "export": lambda: export.measure(table, arguments.runs),
            "restore": lambda: measure_restores(Path(folder) / "restores", max(3, arguments.runs // 2)),
            "shards": lambda: measure_shards(Path(folder) / "shards", arguments.runs),
            "tables": lambda: export.measure_small_tables(table, max(3, arguments.runs // 2)),
            "memory": lambda: memory.measure(table, arguments.quick),
            "verify": lambda: archive.measure_verify(Path(folder), arguments.runs),
            "fingerprint": lambda: archive.measure_fingerprint(arguments.runs),
            "encoding": lambda: encoding.measure(Path(folder), arguments.runs),
            "plans": lambda: archive.measure_plans(3),
        }
        unknown = set(arguments.only) - set(measurements)
        if unknown:
            parser.error(f"no measurement {sorted(unknown)}; there are {', '.join(measurements)}")
        for name, measure in measurements.items():
            if not arguments.only or name in arguments.only:
                print(f"measuring {name} ...", file=sys.stderr, flush=True)
                results += measure()
    print(show(results))
    return 0 if all(result.ok is not False for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
