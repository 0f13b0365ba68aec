"""The sensor that asks whether a plan's backups are recent enough."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from influxdb_backup.operators.base import RESULT_LABEL, SafeLog, only_passing_errors_retry

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.model import Ref, VerifyLevel


class BackupFreshSensor(SafeLog, BaseSensorOperator):
    """
    Succeeds when the plan is covered up to ``max_age`` ago by backups that were proved at a level.

    :param config_path: the YAML file, a path that the workers can read (templated)
    :param plan: the plan's name in that file (templated)
    :param max_age: a duration such as ``26h`` (templated)
    :param level: ``present``, ``complete``, ``valid`` or ``restorable`` (templated)
    """

    template_fields: Sequence[str] = ("config_path", "plan", "max_age", "level")
    ui_color = "#f2ecd8"

    def __init__(
        self,
        *,
        config_path: str,
        plan: str,
        max_age: str,
        level: str = "present",
        mode: str = "reschedule",
        poke_interval: float = 300,
        map_index_template: str | None = RESULT_LABEL,
        **kwargs: Any,
    ) -> None:
        super().__init__(mode=mode, poke_interval=poke_interval, map_index_template=map_index_template, **kwargs)
        self.config_path = config_path
        self.plan = plan
        self.max_age = max_age
        self.level = level

    def poke(self, context: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Whether the newest covered end is recent enough."""
        from influxdb_backup.archive.repository import count_as_gap
        from influxdb_backup.config.load import load
        from influxdb_backup.hooks.repository import RepositoryHook
        from influxdb_backup.jobs.coverage import coverage
        from influxdb_backup.jobs.identity import refuse_other_plan
        from influxdb_backup.operators.verify import verify_level
        from influxdb_backup.windows import format_instant, parse_duration

        with only_passing_errors_retry(self.log, self):
            config = load(self.config_path)
            plan = config.plan(self.plan)
            level, oldest = verify_level(self.level), time.time_ns() - parse_duration(self.max_age)
            repository = RepositoryHook.of(config, plan.repository).repository()
            refuse_other_plan(plan, repository)
            refs = proved(repository, repository.refs(plan.name, on_damage=count_as_gap), level)
            newest = coverage(plan, refs, now=time.time_ns()).newest
        if newest is None:
            self.log.info("The plan %s has no backup that is %s.", plan.name, level)
            return False
        self.log.info("The plan %s is covered up to %s at level %s.", plan.name, format_instant(newest), level)
        return newest >= oldest


def proved(repository: Repository, refs: Sequence[Ref], level: VerifyLevel) -> list[Ref]:
    """
    Those refs whose manifest was proved at the level: by a kept verification, or at ``restorable`` by a drill.

    Every committed backup counts as ``present``, since its parts were looked up before it became visible. One that
    a kept verification found damaged counts at no level.
    """
    from influxdb_backup.archive.layout import CHECKS, report_prefix
    from influxdb_backup.archive.repository import pass_over
    from influxdb_backup.archive.verify import verdict
    from influxdb_backup.jobs.drills import passing_drill
    from influxdb_backup.model import VerifyLevel, VerifyReport

    if not refs:
        return []
    checks: dict[str, list[VerifyReport]] = {}
    for _, report in repository.read_documents(report_prefix(CHECKS, refs[0].plan), VerifyReport, pass_over):
        checks.setdefault(report.manifest, []).append(report)
    verdicts = {ref.id: verdict(checks.get(ref.manifest, ())) for ref in refs}
    sound = [ref for ref in refs if verdicts[ref.id].damage is None]
    if level is VerifyLevel.PRESENT:
        return sound
    if level is VerifyLevel.RESTORABLE:
        return [ref for ref in sound if passing_drill(repository, ref) is not None]
    order = list(VerifyLevel)
    return [
        ref for ref in sound if any(order.index(held.level) >= order.index(level) for held in verdicts[ref.id].held)
    ]
