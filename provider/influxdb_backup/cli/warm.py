"""`warm`: compiles the loops of the extra `fast` for this machine, so that no backup begins with it."""

from __future__ import annotations

import time

import typer

from influxdb_backup.cli import output
from influxdb_backup.errors import UsageError
from influxdb_backup.fast import cache_folder, is_installed, leave_mark, why_not_fast


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command()(warm)


def warm() -> None:
    """Compile the loops of the extra 'fast' for this machine and user; without it everything works, slower."""
    if not is_installed():
        raise UsageError(
            "The extra 'fast' is not installed.", hint="pip install 'airflow-provider-influxdb-backup[fast]'"
        )
    if why_not_fast() is None:
        output.line("The loops are compiled.")
        return
    folder = cache_folder()
    if folder is None:
        raise UsageError(
            "There is no folder for the compiled loops that can be written.",
            hint="Set NUMBA_CACHE_DIR to one, for this command and for those that back up and restore.",
        )
    from influxdb_backup.fingerprint_kernels import exercise as exercise_fingerprint
    from influxdb_backup.influx.fast_lines import exercise as exercise_lines
    from influxdb_backup.influx.fast_rows import exercise as exercise_rows
    from influxdb_backup.influx.shard_copy import exercise as exercise_shards

    started = time.perf_counter()
    exercise_fingerprint()
    exercise_rows()
    exercise_lines()
    exercise_shards()
    leave_mark()
    output.line(f"The loops are compiled: it took {time.perf_counter() - started:.1f} s.")
