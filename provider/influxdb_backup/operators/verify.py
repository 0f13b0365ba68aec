"""The operator that proves what stands in the repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from influxdb_backup.operators.base import BackupOperator, given, log_group, only_passing_errors_retry

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.config.model import Plan
    from influxdb_backup.model import Ref, VerifyReport


class VerifyBackupOperator(BackupOperator):
    """
    Verifies one backup up to a level, records the result in the repository and fails when it does not hold.

    Each outlet that is an asset gets an event with ref, manifest, rows, bytes and level.

    :param ref: ``plan/start_end/revision`` or ``plan@latest``; the newest revision of the run's window when
        None (templated)
    :param level: ``present``, ``complete``, ``valid`` or ``restorable``; the plan's own level when None (templated)
    :returns: ref, manifest, level, tables, parts, rows, bytes, seconds
    """

    template_fields: Sequence[str] = (*BackupOperator.template_fields, "ref", "level")

    def __init__(self, *, ref: str | None = None, level: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ref = ref
        self.level = level

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Verifies the backup. Raises AirflowFailException when it does not hold."""
        from influxdb_backup.jobs.identity import refuse_other_plan
        from influxdb_backup.jobs.verify import raise_unless_ok, verify

        with only_passing_errors_retry(self.log):
            config, plan = self.load()
            level = verify_level(given(self.level) or plan.verify)
            repository = self.repository(config, plan)
            if not given(self.ref):
                refuse_other_plan(plan, repository)
            ref = self._ref(repository, plan, context)
            self.link_to(repository, ref.id)
            with log_group(self.log, f"Verify {ref.id} up to {level}"):
                report = verify(repository, ref, level, progress=self.progress())
            raise_unless_ok(report)
        self.log.info("%s holds up to %s: %s rows.", report.ref, report.level, f"{report.rows:,}")
        result = summary(report)
        for asset in (outlet for outlet in self.outlets if isinstance(outlet, Asset)):
            context["outlet_events"][asset].extra.update(result)
        return result

    def _ref(self, repository: Repository, plan: Plan, context: Mapping[str, Any]) -> Ref:
        from influxdb_backup.windows import format_key

        if given(self.ref):
            return repository.ref(str(self.ref))
        window = self.window(context, plan)
        return repository.ref(f"{plan.name}/{format_key(window.start)}_{format_key(window.end)}")


def verify_level(text: str) -> Any:
    """The verify level of this name. Raises UsageError for an unknown one."""
    from influxdb_backup.errors import UsageError
    from influxdb_backup.model import VerifyLevel

    try:
        return VerifyLevel(text)
    except ValueError:
        raise UsageError(f"{text!r} is no verify level.", hint=f"Give one of {', '.join(VerifyLevel)}.") from None


def summary(report: VerifyReport) -> dict[str, Any]:
    """Ids and counts of a verification, small enough for XCom and asset events."""
    return {
        "ref": report.ref,
        "manifest": report.manifest,
        "level": str(report.level),
        "tables": report.tables,
        "parts": report.parts,
        "rows": report.rows,
        "bytes": report.bytes,
        "seconds": round(report.seconds, 3),
    }
