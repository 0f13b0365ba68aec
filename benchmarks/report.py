"""
docs/performance.md and the README's tables, written from the results that are kept beside this file.

``python -m benchmarks.report`` writes them again without measuring anything.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import growth, results, seconds
from benchmarks.reasons import reason
from benchmarks.results import Taken
from benchmarks.table import Result

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
README = ROOT / "README.md"

MEASUREMENTS = {
    "seconds": "Whole commands",
    "export": "Export by query, and the size of the archive",
    "strings": "Export by query of strings",
    "restore": "Restore by line protocol",
    "shards": "Whole shards",
    "burden": "What a backup costs the server and its users",
    "commands": "What every command costs",
    "windows": "Many windows in one command",
    "days": "Restore of many shards",
    "stores": "Repositories in S3",
    "growth": "Cost against growth",
    "memory": "Peak memory",
    "tables": "Many small tables",
    "verify": "Verification",
    "fingerprint": "The fingerprint",
    "encoding": "Encoding of parts",
    "plans": "DAGs of many plans",
}
NOTES = {
    "seconds": (
        "Processes from their start to their end, and what the job inside says that it took. Ours: connection, "
        "configuration and imports included, loops compiled before. The native tools: `influxd` and "
        "`influx_inspect` on 1.x; on 2.x what `influx backup` and `influx restore` ask of the API, without "
        "compression. The points are the usual ones."
    ),
    "strings": (
        "2,000 series, every 10 s a float of two decimals, an integer and one of five words. The requests of an "
        "export are recorded between it and the server; one `curl` then sends the very same ones, one after the "
        "other on one connection, and writes the answers to a file. An export has several on their way at a time."
    ),
    "burden": (
        "The server's processor is what the kernel counts for the daemon's process. The dashboard asks ten times a "
        "second for the means of each minute of an hour of 20 hosts, whatever the server does, and waits from the "
        "moment at which a query was due; meanwhile exports or native backups of the points with a word run, the "
        "next one as soon as one has ended. Client, dashboard and server share the machine."
    ),
    "commands": (
        "The job's seconds are taken from the command's own document, or around the call in a process that has "
        "exported before."
    ),
    "windows": (
        "`export PLAN --start --end` against the same with `--as-one`; days of 864,000 points, one shard each."
    ),
    "days": (
        "TMPDIR is looked at every 20 ms, files without a name that the command holds open among them. A shard's "
        "files are the server's own of one day, on average. Cores are processor seconds by seconds that passed. The "
        "floor is what any restore from Parquet takes of the processor before it compares anything: parts are proved, "
        "decoded and encoded as files in one process, and sent and copied back as the server's own tools do."
    ),
    "stores": (
        "moto's S3 server, behind a proxy that counts requests and lets each wait; those of several connections "
        "wait at the same time. moto is written in Python and answers one request at a time, so its own processor "
        "seconds stand beside, and a row without them. 300 tables of 864 points of 10 fields, in InfluxDB 1.6."
    ),
    "memory": (
        "Each job in a process of its own. Resident is the highest that the kernel noted, mapped files included; "
        "anonymous was looked at every 10 ms."
    ),
}
"""what a reader must know of a measurement's rows"""
_BEGIN, _END = "<!-- bench:start (written by benchmarks/report.py) -->", "<!-- bench:end -->"
_BLOCK = re.compile(r"<!-- bench:start.*?-->\n.*?<!-- bench:end -->", re.DOTALL)
_SECONDS_BEGIN = "<!-- seconds:start (written by benchmarks/report.py) -->"
_SECONDS_END = "<!-- seconds:end -->"
_SECONDS = re.compile(r"<!-- seconds:start.*?-->\n.*?<!-- seconds:end -->", re.DOTALL)
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
    marked, note = f"`--only {name}`", [_wrapped(NOTES[name])] if name in NOTES else []
    if taken is None:
        return "\n".join([f"{marked}: not measured yet.\n", *note])
    lines = [f"{marked}, {taken.at}, {taken.runs} runs of what is short{circumstances(taken)}.\n", *note]
    lines += [*_judged(taken.results), *_explained(taken.results), *_shown(taken.results)]
    figures = dict.fromkeys(curve.figure for curve in taken.curves)
    lines += [f"![{growth.TITLES[figure][0]}](images/growth-{figure}.png)\n" for figure in figures]
    return "\n".join(lines)


