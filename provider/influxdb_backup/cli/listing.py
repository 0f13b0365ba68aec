"""The catalogue for people: refs with what checks and drills said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from influxdb_backup.errors import UsageError
from influxdb_backup.model import Ref, VerifyLevel, VerifyReport, Window
from influxdb_backup.windows import parse_key, say_instant

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
    checked_at: int | None = None
    """when ``check`` was made, ns"""

    @property
    def state(self) -> str:
        """``open``, ``2 unreadable``, or empty."""
        words = ["open"] if self.ref.open else []
        if self.ref.unreadable:
            words.append(f"{self.ref.unreadable} unreadable")
        return ", ".join(words)

    @property
    def proved(self) -> str:
        """
        How far, by what and when: ``restorable, drill 2026-01-31``, ``DAMAGED, verify 2026-02-01``, or empty.

        What failed last stands before what held; else what proves more.
        """
        checked = drilled = ""
        if self.check is not None:
            at = f" {say_instant(self.checked_at)[:10]}" if self.checked_at is not None else ""
            checked = f"{self.check.level.value if self.check.ok else 'DAMAGED'}, verify{at}"
        if self.drill is not None:
            word = "restorable" if self.drill.ok else "FAILED"
            drilled = f"{word}, drill {say_instant(self.drill.started_at)[:10]}"
        if self.check is not None and not self.check.ok:
            return checked
        return drilled or checked

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.ref.id,
            "ref": self.ref,
            "verified": None
            if self.check is None
            else {
                "ok": self.check.ok,
                "level": self.check.level.value,
                "problems": self.check.problems,
                "ended_at": None if self.checked_at is None else str(self.checked_at),
            },
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
    times = {id(check): at for made in checks.values() for at, check in made}
    found = []
    for ref in refs:
        check = counting_check([check for _, check in checks.get(ref.manifest, ())])
        found.append(Listed(ref, check, drills.get(ref.manifest), times.get(id(check))))
    return found


def damaged_backups(repository: Repository, plan: str, refs: Sequence[Ref]) -> list[Ref]:
    """Those refs that a kept verification found damaged."""
    checks = _checks(repository, plan) if refs else {}
    counting = [(ref, counting_check([check for _, check in checks.get(ref.manifest, ())])) for ref in refs]
    return [ref for ref, check in counting if check is not None and not check.ok]


def _checks(repository: Repository, plan: str) -> dict[str, list[tuple[int | None, VerifyReport]]]:
    """The kept verifications of each manifest with when they were made, in order of time."""
    from influxdb_backup.archive import layout
    from influxdb_backup.archive.repository import pass_over

    checks: dict[str, list[tuple[int | None, VerifyReport]]] = {}
    for key, check in repository.read_documents(layout.report_prefix(layout.CHECKS, plan), VerifyReport, pass_over):
        checks.setdefault(check.manifest, []).append((_time_of(key), check))
    return checks


def _time_of(key: str) -> int | None:
    """When a report was made, as its key says; None for a name that is not of this form."""
    try:
        return parse_key(key.rsplit("/", 1)[-1].partition("_")[0])
    except UsageError:
        return None


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


def say_id(ref: str) -> str:
    """A backup's id for people: ``telemetry, 2013-01-12, 1 day, revision 0``; another text stays as it is."""
    from influxdb_backup.archive import layout

    return layout.say_id(ref)


def plan_of(ref: str) -> str:
    """The plan in ``plan@latest`` or ``plan/…``. Raises UsageError for another form."""
    for separator in ("/", "@"):
        plan, found, _ = ref.partition(separator)
        if found:
            return plan
    raise UsageError(
        f"{ref!r} is not a backup.",
        hint=f"Write {ref}@latest, {ref}@2013-01-12, or an id of `influxdb-backup list --ids`.",
    )
