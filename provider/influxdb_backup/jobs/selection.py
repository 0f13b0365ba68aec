"""Which tables an export must read: pure decisions over what the server lists and what the plan asks for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from influxdb_backup.config.model import Plan
from influxdb_backup.config.names import listed, suggestion
from influxdb_backup.errors import NotVisibleError, SourceError
from influxdb_backup.influx.protocol import PolicySchema, Server
from influxdb_backup.jobs.scope import policy_in_scope, table_in_scope
from influxdb_backup.model import (
    ExpiredPolicy,
    Manifest,
    RetentionPolicy,
    Table,
    TableSchema,
    UnreadableTable,
    Window,
    printable,
)
from influxdb_backup.windows import format_duration, format_instant


@dataclass(frozen=True)
class Selection:
    """The tables of one export, at one moment."""

    tables: Mapping[Table, TableSchema]
    unreadable: tuple[UnreadableTable, ...]


def visible_policies(plan: Plan, server: Server) -> tuple[RetentionPolicy, ...]:
    """The policies of the plan's database. Raises NotVisibleError that names the databases which the server shows."""
    try:
        return tuple(server.retention_policies(plan.database))
    except NotVisibleError as error:
        known = server.databases()
        if plan.database in known:
            raise
        near = suggestion(plan.database, known)
        hint = f"{error.hint} The server shows the databases {listed(map(printable, known))}."
        raise NotVisibleError(f"{error.message}{near}", hint=hint, kind=error.kind) from None


def select_policies(plan: Plan, policies: Iterable[RetentionPolicy]) -> tuple[RetentionPolicy, ...]:
    """The policies in scope. Raises SourceError (``empty-selection``) for a named one that the server does not show."""
    policies = tuple(policies)
    names = {policy.name for policy in policies}
    absent = [name for name in plan.retention_policies or () if name not in names]
    if absent:
        raise SourceError(
            f"The database {printable(plan.database)!r} shows no retention policy {printable(absent[0])!r}; "
            f"it shows {listed(map(printable, names))}.{suggestion(absent[0], names)}",
            kind="empty-selection",
            hint=f"Correct retention_policies of plan {plan.name!r}, or give the connection the right to see it.",
        )
    selected = tuple(policy for policy in policies if policy_in_scope(plan.scope, policy.name))
    if not selected:
        raise SourceError(
            f"The database {printable(plan.database)!r} shows no retention policy.", kind="empty-selection"
        )
    return selected


def select_tables(plan: Plan, schemas: Mapping[str, PolicySchema], known_before: Iterable[Table]) -> Selection:
    """
    The tables in scope, and those of them that no query can read.

    A measurement that the plan names and the server does not show becomes a table without columns when an
    earlier backup of the plan held it. Raises SourceError (``empty-selection``) when none did, or when
    nothing at all is selected and the plan does not say ``allow_empty``.
    """
    tables = {
        schema.table: schema
        for policy in schemas.values()
        for schema in policy.tables
        if table_in_scope(plan.scope, schema.table)
    }
    unreadable = tuple(
        entry for policy in schemas.values() for entry in policy.unreadable if table_in_scope(plan.scope, entry.table)
    )
    shown = {table.measurement for table in tables} | {entry.table.measurement for entry in unreadable}
    visible = {schema.table.measurement for policy in schemas.values() for schema in policy.tables}
    before = [table for table in known_before if table.retention_policy in schemas]
    for name in sorted(set(plan.measurements or ()) - shown):
        earlier = [table for table in before if table.measurement == name]
        if not earlier:
            raise SourceError(
                f"The database {printable(plan.database)!r} shows no measurement {printable(name)!r} in the retention "
                f"policies {', '.join(sorted(map(printable, schemas)))}.{suggestion(name, visible)}",
                kind="empty-selection",
                hint=f"It shows {listed(map(printable, visible))}. Correct measurements of plan {plan.name!r}; "
                "a measurement must have had a point before the first backup.",
            )
        for table in earlier:
            tables.setdefault(table, TableSchema(table=table, columns=()))
    if not tables and not unreadable and not plan.allow_empty:
        raise SourceError(
            f"Nothing is selected: the database {printable(plan.database)!r} shows no measurement in the scope "
            f"of plan {plan.name!r}.",
            kind="empty-selection",
            hint="Correct the plan's database and scope, or set allow_empty: true if it really is empty.",
        )
    return Selection(tables=dict(sorted(tables.items(), key=_by_name)), unreadable=unreadable)


