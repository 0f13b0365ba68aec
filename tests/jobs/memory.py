"""
An export, a restore or a drill by shards in a process of its own, which prints the most memory that it took, in bytes.

``python memory.py export|restore|drill URL REPOSITORY DATABASE TARGET BACKUP_ADDRESS``
"""

from __future__ import annotations

import sys
from pathlib import Path

from influxdb_backup.cli.main import WithoutUnused


def main(job: str, url: str, root: str, database: str, target: str, address: str) -> None:
    """Runs one job, as a command does: what it needs is imported once pandas cannot be."""
    sys.meta_path.insert(0, WithoutUnused())
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.archive.store import open_store
    from influxdb_backup.jobs.drill import drill
    from tests.jobs.support import DAY, back_up, opened, plan, restore_into
    from tests.servers import RunningServer

    repository = Repository.init(open_store(root))
    door = {"snapshot_address": address} if address else {}
    with opened(RunningServer(url=url, generation=1), **door) as server:
        if job == "export":
            rows = back_up(repository, server, plan(database)).rows
        elif job == "drill":
            settings = {"writer": "shard", "schedule": "@daily"}
            report = drill(plan(database, drill=settings), repository=repository, server=server)
            assert report.ok and report.writer == "shard", report.problems
            rows = report.rows
        else:
            rows = restore_into(repository, server, target, plan="telemetry", window=DAY).rows
    print(rows, peak_memory())


def peak_memory() -> int:
    """The most bytes that this process held; getrusage would also count the process that it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
