"""What all operators share: plan and servers from the configuration, errors that retry or not, progress, stop."""

from __future__ import annotations

import hashlib
import re
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from influxdb_backup.errors import InfluxdbBackupError, IntegrityError, UsageError
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.messages import shown, shown_lines
from influxdb_backup.words import UNITS, counted, number, seconds, size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.config.model import Config, Plan
    from influxdb_backup.model import Window

PROGRESS_SECONDS = 5.0
"""the least time between two progress lines in a task's log"""
LINE = 100
"""characters of a log line that the page shows without scrolling"""
RESULT_LABEL = "{{ task.outcome or task.plan }}"
"""
what Airflow's page calls a task: while it runs its plan, then what came of it (Airflow renders it again after
``execute``, also for tasks that are not mapped)
"""
_OPTION = re.compile(r"--([a-z][a-z-]+)")
FORM_WORDS = {
    "accept-clock": "Wrong clock",
    "accept-expired": "Expired window",
    "accept-missing": "Missing tables",
    "accept-shrink": "Fewer rows",
    "allow-gaps": "Allow gaps",
    "end": "End",
    "fingerprints": "Fingerprints",
    "force": "Open window",
    "max-rejects": "Rejects",
    "measurement": "Measurements",
    "on-conflict": "Points in the target",
    "retention": "Points older than the target keeps",
    "retention-policy": "Retention policies",
    "salvage": "Salvage",
    "start": "Start",
    "tag": "Tags",
    "target-connection": "Connection",
    "target-database": "Target database",
    "target-retention-policy": "Retention policy",
    "unsigned-as-integer": "Unsigned as integer",
    "writer": "Writer",
}
"""what the forms call an option of the command line"""


class TaskStoppedError(RuntimeError):
    """Airflow told the task to stop. What it had uploaded is deleted or unreferenced; a retry starts afresh."""


@contextmanager
def only_passing_errors_retry(log: Any, task: Any = None) -> Iterator[None]:
    """
    Errors that may pass by themselves go through, so that Airflow retries the task; the others fail it at once.

    What is wrong, each finding, and what to do stand in the log on lines of their own before Airflow's traceback, and
    the task's label says what kind of error it was. Options of the command line are called as the form calls them.
    """
    try:
        yield
    except InfluxdbBackupError as error:
        message, hint = in_form_words(error.message), in_form_words(error.hint)
        for line in folded(message):
            log.error("%s", line)  # noqa: TRY400
        for problem in error.problems if isinstance(error, IntegrityError) else ():
            log.error("%s", problem)  # noqa: TRY400
        for line in folded(f"What to do: {hint}" if hint else ""):
            log.error("%s", line)  # noqa: TRY400
        if task is not None:
            task.outcome = f"FAILED: {shown(error.kind)}"
        if error.retryable:
            raise
        raise AirflowFailException(shown_lines(f"{message} {hint}".rstrip()) + f" ({shown(error.kind)})") from None


def folded(text: str) -> list[str]:
    """A message as lines that fit the page, which does not break them; names and commands in a word stay whole."""
    return [
        line
        for paragraph in text.split("\n")
        for line in textwrap.wrap(paragraph, LINE, break_long_words=False, break_on_hyphens=False)
    ]


def in_form_words(text: str) -> str:
    """A message whose options of the command line are called as the fields of the forms and operators are."""
    return _OPTION.sub(lambda found: f"*{FORM_WORDS[found[1]]}*" if found[1] in FORM_WORDS else found[0], text)


