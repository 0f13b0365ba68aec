"""Refuses what the form of a run cannot refuse: unknown keys, and a restore that nobody confirmed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from airflow.sdk import BaseOperator

from influxdb_backup.errors import UsageError
from influxdb_backup.operators.base import SafeLog, only_passing_errors_retry


class RestoreGuardOperator(SafeLog, BaseOperator):
    """
    Refuses a restore whose run has unknown keys, a wrong range, or no right confirmation.

    :param database: what the restore writes to when the run names no target database
    """

    def __init__(self, *, database: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.database = database

    def execute(self, context: Mapping[str, Any]) -> None:
        """Raises AirflowFailException for a run that must not go on."""
        with only_passing_errors_retry(self.log):
            refuse_unknown_conf(context)
            refuse_unconfirmed(context["params"], self.database)


def refuse_unknown_conf(context: Mapping[str, Any]) -> None:
    """Raises UsageError when the run's conf has a key that the DAG has no parameter for."""
    refuse_unknown(context["dag_run"].conf or {}, list(context["dag"].params))


def refuse_unknown(conf: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises UsageError when the run was given a key that the form does not have: Airflow itself takes any."""
    for key in conf:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise UsageError(
                f"The run was given {key!r}, which its DAG does not know.",
                hint=f"Did you mean {near[0]!r}?" if near else f"It knows {', '.join(sorted(known))}.",
            )


def refuse_unconfirmed(params: Mapping[str, Any], database: str) -> None:
    """Raises UsageError when the range is wrong, or when points would be written and nobody confirmed where to."""
    from influxdb_backup.windows import parse_window, with_zone

    start, end = params.get("start"), params.get("end")
    if not params.get("refs") or start or end:
        if not start or not end:
            raise UsageError(
                "The range to restore is missing.", hint="Fill in start and end, or name one backup or more (refs)."
            )
        parse_window(with_zone(start), with_zone(end))
    if params["dry_run"]:
        return
    target = params.get("target_database") or database
    if params.get("confirm") != target:
        raise UsageError(
            f"This restore would write into the database {target!r}, and confirm is {params.get('confirm')!r}.",
            hint=f"Type {target} into confirm, or leave dry run on.",
        )
