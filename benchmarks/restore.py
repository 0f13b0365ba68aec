"""Restore by line protocol against the same server fed prepared line protocol."""

from __future__ import annotations

from benchmarks.bed import Bed
from benchmarks.data import send as send_prepared
from benchmarks.data import walks
from benchmarks.table import Result, ratio
from influxdb_backup.jobs.export import export
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_request import RestoreRequest


def measure(bed: Bed, runs: int) -> list[Result]:
    """Rows per second of the writing part of a restore over those of prepared bodies, two connections each."""
    data = walks()
    bodies = data.bodies()
    bed.running.create_database("restored")
    send_prepared(bed.running.url, "restored", bodies)
    repository = bed.repository("restore")
    plan = bed.plan("restored")
    export(plan, data.window, server=bed.server, repository=repository)
    bed.running.query('DROP DATABASE "restored"')
    ratios, speeds = [], []
    for number in range(runs):
        prepared, copy = f"prepared_{number}", f"copy_{number}"
        bed.running.create_database(prepared)
        fed = send_prepared(bed.running.url, prepared, bodies)
        bed.running.query(f'DROP DATABASE "{prepared}"')
        request = RestoreRequest(plan=plan.name, window=data.window, target_database=copy, connections=2)
        report = restore(request, repository=repository, target=bed.server)
        bed.running.query(f'DROP DATABASE "{copy}"')
        if report.rows != data.rows:
            raise RuntimeError(f"{report.rows} rows of {data.rows} were restored")
        ratios.append(fed / report.write_seconds)
        speeds.append(report.rows / report.write_seconds)
    what = f"restore, 2 connections / prepared line protocol, 2 connections (best {max(speeds):,.0f} rows/s)"
    return [ratio(what, ratios, least=0.75)]
