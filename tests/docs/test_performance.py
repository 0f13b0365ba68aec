"""The page of figures is what the benchmark writes, and so is the README's table."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report, results
from benchmarks.reasons import reason
from benchmarks.results import Taken
from benchmarks.run import names
from benchmarks.table import Curve, Result
from tests.docs.pages import DOCS, ROOT, read

PAGE = read(DOCS / "performance.md")
KEPT = results.load()


def _taken(at: str, *found: Result, curves: tuple[Curve, ...] = ()) -> Taken:
    return Taken(at, 5, {"processor": "p", "cores": "2", "memory": "m", "kernel": "k"}, {"Python": "3"}, found, curves)


def test_the_page_is_written_from_the_kept_results() -> None:
    """Nobody corrects a figure by hand: the page is to the byte what the kept results make."""
    assert PAGE.text == report.render(KEPT)


def test_the_table_of_the_readme_is_written_from_the_kept_results() -> None:
    """The README shows the same figures as the page."""
    assert report.block(KEPT) in read(ROOT / "README.md").text


def test_the_seconds_of_the_readme_are_written_from_the_kept_results() -> None:
    """A person's seconds and the native tools' stand in one table, of one run."""
    if "seconds" in KEPT:
        assert report.seconds_block(KEPT["seconds"]) in read(ROOT / "README.md").text


def test_the_table_of_seconds_has_a_column_for_each_server_that_was_measured() -> None:
    """The whole command's seconds, and those of the job alone in brackets; nothing where nothing was measured."""
    rows = [
        Result("1.6: native backup, seconds", "shown", "0.09", "0.09", None),
        Result("1.6: `influxdb-backup drill`, seconds", "shown", "2.1", "2.1", None),
        Result("1.6: `influxdb-backup drill`, the job alone, seconds", "shown", "0.9", "0.9", None),
    ]
    taken = replace(_taken("today", *rows), versions={"InfluxDB": "1.6.7, 2.9.1"})
    table = report.seconds_block(taken)
    assert "| whole command, seconds | 1.6.7 | keeps |" in table
    assert "| native backup | 0.09 | files: deleted points come back |" in table
    assert "| `influxdb-backup drill` | 2.1 (0.9) | compared to the bit |" in table


def test_what_is_bold_is_explained_beside_it() -> None:
    """Every kept row that misses its bound has a reason, in the page and in the README."""
    for row in (row for taken in KEPT.values() for row in taken.results if row.ok is False):
        why = reason(row)
        assert why, f"benchmarks/reasons.py says nothing of {row.what}"
        assert " ".join(why.split()) in " ".join(PAGE.text.split())
        assert why in read(ROOT / "README.md").text


def test_what_else_ran_is_said() -> None:
    """A figure that was taken beside other work is known by it, and so is how long it takes to take it again."""
    busy = replace(_taken("today"), seconds=240.0, others=1.24)
    assert "5 runs of what is short, 4 minutes in all, while other programs used 1.2 cores" in report.render(
        {"export": busy}
    )
    assert "5 runs of what is short.\n" in report.render({"export": _taken("today")})


@pytest.mark.parametrize("name", names())
def test_every_measurement_has_its_section(name: str) -> None:
    """What `make bench` can measure stands in the page, with how to measure it alone."""
    assert f"\n## {report.MEASUREMENTS[name]}\n\n`--only {name}`" in PAGE.text


def test_every_kept_row_stands_in_the_page_with_its_bound_and_runs() -> None:
    """No row of a measurement is left out."""
    rows = [result for taken in KEPT.values() for result in taken.results]
    assert rows
    for row in rows:
        bound = "" if row.ok is None else f"{row.must} | "
        assert f"| {row.what} | {bound}{row.figure} | {row.runs} |" in PAGE.text


def test_every_plot_of_the_page_is_there() -> None:
    """A picture for each figure that has curves."""
    figures = {curve.figure for taken in KEPT.values() for curve in taken.curves}
    assert {link for link in PAGE.links if link.endswith(".png")} == {f"images/growth-{name}.png" for name in figures}
    assert all((DOCS / "images" / f"growth-{name}.png").exists() for name in figures)


def test_a_bound_that_does_not_hold_is_said_at_the_top() -> None:
    """A failed row is not hidden among the others."""
    page = report.render({"export": _taken("today", Result("a / b", "<= 1", "2.00", "2.00", False))})
    assert "0 of 1 bounds hold; these do not: a / b." in page
    assert "| a / b | <= 1 | 2.00 | 2.00 | **no** |" in page


def test_a_partial_run_keeps_what_other_runs_measured(tmp_path: Path) -> None:
    """Measuring some things again leaves the figures of the others, with their own dates."""
    path = tmp_path / "results.json"
    curve = Curve("series", "export", (1.0, 2.0), (3.0, 4.0))
    results.keep({"export": _taken("first"), "growth": _taken("first", curves=(curve,))}, path)
    results.keep({"export": _taken("second", Result("a", "<= 1", "1", "1", True))}, path)
    kept = results.load(path)
    assert (kept["export"].at, kept["growth"].at) == ("second", "first")
    assert kept["growth"].curves == (curve,)
    assert kept["export"].results[0].what == "a"


def test_the_block_of_the_readme_joins_rows_of_one_name() -> None:
    """Many rows of one bound are one line there, as a range, marked when one of them does not hold."""
    rows = [Result(f"row {n}", "<= 3", str(n), str(n), n <= 3, "rows") for n in range(1, 5)]
    assert "| rows | <= 3 | **1 to 4** |" in report.block({"export": _taken("today", *rows)})
    assert re.search(r"\| rows \| <= 3 \| 1 / 2 \|", report.block({"export": _taken("today", *rows[:2])}))
