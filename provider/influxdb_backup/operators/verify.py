"""The operator that proves what stands in the repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from influxdb_backup.operators.base import BackupOperator, backup_of, flag, given, only_passing_errors_retry
from influxdb_backup.words import counted, seconds, size

if TYPE_CHECKING:
    from influxdb_backup.archive.repository import Repository
    from influxdb_backup.config.model import Plan
    from influxdb_backup.model import Ref, VerifyReport


class VerifyBackupOperator(BackupOperator):
    """
    Verifies one backup up to a level, records the result in the repository and fails when it does not hold.

    Each outlet that is an asset gets an event with ref, manifest, rows, bytes, level, window_start, window_end,
    revision, open and created; none when ``created`` is False, since consumers would take it for a new backup.

    :param ref: ``plan/start_end/revision`` or ``plan@latest``; the newest revision of the run's window when
        None (templated)
    :param level: ``present``, ``complete``, ``valid`` or ``restorable``; the plan's own level when None (templated)
    :param created: whether the run made a new backup (templated)
    :returns: ref, manifest, level, tables, parts, rows, bytes, seconds, window_start, window_end, revision, open,
        created
    """

    template_fields: Sequence[str] = (*BackupOperator.template_fields, "ref", "level", "created")

    def __init__(
        self, *, ref: str | None = None, level: str | None = None, created: bool | str = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.ref = ref
        self.level = level
        self.created = created

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Verifies the backup. Raises AirflowFailException when it does not hold."""
        from influxdb_backup.archive.layout import say_id
        from influxdb_backup.jobs.identity import refuse_other_plan
        from influxdb_backup.jobs.verify import raise_unless_ok, verify
        from influxdb_backup.windows import format_instant

        with only_passing_errors_retry(self.log, self):
            config, plan = self.load()
            level = verify_level(given(self.level) or plan.verify)
            created = flag("created", self.created)
            repository = self.repository(config, plan)
            if not given(self.ref):
                refuse_other_plan(plan, repository)
            ref = self._ref(repository, plan, context)
            self.log.info("Verifying %s up to %s.", say_id(ref.id), level)
            report = verify(repository, ref, level, progress=self.progress())
            raise_unless_ok(report)
        self.log.info(
            "It holds up to %s: %s of %s, %s, in %s.",
            report.level, counted(report.rows, "row"), counted(report.tables, "table"), size(report.bytes),
            seconds(report.seconds),
        )  # fmt: skip
        self.told(context, f"{report.level} · {counted(report.rows, 'row')} · {seconds(report.seconds)}")
        result = summary(report) | {
            "window_start": format_instant(ref.window.start),
            "window_end": format_instant(ref.window.end),
            "revision": ref.revision,
            "open": ref.open,
            "created": created,
        }
        for asset in (outlet for outlet in self.outlets if isinstance(outlet, Asset)):
            context["outlet_events"][asset].extra.update(result)
        if not created:
            self.log.info("Nothing new was made, so that no asset event is sent.")
            self.outlets = []
        return result

    def _ref(self, repository: Repository, plan: Plan, context: Mapping[str, Any]) -> Ref:
        from influxdb_backup.windows import format_key

        if given(self.ref):
            return repository.ref(backup_of(plan.name, str(self.ref)))
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
