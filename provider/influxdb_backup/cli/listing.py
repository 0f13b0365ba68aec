"""The catalogue for people: refs with what checks and drills said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from influxdb_backup.errors import UsageError
from influxdb_backup.model import Ref, VerifyLevel, VerifyReport, Window

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.jobs.drills import DrillReport

_LEVELS = list(VerifyLevel)


@dataclass(frozen=True)
class Listed:
    """One backup and the newest word on it."""

    ref: Ref
    check: VerifyReport | None
    """the check that counts, of this very manifest"""
    drill: DrillReport | None
    """the newest drill of this very manifest"""

    @property
    def state(self) -> str:
        """``open``, ``2 unreadable``, or empty."""
        words = ["open"] if self.ref.open else []
        if self.ref.unreadable:
            words.append(f"{self.ref.unreadable} unreadable")
        return ", ".join(words)

    @property
    def verified(self) -> str:
        """The level that holds, ``DAMAGED``, or empty when it was never verified."""
        if self.check is None:
            return ""
        return self.check.level.value if self.check.ok else "DAMAGED"

    @property
    def drilled(self) -> str:
        """``ok``, ``FAILED``, or empty when it was never drilled."""
        if self.drill is None:
            return ""
        return "ok" if self.drill.ok else "FAILED"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.ref.id,
            "ref": self.ref,
            "verified": None
            if self.check is None
            else {"ok": self.check.ok, "level": self.check.level.value, "problems": self.check.problems},
            "drilled": None
            if self.drill is None
            else {
                "ok": self.drill.ok,
                "drill_id": self.drill.drill_id,
                "started_at": str(self.drill.started_at),
                "seconds_total": self.drill.seconds_total,
            },
        }


def list_backups(
    repository: Repository, plan: str, within: Window | None = None, *, reports: bool = True
) -> list[Listed]:
    """All revisions of a plan in order of time; without ``reports`` checks and drills are not read."""
    from influxdb_backup.archive import layout
    from influxdb_backup.archive.repository import count_as_gap, pass_over
    from influxdb_backup.jobs.drills import DrillReport

    refs = repository.refs(layout.check_plan(plan), within, count_as_gap)
    if not reports:
        return [Listed(ref, None, None) for ref in refs]
    checks = _checks(repository, plan)
    drills: dict[str, DrillReport] = {}
    for _, drill in repository.read_documents(layout.report_prefix(layout.DRILLS, plan), DrillReport, pass_over):
        known = drills.get(drill.manifest)
        if known is None or drill.started_at >= known.started_at:
            drills[drill.manifest] = drill
    return [Listed(ref, counting_check(checks.get(ref.manifest, ())), drills.get(ref.manifest)) for ref in refs]


def damaged_backups(repository: Repository, plan: str, refs: Sequence[Ref]) -> list[Ref]:
    """Those refs that a kept verification found damaged."""
    checks = _checks(repository, plan) if refs else {}
    counting = [(ref, counting_check(checks.get(ref.manifest, ()))) for ref in refs]
    return [ref for ref, check in counting if check is not None and not check.ok]


def _checks(repository: Repository, plan: str) -> dict[str, list[VerifyReport]]:
    """The kept verifications of each manifest, in order of time."""
    from influxdb_backup.archive import layout
    from influxdb_backup.archive.repository import pass_over

    checks: dict[str, list[VerifyReport]] = {}
    for _, check in repository.read_documents(layout.report_prefix(layout.CHECKS, plan), VerifyReport, pass_over):
        checks.setdefault(check.manifest, []).append(check)
    return checks


def counting_check(checks: Sequence[VerifyReport]) -> VerifyReport | None:
    """
    Of checks in order of time: the one whose damage stands, else the highest level that held since the last damage.

    A level that only lacks a drill is no damage.
    """
    from influxdb_backup.archive.verify import verdict

    found = verdict(checks)
    if found.damage is not None:
        return found.damage
    return max(reversed(found.held), key=lambda check: _LEVELS.index(check.level), default=None)


def plan_of(ref: str) -> str:
    """The plan in ``plan@latest`` or ``plan/…``. Raises UsageError for another form."""
    for separator in ("/", "@"):
        plan, found, _ = ref.partition(separator)
        if found:
            return plan
    raise UsageError(
        f"{ref!r} is not a backup.", hint=f"Write {ref}@latest, or an id that `influxdb-backup list --ids` shows."
    )
