"""
Every error the product raises, grouped by what the person who sees it does next.

::

    InfluxdbBackupError
    ├── UsageError              the call is wrong: fix the argument            (also a ValueError)
    │   └── ConfigError         the YAML file or a connection is wrong: fix it
    ├── ServerError             an InfluxDB server did not do what was asked
    │   ├── ServerUnavailableError   try again later                           (retryable)
    │   ├── AccessError              fix the credentials or the rights
    │   ├── NotVisibleError          unknown or not visible: name or rights    (also a LookupError)
    │   ├── QueryError               the server refused or failed a statement
    │   ├── IncompleteReadError      not everything was read: nothing is kept  (retryable)
    │   └── UnsupportedServerError   a product or version that is not supported
    ├── SourceError             the source no longer is what the plan backed up: a person decides
    ├── WriteError              points could not be written to a target
    │   ├── UnrepresentableError     line protocol cannot carry a name or a value
    │   └── RejectedPointsError      the server refused points; they are in the reject file
    ├── TargetError             the target of a restore is not fit: choose another or say how
    ├── RepositoryError         the archive
    │   ├── StoreError               the object store failed                   (retryable)
    │   ├── BackupNotFoundError      no such ref, or a gap                     (also a LookupError)
    │   ├── FormatError              a document that this version cannot read
    │   ├── IntegrityError           stored bytes are not what was written: never retried
    │   ├── ConflictError            another writer won the revision           (retryable)
    │   ├── SupersededError          a newer read of the window is committed
    │   └── CommitStateUnknownError  the reply was lost: run the same again     (retryable)
    └── DrillError              a restore drill did not hold
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from influxdb_backup.messages import mask, shown_lines


class InfluxdbBackupError(Exception):
    """
    Root of all errors of this package.

    ``kind`` is a stable kebab-case word for programs (append-only), ``hint`` the next step for a person,
    ``retryable`` whether the same call may succeed later without anybody doing anything. Words of others that an
    error quotes may repeat a secret of the run, so both are masked when the error is made.
    """

    default_kind: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", kind: str | None = None) -> None:
        self.message = mask(message)
        self.hint = mask(hint)
        super().__init__(self.message)
        self.kind = kind or self.default_kind

    def __str__(self) -> str:
        """Message and hint, safe to be put out by whoever prints an exception."""
        return shown_lines(f"{self.message} {self.hint}".rstrip() if self.hint else self.message)


class UsageError(InfluxdbBackupError, ValueError):
    """An argument, a window or a reference is wrong."""

    default_kind = "usage"


class ConfigError(UsageError):
    """The YAML file or a connection is wrong; the message names file, path and key."""

    default_kind = "config"


class ServerError(InfluxdbBackupError):
    """An InfluxDB server did not do what was asked."""

    default_kind = "server"


class ServerUnavailableError(ServerError):
    """The server cannot be reached, times out or answers 429, 500, 502, 503 or 504 for too long."""

    default_kind = "server-unavailable"
    retryable = True


class AccessError(ServerError):
    """The credentials are refused or lack a right."""

    default_kind = "access"


class NotVisibleError(ServerError, LookupError):
    """A database, bucket, retention policy or measurement is unknown, or these credentials cannot see it."""

    default_kind = "not-visible"


class QueryError(ServerError):
    """The server refused a statement, or failed it with a reason that another try will not change."""

    default_kind = "query"


class IncompleteReadError(ServerError):
    """A read ended early, or held other counts than the server reports; nothing of it was kept."""

    default_kind = "incomplete-read"
    retryable = True


class UnsupportedServerError(ServerError):
    """The product or version at the other end is not supported."""

    default_kind = "unsupported-server"


class SourceError(InfluxdbBackupError):
    """
    The source is not what the plan's backups say it was, or cannot give the whole window.

    Kinds: ``open-window``, ``expired-window``, ``shrunk-window``, ``missing-at-source``, ``identity-mismatch``,
    ``empty-selection``, ``unreadable``, ``overlapping-groups``, ``source-damaged``, ``shard-reader``, ``clock-skew``,
    ``archived-window``.
    """

    default_kind = "source"


class WriteError(InfluxdbBackupError):
    """Points could not be written to a target."""

    default_kind = "write"


class UnrepresentableError(WriteError):
    """Line protocol of the target's generation cannot carry a name or a value; found before the first write."""

    default_kind = "unrepresentable"


class RejectedPointsError(WriteError):
    """The target refused more points than allowed; they stand in the reject file that the message names."""

    default_kind = "rejected-points"


class TargetError(InfluxdbBackupError):
    """
    The target of a restore is not fit.

    Kinds: ``target-not-empty``, ``retention-would-drop``, ``read-back-differs``, ``restore-in-progress``,
    ``shards-refused``, ``target``.
    """

    default_kind = "target"


class RepositoryError(InfluxdbBackupError):
    """The archive: a repository or an object in it."""

    default_kind = "repository"


class StoreError(RepositoryError):
    """The object store failed or refused an operation."""

    default_kind = "store"
    retryable = True


class BackupNotFoundError(RepositoryError, LookupError):
    """No such repository, plan, window or revision, or a range that has gaps."""

    default_kind = "backup-not-found"


class FormatError(RepositoryError):
    """A document of a version or with a feature that this release does not know, or that is no such document."""

    default_kind = "format"


class IntegrityError(RepositoryError):
    """
    Stored bytes are not what was written; ``problems`` lists every finding. Trying again will not help.

    One of stored objects (kinds ``missing``, ``size``, ``digest``, ``foreign``) that is given no hint has
    one of its own.
    """

    default_kind = "integrity"
    _OF_OBJECTS: ClassVar[frozenset[str]] = frozenset({"missing", "size", "digest", "foreign"})
    _WAY_OUT: ClassVar[str] = (
        "`influxdb-backup verify` finds all that is damaged. Restore another revision or from another repository, "
        "and export the window again while the source has it."
    )

    def __init__(self, message: str, *, hint: str = "", kind: str | None = None, problems: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint or (self._WAY_OUT if kind in self._OF_OBJECTS else ""), kind=kind)
        self.problems = tuple(mask(problem) for problem in problems)


class ConflictError(RepositoryError):
    """Another writer created this revision with other content; the same call again makes the next revision."""

    default_kind = "conflict"
    retryable = True


class SupersededError(RepositoryError):
    """The window's latest revision was read later than this one; committing would put older data on top."""

    default_kind = "superseded"


class CommitStateUnknownError(RepositoryError):
    """The reply to the commit was lost and the state cannot be read back; running the same again is safe."""

    default_kind = "commit-state-unknown"
    retryable = True


class DrillError(InfluxdbBackupError):
    """A restore drill did not hold: the message says which table, field or check."""

    default_kind = "drill"