class ShownLog:
    """A task's logger whose lines hold no secret and nothing that a terminal or the page obeys."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def info(self, text: str, *values: object) -> None:
        """One line."""
        self._log.info(shown(text % values if values else text))

    def warning(self, text: str, *values: object) -> None:
        """One line."""
        self._log.warning(shown(text % values if values else text))

    def error(self, text: str, *values: object) -> None:
        """One line."""
        self._log.error(shown(text % values if values else text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class SafeLog:
    """Makes ``log`` of an operator or a sensor safe for what stands in servers and repositories."""

    outcome: str = ""
    """what came of the task, in a line; what the page calls it from then on"""

    @property
    def log(self) -> Any:
        """See ShownLog."""
        return ShownLog(super().log)  # type: ignore[misc]


class BackupOperator(SafeLog, BaseOperator):
    """
    Base of the operators: works on one plan of one configuration file.

    :param config_path: the YAML file, a path that the workers can read (templated)
    :param plan: the plan's name in that file (templated)
    """

    template_fields: Sequence[str] = ("config_path", "plan")
    ui_color = "#e3f0ea"

    _stopping: bool = False

    def __init__(
        self, *, config_path: str, plan: str, map_index_template: str | None = RESULT_LABEL, **kwargs: Any
    ) -> None:
        super().__init__(map_index_template=map_index_template, **kwargs)
        self.config_path = config_path
        self.plan = plan

    def on_kill(self) -> None:
        """Makes the running job end at its next progress report; nothing half written becomes visible."""
        self._stopping = True

    def window(self, context: Mapping[str, Any], plan: Plan) -> Window:
        """The window of this run."""
        from influxdb_backup.operators.window import resolve_window

        return resolve_window(context, schedule=plan.schedule)

    def load(self) -> tuple[Config, Plan]:
        """The configuration and this task's plan. Raises ConfigError."""
        from influxdb_backup.config.load import load

        config = load(self.config_path)
        return config, config.plan(self.plan)

    def repository(self, config: Config, plan: Plan) -> Repository:
        """The repository that the plan's exports go to."""
        from influxdb_backup.hooks.repository import RepositoryHook

        return RepositoryHook.of(config, plan.repository).repository()

    def told(self, context: Mapping[str, Any], outcome: str) -> None:
        """Lets the page call the task by what came of it; a task that is mapped over plans keeps its plan's name."""
        mapped = getattr(context["ti"], "map_index", -1) >= 0
        self.outcome = shown(f"{self.plan} · {outcome}" if mapped else outcome)

    def progress(self) -> Callable[[Progress], None]:
        """Logs at most one line in a few seconds, and ends the job when Airflow told the task to stop."""
        last = began = time.monotonic()
        stage = ""
        first = Progress("", 0, 0, 0, 0, "")

        def report(moment: Progress) -> None:
            nonlocal last, began, stage, first
            if self._stopping:
                raise TaskStoppedError("Airflow told the task to stop.")
            now = time.monotonic()
            if moment.stage != stage:
                stage, began, first = moment.stage, now, moment
            if now - last >= PROGRESS_SECONDS:
                last = now
                self.log.info("%s", said(first, moment, now - began))

        return report


def said(first: Progress, moment: Progress, elapsed: float) -> str:
    """What is done, how fast since the stage's ``first``, ``elapsed`` seconds ago, and the rest."""
    unit = UNITS.get(moment.stage, "steps")
    words = [f"{moment.stage} {number(moment.done)} of {number(moment.total)} {unit}"]
    if moment.rows:
        words.append(counted(moment.rows, "row"))
    if moment.bytes:
        words.append(size(moment.bytes))
    done = moment.done - first.done
    if elapsed > 0 and done > 0:
        rows, stored = (moment.rows - first.rows) / elapsed, (moment.bytes - first.bytes) / elapsed
        if rows >= 1:
            words.append(f"{number(round(rows))} rows/s")
        elif stored >= 1:
            words.append(f"{size(stored)}/s")
        words.append(f"about {seconds((moment.total - moment.done) * elapsed / done)} left")
    return f"{', '.join(words)}; at {moment.table}" if moment.table else ", ".join(words)


def backup_of(plan: str, text: str) -> str:
    """
    The backup that a form names, as the repository understands it: the plan may be left out.

    ``2026-01-31``, ``2026-01-31#0`` (a revision), ``latest`` and ``@latest`` are of this plan. Raises UsageError for a
    backup of another plan.
    """
    written = text.strip()
    if "/" not in written and "@" not in written:
        return f"{plan}@{written}"
    if written.startswith("@"):
        return f"{plan}{written}"
    if re.split("[/@]", written, maxsplit=1)[0] != plan:
        raise UsageError(
            f"{written} is no backup of the plan {plan!r}.", hint=f"Write {plan}@latest or {plan}@2026-01-31."
        )
    return written


def identity(run_id: str, *parts: str) -> str:
    """A word for object keys that is the same for every try of a run, and another one for any other run or part."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", run_id).strip("-")[:60]
    digest = hashlib.sha256("\n".join([run_id, *parts]).encode()).hexdigest()
    return f"{readable}-{digest[:12]}"


def given(value: Any) -> Any:
    """An optional templated argument: an empty text, which is what an empty template renders to, is None."""
    return None if value in ("", "None") else value


def one_of(name: str, value: Any, allowed: Sequence[str]) -> Any:
    """A templated choice. Raises UsageError, naming what is allowed, for anything else."""
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}.", hint=f"Give one of {', '.join(allowed)}.")
    return value


def flag(name: str, value: Any) -> bool:
    """A templated yes or no: a boolean, or the text a template renders one to. Raises UsageError for anything else."""
    if isinstance(value, bool):
        return value
    known = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise UsageError(f"{name} is {value!r}.", hint="Give True or False.")
