"""The sessions of the pages are run, and print what the pages show."""

from __future__ import annotations

import math
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs import session
from tests.docs.pages import DOCS, ROOT, Page, read
from tests.servers import RunningServer

RUN = [ROOT / "README.md", DOCS / "quickstart.md"]
MAKES_ITS_OWN_DATA = DOCS / "quickstart.md"


def _sample() -> str:
    """What the quickstart writes: two days, a point a minute for two hosts."""
    lines = []
    for minute in range(2880):
        nanoseconds = (1767225600 + 60 * minute) * 10**9
        usage = 50 + 40 * math.sin(minute / 200)
        lines.append(f"cpu,host=a usage={usage:.3f},cores=8i {nanoseconds}")
        lines.append(f'cpu,host=b usage={100 - usage:.3f},cores=4i,state="ok" {nanoseconds}')
    return "\n".join(lines)


def _hold(page: Page, outcomes: list[session.Outcome]) -> None:
    for outcome in outcomes:
        said = f"{page.name}: $ {outcome.step.command}\n{outcome.printed}"
        assert outcome.status == outcome.step.status, f"status {outcome.status} of {said}"
    if os.environ.get("DOCS_WRITE"):
        page.path.write_text(session.rewritten(page, outcomes), encoding="utf-8")
        return
    for outcome in outcomes:
        if outcome.step.start:
            assert session.normal(outcome.printed) == session.normal(outcome.step.shown), outcome.step.command


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.name)
def test_the_session_of_a_page_prints_what_the_page_shows(path: Path, influx1: RunningServer, tmp_path: Path) -> None:
    """Every command of the page runs in order on a real 1.x server, ends as the page says, and prints what it shows."""
    page = read(path)
    folder = tmp_path / "session"
    folder.mkdir()
    (tmp_path / "srv").mkdir()
    replaced = {
        "localhost:8086": urlsplit(influx1.url).netloc,
        "/srv/backups": str(tmp_path / "srv"),
        "/srv/airflow": str(folder),
    }
    for database in ("telemetry", "telemetry_copy"):
        influx1.query(f'DROP DATABASE "{database}"')
    if path != MAKES_ITS_OWN_DATA:
        influx1.create_database("telemetry")
        influx1.write(_sample(), "telemetry")
    _hold(page, session.run(page, folder, replaced))
