"""An InfluxDB 1.x of its own, or one that INFLUXDB_URL names, and raw requests to it."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.processes import Processes, free_ports

BATCH_LINES = 10_000


@dataclass(frozen=True)
class Influxdb:
    """A server that the demonstration fills."""

    url: str

    @property
    def host(self) -> str:
        """Host name or address."""
        return urllib.parse.urlsplit(self.url).hostname or "localhost"

    @property
    def port(self) -> int:
        """Port."""
        return urllib.parse.urlsplit(self.url).port or 8086

    def query(self, statement: str, database: str = "") -> list[list[object]]:
        """Rows of the first series of an InfluxQL statement."""
        body = urllib.parse.urlencode({"q": statement, "db": database, "epoch": "ns"}).encode()
        with urllib.request.urlopen(self.url + "/query", body) as reply:
            result = json.load(reply)["results"][0]
        if "error" in result:
            raise RuntimeError(result["error"])
        return [list(row) for series in result.get("series", [])[:1] for row in series.get("values", [])]

    def write(self, database: str, lines: Iterable[str]) -> int:
        """Writes line protocol with times in seconds. Returns the number of lines."""
        total = 0
        for batch in _batches(lines):
            parameters = urllib.parse.urlencode({"db": database, "precision": "s"})
            self._write(f"{self.url}/write?{parameters}", "\n".join(batch).encode())
            total += len(batch)
        return total

    def _write(self, url: str, body: bytes) -> None:
        """Sends points; again when the server is too busy (it says 500 then), which changes nothing if they arrived."""
        for pause in (1, 3, 10, 30, 0):
            try:
                urllib.request.urlopen(url, body).close()
                return
            except urllib.error.HTTPError as error:
                words = error.read().decode(errors="replace").strip()
                if error.code < 500 or not pause:
                    raise RuntimeError(f"InfluxDB at {self.url} did not take points: {error.code} {words}") from None
                time.sleep(pause)


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH_LINES:
            yield batch
            batch = []
    if batch:
        yield batch


def start(processes: Processes, folder: Path) -> Influxdb:
    """
    The server of INFLUXDB_URL, else a new one below ``folder`` on free loopback ports, ready to answer.

    Raises RuntimeError, with what to install, when there is neither.
    """
    given = os.environ.get("INFLUXDB_URL")
    if given:
        server = Influxdb(given.rstrip("/"))
        _wait(server, processes)
        return server
    binary = shutil.which("influxd")
    if binary is None:
        raise RuntimeError(
            "There is no influxd on PATH. Install InfluxDB 1.x (Debian: apt-get install influxdb), "
            "or set INFLUXDB_URL to a 1.x server that may be filled."
        )
    http, rpc = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "influxdb.conf").write_text(_configuration(folder, http, rpc))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("INFLUX")}
    processes.start("influxd", [binary, "-config", str(folder / "influxdb.conf")], environment)
    server = Influxdb(f"http://127.0.0.1:{http}")
    _wait(server, processes)
    return server


def _wait(server: Influxdb, processes: Processes, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        processes.check()
        try:
            urllib.request.urlopen(server.url + "/ping", timeout=2).close()
            return
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"InfluxDB at {server.url} does not answer: {error}") from None
            time.sleep(0.1)


def _configuration(folder: Path, http: int, rpc: int) -> str:
    return f"""\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
  cache-snapshot-write-cold-duration = "5s"
[coordinator]
  write-timeout = "60s"
[http]
  bind-address = "127.0.0.1:{http}"
  log-enabled = false
[monitor]
  store-enabled = false
"""
