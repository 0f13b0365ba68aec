"""The README.txt that every repository carries: how to restore without this project's code."""

from __future__ import annotations

from importlib.resources import files


def readme_text() -> str:
    """The packaged ``README.txt``."""
    return files("influxdb_backup.archive").joinpath("README.txt").read_text("utf-8")
