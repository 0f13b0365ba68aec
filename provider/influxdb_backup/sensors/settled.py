"""The sensor that waits until a window's late points have had their time to arrive."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from influxdb_backup.operators.base import RESULT_LABEL, SafeLog, flag, only_passing_errors_retry
from influxdb_backup.operators.guard import refuse_unknown_conf

if TYPE_CHECKING:
    from influxdb_backup.config.model import Config, Plan
    from influxdb_backup.errors import SourceError
    from influxdb_backup.model import Window


CERTAIN = 86_400 * 10**9
"""ns by which a worker's clock may be wrong: windows that were due longer ago need no question to the server"""
LONGEST_WAIT = 3600.0
"""seconds until the next look: Airflow compares with the sensor's timeout only then"""


class WindowSettledSensor(SafeLog, BaseSensorOperator):
    """
    Succeeds once the run's window ended at least the plan's ``settle`` time ago.

    Now is the earlier of the worker's and the server's clock; the server is asked when that may matter, which in a
    backfill of last year it does not. The export asks it in any case, and refuses a window that is open.
    It waits without holding a worker's slot, and looks again when the window is due, after an hour at most, so that
    its timeout holds. A window that is due later than any right one, which is a mistyped date, fails at once: waiting
    for it would hold a run of its DAG for years.

    :param config_path: the YAML file, a path that the workers can read (templated)
    :param plan: the plan's name in that file (templated)
    :param force: do not wait (templated)
    :param accept_clock: go by the server's clock although it is neither the worker's nor the repository's (templated)
    :param only_params: refuse a run whose conf has keys that the DAG has no parameter for
    """

    template_fields: Sequence[str] = ("config_path", "plan", "force", "accept_clock")
    ui_color = "#f2ecd8"

    def __init__(
        self,
        *,
        config_path: str,
        plan: str,
        force: bool = False,
        accept_clock: bool = False,
        only_params: bool = False,
        mode: str = "reschedule",
        map_index_template: str | None = RESULT_LABEL,
        **kwargs: Any,
    ) -> None:
        super().__init__(mode=mode, map_index_template=map_index_template, **kwargs)
        self.config_path = config_path
        self.plan = plan
        self.force = force
        self.accept_clock = accept_clock
        self.only_params = only_params

    def poke(self, context: Mapping[str, Any]) -> bool:
        """Whether the window is settled. Raises AirflowFailException when the run has no right window."""
        from influxdb_backup.config.cron import longest_window
        from influxdb_backup.config.load import load
        from influxdb_backup.operators.window import resolve_window
        from influxdb_backup.windows import say_instant, say_wait, say_window

        with only_passing_errors_retry(self.log, self):
            if self.only_params:
                refuse_unknown_conf(context)
            config = load(self.config_path)
            plan = config.plan(self.plan)
            window = resolve_window(context, schedule=plan.schedule)
            if flag("force", self.force):
                self.log.info("The window %s is not waited for: force is on.", say_window(window))
                return True
            due = window.end + plan.settle
            now = time.time_ns()
            if due <= now < due + CERTAIN:
                now = min(now, self._server_now(config, plan, now))
            if due - now > longest_window(plan.schedule) + plan.settle:
                raise mistyped(plan, window, now)
            wait = seconds_until(due, now)
        if wait <= 0:
            self.log.info("The window %s is settled.", say_window(window))
            return True
        self.log.info(
            "The window %s can be backed up from %s UTC, in %s.",
            say_window(window), say_instant(due), say_wait(round(wait * 1e9)),
        )  # fmt: skip
        self.poke_interval = min(wait, LONGEST_WAIT)
        return False

    def _server_now(self, config: Config, plan: Plan, worker_now: int) -> int:
        from influxdb_backup.hooks.influxdb import InfluxdbBackupHook
        from influxdb_backup.hooks.repository import RepositoryHook
        from influxdb_backup.jobs.clocks import compare_clocks

        with closing(InfluxdbBackupHook(plan.connection).server()) as server:
            now, name = server.now(), server.name

        def ask_store() -> int:
            return RepositoryHook.of(config, plan.repository).repository().store.now()

        accept = flag("accept_clock", self.accept_clock)
        compare_clocks(
            now, worker_now, ask_store, where=name, store=config.repository(plan.repository).url, accept=accept
        )
        return now


def mistyped(plan: Plan, window: Window, now: int) -> SourceError:
    """The refusal of a window so late that nobody can mean to wait for it."""
    from influxdb_backup.jobs.export import still_open

    error = still_open(plan, window, now)
    error.hint = (
        "Correct window_start and window_end: no run of this plan waits for longer than a window of its schedule. "
        "To back it up as it is now, trigger it with Open window (force): it covers only what has settled."
    )
    return error


def seconds_until(due: int, now: int) -> float:
    """How long to wait, a second added so that a server's clock of whole seconds has passed as well; 0 when due."""
    return 0.0 if now >= due else (due - now) / 1e9 + 1.0
