"""Real InfluxDB servers for the tests, each with its own configuration, data folder and loopback ports."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "influxdb-backup-tests"
DEBIANS, NEWER, TWO = "1.x of Debian", "newer 1.x", "2.x"
"""kinds of daemons"""
CACHE_WORDS = f"in the cache folder {CACHE.name}"
"""end of the reason why a test is skipped that needs more than what is installed"""
STARTED: list[str] = []
"""product and version of each server that was started in this process, for what the suite says at its end"""
ORGANIZATION = "tests"
TOKEN = "tests-operator-token"
COLD_SECONDS = 1
"""after the last write to a shard the servers of the tests write its cache to a file; usually it is ten minutes"""


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class RunningServer:
    """A server that the tests may fill and break."""

    url: str
    generation: int
    token: str | None = None
    organization: str | None = None
    pid: int = 0
    folder: Path | None = None
    backup_address: str | None = None
    """1.x: where it hands out its shards"""
    binary: str = ""
    product: str = ""
    """with the version, as it says itself"""

    def query(self, statement: str, **parameters: str) -> dict[str, object]:
        """A raw InfluxQL statement, JSON answer; for preparing and checking, never through the product's code."""
        body = urllib.parse.urlencode({"q": statement, "epoch": "ns", **parameters}).encode()
        return dict(json.loads(self._post("/query", body, "application/x-www-form-urlencoded") or b"{}"))

    def write(self, lines: str | bytes, database: str, retention_policy: str = "autogen") -> None:
        """Raw line protocol; raises urllib.error.HTTPError when refused."""
        raw = lines.encode("utf-8", "surrogateescape") if isinstance(lines, str) else lines
        target = urllib.parse.urlencode({"db": database, "rp": retention_policy, "precision": "ns"})
        self._post(f"/write?{target}", raw, "text/plain; charset=utf-8")

    def create_database(self, name: str) -> None:
        """A new empty database (2.x: bucket) with infinite retention."""
        if self.generation == 1:
            self.query(f'CREATE DATABASE "{name}"')
            return
        organization = json.loads(self.get(f"/api/v2/orgs?org={self.organization}"))["orgs"][0]["id"]
        document = {"name": name, "orgID": organization, "retentionRules": []}
        made = json.loads(self._post("/api/v2/buckets", json.dumps(document).encode(), "application/json"))
        self.map_bucket(organization, made["id"], name)

    def map_bucket(self, organization: str, bucket: str, name: str) -> None:
        """2.4: the explicit mapping without which InfluxQL does not find the bucket; later versions have it anyway."""
        if json.loads(self.get("/health")).get("version", "").startswith("v2.4."):
            database, _, policy = name.partition("/")
            document = {"orgID": organization, "bucketID": bucket, "database": database}
            document |= {"retention_policy": policy or "autogen", "default": not policy}
            try:
                self._post("/api/v2/dbrps", json.dumps(document).encode(), "application/json")
            except urllib.error.HTTPError as refusal:
                if refusal.code not in (400, 422):  # the name is another bucket's as well, or has a second slash
                    raise

    def get(self, path: str) -> bytes:
        """The body of a GET."""
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=self._headers())) as reply:
            return bytes(reply.read())

    def wait_until_cold(self) -> None:
        """Waits until no shard has writes in its cache, so that exports copy them; see COLD_SECONDS."""
        deadline = time.monotonic() + 60
        while any(self._cached_bytes()):
            if time.monotonic() > deadline:
                raise RuntimeError("a shard still has writes in its cache after a minute")
            time.sleep(0.05)

    def _cached_bytes(self) -> list[float]:
        """What each open shard has in its cache."""
        if self.generation == 1:
            variables = json.loads(self.get("/debug/vars"))
            return [entry["values"]["memBytes"] for key, entry in variables.items() if key.startswith("tsm1_cache:")]
        lines = self.get("/metrics").decode().splitlines()
        cached = [line.rsplit(" ", 1) for line in lines if line.startswith("storage_cache_inuse_bytes{")]
        return [float(size) for labels, size in cached if float(size) and self._has_bucket(labels)]

    def _has_bucket(self, labels: str) -> bool:
        """Whether a metric's bucket is there: one that was dropped with writes in its cache keeps its figures."""
        try:
            self.get("/api/v2/buckets/" + labels.partition('bucket="')[2].partition('"')[0])
        except urllib.error.HTTPError as refusal:
            if refusal.code != 404:
                raise
            return False
        return True

    def _post(self, path: str, body: bytes, kind: str) -> bytes:
        request = urllib.request.Request(self.url + path, body, {**self._headers(), "Content-Type": kind})
        with urllib.request.urlopen(request) as reply:
            return bytes(reply.read())

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Token {self.token}"} if self.token else {}


def find_influxd1() -> str | None:
    """The 1.x daemon of Debian's package."""
    return shutil.which("influxd")


