"""Reasons for which a restore is refused before its first change: raised at once, or collected by a dry run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from influxdb_backup.errors import BackupNotFoundError, TargetError, UnrepresentableError
from influxdb_backup.jobs.restore_documents import Refusal

_REFUSALS = TargetError, UnrepresentableError, BackupNotFoundError


@dataclass
class Objections:
    """What speaks against a restore. The same questions are asked for a dry run, which goes on to the next."""

    collects: bool = False
    found: list[Refusal] = field(default_factory=list)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Raises what is refused inside or, where objections are collected, keeps it and goes on behind the block."""
        try:
            yield
        except _REFUSALS as error:
            if not self.collects or error.retryable:
                raise
            self.found.append(Refusal(kind=error.kind, message=error.message, hint=error.hint))