def circumstances(taken: Taken) -> str:
    """How long a measurement took, and what else ran; empty where it was not noted."""
    if taken.others is None:
        return ""
    minutes = f"{taken.seconds / 60:.0f} minutes" if taken.seconds >= 90 else f"{taken.seconds:.0f} s"
    return f", {minutes} in all, while other programs used {taken.others:.1f} cores of the machine"


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 120, break_on_hyphens=False, break_long_words=False)) + "\n"


def _explained(found: Sequence[Result]) -> list[str]:
    """A sentence or two for each row that does not hold."""
    return [_wrapped(f"**{row.what}**, {row.figure}: {why}") for row in found if (why := reason(row))]


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
    failed = [row for name in MEASUREMENTS if name in kept for row in kept[name].results if row.ok is False]
    told = [(row, why) for row in failed if (why := reason(row))]
    lines += ["", *(f"- **{row.figure}** of {row.short or row.what}: {why}" for row, why in told)] if told else []
    lines += [
        "",
        "Medians of `make bench`, with the extra `fast`. Every run, the machine, the versions and the native tools'",
        "own seconds are in [performance](docs/performance.md).",
    ]
    return "\n".join([*lines, _END])


def seconds_block(taken: Taken) -> str:
    """The README's table of whole commands: a column for each server."""
    rows = {row.what: row for row in taken.results}
    listed = taken.versions["InfluxDB"].split(", ")
    servers = {version.rpartition(".")[0]: version for version in listed}
    measured = [name for name in servers if any(what.startswith(f"{name}: ") for what in rows)]
    lines = [_SECONDS_BEGIN, f"| whole command, seconds | {' | '.join(servers[name] for name in measured)} | keeps |"]
    lines += ["|---" * (len(measured) + 2) + "|"]
    for path, keeps in seconds.KEEPS.items():
        cells = [_cell(rows, f"{name}: {path}") for name in measured]
        lines += [f"| {path} | {' | '.join(cells)} | {keeps} |"]
    lines += ["", "In brackets what the job alone took, without process, configuration and imports."]
    return "\n".join([*lines, _SECONDS_END])


def _cell(rows: Mapping[str, Result], what: str) -> str:
    whole, inner = (rows.get(f"{what}{part}, seconds") for part in ("", seconds.INNER))
    size = rows.get(f"{what}, MB")
    if whole is None:
        return ""
    return whole.figure + (f" ({inner.figure})" if inner else "") + (f", {size.figure} MB" if size else "")


def _together(rows: Sequence[Result]) -> str:
    """The figures of rows that stand for one: up to three as they are, of more the range."""
    figures = [row.figure for row in rows]
    if len(figures) > 3 and all(re.fullmatch(r"[\d.]+", figure) for figure in figures):
        figures = [f"{min(figures, key=float)} to {max(figures, key=float)}"]
    told = " / ".join(figures)
    return told if all(row.ok is not False for row in rows) else f"**{told}**"


def write(kept: Mapping[str, Taken]) -> None:
    """Page, pictures and the README's tables; that of seconds stays as it is until they were measured."""
    PAGE.write_text(render(kept), encoding="utf-8")
    text = _BLOCK.sub(lambda _: block(kept), README.read_text(encoding="utf-8"))
    if "seconds" in kept:
        text = _SECONDS.sub(lambda _: seconds_block(kept["seconds"]), text)
    README.write_text(text, encoding="utf-8")
    growth.plot([curve for taken in kept.values() for curve in taken.curves], IMAGES)


if __name__ == "__main__":
    write(results.load())
