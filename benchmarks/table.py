"""The printed table: what was measured, what it must be, and whether it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    what: str
    must: str
    figure: str
    runs: str
    ok: bool | None
    """None: shown without a bound"""


def ratio(what: str, values: Sequence[float], *, most: float | None = None, least: float | None = None) -> Result:
    """A ratio taken several times; its median is judged."""
    middle = median(values)
    ok = (most is None or middle <= most) and (least is None or middle >= least)
    must = f"<= {most}" if most is not None else f">= {least}"
    return Result(what, must, f"{middle:.2f}", " ".join(f"{value:.2f}" for value in values), ok)


def show(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = ["| what | must | measured | runs | holds |", "|---|---|---|---|---|"]
    for result in results:
        holds = {True: "yes", False: "NO", None: "shown"}[result.ok]
        lines.append(f"| {result.what} | {result.must} | {result.figure} | {result.runs} | {holds} |")
    return "\n".join(lines)
