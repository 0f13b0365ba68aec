"""The hook that opens a backup repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from influxdb_backup.hooks.connections import airflow_connection

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.archive.store import Store
    from influxdb_backup.config.model import Config


class RepositoryHook(BaseHook):
    """
    Opens the repository at a URL.

    The store's credentials come from an Airflow connection (``aws``, ``google_cloud_platform``, ``wasb``) or,
    without one, from the worker's environment, as the store's own tools find them.
    """

    def __init__(self, url: str, conn_id: str | None = None, mode: int | None = None) -> None:
        """``mode`` is that of new files, where the repository is a folder."""
        super().__init__()
        self.url = url
        self.conn_id = conn_id
        self.mode = mode

    @classmethod
    def of(cls, config: Config, name: str) -> RepositoryHook:
        """The hook of a repository that the configuration names."""
        entry = config.repositories[name]
        return cls(entry.url, entry.connection, entry.mode)

    def store(self) -> Store:
        """The object store below the repository. Raises ConfigError when the connection is missing."""
        from influxdb_backup.archive.store import open_store
        from influxdb_backup.config.connections import storage_options

        values = airflow_connection(self.conn_id) if self.conn_id else None
        return open_store(self.url, storage_options(self.url, values, name=self.conn_id or ""), mode=self.mode)

    def repository(self) -> Repository:
        """The repository. Raises BackupNotFoundError when there is none yet, StoreError when the store fails."""
        from influxdb_backup.archive.repository import Repository

        return Repository.open(self.store())
