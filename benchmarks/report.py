"""
docs/performance.md and the README's table, written from the results that are kept beside this file.

``python -m benchmarks.report`` writes them again without measuring anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import growth, results
from benchmarks.results import Taken
from benchmarks.table import Result

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
README = ROOT / "README.md"

MEASUREMENTS = {
    "export": "Export by query, and the size of the archive",
    "restore": "Restore by line protocol",
    "shards": "Whole shards",
    "growth": "Cost against growth",
    "memory": "Peak memory",
    "tables": "Many small tables",
    "verify": "Verification",
    "fingerprint": "The fingerprint",
    "encoding": "Encoding of parts",
    "plans": "DAGs of many plans",
}
_BEGIN, _END = "<!-- bench:start (written by benchmarks/report.py) -->", "<!-- bench:end -->"
_BLOCK = re.compile(r"<!-- bench:start.*?-->\n.*?<!-- bench:end -->", re.DOTALL)
_HEAD = """<!-- written by benchmarks/report.py from benchmarks/results.json: change nothing here -->
# Performance

Speed, size and memory, as `make bench` measured them; `make bench ARGS=--report` measures again and writes this page.
Figures are ratios against the server's own tools wherever there are any, taken in the same run on the same machine,
client and server together: most of what the machine is worth falls out of them. Not all of it does, since a raw copy is
bound by memory and an export by the processor: of the same points on 2.9 the copy took 72 ms on an AMD EPYC, 43 ms on
an Intel Xeon, and the export half a second on both, 7.7 and 11.9 times as much. A row's figure is the median of its
runs.

Unless a row says something else, the points are 864,000 with 10 fields each (5 floats as random walks, 5 small
integers), on 100 series within a day: 8.64 million values.
"""


def render(kept: Mapping[str, Taken]) -> str:
    """The page."""
    parts = [_HEAD, _held(kept), _environments(kept)]
    for name, title in MEASUREMENTS.items():
        parts.append(f"## {title}\n\n{_section(name, kept.get(name))}")
    return "\n".join(parts)


def _held(kept: Mapping[str, Taken]) -> str:
    judged = [result for taken in kept.values() for result in taken.results if result.ok is not None]
    failed = [result.what for result in judged if not result.ok]
    if failed:
        return f"{len(judged) - len(failed)} of {len(judged)} bounds hold; these do not: {'; '.join(failed)}.\n"
    return f"All {len(judged)} bounds hold.\n"


def _environments(kept: Mapping[str, Taken]) -> str:
    lines = ["## Machine and versions\n", "| measurements | machine | versions |", "|---|---|---|"]
    groups: dict[tuple[str, str], list[str]] = {}
    for name in MEASUREMENTS:
        if name in kept:
            key = _machine(kept[name]), _listed(kept[name].versions)
            groups.setdefault(key, []).append(name)
    lines += [f"| {', '.join(names)} | {machine} | {used} |" for (machine, used), names in groups.items()]
    return "\n".join([*lines, ""])


def _machine(taken: Taken) -> str:
    told = taken.machine
    return f"{told['processor']}, {told['cores']} cores, {told['memory']}, {told['kernel']}"


def _listed(told: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _section(name: str, taken: Taken | None) -> str:
    marked = f"`--only {name}`"
    if taken is None:
        return f"{marked}: not measured yet.\n"
    lines = [f"{marked}, {taken.at}, {taken.runs} runs of what is short.\n", *_judged(taken.results)]
    lines += _shown(taken.results)
    figures = dict.fromkeys(curve.figure for curve in taken.curves)
    lines += [f"![{growth.TITLES[figure][0]}](images/growth-{figure}.png)\n" for figure in figures]
    return "\n".join(lines)


def _judged(found: Sequence[Result]) -> list[str]:
    rows = [result for result in found if result.ok is not None]
    if not rows:
        return []
    lines = ["| what | bound | median | runs | holds |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.what} | {row.must} | {row.figure} | {row.runs} | {'yes' if row.ok else '**no**'} |" for row in rows
    ]
    return [*lines, ""]


def _shown(found: Sequence[Result]) -> list[str]:
    rows = [result for result in found if result.ok is None]
    if not rows:
        return []
    lines = ["Beside it, without a bound:\n", "| what | median | runs |", "|---|---|---|"]
    lines += [f"| {row.what} | {row.figure} | {row.runs} |" for row in rows]
    return [*lines, ""]


def block(kept: Mapping[str, Taken]) -> str:
    """The README's table: a line for each bound, rows of one name together."""
    lines = [_BEGIN, "| what | bound | measured |", "|---|---|---|"]
    for name in MEASUREMENTS:
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in kept[name].results if name in kept else ():
            if result.ok is not None or result.short:
                groups.setdefault((result.short or result.what, result.must), []).append(result)
        lines += [f"| {what} | {must} | {_together(rows)} |" for (what, must), rows in groups.items()]
    lines += [
        "",
        "Medians of `make bench`, with the extra `fast`. Every run, the machine, the versions and the native tools'",
        "own seconds are in [performance](docs/performance.md).",
    ]
    return "\n".join([*lines, _END])


def _together(rows: Sequence[Result]) -> str:
    """The figures of rows that stand for one: up to three as they are, of more the range."""
    figures = [row.figure for row in rows]
    if len(figures) > 3 and all(re.fullmatch(r"[\d.]+", figure) for figure in figures):
        figures = [f"{min(figures, key=float)} to {max(figures, key=float)}"]
    told = " / ".join(figures)
    return told if all(row.ok is not False for row in rows) else f"**{told}**"


def write(kept: Mapping[str, Taken]) -> None:
    """Page, pictures and the README's table."""
    PAGE.write_text(render(kept), encoding="utf-8")
    README.write_text(_BLOCK.sub(lambda _: block(kept), README.read_text(encoding="utf-8")), encoding="utf-8")
    growth.plot([curve for taken in kept.values() for curve in taken.curves], IMAGES)


if __name__ == "__main__":
    write(results.load())
