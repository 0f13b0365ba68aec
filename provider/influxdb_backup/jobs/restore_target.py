"""The target of a restore: what it has, what must be created, and what makes it unfit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from influxdb_backup.errors import NotVisibleError, TargetError, UsageError
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.objections import Objections
from influxdb_backup.jobs.read_back import has_mixed_types
from influxdb_backup.jobs.restore_request import Reads, RestoreRequest, Unit
from influxdb_backup.model import RetentionPolicy, Table, TableSchema, Window, printable
from influxdb_backup.windows import format_duration, format_instant, format_window

_MARGIN = 60 * 10**9
"""ns kept from a retention's edge, which moves while points are written"""


@dataclass(frozen=True)
class Target:
    """Where the points go, and what must happen before the first one does."""

    server: Server
    database: str
    policies: Mapping[Table, str]
    """the target's policy for each of the source's tables"""
    create: tuple[RetentionPolicy, ...]
    exists: bool
    """whether the database is there"""
    existing: frozenset[str]
    """policies that are there"""
    infinite: tuple[str, ...]
    """created with infinite retention since the source's would drop restored points"""
    widen: tuple[str, ...]
    cutoffs: Mapping[str, int]
    """by policy: points before this instant are dropped, because the request says so"""
    separated: tuple[str, ...] = ()
    """of those to be created, policies with shorter shard groups than the source's, which keep types of fields apart"""


def choose_target(request: RestoreRequest, reads: Reads, server: Server, objections: Objections) -> Target:
    """
    Where the request's points go on this server. Asks the server, changes nothing.

    Raises TargetError (``retention-would-drop``) when an existing policy would drop points and the request
    does not say what to do, as an objection; UsageError when two source tables would become one.
    """
    database, bucket = reads.database, None
    if request.target_database:
        database, bucket = server.database_named(request.target_database)
    policies = _policies(request, reads)
    try:
        existing = {policy.name: policy for policy in server.retention_policies(database)}
        exists = True
    except NotVisibleError:
        existing, exists = {}, False
    now = server.now()
    earliest = _earliest(reads.units, policies)
    create, infinite = [], []
    for name in sorted((set(policies.values()) | _others(request, reads, exists=exists)) - set(existing)):
        shape = _shape(name, policies, reads)
        if shape.duration and earliest.get(name, now) < now - shape.duration + _MARGIN:
            shape = shape.model_copy(update={"duration": 0})
            infinite.append(name)
        if bucket is not None or database != reads.database:  # the source's own name is for its own place
            shape = shape.model_copy(update={"bucket": bucket})
        create.append(shape)
    widen, cutoffs = _retention(request, existing, earliest, now, objections)
    return Target(
        server=server,
        database=database,
        policies=policies,
        create=tuple(create),
        exists=exists,
        existing=frozenset(existing),
        infinite=tuple(infinite),
        widen=widen,
        cutoffs=cutoffs,
    )


def _policies(request: RestoreRequest, reads: Reads) -> dict[Table, str]:
    policies = {table: request.target_retention_policy or table.retention_policy for table in reads.columns}
    seen: dict[tuple[str, str], Table] = {}
    for table, policy in policies.items():
        other = seen.setdefault((policy, table.measurement), table)
        if other != table:
            raise UsageError(
                f"{other} and {table} would both become {printable(policy)}.{printable(table.measurement)}.",
                hint="Restore them one retention policy at a time (--retention-policy).",
            )
    return policies


def _others(request: RestoreRequest, reads: Reads, *, exists: bool) -> set[str]:
    """A new database gets the source's policies without points, too, unless the request names or moves policies."""
    if exists or request.target_retention_policy or request.retention_policies:
        return set()
    return set(reads.policies)


def _shape(name: str, policies: Mapping[Table, str], reads: Reads) -> RetentionPolicy:
    """The policy to create: the source's of that name, or of the first table that goes there."""
    source = next(
        (
            table.retention_policy
            for table, policy in sorted(policies.items(), key=lambda item: item[0].measurement)
            if policy == name
        ),
        name,
    )
    shape = reads.policies.get(name) or reads.policies.get(source)
    if shape is None:
        return RetentionPolicy(name=name, duration=0, shard_duration=0)
    return shape.model_copy(update={"name": name})


def _earliest(units: Sequence[Unit], policies: Mapping[Table, str]) -> dict[str, int]:
    earliest: dict[str, int] = {}
    for unit in units:
        policy = policies[unit.table]
        first = max(unit.part.min_time, unit.window.start)
        earliest[policy] = min(first, earliest.get(policy, first))
    return earliest


