"""
How cost grows with points (in shards of one day each, and within one shard) and with series, and the plots of it.

Servers are filled by whole shards from backups that are made without a server.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import median

from benchmarks import archives, shards
from benchmarks.archives import Shape
from benchmarks.shards import ShardBed
from benchmarks.table import Curve, Result
from influxdb_backup.archive.repository import Repository
from influxdb_backup.jobs.export import export
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.model import Ref

SERVER = "1.6"
WORST = 1.25
"""times as much per point at the largest size as at the smallest still counts as linear: runs differ as much"""
_ENOUGH = 4.0
"""seconds after which a job is not run a third time"""
_FEWEST_RUNS, _MOST_RUNS = 2, 3
_LINES_MOST_ROWS = 2_600_000
"""line protocol stops here, or a run would take minutes: its cost does not depend on what comes after"""
_SERIES_ROWS = 2_000_000

JOBS = ("export by shards", "export by query", "restore by shards", "restore by line protocol")


def measure(folder: Path, *, quick: bool) -> tuple[list[Result], list[Curve]]:
    """Each job at each size, twice, or three times where that takes a few seconds; the curve has the medians."""
    folder.mkdir()
    points = (1, 2, 3) if quick else (1, 3, 10)
    series = (100, 1_000, 10_000) if quick else (100, 10_000, 100_000, 1_000_000)
    rows = _SERIES_ROWS // 10 if quick else _SERIES_ROWS
    with shards.beds(folder, only=[SERVER]) as found:
        if not found:
            return [], []
        bed = found[0]
        curves = [
            *_curves(bed, "points-daily", [archives.daily(times) for times in points], lambda shape: shape.values),
            *_curves(bed, "points-one-shard", [archives.dense(times) for times in points], lambda shape: shape.values),
            *_curves(bed, "series", [archives.many(number, rows) for number in series], lambda shape: shape.series),
        ]
    return [_judged(curve) for curve in curves], curves


def _curves(bed: ShardBed, figure: str, shapes: Sequence[Shape], size: Callable[[Shape], int]) -> list[Curve]:
    taken: dict[str, list[tuple[float, float]]] = {job: [] for job in JOBS}
    for number, shape in enumerate(shapes):
        database = f"{figure.replace('-', '_')}_{number}"
        repository = bed.repository("growth")
        ref = archives.fill(bed.server, repository, database, shape)
        for job in JOBS:
            if job == "restore by line protocol" and shape.rows > _LINES_MOST_ROWS:
                continue
            taken[job].append((size(shape), _seconds(bed, job, repository, ref, database, shape)))
        bed.drop(database)
    return [
        Curve(figure, job, tuple(at for at, _ in pairs), tuple(spent for _, spent in pairs))
        for job, pairs in taken.items()
    ]


def _seconds(bed: ShardBed, job: str, repository: Repository, ref: Ref, database: str, shape: Shape) -> float:
    seconds: list[float] = []
    while len(seconds) < _FEWEST_RUNS or (len(seconds) < _MOST_RUNS and sum(seconds) < _ENOUGH):
        seconds.append(_once(bed, job, repository, ref, database, shape))
    return median(seconds)


def _once(bed: ShardBed, job: str, repository: Repository, ref: Ref, database: str, shape: Shape) -> float:
    if job.startswith("export"):
        plan = bed.plan(database, "shard" if job.endswith("shards") else "query")
        taken = export(plan, shape.window, server=bed.server, repository=bed.repository("export"))
        rows, spent = taken.rows, taken.seconds
        shutil.rmtree(bed.folder / "export")
    else:
        writer = "shard" if job.endswith("shards") else "lines"
        request = RestoreRequest(refs=(ref.id,), target_database=f"{database}_copy", writer=writer)  # type: ignore[arg-type]
        report = restore(request, repository=repository, target=bed.server)
        rows, spent = report.rows, report.seconds
        bed.drop(f"{database}_copy")
    if rows != shape.rows:
        raise RuntimeError(f"{job} of {shape.name}: {rows} rows of {shape.rows}")
    return spent


def _judged(curve: Curve) -> Result:
    if curve.figure == "series":
        return _judged_by_slope(curve)
    costs = [spent / size for size, spent in zip(curve.sizes, curve.seconds, strict=True)]
    worst = costs[-1] / costs[0]
    where = "in shards of a day" if curve.figure == "points-daily" else "within one shard"
    what = f"{curve.label}: cost of a point at {curve.sizes[-1]:,.0f} values / at {curve.sizes[0]:,.0f}, {where}"
    short = f"cost of a point at ten times the points / at once, {where}"
    return Result(what, f"<= {WORST}", f"{worst:.2f}", _runs(curve), worst <= WORST, short)


def _judged_by_slope(curve: Curve) -> Result:
    """Of the same number of points on more and more series: the steepest stretch, 1 is linear in series."""
    places = list(zip(curve.sizes, curve.seconds, strict=True))
    steepest = max(log(after[1] / before[1]) / log(after[0] / before[0]) for before, after in pairwise(places))
    what = f"{curve.label}: steepest growth with series, {curve.sizes[0]:,.0f} to {curve.sizes[-1]:,.0f} (1 is linear)"
    short = "steepest growth with series (1 is linear)"
    return Result(what, "<= 1", f"{steepest:.2f}", _runs(curve), steepest <= 1, short)


def _runs(curve: Curve) -> str:
    return ", ".join(f"{spent:.3g} s" for spent in curve.seconds)


TITLES = {
    "points-daily": ("Points in shards of one day each", "values"),
    "points-one-shard": ("Points within one shard", "values"),
    "series": ("The same number of points on more series", "series"),
}


def plot(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """A picture of each figure, both axes logarithmic, with a line of slope 1 to compare with."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    made = []
    for figure, (title, unit) in TITLES.items():
        own = [curve for curve in curves if curve.figure == figure and curve.sizes]
        if not own:
            continue
        picture, axes = pyplot.subplots(figsize=(7, 4.5), dpi=110)
        for curve, marker in zip(own, "os^D", strict=False):
            axes.plot(curve.sizes, curve.seconds, marker=marker, label=curve.label)
        sizes = sorted({size for curve in own for size in curve.sizes})
        lowest = min(curve.seconds[0] for curve in own) * 0.6
        ends = [lowest, lowest * sizes[-1] / sizes[0]]
        highest = max(max(curve.seconds) for curve in own)
        axes.plot([sizes[0], sizes[-1]], ends, linestyle="--", color="grey", label="linear (slope 1)")
        axes.set(xscale="log", yscale="log", xlabel=unit, ylabel="seconds", title=title)
        axes.set_ylim(lowest * 0.7, min(ends[1], highest * 3) * 1.3 if ends[1] > highest else highest * 1.5)
        axes.grid(which="both", alpha=0.25)
        axes.legend(fontsize="small")
        picture.tight_layout()
        path = folder / f"growth-{figure}.png"
        picture.savefig(path, metadata={"Software": None})
        pyplot.close(picture)
        made.append(path)
    return made
