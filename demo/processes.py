"""Processes that never outlive what started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

MARK = "INFLUXDB_BACKUP_PROCESS_OF"
"""an environment variable that every process started here inherits to its children"""


def free_ports(count: int) -> list[int]:
    """So many loopback ports that nothing listens on."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


class Processes:
    """Starts processes, each with a log file and a process group of its own, and ends them with all they started."""

    def __init__(self, folder: Path) -> None:
        self._logs = folder
        self._mark = f"{folder}:{os.getpid()}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Starts one in the background; its output goes to ``<name>.log``. Returns its process id."""
        process = self._launch(name, command, environment)
        self._running[name] = process
        return process.pid

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Runs one to its end. Raises RuntimeError with the end of its log when it fails."""
        if self._launch(name, command, environment).wait() != 0:
            raise RuntimeError(f"{name} failed:\n{self._tail(name)}")

    def _launch(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._lock, self.log(name).open("ab") as log:
            if self._stopped:
                raise RuntimeError(f"{name} is not started: everything is being stopped.")
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, MARK: self._mark},
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Where a process writes."""
        self._logs.mkdir(parents=True, exist_ok=True)
        return self._logs / f"{name}.log"

    def check(self) -> None:
        """Raises RuntimeError, with the end of its log, when one has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{self._tail(name)}")

    def _tail(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")[-2000:]

    def stop(self, grace: float = 10.0) -> None:
        """Ends all of them and their children: first asked, after ``grace`` seconds forced."""
        with self._lock:
            self._stopped = True
        victims = self._everything()
        for process in self._running.values():
            _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(process.poll() is None for process in self._running.values()):
            time.sleep(0.05)
        for process in self._running.values():
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
        for victim in {*victims, *self._everything()}:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(victims, timeout=5)
        self._running.clear()

    def _everything(self) -> set[psutil.Process]:
        """
        Every descendant, and every process that carries the mark: those that left their group or lost their parent.

        One that renamed itself may have written over its environment, so neither way alone finds all.
        """
        found = set()
        for started in self._running.values():
            try:
                found.update(psutil.Process(started.pid).children(recursive=True))
            except psutil.NoSuchProcess:
                continue
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark and process.pid != os.getpid():
                    found.add(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
