"""The link from a task of the web page to the backup it made or checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class BackupLink(BaseOperatorLink):
    """Leads to the ref of the backup. Airflow asks for it in the worker, once the task has ended."""

    name = "Backup"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """The URL of the ref in its repository, or an empty text when the task made none."""
        return str(getattr(operator, "backup_url", ""))
