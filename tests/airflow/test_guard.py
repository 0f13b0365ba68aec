"""What a restore is refused for before anything is read."""

from __future__ import annotations

from typing import Any

import pytest

from influxdb_backup.errors import UsageError
from influxdb_backup.operators.guard import refuse_unconfirmed, refuse_unknown

RANGE = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}


def test_unknown_key_names_the_near_one() -> None:
    """A misspelt key would restore into the default database, so it is refused and the right one is named."""
    with pytest.raises(UsageError, match="Did you mean 'target_database'"):
        refuse_unknown({"target_databse": "x"}, ["target_database", "start"])


def test_unknown_key_lists_all() -> None:
    """A key that resembles none is answered with the list."""
    with pytest.raises(UsageError, match="It knows end, start"):
        refuse_unknown({"xyz": 1}, ["start", "end"])


def test_known_keys_pass() -> None:
    """Keys of the form pass, and so does no key at all."""
    refuse_unknown({"start": "x"}, ["start", "end"])
    refuse_unknown({}, ["start"])


@pytest.mark.parametrize(
    "params",
    [
        {**RANGE, "dry_run": True},
        {**RANGE, "dry_run": True, "confirm": "anything"},
        {**RANGE, "dry_run": False, "confirm": "telemetry"},
        {"refs": ["latest"], "dry_run": True},
        {"start": "2026-01-01", "end": "2026-01-02", "dry_run": True},
        {**RANGE, "dry_run": False, "target_database": "other", "confirm": "other"},
    ],
)
def test_confirmed(params: dict[str, Any]) -> None:
    """A dry run needs no confirmation; anything else needs the name of what is written to."""
    refuse_unconfirmed(params, "telemetry")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({**RANGE, "dry_run": False}, "Type telemetry into confirm"),
        ({**RANGE, "dry_run": False, "confirm": "Telemetry"}, "Type telemetry into confirm"),
        ({**RANGE, "dry_run": False, "target_database": "other", "confirm": "telemetry"}, "Type other into confirm"),
        ({"start": RANGE["start"], "dry_run": True}, "Fill in start and end"),
        ({"start": RANGE["end"], "end": RANGE["start"], "dry_run": True}, "empty"),
    ],
)
def test_not_confirmed(params: dict[str, Any], message: str) -> None:
    """A missing or wrong confirmation, or a wrong range, is refused with what to type."""
    with pytest.raises(UsageError, match=message):
        refuse_unconfirmed(params, "telemetry")
