"""
How a server shows that one of its databases was made by us, and for whom: the mark of a drill's scratch and of a
restore's unpublished database.

Only what the server itself says decides that such a database is dropped, never a record elsewhere. The mark is made in
the request that makes the database. On 1.x it is a retention policy of its own, which keeps no points: its name says
for whom, its duration until when the maker says that it is at work (ns since 1970; a policy's name cannot be changed,
its duration can). On 2.x it is the description of each bucket.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote

from influxdb_backup.errors import UsageError
from influxdb_backup.model import MAX_END, RetentionPolicy
from influxdb_backup.windows import format_instant, parse_instant

Purpose = Literal["drill", "restore"]

LEASE = 180 * 10**9
"""ns for which a maker is believed to be at work after it last said so"""

_FORM = re.compile(r"influxdb_backup_(drill|restore)_[0-9a-f]{16}")
_OURS = "influxdb_backup_"
_POLICY = f"{_OURS}made_this_for_"
_RESTORING = f"{_OURS}restoring_"
_RESTORING_FORM = re.compile(rf"{_RESTORING}[0-9a-f]{{32}}")
_SECOND = 10**9
_DESCRIPTION = re.compile(
    r"Made by influxdb-backup for the (drill|restore) (?P<owner>[^ ,]+?)(?:, at work until (?P<until>\S+Z))?\."
)


@dataclass(frozen=True)
class Mark:
    """For whom a database was made."""

    owner: str
    """the id of the drill or restore"""
    until: int = 0
    """until when it is believed that the owner is at work, unless it says so again: ns, by the server's clock"""


@dataclass(frozen=True)
class MarkedDatabase:
    """A database of which the server shows that it was made by us."""

    name: str
    scratch_id: str
    """what ``Server.drop_scratch`` drops it by"""
    mark: Mark


def new_marked_name(purpose: Purpose) -> str:
    """A database name that nobody uses, of the form without which a marked database is not dropped."""
    return f"influxdb_backup_{purpose}_{secrets.token_hex(8)}"


def has_form(name: str, purpose: Purpose) -> bool:
    """Whether ``new_marked_name`` may have made the name."""
    found = _FORM.fullmatch(name)
    return found is not None and found[1] == purpose


def mark_policy(mark: Mark) -> RetentionPolicy:
    """The policy that marks a database of 1.x."""
    until = -(-min(mark.until, MAX_END) // _SECOND) * _SECOND
    return RetentionPolicy(name=f"{_POLICY}{quote(mark.owner, safe='')}", duration=until, shard_duration=0)


def restoring_policy(owner: str) -> RetentionPolicy:
    """The policy by which a database of 1.x shows that this restore writes into it."""
    return RetentionPolicy(name=f"{_RESTORING}{owner}", duration=0, shard_duration=0)


def is_mark(policy: str, database: str) -> bool:
    """Whether a policy of 1.x is no more than a mark, so that it keeps no points; no other name is taken for one."""
    return _RESTORING_FORM.fullmatch(policy) is not None or (policy.startswith(_POLICY) and has_form(database, "drill"))


def policies_mark(policies: Iterable[RetentionPolicy]) -> Mark | None:
    """The mark among the policies of a database of 1.x."""
    marks = [policy for policy in policies if policy.name.startswith(_POLICY)]
    if len(marks) != 1:
        return None
    return Mark(unquote(marks[0].name.removeprefix(_POLICY)), marks[0].duration)


def describe(purpose: Purpose, mark: Mark) -> str:
    """The description that marks a bucket of 2.x."""
    until = f", at work until {format_instant(mark.until)}" if mark.until else ""
    return f"Made by influxdb-backup for the {purpose} {quote(mark.owner, safe='')}{until}."


def described_mark(description: str, purpose: Purpose) -> Mark | None:
    """The mark in a bucket's description."""
    found = _DESCRIPTION.fullmatch(description)
    if found is None or found[1] != purpose:
        return None
    try:
        return Mark(unquote(found["owner"]), parse_instant(found["until"]) if found["until"] else 0)
    except UsageError:
        return None
