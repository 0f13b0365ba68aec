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
    short: str = ""
    """its name in the README, where lines of one name are one; a line without a bound needs it to stand there"""


@dataclass(frozen=True)
class Curve:
    """Seconds against the size of what was done."""

    figure: str
    """the picture it is drawn in"""
    label: str
    sizes: tuple[float, ...]
    seconds: tuple[float, ...]


def ratio(
    what: str,
    values: Sequence[float],
    *,
    most: float | None = None,
    least: float | None = None,
    short: str = "",
    digits: int = 2,
) -> Result:
    """A ratio taken several times; its median is judged, or shown where it has no bound."""
    middle = median(values)
    must, ok = "shown", None
    if most is not None:
        must, ok = f"<= {most}", middle <= most
    elif least is not None:
        must, ok = f">= {least}", middle >= least
    return Result(what, must, f"{middle:.{digits}f}", " ".join(f"{value:.{digits}f}" for value in values), ok, short)


def seconds(what: str, values: Sequence[float], short: str = "") -> Result:
    """Seconds that are shown without a bound."""
    runs = " ".join(f"{value:.3g}" for value in values)
    return Result(f"{what}, seconds", "shown", f"{median(values):.3g}", runs, None, short)


def show(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = ["| what | must | measured | runs | holds |", "|---|---|---|---|---|"]
    for result in results:
        holds = {True: "yes", False: "NO", None: "shown"}[result.ok]
        lines.append(f"| {result.what} | {result.must} | {result.figure} | {result.runs} | {holds} |")
    return "\n".join(lines)
