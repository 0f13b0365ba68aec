"""What the demonstration starts, it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from demo import nycflights
from demo.processes import Processes

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


def test_flights_do_not_overwrite_each_other() -> None:
    """336,776 flights and the weather are that many different points: no two share their series and time."""
    seen = {
        (line.partition(" ")[0], second)
        for source in (nycflights.flights, nycflights.weather)
        for second, line in source()
    }

    assert len(seen) == 336_776 + 26_115
