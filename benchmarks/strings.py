"""Export by query of points with a word beside numbers, against curl draining the very same requests."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import archives, command
from benchmarks.archives import Shape
from benchmarks.shards import ShardBed
from benchmarks.table import Result, ratio, seconds
from tests.wire import relayed

_HEAD = re.compile(rb"(GET|POST|HEAD) (\S+) HTTP/1\.1\r\n(.*?)\r\n\r\n", re.DOTALL)
_KEPT = ("accept", "accept-encoding", "authorization", "content-type")


def measure(bed: ShardBed, runs: int, *, hours: int) -> list[Result]:
    """The ratio of whole commands to curl; beside it that of the job alone, and the seconds of each."""
    shape = archives.states(hours)
    archives.fill(bed.server, bed.repository("fill"), "states", shape)
    site = command.site(bed, "states", "query")
    drain = _recorded(bed, shape, bed.folder / "drain")
    _drain(drain)
    commands, inner, drains = [], [], []
    for _ in range(runs):
        drains.append(_drain(drain))
        called = site.export(shape.window)
        if called.document["rows"] != shape.rows:
            raise RuntimeError(f"{called.document['rows']} rows of {shape.rows} were exported")
        commands.append(called.seconds)
        inner.append(called.inner)
    bed.drop("states")
    what = f"{bed.name}: export by query of {shape.name} / curl draining the same requests"
    short = f"export by query of strings / `curl` draining the same requests, whole commands ({bed.name})"
    return [
        ratio(f"{what}, whole commands", _over(commands, drains), most=1.3, short=short),
        ratio(f"{what}, the job alone", _over(inner, drains)),
        seconds(f"{bed.name}: `influxdb-backup export`, whole command", commands),
        seconds(f"{bed.name}: `influxdb-backup export`, the job alone", inner),
        seconds(f"{bed.name}: curl draining the same requests to a file", drains),
    ]


def _over(ours: list[float], theirs: list[float]) -> list[float]:
    return [spent / floor for spent, floor in zip(ours, theirs, strict=True)]


def _recorded(bed: ShardBed, shape: Shape, folder: Path) -> Path:
    """A configuration of curl that repeats every request to ``/query`` of one export, in one process."""
    folder.mkdir()
    with relayed(bed.running.url) as wire:
        url = f"http://127.0.0.1:{wire.port}"
        relay = replace(bed, running=replace(bed.running, url=url))
        command.site(relay, "states", "query").export(shape.window)
        sent = [bytes(connection) for connection in wire.sent]
    lines: list[str] = []
    for method, target, headers, body in (request for connection in sent for request in _requests(connection)):
        if not target.startswith("/query"):
            continue
        lines += ["next"] if lines else []
        lines += ["silent", "fail", f"request = {method}", f'url = "{bed.running.url}{target}"']
        lines += [f'header = "{name}: {value}"' for name, value in headers.items() if name in _KEPT]
        lines += [f'output = "{folder / "drained"}"']
        if body:
            path = folder / f"body-{len(lines)}"
            path.write_bytes(body)
            lines += [f'data-binary = "@{path}"']
    if not any("body-" in line for line in lines):
        raise RuntimeError("the export sent no queries")
    configuration = folder / "curl"
    configuration.write_text("\n".join(lines))
    return configuration


def _requests(sent: bytes) -> list[tuple[str, str, dict[str, str], bytes]]:
    """Method, target, headers by lower-case name, and body of each request of one connection."""
    found, place = [], 0
    while head := _HEAD.match(sent, place):
        pairs = (line.split(": ", 1) for line in head[3].decode().split("\r\n"))
        headers = {name.lower(): value for name, value in pairs}
        place = head.end() + int(headers.get("content-length", 0))
        found.append((head[1].decode(), head[2].decode(), headers, sent[head.end() : place]))
    if place != len(sent):
        raise RuntimeError(f"no request at byte {place} of what the export sent: {sent[place : place + 80]!r}")
    return found


def _drain(configuration: Path) -> float:
    started = time.perf_counter()
    subprocess.run(["curl", "--config", str(configuration)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
