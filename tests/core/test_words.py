"""Counts, sizes and times in people's words."""

from __future__ import annotations

from influxdb_backup.words import counted, seconds, size


def test_words() -> None:
    """One row and many, sizes that are never 0.0 MB, and times of any length."""
    assert (counted(1, "row"), counted(1440, "row")) == ("1 row", "1,440 rows")
    assert (size(0), size(31_700), size(1_200_000)) == ("0 B", "31.7 kB", "1.2 MB")
    assert (seconds(0.24), seconds(75), seconds(720)) == ("0.2 s", "75 s", "12 min")