def _by_name(item: tuple[Table, TableSchema]) -> tuple[str, str]:
    return item[0].retention_policy, item[0].measurement


def missing_at_source(
    plan: Plan,
    previous: Manifest | None,
    policies: Iterable[RetentionPolicy],
    selection: Selection,
    ended: Collection[Table] = (),
) -> tuple[str, ...]:
    """
    What of the plan's present scope its last backup held and the server no longer shows, in words.

    Left out are tables that have ``ended``, see ``may_have_ended``.
    """
    if previous is None:
        return ()
    shown_policies = {policy.name for policy in policies}
    gone = [
        f"retention policy {printable(policy.name)!r}"
        for policy in previous.source.retention_policies
        if policy_in_scope(plan.scope, policy.name) and policy.name not in shown_policies
    ]
    gone += [
        f"measurement {printable(table.measurement)!r} of {printable(table.retention_policy)!r}"
        for table in _gone_tables(plan, previous, shown_policies, selection)
        if table not in ended
    ]
    return tuple(gone)


def _gone_tables(plan: Plan, previous: Manifest, policies: Collection[str], selection: Selection) -> list[Table]:
    shown = {table for table, schema in selection.tables.items() if schema.columns}
    shown |= {entry.table for entry in selection.unreadable}
    return [
        entry.table
        for entry in previous.tables
        if entry.columns
        and entry.table.retention_policy in policies
        and table_in_scope(plan.scope, entry.table)
        and entry.table not in shown
    ]


def may_have_ended(
    plan: Plan,
    previous: Manifest | None,
    policies: Iterable[RetentionPolicy],
    selection: Selection,
    server_now: int,
) -> dict[Table, int]:
    """
    Tables of the last backup that the server no longer shows and whose policy is finite: they may have expired.

    Each comes with the instant up to which its points may be gone. A table has ended when no backup of the plan knows a
    later point of it; that is no sign of lost rights as long as something else of the plan is shown. Where a policy was
    given another duration since, the shorter one counts. What the plan marks as archived may be gone of any policy.
    """
    shown = {policy.name: policy for policy in policies}
    visible = any(schema.columns for schema in selection.tables.values()) or bool(selection.unreadable)
    if previous is None or not (visible or plan.allow_empty):
        return {}
    archived = plan.archived_until(server_now)
    until = {} if archived is None else dict.fromkeys(shown, archived)
    for policy in (*shown.values(), *previous.source.retention_policies):
        if policy.duration and policy.name in shown:
            expired = server_now - policy.duration
            until[policy.name] = max(expired, until.get(policy.name, expired))
    return {
        table: until[table.retention_policy]
        for table in _gone_tables(plan, previous, shown, selection)
        if table.retention_policy in until
    }


def is_expired(policy: RetentionPolicy, window: Window, server_now: int) -> bool:
    """Whether the policy may already have dropped points of the window."""
    return bool(policy.duration) and window.start < server_now - policy.duration


def expired_policies(policies: Iterable[RetentionPolicy], window: Window, server_now: int) -> tuple[ExpiredPolicy, ...]:
    """The policies that may already have dropped points of the window, each with the instant from which it keeps."""
    return tuple(
        ExpiredPolicy(retention_policy=policy.name, kept_from=server_now - policy.duration)
        for policy in policies
        if is_expired(policy, window, server_now)
    )


def refuse_expired(policies: Iterable[RetentionPolicy], window: Window, server_now: int) -> None:
    """Raises SourceError (``expired-window``) when a policy may already have dropped points of the window."""
    for policy in policies:
        if is_expired(policy, window, server_now):
            raise SourceError(
                f"The retention policy {printable(policy.name)!r} keeps {format_duration(policy.duration)}, so points "
                f"before {format_instant(server_now - policy.duration)} may be gone, "
                f"and the window starts at {format_instant(window.start)}.",
                kind="expired-window",
                hint="Back up windows before they expire. --accept-expired takes what is left of it and records that; "
                "expired: skip in the plan does so for every window.",
            )
