"""One job in a process of its own, which tells its rows and its peak memory. See memory.py."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

_EVERY = 0.01
"""seconds between two looks"""
_STATUS = Path("/proc/self/status")


def _kilobytes(name: str) -> int:
    return int(_STATUS.read_text().split(f"{name}:")[1].split()[0])


class _Watch(threading.Thread):
    """The highest anonymous memory that was seen: mapped files are the kernel's cache."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Looks until it is stopped."""
        while not self._ended.wait(_EVERY):
            self.peak = max(self.peak, _kilobytes("RssAnon"))

    def stop(self) -> int:
        """The peak."""
        self._ended.set()
        self.join()
        return max(self.peak, _kilobytes("RssAnon"))


def _work(job: str, connection: dict[str, Any], root: str, database: str, ref: str) -> int:
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.archive.store import open_store
    from influxdb_backup.config.model import Plan
    from influxdb_backup.influx.connection import connect
    from influxdb_backup.influx.protocol import ServerSettings
    from influxdb_backup.jobs.drill import drill
    from influxdb_backup.jobs.export import export
    from influxdb_backup.jobs.restore import restore
    from influxdb_backup.jobs.restore_request import RestoreRequest
    from influxdb_backup.jobs.scrub import scrub
    from influxdb_backup.jobs.verify import verify
    from influxdb_backup.model import VerifyLevel

    server = connect(ServerSettings(name="bench", timeout=900, **connection))
    repository = Repository.open(open_store(root))
    what, _, how = job.partition(" by ")
    how = {"shards": "shard", "queries": "query", "lines": "lines", "": ""}[how]
    if what == "verify valid":
        found = verify(repository, repository.ref(ref), VerifyLevel.VALID, record=False)
        if not found.ok:
            raise RuntimeError(found.problems[0].message)
        return repository.ref(ref).rows
    if what == "scrub-server":
        return sum(policy.rows for policy in scrub(server, [database]))
    if what == "restore":
        request = RestoreRequest.model_validate({"refs": (ref,), "target_database": f"{database}_copy", "writer": how})
        return restore(request, repository=repository, target=server).rows
    settings = {"name": database, "database": database, "repositories": ["bench"]}
    if what == "export":
        plan = Plan.model_validate({**settings, "reader": how})
        out = Repository.init(open_store(f"{root}-out"))
        return export(plan, repository.ref(ref).window, server=server, repository=out).rows
    plan = Plan.model_validate({**settings, "drill": {"writer": how, "schedule": "@daily"}})
    report = drill(plan, repository=repository, server=server, ref=repository.ref(ref))
    if not report.ok or report.writer != how:
        raise RuntimeError(f"the drill did not hold: {report.problems}, by {report.writer}")
    return report.rows


def main() -> None:
    """Prints one JSON document."""
    job, connection, root, database, ref = sys.argv[1:]
    watch = _Watch()
    watch.start()
    rows = _work(job, json.loads(connection), root, database, ref)
    anonymous = watch.stop()
    print(json.dumps({"rows": rows, "anonymous": anonymous * 1024, "resident": _kilobytes("VmHWM") * 1024}))


if __name__ == "__main__":
    main()
