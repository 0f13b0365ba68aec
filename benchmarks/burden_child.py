"""A process that exports one window again and again into new repositories, a line for each. See burden.py."""

from __future__ import annotations

import json
import shutil
import sys

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.config.model import Plan
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import ServerSettings
from influxdb_backup.jobs.export import export
from influxdb_backup.model import Window


def main() -> None:
    """Runs until it is ended."""
    connection, database, reader, folder, start, end, rows = json.loads(sys.argv[1])
    told = json.loads(connection)
    url = f"http://{told['host']}:{told['port']}"
    named = {name: value for name, value in told["extra"].items() if name in {"token", "snapshot_address", "timeout"}}
    plan = Plan.model_validate({"name": database, "database": database, "repositories": ["bench"], "reader": reader})
    server = connect(ServerSettings(name="bench", url=url, **named))
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        repository = Repository.init(open_store(f"file://{folder}"))
        window = Window(start=int(start), end=int(end))
        if (found := export(plan, window, server=server, repository=repository).rows) != int(rows):
            raise RuntimeError(f"{found} rows of {rows} were exported")
        print(found, flush=True)


if __name__ == "__main__":
    main()
