"""Results that are kept between runs, so that the whole need not be measured at once."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.table import Curve, Result
from tests.servers import find_influxd1, find_influxd2, find_newer_influxd1

KEPT = Path(__file__).with_name("results.json")
_PACKAGES = ("pyarrow", "numpy", "numba", "zstandard")


@dataclass(frozen=True)
class Taken:
    """What one measurement found, when, and on what."""

    at: str
    runs: int
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    results: tuple[Result, ...]
    curves: tuple[Curve, ...] = ()
    seconds: float = 0.0
    """that it took; 0: not noted"""
    others: float | None = None
    """cores that other programs of the machine used meanwhile; None: not noted"""


def now() -> str:
    """The time of a measurement, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def machine() -> dict[str, str]:
    """Processor, cores, memory and kernel; nothing that names the machine."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{pages * size / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


@dataclass(frozen=True)
class Watch:
    """A moment, and what the cores had done until then: in all, and for this process and its children that ended."""

    at: float
    busy: float
    own: float

    @classmethod
    def read(cls) -> Watch:
        """Now."""
        user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        busy = sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), busy, sum(os.times()[:4]))

    def others_until(self, end: Watch) -> float:
        """Cores that others used, on average: with what a hypervisor took away."""
        spent = (end.busy - self.busy) - (end.own - self.own)
        return round(max(0.0, spent / (end.at - self.at)), 2)


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python, the packages that do the work, and the servers at hand."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        found[name] = version(name)
    servers = [_server(binary) for binary in (find_influxd1(), find_newer_influxd1(), find_influxd2()) if binary]
    return {**found, "InfluxDB": ", ".join(servers)}


def _server(binary: str) -> str:
    told = subprocess.run([binary, "version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", told)
    return found.group() if found else "unknown"


def load(path: Path = KEPT) -> dict[str, Taken]:
    """What is kept, by measurement."""
    if not path.exists():
        return {}
    found = {}
    for name, entry in json.loads(path.read_text()).items():
        results = tuple(Result(**result) for result in entry.pop("results"))
        curves = tuple(
            Curve(curve["figure"], curve["label"], tuple(curve["sizes"]), tuple(curve["seconds"]))
            for curve in entry.pop("curves")
        )
        found[name] = Taken(results=results, curves=curves, **entry)
    return found


def keep(taken: Mapping[str, Taken], path: Path = KEPT) -> dict[str, Taken]:
    """Puts these in the place of what was kept of the same measurements; all that is kept now."""
    merged = {**load(path), **taken}
    path.write_text(json.dumps({name: asdict(entry) for name, entry in sorted(merged.items())}, indent=1) + "\n")
    return merged
