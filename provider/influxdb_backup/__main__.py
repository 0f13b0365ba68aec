"""``python -m influxdb_backup``: the command line, where its script is not on PATH."""

import sys

from influxdb_backup.cli.main import run

if __name__ == "__main__":
    sys.exit(run())
