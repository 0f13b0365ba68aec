"""What all operators share: plan and servers from the configuration, errors that retry or not, progress, stop."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from influxdb_backup.errors import InfluxdbBackupError, IntegrityError, UsageError
from influxdb_backup.messages import shown
from influxdb_backup.operators.links import BackupLink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.config.model import Config, Plan
    from influxdb_backup.jobs.progress import Progress
    from influxdb_backup.model import Window

PROGRESS_SECONDS = 5.0
"""the least time between two progress lines in a task's log"""
PLAN_LABEL = "{{ task.plan }}"
"""what Airflow's page calls a task that is mapped over plans, instead of its index"""


class TaskStoppedError(RuntimeError):
    """Airflow told the task to stop. What it had uploaded is deleted or unreferenced; a retry starts afresh."""


@contextmanager
def only_passing_errors_retry(log: Any) -> Iterator[None]:
    """
    Errors that may pass by themselves go through, so that Airflow retries the task; the others fail it at once.

    Every finding of an IntegrityError is logged, since the message names only the first ones.
    """
    try:
        yield
    except InfluxdbBackupError as error:
        if isinstance(error, IntegrityError):
            for problem in error.problems:
                log.error("%s", problem)  # noqa: TRY400
        if error.retryable:
            raise
        raise AirflowFailException(f"{error} ({shown(error.kind)})") from error


@contextmanager
def log_group(log: Any, title: str) -> Iterator[None]:
    """Log lines that the web page folds under a title."""
    log.info("::group::%s", title)
    try:
        yield
    finally:
        log.info("::endgroup::")


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
    operator_extra_links = (BackupLink(),)
    ui_color = "#e3f0ea"

    backup_url: str = ""
    """where the ref of this run's backup is; what the extra link shows"""
    _stopping: bool = False

    def __init__(
        self, *, config_path: str, plan: str, map_index_template: str | None = PLAN_LABEL, **kwargs: Any
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

    def link_to(self, repository: Repository, ref: str) -> None:
        """Lets the task's extra link lead to a ref."""
        from influxdb_backup.archive.layout import ref_key

        found = repository.ref(ref)
        self.backup_url = f"{repository.url.rstrip('/')}/{ref_key(found.plan, found.window, found.revision)}"

    def progress(self) -> Callable[[Progress], None]:
        """Logs at most one line in a few seconds, and ends the job when Airflow told the task to stop."""
        last = time.monotonic()

        def report(moment: Progress) -> None:
            nonlocal last
            if self._stopping:
                raise TaskStoppedError("Airflow told the task to stop.")
            if time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                self.log.info(
                    "%s %d of %d, %s rows, %.1f MB, at %s",
                    moment.stage, moment.done, moment.total, f"{moment.rows:,}", moment.bytes / 1e6, moment.table,
                )  # fmt: skip

        return report


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
