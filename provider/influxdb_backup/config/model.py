"""
The configuration as frozen values: what the YAML file says, checked, with defaults merged into each plan.

Docstrings under the fields are the reference: the JSON Schema and docs/reference/yaml.md are made from them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from influxdb_backup.config.cron import shortest_window
from influxdb_backup.config.fields import (
    ActiveRuns,
    Concurrency,
    ConnectionId,
    Count,
    Cron,
    Duration,
    FileMode,
    Flag,
    InfluxName,
    Instant,
    Names,
    Number,
    PlanLevel,
    PlanName,
    PositiveDuration,
    RepositoryUrl,
    Scalar,
    SelectQuery,
    Text,
    Texts,
)
from influxdb_backup.config.names import listed, suggestion
from influxdb_backup.errors import ConfigError
from influxdb_backup.model import Scope, VerifyLevel, printable
from influxdb_backup.windows import format_duration

DEFAULT_CONNECTION = "influxdb_default"


class ConfigValue(BaseModel):
    """Base of the values: immutable, unknown keys refused, field docstrings kept for the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RepositoryConfig(ConfigValue):
    """Where backups are kept."""

    url: RepositoryUrl
    """Store, bucket and folder, such as `s3://backups/influx` or `file:///srv/backups`. Never with credentials."""
    connection: ConnectionId | None = None
    """Connection with the store's credentials. Without one the environment's own are used."""
    mode: FileMode | None = None
    """
    Rights of new files of a `file://` repository, in quotes: `"0600"` for its owner alone, `"0640"` for a group too.
    Its folders are given the search rights with them. Without it the umask of the process decides, which mostly lets
    every user of the host read.
    """

    @model_validator(mode="after")
    def _mode_of_a_folder(self) -> RepositoryConfig:
        if self.mode is not None and not self.url.startswith("file:"):
            raise ValueError("mode: belongs to a file:// repository; a store's rights are set in the store.")
        return self


