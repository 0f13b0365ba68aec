"""
Runs the command line many times without starting Python anew: one process imports it and forks for each call.

``warm.py SOCKET`` listens on a Unix socket. A caller (``call.py``) sends its standard streams, arguments, folder and
environment, and gets the exit status. Each call runs in a process of its own, through the program's own entry point.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import traceback

HEAVY = (
    "influxdb_backup.cli.main",
    "influxdb_backup.config.load",
    "influxdb_backup.jobs.coverage",
    "influxdb_backup.jobs.drill",
    "influxdb_backup.jobs.export",
    "influxdb_backup.jobs.restore",
    "influxdb_backup.jobs.verify",
    "influxdb_backup.archive.check",
    "influxdb_backup.influx.connection",
    "influxdb_backup.influx.server1",
)


def serve(path: str) -> None:
    """Answers calls until the process is ended."""
    for name in HEAVY:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _answer(connection)
            while True:  # calls that ended leave no zombies behind
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break


def _answer(connection: socket.socket) -> None:
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    call = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in enumerate("rww"))  # noqa: PTH123, SIM115
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.argv = ["influxdb-backup", *call["arguments"]]
    status = 1
    try:
        from influxdb_backup.cli.main import run

        status = run()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status]))
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
