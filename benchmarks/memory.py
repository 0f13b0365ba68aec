"""Peak memory of an export and of a restore, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.bed import Bed
from benchmarks.data import ROWS, DataSet, texts, walks
from benchmarks.data import send as send_prepared
from benchmarks.table import Result

LIMIT_MB = 400

_CHILD = """
import json, sys
from pathlib import Path
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.config.model import Plan
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import ServerSettings
from influxdb_backup.jobs.export import export
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.model import Window

job, url, root, database, start, end = sys.argv[1:]
server = connect(ServerSettings(url=url, name="bench"))
repository = Repository.open(open_store(root))
window = Window(start=int(start), end=int(end))
if job == "export":
    plan = Plan(name=database, database=database, repositories=("bench",))
    rows = export(plan, window, server=server, repository=repository).rows
else:
    request = RestoreRequest(plan=database, window=window, target_database=database + "_copy")
    rows = restore(request, repository=repository, target=server).rows
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(json.dumps({"rows": rows, "mb": int(peak) / 1024}))
"""


def _run(bed: Bed, job: str, root: str, database: str, data: DataSet) -> float:
    window = [str(data.window.start), str(data.window.end)]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, job, bed.running.url, root, database, *window],
        check=True,
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    if answer["rows"] != data.rows:
        raise RuntimeError(f"{job} of {database}: {answer['rows']} rows of {data.rows}")
    return float(answer["mb"])


def measure(bed: Bed, quick: bool) -> list[Result]:
    """Peak resident memory in MB at once and ten times the data, and with strings of 64 KB."""
    shapes = {
        "once": walks(),
        **({} if quick else {"tenfold": walks(rows=10 * ROWS)}),
        "strings": texts(3_000, 65_536),
    }
    results = []
    for name, data in shapes.items():
        database = f"memory_{name}"
        bed.running.create_database(database)
        send_prepared(bed.running.url, database, data.bodies(20_000 if name != "strings" else 100))
        repository = bed.repository(database)
        peaks = {job: _run(bed, job, repository.url, database, data) for job in ("export", "restore")}
        for job, peak in peaks.items():
            what = f"peak memory of {job}, {data.rows:,} points ({name}), MB"
            results.append(Result(what, f"<= {LIMIT_MB}", f"{peak:.0f}", f"{peak:.0f}", peak <= LIMIT_MB))
        bed.running.query(f'DROP DATABASE "{database}"')
        bed.running.query(f'DROP DATABASE "{database}_copy"')
    return results
