"""What the options and the environment say, opened: configuration, servers and repositories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from influxdb_backup.config.fields import check_repository_url
from influxdb_backup.config.load import load
from influxdb_backup.config.model import Config, Plan
from influxdb_backup.config.names import listed
from influxdb_backup.errors import BackupNotFoundError, ConfigError, UsageError
from influxdb_backup.messages import hide

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.archive.store import Store
    from influxdb_backup.config.connections import ConnectionValues
    from influxdb_backup.influx.protocol import Server, ServerSettings

CONFIG_VARIABLE = "INFLUXDB_BACKUP_CONFIG"


@dataclass(frozen=True, kw_only=True)
class RepositoryChoice:
    """Which repository a command uses: the plan's first, another one of the file, or one by its URL."""

    name: str | None = None
    url: str | None = None
    connection: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServerChoice:
    """Which server a command writes to: by connection, by address, or by default the plan's."""

    connection: str | None = None
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    organization: str | None = None
    ca_file: str | None = None
    verify_tls: bool = True

    @property
    def is_given(self) -> bool:
        """Whether the command names a server at all."""
        return self.connection is not None or self.url is not None


@dataclass(frozen=True)
class Session:
    """One run of the command line."""

    config_path: Path | None
    environ: Mapping[str, str] = field(repr=False)

    @cached_property
    def config(self) -> Config:
        """The YAML file. Raises ConfigError when none is named or it is wrong."""
        if self.config_path is None:
            raise ConfigError(
                "No configuration file is named.",
                hint=f"Put --config FILE before the command, or set {CONFIG_VARIABLE}.",
            )
        return load(self.config_path)

    def connection(self, conn_id: str, example: str) -> ConnectionValues:
        """A connection of the environment. Raises ConfigError that says which variable to set."""
        from influxdb_backup.config.connections import (
            check_connection_id,
            connection_from_environment,
            environment_names,
            secrets_of,
        )

        check_connection_id(conn_id)
        values = connection_from_environment(conn_id, self.environ)
        if values is None:
            own, airflow = environment_names(conn_id)
            raise ConfigError(
                f"There is no connection {conn_id!r}: neither {own} nor {airflow} is set.",
                hint=f"Set {own} to a URI such as {example}, or to Airflow's JSON of the connection.",
            )
        hide(*secrets_of(values))
        return values

    @contextmanager
    def server(self, conn_id: str) -> Iterator[Server]:
        """The server of a connection, open while the block runs."""
        from influxdb_backup.config.connections import server_settings

        values = self.connection(conn_id, "influxdb-backup://user:password@host:8086")
        with _opened(server_settings(conn_id, values)) as server:
            yield server

    @contextmanager
    def target(self, choice: ServerChoice, default: str | None) -> Iterator[Server]:
        """The server that a choice names, else the one of the connection ``default``. Raises UsageError for none."""
        if choice.url is not None:
            with _opened(_settings(choice)) as server:
                yield server
            return
        conn_id = choice.connection or default
        if conn_id is None:
            raise UsageError(
                "No server to write to is named.",
                hint="Name one with --target-connection ID or --target-url http://host:8086.",
            )
        with self.server(conn_id) as server:
            yield server

    def plan(self, name: str) -> Plan:
        """A plan of the file. Raises ConfigError with the nearest known name."""
        return self.config.plan(name)

    def known_plan(self, name: str) -> Plan | None:
        """A plan of the file, or None when there is no file or it has no such plan."""
        return None if self.config_path is None else self.config.plans.get(name)

    def store(self, choice: RepositoryChoice, plan: str | None = None) -> Store:
        """The store of a repository, nothing read yet. Raises ConfigError, UsageError."""
        from influxdb_backup.archive.store import open_store
        from influxdb_backup.config.connections import storage_options

        url, conn_id, mode = self._location(choice, plan)
        scheme = url.partition("://")[0]
        example = "aws://access-key:secret-key@/?region_name=eu-west-1" if scheme.startswith("s3") else "its URI"
        values = self.connection(conn_id, example) if conn_id else None
        return open_store(url, storage_options(url, values, name=conn_id or ""), mode=mode)

    def repository(self, choice: RepositoryChoice, plan: str | None = None) -> Repository:
        """An opened repository. Raises BackupNotFoundError with the command that makes one."""
        from influxdb_backup.archive.repository import Repository

        store = self.store(choice, plan)
        try:
            return Repository.open(store)
        except BackupNotFoundError as error:
            name = choice.url or choice.name or (self.plan(plan).repository if plan else "REPOSITORY")
            raise BackupNotFoundError(
                error.message, hint=f"Correct its URL, or make a new one with `influxdb-backup repo init {name}`."
            ) from None

    def _location(self, choice: RepositoryChoice, plan: str | None) -> tuple[str, str | None, int | None]:
        if choice.url is not None:
            try:
                return check_repository_url(choice.url), choice.connection, None
            except ValueError as error:
                raise UsageError(f"The repository's URL {error}") from None
        if choice.connection is not None:
            raise UsageError("--repository-connection belongs to --repository-url.")
        known = self.known_plan(plan) if plan is not None else None
        if choice.name is not None:
            entry = self.config.repository(choice.name)
            if known is not None and choice.name not in known.repositories:
                raise UsageError(
                    f"The plan {known.name!r} does not use the repository {choice.name!r}.",
                    hint=f"It uses {listed(known.repositories)}.",
                )
        elif plan is None and len(self.config.repositories) == 1:
            entry = next(iter(self.config.repositories.values()))
        elif plan is None:
            raise UsageError(
                "The file has several repositories.",
                hint=f"Choose one with --repository: {listed(self.config.repositories)}.",
            )
        else:
            entry = self.config.repository(self.plan(plan).repository)
        return entry.url, entry.connection, entry.mode


def plan_without_file(repository: Repository, plan: str) -> Plan:
    """A plan from what the repository knows of it: its database; no start, schedule or checks of one's own."""
    identity = repository.plan_identity(plan)
    if identity is None:
        raise BackupNotFoundError(
            f"{repository.url} has no plan {plan!r}.", hint="`influxdb-backup list` shows what there is."
        )
    return Plan(name=plan, database=identity.database, repositories=("repository",))


@contextmanager
def _opened(settings: ServerSettings) -> Iterator[Server]:
    from influxdb_backup.influx.connection import connect

    server = connect(settings)
    try:
        yield server
    finally:
        server.close()


def _settings(choice: ServerChoice) -> ServerSettings:
    from influxdb_backup.config.connections import CONN_TYPE, connection_values, secrets_of, server_settings

    extra: dict[str, object] = {"verify_tls": choice.verify_tls}
    for key in ("token", "organization", "ca_file"):
        if getattr(choice, key):
            extra[key] = getattr(choice, key)
    if choice.connection is not None:
        raise UsageError("Give either --target-connection or --target-url.")
    url = choice.url or ""
    if not url.startswith(("http://", "https://")):
        raise UsageError("--target-url must start with http:// or https://, such as http://localhost:8086.")
    values = connection_values(
        conn_id="--target-url",
        conn_type=CONN_TYPE,
        host=url,
        login=choice.username,
        password=choice.password,
        extra=extra,
    )
    hide(*secrets_of(values))
    settings = server_settings("--target-url", values)
    parts = urlsplit(settings.url)  # a path may be a secret of the proxy's
    return replace(settings, name=f"{parts.scheme}://{parts.netloc}")