class Check(ConfigValue):
    """One query that a drill asks of the restored data, and what its first value must be."""

    query: SelectQuery
    """One InfluxQL SELECT. The first row's first value that is not its time is compared."""
    retention_policy: InfluxName | None = None
    """Retention policy that unqualified measurements are read from; without it the plan's default policy."""
    equals: Scalar | None = None
    """The value must be equal to this."""
    min: Number | None = None
    """The value must not be smaller."""
    max: Number | None = None
    """The value must not be larger."""
    non_empty: Flag = False
    """The query must return at least one row."""

    @model_validator(mode="after")
    def _expects_something(self) -> Check:
        bounds = self.min is not None or self.max is not None
        if sum((self.equals is not None, bounds, self.non_empty)) != 1:
            raise ValueError("needs exactly one expectation: equals, min and/or max, or non_empty: true.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"can never hold: min {self.min} is larger than max {self.max}.")
        return self


class DrillConfig(ConfigValue):
    """Restore drills: a window is restored into a scratch database, compared, checked and dropped."""

    schedule: Cron | None = None
    """Cron expression (UTC) of the drill DAG. Without it drills are started by hand."""
    connection: ConnectionId | None = None
    """Server that the scratch database is created on. Without it the plan's own server."""
    pick: Literal["latest", "random", "least_recently_drilled"] = "latest"
    """Which window is restored."""
    writer: Literal["auto", "lines", "shard"] = "auto"
    """
    How the scratch is filled: by line protocol, or as whole shards, which is many times faster and needs the extra
    `fast` and the server's backup door. `auto` takes shards where both are there; `shard` fails without them.
    """
    checks: tuple[Check, ...] = ()
    """The user's own queries."""


class AirflowConfig(ConfigValue):
    """What is passed on to the generated DAGs and their tasks. The command line does not use it."""

    pool: Text | None = None
    """
    Pool of the tasks that read or write a server; without it Airflow's default pool. It must be there
    (`airflow pools set NAME SLOTS TEXT`): Airflow never starts tasks of one that is not, and warns on the DAG's page.
    """
    queue: Text | None = None
    """Queue of the tasks."""
    retries: Count = 2
    """Retries of a task that failed for a reason that may pass. Damaged backups are never retried."""
    execution_timeout: PositiveDuration | None = None
    """Longest time one task may take, such as `6h`."""
    owner: Text = "influxdb_backup"
    """Owner that the Airflow page shows."""
    tags: Texts = ()
    """Tags of the DAGs, besides `influxdb_backup`."""
    max_active_runs: ActiveRuns | None = None
    """
    Runs of the backup DAG at the same time. Without it 1, and one more for each window that `settle` is longer than:
    a run waits for its window, and Airflow leaves windows out that get no run before the next one is due. A backfill
    has its own limit, which is given when it is created.
    """


class PlanSettings(ConfigValue):
    """Keys of a plan that may also stand under `defaults`."""

    connection: ConnectionId = DEFAULT_CONNECTION
    """Connection of the server that is backed up (type `influxdb_backup` or `influxdb`)."""
    source: Text | None = None
    """
    A name for the server, kept in the repository. Backups of a plan are refused when it changes; give one where the
    server has no id of its own (1.x).
    """
    repositories: Texts = ()
    """
    Names of repositories. The first is written by export; restore may read any of them. Without it the only
    repository of the file.
    """
    retention_policies: Names | None = None
    """Retention policies that are backed up. Without it all, also those created later."""
    measurements: Names | None = None
    """Measurements that are backed up. Without it all, also those created later."""
    exclude_measurements: Names | tuple[()] = ()
    """Measurements that are left out: names, or globs such as `tmp_*`."""
    schedule: Cron = "0 0 * * *"
    """Cron expression (UTC). The time between two of its ticks is the window."""
    start: Instant | None = None
    """Start of the first window, RFC 3339 with a zone. Gaps since then are reported after every backup."""
    catchup: Flag = False
    """Whether Airflow makes up for all windows since `start` by itself."""
    settle: Duration = 30 * 60 * 1_000_000_000
    """How long to wait after the window's end before it is read, for points that arrive late."""
    verify: PlanLevel = VerifyLevel.VALID
    """How much every new backup is verified: `present`, `complete` or `valid`."""
    reader: Literal["auto", "query", "shard"] = "auto"
    """
    How points are read: by queries, or from copies of whole shards, which is many times faster and needs the extra
    `fast` and the server's backup door. `auto` takes shards where both are there and says in the log why not; `shard`
    fails without them.
    """
    hot_shards: Literal["refuse", "allow"] = "refuse"
    """
    Whether a shard with writes in its cache may be copied. A copy has the server write that cache to a file, and after
    some of those a server loses values that were overwritten meanwhile, though it confirmed them: 10 in 1,000 and more
    (see the how-to page about shards). `refuse` reads such shards by queries (with `reader: shard` the export fails);
    `allow` is for data that are never overwritten.
    """
    expired: Literal["fail", "skip"] = "fail"
    """
    What happens when a retention policy no longer keeps the whole window, as in a backfill of years beside a policy of
    two weeks. `skip` backs up the other policies and what is left of that one, and records from when on it was kept.
    """
    ahead: PositiveDuration | None = None
    """
    How far beyond now windows are backed up that hold points already, such as forecasts: `30d`. The backup of the last
    due window takes them as open, and each is backed up again when it settles.
    """
    archived_after: PositiveDuration | None = None
    """
    Windows that ended this long ago are archived, such as `30d`: the source may drop their points on purpose, and the
    backup is what is left of them. Points that are gone there are no change, and no export of less replaces a backup.
    """
    archived_before: Instant | None = None
    """The same for all windows that ended before a time."""
    unreadable: Literal["warn", "fail"] = "warn"
    """What happens when the server stores a measurement that no query can read."""
    allow_empty: Flag = False
    """Whether a database without any measurement is backed up as empty, instead of failing."""
    concurrency: Concurrency = 2
    """Queries that one export or drill sends to the server at the same time, listings and counts among them."""
    drill: DrillConfig | None = None
    """Restore drills. Merged key by key with the `drill` of `defaults`; `drill: null` switches them off."""
    airflow: AirflowConfig = AirflowConfig()
    """Settings of the generated DAGs. Merged key by key with the `airflow` of `defaults`."""


class PlanEntry(PlanSettings):
    """A plan: one database, what of it, when, and where to."""

    database: InfluxName
    """Database that is backed up. On 2.x the bucket's name, or its part before the slash."""


class Plan(PlanEntry):
    """A plan with its name and the defaults merged in; every value is final."""

    name: PlanName
    """The key under `plans`."""

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        if self.catchup and self.start is None:
            raise ValueError("catchup: true needs start:, the start of the first window.")
        runs = self.airflow.max_active_runs
        if runs is not None and runs < self.windows_waiting and not self.catchup:
            raise ValueError(
                f"airflow.max_active_runs: {runs} would leave windows out: a run waits "
                f"{format_duration(self.settle)} (settle), and the next window is due after "
                f"{format_duration(shortest_window(self.schedule))}. Remove it, or write at least "
                f"{self.windows_waiting}."
            )
        for measurement in self.measurements or ():
            glob = next((glob for glob in self.exclude_measurements if fnmatchcase(measurement, glob)), None)
            if glob is not None:
                raise ValueError(
                    f"measurement {printable(measurement)!r} is both named and excluded (by {printable(glob)!r})."
                )
        return self

    def archived_until(self, now: int) -> int | None:
        """Up to when (ns) the source may have dropped on purpose what is backed up; None where nothing is marked."""
        marks = [] if self.archived_before is None else [self.archived_before]
        if self.archived_after is not None:
            marks.append(now - self.archived_after)
        return max(marks, default=None)

    @property
    def repository(self) -> str:
        """The repository that export writes."""
        return self.repositories[0]

    @property
    def windows_waiting(self) -> int:
        """How many windows can have ended and wait for ``settle`` at one time."""
        return self.settle // shortest_window(self.schedule)

    @property
    def max_active_runs(self) -> int:
        """Runs of the backup DAG at the same time: every waiting window has one, and one works."""
        return self.airflow.max_active_runs or self.windows_waiting + 1

    @property
    def scope(self) -> Scope:
        """What is backed up; the order of names in the file does not matter."""
        return Scope(
            retention_policies=_ordered(self.retention_policies),
            measurements=_ordered(self.measurements),
            exclude_measurements=_ordered(self.exclude_measurements) or (),
        )


def _ordered(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(sorted(names))


class Config(ConfigValue):
    """The whole file."""

    path: Path
    repositories: dict[str, RepositoryConfig]
    plans: dict[str, Plan]

    def plan(self, name: str) -> Plan:
        """The plan of this name. Raises ConfigError with the nearest known names."""
        found = self.plans.get(name)
        if found is None:
            raise ConfigError(
                f"{self.path} has no plan {printable(name)!r}.{suggestion(name, self.plans)}",
                hint=f"Plans: {listed(self.plans)}.",
            )
        return found

    def repository(self, name: str) -> RepositoryConfig:
        """The repository of this name. Raises ConfigError with the nearest known names."""
        found = self.repositories.get(name)
        if found is None:
            raise ConfigError(
                f"{self.path} has no repository {printable(name)!r}.{suggestion(name, self.repositories)}",
                hint=f"Repositories: {listed(self.repositories)}.",
            )
        return found
