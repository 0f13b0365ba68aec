"""What a restore does about fields that changed their type: shard groups that keep the types apart, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from influxdb_backup.errors import NotVisibleError, TargetError
from influxdb_backup.jobs.restore_request import Reads, RestoreRequest, Unit
from influxdb_backup.jobs.restore_target import Target
from influxdb_backup.jobs.type_changes import (
    Batches,
    FieldOf,
    Meeting,
    Stretch,
    TypeOf,
    exact,
    meetings,
    separating_duration,
    shares,
    stretches_of,
    within,
)
from influxdb_backup.model import Column, InfluxType, RetentionPolicy, Role, Table, Window, printable
from influxdb_backup.shard_groups import group_number, shard_duration
from influxdb_backup.windows import format_duration, format_window

_KIND = "field-types"
_SHOWN = 3


def as_written(request: RestoreRequest) -> TypeOf:
    """As which type the request has values of a type written."""

    def type_of(kind: InfluxType) -> InfluxType:
        return InfluxType.INTEGER if request.unsigned_as_integer and kind is InfluxType.UNSIGNED else kind

    return type_of


def keep_types_apart(target: Target, reads: Reads, request: RestoreRequest, batches: Batches) -> Target:
    """
    The target, the policies to be created with shard durations in which no two types of a field meet.

    ``separated`` says which are shorter than the source's. Raises TargetError (``field-types``) when none does it.
    """
    type_of = as_written(request)
    every = stretches_of(reads.units, partial(_table_in, target), type_of)
    create: list[RetentionPolicy] = []
    separated: list[str] = []
    for policy in target.create:
        preferred = shard_duration(policy.shard_duration, policy.duration)
        here = [stretch for stretch in every if stretch.field[0].retention_policy == policy.name]
        duration, left = separating_duration(here, preferred, batches, type_of)
        if left:
            raise TargetError(
                f"No shard duration keeps types of one field apart: {_some(left, shares(duration))}.",
                kind=_KIND,
                hint="Restore the stretches of time one by one (--start, --end), each into a database of its own.",
            )
        if duration != preferred:
            separated.append(f"{printable(policy.name)}: {format_duration(duration)}, not {format_duration(preferred)}")
        create.append(policy.model_copy(update={"shard_duration": duration}))
    return replace(target, create=tuple(create), separated=tuple(separated))


def _table_in(target: Target, unit: Unit) -> Table:
    return Table(retention_policy=target.policies[unit.table], measurement=unit.table.measurement)


def refuse_types(target: Target, reads: Reads, request: RestoreRequest, batches: Batches) -> None:
    """
    Raises TargetError (``field-types``) when a shard group of an existing policy would get two types of a field.

    Values of another type that the target has in the group count as well as those of the backups.
    """
    type_of = as_written(request)
    every = stretches_of(reads.units, partial(_table_in, target), type_of)
    for policy in sorted(target.existing & set(target.policies.values())):
        here = [stretch for stretch in every if stretch.field[0].retention_policy == policy]
        held = _types_held(target, policy, here)
        doubtful = [stretch for stretch in here if held[stretch.field] - {stretch.type}]
        if not doubtful:
            continue
        span = Window(start=min(s.first for s in doubtful), end=max(s.last for s in doubtful) + 1)
        groups = _Groups(target, policy, span)
        found = groups.clashes(doubtful, held)
        if found:
            cut = exact(doubtful, batches, type_of, [groups.duration])
            found = groups.clashes(cut, held)
        if found:
            raise TargetError(
                f"The target {printable(target.database)!r} on {target.server.name} would refuse values of "
                f"another type: {'; '.join(found[:_SHOWN])}{' and more' if len(found) > _SHOWN else ''}.",
                kind=_KIND,
                hint="Restore into a new database (--target-database), whose shard groups keep the types apart, or let "
                "such points be left out (--max-rejects).",
            )


def _types_held(target: Target, policy: str, stretches: Sequence[Stretch]) -> dict[FieldOf, set[InfluxType]]:
    """The types of each field, in the backups and anywhere in the target's policy."""
    types: dict[FieldOf, set[InfluxType]] = {}
    for stretch in stretches:
        types.setdefault(stretch.field, set()).add(stretch.type)
    if types:
        for schema in target.server.schema(target.database, policy).tables:
            for column in schema.fields:
                key = schema.table, column.name
                if key in types:
                    types[key].add(column.type)
    return types


class _Groups:
    """The shard groups that a stretch of an existing policy has, or would get."""

    def __init__(self, target: Target, policy: str, window: Window) -> None:
        self._server = target.server
        self._database = target.database
        self._policy = policy
        said = next(p for p in self._server.retention_policies(self._database) if p.name == policy)
        self.duration = shard_duration(said.shard_duration, said.duration)
        self._tiles = self._server.pieces(self._database, policy, window)

    def clashes(self, stretches: Sequence[Stretch], held: dict[FieldOf, set[InfluxType]]) -> list[str]:
        """In words, which types would meet."""
        found: list[str] = []
        for tile in self._tiles:
            here = within(stretches, tile)
            if not here:
                continue
            found += [f"{meeting.what} share a shard group" for meeting in self._meetings(here, tile)]
            for stretch in here:
                found += self._there(stretch, held[stretch.field], tile)
        return list(dict.fromkeys(found))

    def _meetings(self, here: Sequence[Stretch], tile: Window) -> list[Meeting]:
        cut = [replace(s, first=max(s.first, tile.start), last=min(s.last, tile.end - 1)) for s in here]
        first, last = (group_number(at, self.duration) for at in (tile.start, tile.end - 1))
        met = meetings(cut, self.duration)
        if met or first == last or not _in_one(cut):
            return met
        # longer than the policy's groups are now: a group of earlier times if it has points, else many to come
        if any(self._has(tile, table, field.name, field.type) for table, field in self._fields()):
            return _in_one(cut)
        return met

    def _fields(self) -> Iterator[tuple[Table, Column]]:
        for schema in self._server.schema(self._database, self._policy).tables:
            for column in schema.fields:
                yield schema.table, column

    def _there(self, stretch: Stretch, types: set[InfluxType], tile: Window) -> Iterator[str]:
        table, name = stretch.field
        for kind in sorted(types - {stretch.type}):
            if self._has(tile, table, name, kind):
                yield (
                    f"{table}, field {printable(name)!r}: {stretch} in the backup, {kind.value} in the target's shard "
                    f"group of {format_window(tile)}"
                )

    def _has(self, tile: Window, table: Table, name: str, kind: InfluxType) -> bool:
        try:
            return self._server.has_fields(self._database, table, tile, [Column(role=Role.FIELD, name=name, type=kind)])
        except NotVisibleError:
            return False


def _in_one(stretches: Sequence[Stretch]) -> list[Meeting]:
    """The meetings of stretches that all are in one group."""
    first: dict[FieldOf, Stretch] = {}
    found = []
    for stretch in stretches:
        known = first.setdefault(stretch.field, stretch)
        if known.type is not stretch.type:
            found.append(Meeting(known, stretch))
    return found


def _some(found: Sequence[Meeting], end: str) -> str:
    shown = "; ".join(f"{meeting.what} {end}" for meeting in found[:_SHOWN])
    return f"{shown}{' and more' if len(found) > _SHOWN else ''}"
