"""Pure decisions about what a plan asks for: which tables are in a scope, and which scope contains another."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from influxdb_backup.model import Scope, Table


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def policy_in_scope(scope: Scope, retention_policy: str) -> bool:
    """Whether the scope asks for the policy."""
    return scope.retention_policies is None or retention_policy in scope.retention_policies


def table_in_scope(scope: Scope, table: Table) -> bool:
    """Whether the scope asks for the table. Excludes may be globs, and win."""
    if not policy_in_scope(scope, table.retention_policy):
        return False
    if scope.measurements is not None and table.measurement not in scope.measurements:
        return False
    return not _matches(table.measurement, scope.exclude_measurements)


def _subset(inner: tuple[str, ...] | None, outer: tuple[str, ...] | None) -> bool:
    return outer is None or (inner is not None and set(inner) <= set(outer))


def contains(outer: Scope, inner: Scope) -> bool:
    """Whether a backup of scope ``outer`` holds everything that ``inner`` asks for."""
    return (
        _subset(inner.retention_policies, outer.retention_policies)
        and _subset(inner.measurements, outer.measurements)
        and set(outer.exclude_measurements) <= set(inner.exclude_measurements)
    )
