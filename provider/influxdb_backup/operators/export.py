"""The operator that backs one window up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from influxdb_backup.operators.base import BackupOperator, flag, folded, only_passing_errors_retry
from influxdb_backup.windows import format_duration
from influxdb_backup.words import counted, number, seconds, size

if TYPE_CHECKING:
    from influxdb_backup.config.model import Plan
    from influxdb_backup.jobs.export import ExportResult
    from influxdb_backup.model import Window

SHOWN_GAPS = 5
"""gaps of the plan whose filling the log spells out"""


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
        from influxdb_backup.operators.window import notes
        from influxdb_backup.windows import say_window

        with only_passing_errors_retry(self.log, self):
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
            self.log.info("Backing up %s, %s, from %s.", plan.name, say_window(window), plan.connection)
            for note in notes(context, plan.schedule, window):
                for line in folded(note):
                    self.log.warning("%s", line)
            with closing(InfluxdbBackupHook(plan.connection).server()) as server:
                result = export(
                    plan, window, server=server, repository=repository, options=options, progress=self.progress()
                )
                ahead = export_ahead(
                    plan, window, server=server, repository=repository, options=options, progress=self.progress()
                )
            self.told(context, label(result, window))
            self._tell(result, window, plan)
            for failed in ahead.failed if ahead is not None else ():
                self.log.warning("Not backed up ahead: %s: %s", say_window(failed.window), failed.message)
        return summary(result, window)

    def _tell(self, result: ExportResult, window: Window, plan: Plan) -> None:
        from influxdb_backup.windows import say_instant, say_window

        self.log.info(
            "%s: %s, revision %d: %s of %s, %s, in %s.",
            "Backed up" if result.created else "Nothing new, the latest revision already holds exactly this",
            say_window(window), result.revision, counted(result.rows, "row"), counted(result.tables, "table"),
            size(result.bytes), seconds(result.seconds),
        )  # fmt: skip
        self.log.info("Its id: %s", result.ref)
        if result.open:
            self.log.warning(
                "The window was OPEN: the backup covers only what had settled (%s before the read). Run the window "
                "again once it has ended.",
                format_duration(plan.settle),
            )
        for entry in result.unreadable:
            self.log.warning("Not in the backup: %s cannot be read: %s", entry.table, entry.reason)
        for policy in result.expired:
            self.log.warning(
                "The retention policy %r had kept points from %s on: of those before, the backup has what was left.",
                policy.retention_policy, say_instant(policy.kept_from),
            )  # fmt: skip
        for beyond in result.outside:
            self.log.warning(
                "The source has shards of %r that no window of the plan reaches: %s.",
                beyond.retention_policy, say_window(beyond.window),
            )  # fmt: skip
        for gone in result.ended:
            self.log.info("%s is gone: all of its points have expired.", gone)
        for line in gap_lines(plan, result.gaps):
            self.log.warning("%s", line)
        if not result.gaps:
            self.log.info("The plan has no gaps up to %s.", say_instant(window.end))


def label(result: ExportResult, window: Window) -> str:
    """What came of an export in a line: ``2013-01-12 · 824 rows · 31.7 kB · 2 gaps``."""
    from influxdb_backup.windows import say_window

    words = [say_window(window).removesuffix(", 1 day"), counted(result.rows, "row")]
    words.append(size(result.bytes) if result.created else "nothing new")
    if result.open:
        words.append("OPEN")
    if result.unreadable:
        words.append(f"{number(len(result.unreadable))} unreadable")
    if result.gaps:
        words.append(counted(len(result.gaps), "gap"))
    return " · ".join(words)


def gap_lines(plan: Plan, gaps: Sequence[Window]) -> Iterator[str]:
    """Each gap with what fills it, the newest first and the rest as a number."""
    from influxdb_backup.jobs.coverage import fill
    from influxdb_backup.windows import say_window

    if not gaps:
        return
    yield f"The plan has {counted(len(gaps), 'gap')}:"
    newest_first = sorted(gaps, key=lambda gap: gap.start, reverse=True)
    for gap in newest_first[:SHOWN_GAPS]:
        yield f"No backup of {say_window(gap)}."
        for way in fill(plan, gap):
            yield f"  {way}"
    if len(gaps) > SHOWN_GAPS:
        yield f"And {counted(len(gaps) - SHOWN_GAPS, 'older gap')}: influxdb-backup coverage {plan.name} lists them."


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
