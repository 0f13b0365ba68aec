"""What the demonstration starts, it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import psutil
import pytest

from demo import nycflights
from demo.influxdb import Influxdb
from demo.processes import Processes
from demo.run import Calendar, Loaded, summary
from tests.docs.pages import read

ROOT = Path(__file__).parents[2]


def _with_environment(name: str, value: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name, "").startswith(value):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_processes_end_with_all_they_started(folder: Path) -> None:
    """A child that left its group, and ignores being asked, ends all the same."""
    program = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    processes = Processes(folder)
    processes.start("stubborn", [sys.executable, "-c", program], dict(os.environ))
    while processes.log("stubborn").read_text().count("ready") < 2:
        time.sleep(0.05)
    assert len(_with_environment("INFLUXDB_BACKUP_PROCESS_OF", f"{folder}:")) == 2
    processes.stop(grace=0.2)

    assert _with_environment("INFLUXDB_BACKUP_PROCESS_OF", f"{folder}:") == []


def test_interrupted_demo_leaves_nothing_behind(folder: Path) -> None:
    """Ctrl-C in the middle ends InfluxDB and Airflow, and says so with its exit status."""
    home = folder / "demo"
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo.run"],
        cwd=ROOT,
        env={**os.environ, "DEMO_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    assert "InfluxDB answers" in demo.stdout.readline()
    assert _with_environment("INFLUXDB_BACKUP_PROCESS_OF", str(home))
    os.killpg(demo.pid, signal.SIGINT)

    assert demo.wait(60) == 130
    assert _with_environment("INFLUXDB_BACKUP_PROCESS_OF", str(home)) == []


class _Busy(BaseHTTPRequestHandler):
    answers: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"error":"timeout"}'
        self.send_response(self.answers.pop(0))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keeps the test's output clean."""


def test_a_busy_server_is_waited_for() -> None:
    """On a busy machine InfluxDB answers 500 timeout: the demo sends those points again, and says what else is refused."""
    server = HTTPServer(("127.0.0.1", 0), _Busy)
    Thread(target=server.serve_forever, daemon=True).start()
    influx = Influxdb(f"http://127.0.0.1:{server.server_port}")
    try:
        _Busy.answers = [500, 200]
        assert influx.write("x", ["a b=1 1", "a b=2 2"]) == 2
        _Busy.answers = [400]
        with pytest.raises(RuntimeError, match=r"did not take points: 400 .*timeout"):
            influx.write("x", ["a b=1 1"])
    finally:
        server.shutdown()
        server.server_close()


def test_the_readme_shows_what_the_demo_prints() -> None:
    """The names and the words of the table, whatever the figures; the data are of the two weeks before today."""
    calendar = Calendar.until(datetime(2026, 12, 1, 6, 40, tzinfo=UTC))
    done = {"rows": 1, "values": 1, "bytes": 1, "level": "valid", "checks": 1, "seconds_restore": 1.0}
    done |= {"seconds_total": 1.0, "target_database": "nycflights13_restored"}
    printed = summary(calendar, Loaded(1, 1), [done], [done], done, done)
    lines = "".join(f"{name:12} {value}\n" for name, value in printed)
    (shown,) = [block.body for block in read(ROOT / "README.md").blocks if block.language == "text"]
    assert normal(shown) == normal(lines)
    assert (calendar.day(0), calendar.day(14)) == ("2026-11-17T00:00:00Z", "2026-12-01T00:00:00Z")
    moved = nycflights.moved("a b=1 1357516800", calendar.later)
    assert moved == f"a b=1 {int(datetime(2026, 11, 17, tzinfo=UTC).timestamp())}"


def normal(text: str) -> str:
    """Without the figures."""
    return re.sub(r"[\d,.]*\d", "0", text)


def test_flights_do_not_overwrite_each_other() -> None:
    """336,776 flights and the weather are that many different points: no two share their series and time."""
    seen = {
        (line.partition(" ")[0], second)
        for source in (nycflights.flights, nycflights.weather)
        for second, line in source()
    }

    assert len(seen) == 336_776 + 26_115
