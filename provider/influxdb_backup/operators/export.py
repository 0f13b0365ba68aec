"""The operator that backs one window up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from influxdb_backup.operators.base import BackupOperator, flag, log_group, only_passing_errors_retry

if TYPE_CHECKING:
    from influxdb_backup.config.model import Plan
    from influxdb_backup.jobs.export import ExportResult
    from influxdb_backup.model import Window


class ExportWindowOperator(BackupOperator):
    """
    Reads the run's window of a plan's database and commits it as a backup.

    The window is the run's ``window_start`` and ``window_end`` params, else its partition, else its data
    interval. Running it again for the same window and content commits nothing new. Ends by listing the plan's gaps.

    :param force: export a window that is still open (templated)
    :param accept_expired: export a window older than the source keeps points (templated)
    :param accept_shrink: commit a revision with fewer rows than the previous one (templated)
    :param accept_missing: go on when a policy or measurement of the last backup is gone (templated)
    :param accept_clock: go on although the server's clock is neither the worker's nor the repository's (templated)
    :returns: ref, revision, manifest, created, open, window_start, window_end, tables, rows, values, bytes, seconds,
        and how many tables were unreadable and how many gaps the plan has
    """

    template_fields: Sequence[str] = (
        *BackupOperator.template_fields, "force", "accept_expired", "accept_shrink", "accept_missing",
        "accept_clock",
    )  # fmt: skip

    def __init__(
        self,
        *,
        force: bool = False,
        accept_expired: bool = False,
        accept_shrink: bool = False,
        accept_missing: bool = False,
        accept_clock: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.force = force
        self.accept_expired = accept_expired
        self.accept_shrink = accept_shrink
        self.accept_missing = accept_missing
        self.accept_clock = accept_clock

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Exports the window. Raises AirflowFailException for what another try would not change."""
        from influxdb_backup.hooks.influxdb import InfluxdbBackupHook
        from influxdb_backup.jobs.export import ExportOptions, export
        from influxdb_backup.jobs.export_range import export_ahead
        from influxdb_backup.windows import format_window

        with only_passing_errors_retry(self.log):
            config, plan = self.load()
            window = self.window(context, plan)
            options = ExportOptions(
                force=flag("force", self.force),
                accept_expired=flag("accept_expired", self.accept_expired),
                accept_shrink=flag("accept_shrink", self.accept_shrink),
                accept_missing=flag("accept_missing", self.accept_missing),
                accept_clock=flag("accept_clock", self.accept_clock),
                dag_id=context["ti"].dag_id,
                run_id=context["ti"].run_id,
            )
            repository = self.repository(config, plan)
            with (
                log_group(self.log, f"Export {plan.name}, {format_window(window)}"),
                closing(InfluxdbBackupHook(plan.connection).server()) as server,
            ):
                result = export(
                    plan, window, server=server, repository=repository, options=options, progress=self.progress()
                )
                ahead = export_ahead(
                    plan, window, server=server, repository=repository, options=options, progress=self.progress()
                )
            self.link_to(repository, result.ref)
            self._tell(result, window, plan)
            for failed in ahead.failed if ahead is not None else ():
                self.log.warning("Not backed up ahead: %s: %s", format_window(failed.window), failed.message)
        return summary(result, window)

    def _tell(self, result: ExportResult, window: Window, plan: Plan) -> None:
        from influxdb_backup.jobs.coverage import backfill_command
        from influxdb_backup.windows import format_instant, format_window

        self.log.info(
            "%s %s: %s rows of %d tables in %.1f MB, %.1f s.",
            "Committed" if result.created else "Nothing new since",
            result.ref, f"{result.rows:,}", result.tables, result.bytes / 1e6, result.seconds,
        )  # fmt: skip
        for entry in result.unreadable:
            self.log.warning("Not in the backup: %s cannot be read: %s", entry.table, entry.reason)
        for policy in result.expired:
            self.log.warning(
                "The retention policy %r had kept points from %s on: of those before, the backup has what was left.",
                policy.retention_policy, format_instant(policy.kept_from),
            )  # fmt: skip
        for beyond in result.outside:
            self.log.warning(
                "The source has shards of %r that no window of the plan reaches: %s.",
                beyond.retention_policy, format_window(beyond.window),
            )  # fmt: skip
        for gone in result.ended:
            self.log.info("%s is gone: all of its points have expired.", gone)
        if not result.gaps:
            self.log.info("The plan has no gaps up to %s.", format_window(window).rpartition(" ")[2])
            return
        with log_group(self.log, f"The plan has {len(result.gaps)} gap{'s' if len(result.gaps) > 1 else ''}"):
            for gap in result.gaps:
                self.log.warning("No backup of %s. Fill it: %s", format_window(gap), backfill_command(plan, gap))


def summary(result: ExportResult, window: Window) -> dict[str, Any]:
    """Ids and counts of an export, small enough for XCom."""
    from influxdb_backup.windows import format_instant

    return {
        "ref": result.ref,
        "revision": result.revision,
        "manifest": result.manifest,
        "created": result.created,
        "open": result.open,
        "window_start": format_instant(window.start),
        "window_end": format_instant(window.end),
        "tables": result.tables,
        "rows": result.rows,
        "values": result.values,
        "bytes": result.bytes,
        "seconds": round(result.seconds, 3),
        "unreadable": len(result.unreadable),
        "gaps": len(result.gaps),
    }