def find_influxd2() -> str | None:
    """A 2.x daemon named by INFLUXDB2_INFLUXD or found in the cache folder."""
    named = os.environ.get("INFLUXDB2_INFLUXD")
    if named:
        return named
    found = sorted(CACHE.glob("influxd-2.*"))
    return str(found[-1]) if found else None


def find_newer_influxd1() -> str | None:
    """A 1.x daemon newer than Debian's, found in the cache folder."""
    found = sorted(CACHE.glob("influxd-1.*"))
    return str(found[-1]) if found else None


def daemon(kind: str) -> str:
    """The path of a daemon of this kind; without one the test is skipped, which says what lacks."""
    binary = {DEBIANS: find_influxd1, NEWER: find_newer_influxd1, TWO: find_influxd2}[kind]()
    if binary is None and kind == DEBIANS:
        pytest.skip("lacks influxd on the PATH (the Debian package influxdb): the test starts a server of its own")
    if binary is None:
        lacks({NEWER: "influxd-1.*, a newer 1.x server", TWO: "influxd-2.*, a 2.x server"}[kind])
    return binary


def lacks(what: str) -> NoReturn:
    """Skips a test for want of a file of the cache folder."""
    pytest.skip(f"lacks {what} {CACHE_WORDS}")


def product(url: str) -> str:
    """What answers there, with its version; noted as started."""
    with urllib.request.urlopen(url + "/ping", timeout=30) as reply:
        found = f"InfluxDB {reply.headers.get('X-Influxdb-Version', '(of no version)').removeprefix('v')}"
    STARTED.append(found)
    return found


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"influxd ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(url + "/ping", timeout=2).close()
            return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise RuntimeError(f"influxd did not answer in 60 s:\n{log.read_text()[-2000:]}")


@contextmanager
def _process(command: list[str], folder: Path, url: str) -> Iterator[int]:
    log = folder / "influxd.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("INFLUX")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, env=environment)
    try:
        _wait(url, process, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def start_influxdb1(
    folder: Path, binary: str, extra: str = "", auth: bool = False, data_options: str = "", http_options: str = ""
) -> Iterator[RunningServer]:
    """A 1.x server; ``extra`` is appended to its configuration as whole TOML sections."""
    folder.mkdir(parents=True, exist_ok=True)
    if "cache-snapshot-write-cold-duration" not in data_options:
        data_options += f'\n  cache-snapshot-write-cold-duration = "{COLD_SECONDS}s"'
    port, rpc = free_port(), free_port()
    (folder / "influxdb.conf").write_text(
        f"""
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
  logging-enabled = false
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
  max-series-per-database = 0
  max-values-per-tag = 0
{data_options}
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
  auth-enabled = {"true" if auth else "false"}
{http_options}
[monitor]
  store-enabled = false
{extra}
"""
    )
    url = f"http://127.0.0.1:{port}"
    with _process([binary, "-config", str(folder / "influxdb.conf")], folder, url) as pid:
        yield RunningServer(
            url=url,
            generation=1,
            pid=pid,
            folder=folder,
            backup_address=f"127.0.0.1:{rpc}",
            binary=binary,
            product=product(url),
        )


@contextmanager
def start_influxdb2(folder: Path, binary: str, *options: str) -> Iterator[RunningServer]:
    """A 2.x server that is set up, with an operator token; one that ran before in the folder goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    is_new = not (folder / "influxd.bolt").exists()
    command = [
        binary,
        f"--http-bind-address=127.0.0.1:{port}",
        f"--bolt-path={folder}/influxd.bolt",
        f"--sqlite-path={folder}/influxd.sqlite",
        f"--engine-path={folder}/engine",
        "--reporting-disabled",
        "--log-level=error",
        f"--storage-cache-snapshot-write-cold-duration={COLD_SECONDS}s",
        *options,
    ]
    with _process(command, folder, url) as pid:
        setup = {
            "username": "tests",
            "password": "tests-password",
            "org": ORGANIZATION,
            "bucket": "first",
            "token": TOKEN,
        }
        request = urllib.request.Request(
            url + "/api/v2/setup", json.dumps(setup).encode(), {"Content-Type": "application/json"}
        )
        if is_new:
            urllib.request.urlopen(request).close()
        yield RunningServer(
            url=url,
            generation=2,
            token=TOKEN,
            organization=ORGANIZATION,
            pid=pid,
            folder=folder,
            binary=binary,
            product=product(url),
        )


def main() -> int:
    """Prints what is here beside Debian's server; 0 when there is something."""
    given = os.environ.get("INFLUXDB2_URL")
    found = [f"2.x at {given}"] if given else []
    found += [str(path) for path in (find_newer_influxd1(), find_influxd2()) if path]
    print("\n".join(found) or f"no further server {CACHE_WORDS}")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
