"""What of a source no window of its plan reaches: told from the bounds of its shard groups, which cost no read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from influxdb_backup.config.model import Plan
from influxdb_backup.model import MAX_END, Name, RetentionPolicy, Value, Window
from influxdb_backup.windows import merge, subtract


class Outside(Value):
    """A stretch of time for which the source has shards, and that no window of the plan will reach."""

    retention_policy: Name
    window: Window
    where: Literal["before-start", "ahead"]
    """before the plan's start (or its first backup), or later than now and what the plan looks ahead"""


def outside(
    plan: Plan,
    groups: Mapping[str, Sequence[Window] | None],
    policies: Iterable[RetentionPolicy],
    held: Iterable[Window],
    now: int,
) -> tuple[Outside, ...]:
    """
    The shard groups before the plan's start and beyond ``now`` (ns), where no backup is ``held``, in order of time.

    ``groups`` are those of each policy; None where they are not known. A group that reaches into a window of the plan
    tells nothing of its other part. Groups that a policy is about to drop are left out.
    """
    held = list(held)
    starts = [plan.start] if plan.start is not None else [window.start for window in held]
    start = min(starts, default=now)
    horizon = min(now + (plan.ahead or 0), MAX_END)
    durations = {policy.name: policy.duration for policy in policies}
    found = []
    for name, known in groups.items():
        duration = durations.get(name, 0)
        kept = [group for group in known or () if not (duration and group.end <= now - duration)]
        for where, part in (
            ("before-start", [group for group in kept if group.end <= start]),
            ("ahead", [group for group in kept if group.start >= horizon]),
        ):
            found += [
                Outside.model_validate({"retention_policy": name, "window": rest, "where": where})
                for window in merge(part)
                for rest in subtract(window, held)
            ]
    return tuple(sorted(found, key=lambda one: (one.window.start, one.retention_policy)))
