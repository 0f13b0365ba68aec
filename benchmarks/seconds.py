"""What a person waits for: whole commands, ours and the server's own, on the same points in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import archives, command, native
from benchmarks.command import Called
from benchmarks.shards import ShardBed
from benchmarks.table import Result, seconds

BACKUP, RESTORE = "native backup", "native restore into a new database"
TEXT, IMPORT = "text export of the server's files, gzip", "`influx -import` of that text"
BY_SHARDS, BY_QUERY = "`influxdb-backup export`, by shards", "`influxdb-backup export`, by query"
VERIFY, DRILL = "`influxdb-backup verify --level valid`", "`influxdb-backup drill`"
WHOLE, LINES = "`influxdb-backup restore`, by shards", "`influxdb-backup restore`, by lines"
KEEPS = {
    BACKUP: "files: deleted points come back",
    RESTORE: "",
    TEXT: "points, not policies",
    IMPORT: "strings of one line only",
    BY_SHARDS: "every point, proved",
    BY_QUERY: "every point, proved",
    VERIFY: "",
    WHOLE: "counted",
    LINES: "counted",
    DRILL: "compared to the bit",
}
"""the lines of the README's table in its order, and what each keeps or proves; see report.py"""
INNER = ", the job alone"


def measure(bed: ShardBed, runs: int) -> list[Result]:
    """Every path of one server; ours with the job's own seconds beside those of the command."""
    shape = archives.dense(1)
    archives.fill(bed.server, bed.repository("fill"), "telemetry", shape)
    called: dict[str, list[Called]] = {}
    theirs: dict[str, list[float]] = {}
    raw = bed.folder / "raw"
    for number in range(runs):
        theirs.setdefault(BACKUP, []).append(native.back_up(bed, "telemetry", raw))
        theirs.setdefault(RESTORE, []).append(native.restore(bed, raw, "telemetry", f"native_{number}"))
        bed.drop(f"native_{number}")
        for reader, path in (("query", BY_QUERY), ("shard", BY_SHARDS)):
            site = command.site(bed, "telemetry", reader)
            called.setdefault(path, []).append(site.export(shape.window, again=True))
        called.setdefault(VERIFY, []).append(site.call("verify", "plan", "--level", "valid", "--json"))
        for writer, path in (("lines", LINES), ("shard", WHOLE)):
            options = ("--target-database", f"copy_{number}_{writer}", "--writer", writer, "--json")
            restored = site.call("restore", "plan", *command.between(shape.window), *options)
            called.setdefault(path, []).append(restored)
            if restored.document["rows"] != shape.rows:
                raise RuntimeError(f"{restored.document['rows']} rows of {shape.rows} were restored")
            bed.drop(f"copy_{number}_{writer}")
        called.setdefault(DRILL, []).append(site.call("drill", "plan", "--json"))
    sizes = []
    if bed.inspect:  # once: it takes many times as long as the rest
        text = bed.folder / "text.gz"
        theirs[TEXT] = [native.export_text(bed, "telemetry", text)]
        sizes = [Result(f"{bed.name}: {TEXT}, MB", "shown", f"{text.stat().st_size / 1e6:.0f}", "", None)]
        if bed.running.generation == 1:
            theirs[IMPORT] = [_imported(bed, text, shape.rows)]
    bed.drop("telemetry")
    return [
        *(seconds(f"{bed.name}: {path}", taken) for path, taken in theirs.items()),
        *sizes,
        *(
            row
            for path, taken in called.items()
            for row in (
                seconds(f"{bed.name}: {path}", [one.seconds for one in taken]),
                seconds(f"{bed.name}: {path}{INNER}", [one.inner for one in taken]),
            )
        ),
    ]


def _imported(bed: ShardBed, text: Path, rows: int) -> float:
    """Seconds of the import, whose exit status says nothing of lines that were refused: they are counted."""
    spent = native.import_text(bed, "telemetry", text, "imported")
    answer: Any = bed.running.query("SELECT count(float_0) FROM cpu", db="imported")
    if (found := answer["results"][0]["series"][0]["values"][0][1]) != rows:
        raise RuntimeError(f"{found} rows of {rows} were imported")
    bed.drop("imported")
    return spent
