"""The sessions of the pages are run, and print what the pages show."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs import session
from tests.docs.pages import DOCS, ROOT, Page, pages, read
from tests.s3 import create_bucket, start_s3
from tests.servers import DEBIANS, RunningServer, daemon, start_influxdb1

STARTS_WITH_NOTHING = DOCS / "quickstart.md"
STARTS_WITH_DATA = [ROOT / "README.md", DOCS / "how-to" / "s3.md"]
STARTS_WITH_BACKUPS = [
    DOCS / "how-to" / f"{name}.md"
    for name in ("back-up", "backfill", "restore", "drill", "monitor", "shards", "disaster-without-airflow")
]
PLAN = """\
cat > influxdb_backup.yaml <<'END'
repositories:
  primary: {url: "file:///srv/backups/influx"}
plans:
  telemetry: {database: telemetry, start: 2026-01-01T00:00:00Z}
END"""
SETTINGS = [
    "export INFLUXDB_BACKUP_CONFIG=$PWD/influxdb_backup.yaml",
    "export AIRFLOW_CONN_INFLUXDB_DEFAULT='influxdb-backup://localhost:8086'",
]
BACKUPS = [
    PLAN,
    "influxdb-backup repo init primary",
    "influxdb-backup export telemetry --start 2026-01-01T00:00:00Z --end 2026-01-02T00:00:00Z",
    "influxdb-backup export telemetry --start 2026-01-02T00:00:00Z --end 2026-01-03T00:00:00Z",
]


def _sample() -> str:
    """What the quickstart writes: two days, a point a minute for two hosts."""
    lines = []
    for minute in range(2880):
        nanoseconds = (1767225600 + 60 * minute) * 10**9
        usage = 50 + 40 * math.sin(minute / 200)
        lines.append(f"cpu,host=a usage={usage:.3f},cores=8i {nanoseconds}")
        lines.append(f'cpu,host=b usage={100 - usage:.3f},cores=4i,state="ok" {nanoseconds}')
    return "\n".join(lines)


@pytest.fixture(scope="module")
def program() -> Iterator[str]:
    """The command line, imported once. A socket's path must be short, so it is not below pytest's folders."""
    with tempfile.TemporaryDirectory() as folder, session.held_ready(Path(folder)) as call:
        yield call


@pytest.fixture
def own_influx(tmp_path: Path) -> Iterator[RunningServer]:
    """A real 1.x server for one page alone: the names of its databases are those of the page."""
    binary = daemon(DEBIANS)
    with start_influxdb1(tmp_path / "influxdb", binary) as server:
        yield server


@pytest.fixture
def minio(tmp_path: Path) -> Iterator[str]:
    """An S3 server with the bucket ``backups``."""
    with start_s3(tmp_path) as endpoint:
        create_bucket(endpoint, "backups")
        yield endpoint.removeprefix("http://")


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


@pytest.mark.parametrize(
    "path", [STARTS_WITH_NOTHING, *STARTS_WITH_DATA, *STARTS_WITH_BACKUPS], ids=lambda path: path.stem
)
def test_the_session_of_a_page_prints_what_the_page_shows(
    path: Path, own_influx: RunningServer, minio: str, program: str, tmp_path: Path
) -> None:
    """Every command of the page runs in order on a real 1.x server, ends as the page says, and prints what it shows."""
    page = read(path)
    folder = tmp_path / "session"
    folder.mkdir()
    (tmp_path / "store").mkdir()
    replaced = {
        "localhost:8086": urlsplit(own_influx.url).netloc,
        "localhost:8088": str(own_influx.backup_address),
        "minio:9000": minio,
        "/srv/backups": str(tmp_path / "store"),
        "/srv/airflow": str(folder),
    }
    if path != STARTS_WITH_NOTHING:
        own_influx.create_database("telemetry")
        own_influx.write(_sample(), "telemetry")
        own_influx.wait_until_cold()
    before = [*([PLAN] if path in STARTS_WITH_DATA else []), *SETTINGS]
    if path in STARTS_WITH_BACKUPS:
        before += BACKUPS
    _hold(page, session.run(page, folder, program, replaced, [] if path == STARTS_WITH_NOTHING else before))


def test_every_page_with_a_session_is_run() -> None:
    """No page shows commands that nobody runs."""
    run = {STARTS_WITH_NOTHING, *STARTS_WITH_DATA, *STARTS_WITH_BACKUPS}
    assert {page.path for page in pages() if any(block.language == "console" for block in page.blocks)} == run