def _retention(
    request: RestoreRequest,
    existing: Mapping[str, RetentionPolicy],
    earliest: Mapping[str, int],
    now: int,
    objections: Objections,
) -> tuple[tuple[str, ...], dict[str, int]]:
    widen, cutoffs = [], {}
    for name, first in sorted(earliest.items()):
        policy = existing.get(name)
        if policy is None:
            continue
        limits = [limit for limit in (policy.duration, policy.past_write_limit or 0) if limit]
        if not limits or first >= now - min(limits) + _MARGIN:
            continue
        if request.retention == "drop-points":
            cutoffs[name] = now - min(limits) + _MARGIN
        elif request.retention == "widen" and not policy.past_write_limit:
            widen.append(name)
        else:
            with objections.noted():
                raise TargetError(
                    f"The target's retention policy {printable(name)!r} keeps {format_duration(min(limits))} and would "
                    f"drop restored points, which start at {format_instant(first)}.",
                    kind="retention-would-drop",
                    hint="Restore into another policy or database, or choose --retention widen or --retention "
                    "drop-points.",
                )
    return tuple(widen), cutoffs


def refuse_change(target: Target) -> None:
    """Raises TargetError (``target-not-empty``) when somebody made the database or a policy since it was chosen."""
    try:
        found = frozenset(policy.name for policy in target.server.retention_policies(target.database))
    except NotVisibleError:
        return
    if not target.exists or found & {policy.name for policy in target.create}:
        raise TargetError(
            f"Somebody else has made {printable(target.database)!r} on {target.server.name}, or a retention policy of "
            "it, since this restore began: nothing was written there.",
            kind="target-not-empty",
            hint="Restore into another database (--target-database), or run it again: it is looked at anew.",
        )


def refuse_conflict(request: RestoreRequest, reads: Reads, target: Target, own: frozenset[str] = frozenset()) -> None:
    """
    Raises TargetError (``target-not-empty``) when any table to be written has a point in the range already, or may have
    one that no count tells of.

    Tag filters are ignored: a point of another series counts too. Policies of ``own`` may have points.
    """
    if request.on_conflict == "merge" or not target.exists:
        return
    for policy in sorted(set(target.policies.values()) & target.existing - own):
        schemas = {schema.table.measurement: schema for schema in target.server.schema(target.database, policy).tables}
        pieces = target.server.pieces(target.database, policy, reads.window)
        overlaps = target.server.overlaps(target.database, policy, reads.window)
        for table, wanted in target.policies.items():
            schema = schemas.get(table.measurement)
            if wanted != policy or schema is None:
                continue
            fields = sorted({column.name for column in schema.fields})
            for piece in pieces if has_mixed_types(schema.columns) else (reads.window,):
                counts = target.server.counts(target.database, policy, table.measurement, piece, fields)
                if any(counts.values()):
                    raise TargetError(
                        f"The target {printable(target.database)!r} on {target.server.name} already has points of "
                        f"{printable(policy)}.{printable(table.measurement)} in {format_window(piece)}.",
                        kind="target-not-empty",
                        hint="Restore into another database (--target-database), or write over what is there with "
                        "--on-conflict merge.",
                    )
            uncounted = _uncounted(target, schema, overlaps)
            if uncounted:
                raise TargetError(
                    f"Whether the target {printable(target.database)!r} on {target.server.name} has points of "
                    f"{printable(policy)}.{printable(table.measurement)} in {format_window(reads.window)} cannot be "
                    f"counted: {uncounted}.",
                    kind="target-not-empty",
                    hint="Restore into another database (--target-database), or write over what may be there with "
                    "--on-conflict merge.",
                )


def _uncounted(target: Target, schema: TableSchema, overlaps: Mapping[Window, str]) -> str | None:
    """Why counts of a table do not tell of all of its values, in a few words; None when they do."""
    hidden = sorted({column.name for column in schema.fields} & target.server.dialect.index_fields)
    if hidden:
        return f"queries answer its field {printable(hidden[0])} from the server's index"
    if overlaps and has_mixed_types(schema.columns):
        return f"a field of it has several types, and the shards {next(iter(overlaps.values()))} overlap"
    return None


def prepare(target: Target) -> tuple[str, ...]:
    """Creates the database and policies, widens what the request allowed. Returns what was created."""
    created = target.server.create_database(target.database, target.create) if target.create else ()
    for policy in target.widen:
        target.server.alter_retention(target.database, policy, 0)
    return created
