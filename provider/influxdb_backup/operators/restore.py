"""The operator that brings a stretch of time back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from influxdb_backup.errors import UsageError
from influxdb_backup.operators.base import (
    BackupOperator,
    backup_of,
    flag,
    folded,
    given,
    identity,
    in_form_words,
    one_of,
    only_passing_errors_retry,
)
from influxdb_backup.words import counted, number, seconds, size

if TYPE_CHECKING:
    from influxdb_backup.config.model import Plan
    from influxdb_backup.jobs.restore_documents import RestorePlan, RestoreReport
    from influxdb_backup.jobs.restore_request import RestoreRequest
    from influxdb_backup.model import Window

MOST_IDS = 100
"""ids of backups in a task's result, which is to stay small"""


class RestoreOperator(BackupOperator):
    """
    Restores any range of a plan's backups into a server; per instant the newest read wins.

    A retry of the task continues its own restore, for the restore's id follows from the run.

    :param start: RFC 3339 with a zone, or a date alone (UTC); with ``end`` the range, else all that the named backups
        hold, else the run's window (templated)
    :param end: see ``start`` (templated)
    :param refs: only these backups, such as ``2026-01-31`` (the newest revision of that window), ``2026-01-31#0``,
        ``latest`` or ``plan/start_end/revision``; all of the plan when empty (templated)
    :param retention_policies: only these policies; all when None (templated)
    :param measurements: only these measurements; all when None (templated)
    :param tags: only points with these tag values (templated)
    :param target_connection: connection of the server to write to; the plan's own when None (templated)
    :param target_database: database to write to; the source's name when None (templated)
    :param target_retention_policy: policy to write to; the source's names when None (templated)
    :param on_conflict: ``fail`` refuses a target that has points there, ``merge`` writes over them (templated)
    :param retention: ``fail``, ``widen`` or ``drop-points``: what to do when the target would not keep
        all points (templated)
    :param allow_gaps: restore although parts of the range have no backup (templated)
    :param max_rejects: points that the target may refuse before the restore fails (templated)
    :param unsigned_as_integer: write unsigned fields as integers, for a 1.x target (templated)
    :param fingerprints: read everything back, too, and compare it with the archive to the bit (templated)
    :param writer: ``auto``, ``lines`` or ``shard``: by line protocol or, into a new database, as whole shards
        (templated)
    :param salvage: of damaged parts restore what is whole; every lost stretch is logged as a warning (templated)
    :param restore_id: continues the restore of this id; made from DAG, run and task when None (templated)
    :param dry_run: only tell what would be read, created, dropped and written (templated)
    :returns: restore_id, start, end, target_server, target_database, refs (how many) and backups (their ids, at most
        100), tables, rows, values, rejects, lost, seconds; of a dry run what it would do
    """

    template_fields: Sequence[str] = (
        *BackupOperator.template_fields, "start", "end", "refs", "retention_policies", "measurements", "tags",
        "target_connection", "target_database", "target_retention_policy", "on_conflict", "retention", "allow_gaps",
        "max_rejects", "unsigned_as_integer", "fingerprints", "writer", "salvage", "restore_id", "dry_run",
    )  # fmt: skip

    def __init__(
        self,
        *,
        start: str | None = None,
        end: str | None = None,
        refs: Sequence[str] = (),
        retention_policies: Sequence[str] | None = None,
        measurements: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        target_connection: str | None = None,
        target_database: str | None = None,
        target_retention_policy: str | None = None,
        on_conflict: str = "fail",
        retention: str = "fail",
        allow_gaps: bool = False,
        max_rejects: int = 0,
        unsigned_as_integer: bool = False,
        fingerprints: bool = False,
        writer: str = "auto",
        salvage: bool = False,
        restore_id: str | None = None,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.end = end
        self.refs = refs
        self.retention_policies = retention_policies
        self.measurements = measurements
        self.tags = tags
        self.target_connection = target_connection
        self.target_database = target_database
        self.target_retention_policy = target_retention_policy
        self.on_conflict = on_conflict
        self.retention = retention
        self.allow_gaps = allow_gaps
        self.max_rejects = max_rejects
        self.unsigned_as_integer = unsigned_as_integer
        self.fingerprints = fingerprints
        self.writer = writer
        self.salvage = salvage
        self.restore_id = restore_id
        self.dry_run = dry_run  # type: ignore[assignment,method-assign]

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Restores, or only plans it. Raises AirflowFailException for what another try would not change."""
        from influxdb_backup.hooks.influxdb import InfluxdbBackupHook
        from influxdb_backup.jobs.identity import refuse_other_plan
        from influxdb_backup.jobs.restore import plan_restore, restore

        with only_passing_errors_retry(self.log, self):
            config, plan = self.load()
            request = self._request(context, plan)
            repository = self.repository(config, plan)
            if request.plan is not None:
                refuse_other_plan(plan, repository)
            scope = plan.scope if request.plan is not None else None
            target = InfluxdbBackupHook(given(self.target_connection) or plan.connection).server()
            with closing(target):
                if flag("dry_run", self.dry_run):
                    planned = plan_restore(request, repository=repository, target=target, scope=scope)
                    return self._tell_plan(planned, context)
                self.log.info("Restore %s of %s.", request.restore_id, plan.name)
                report = restore(request, repository=repository, target=target, scope=scope, progress=self.progress())
        return self._tell(report, request, context)

    def _request(self, context: Mapping[str, Any], plan: Plan) -> RestoreRequest:
        from influxdb_backup.jobs.restore_request import RestoreRequest

        refs = tuple(backup_of(plan.name, text) for text in names("refs", self.refs) or ())
        return RestoreRequest(
            plan=None if refs else plan.name,
            refs=refs,
            window=self._range(context, plan, named=bool(refs)),
            retention_policies=names("retention_policies", self.retention_policies),
            measurements=names("measurements", self.measurements),
            tags=pairs("tags", self.tags),
            target_database=given(self.target_database),
            target_retention_policy=given(self.target_retention_policy),
            on_conflict=one_of("on_conflict", self.on_conflict, ("fail", "merge")),
            retention=one_of("retention", self.retention, ("fail", "widen", "drop-points")),
            allow_gaps=flag("allow_gaps", self.allow_gaps),
            max_rejects=count("max_rejects", self.max_rejects),
            unsigned_as_integer=flag("unsigned_as_integer", self.unsigned_as_integer),
            fingerprints=flag("fingerprints", self.fingerprints),
            writer=one_of("writer", self.writer, ("auto", "lines", "shard")),
            salvage=flag("salvage", self.salvage),
            restore_id=given(self.restore_id) or restore_id_of(context),
        )

    def _range(self, context: Mapping[str, Any], plan: Plan, *, named: bool) -> Window | None:
        from influxdb_backup.windows import parse_window, with_zone

        start, end = given(self.start), given(self.end)
        if not start and not end:
            return None if named else self.window(context, plan)
        if not start or not end:
            raise UsageError(
                "The range to restore needs start and end.", hint="Give both, such as 2026-01-31T00:00:00Z."
            )
        return parse_window(with_zone(start), with_zone(end))

    def _tell_plan(self, planned: RestorePlan, context: Mapping[str, Any]) -> dict[str, Any]:
        from influxdb_backup.archive.layout import say_id
        from influxdb_backup.windows import format_instant, say_window

        refused = [refusal.kind for refusal in planned.refusals]
        for line in (
            f"DRY RUN, nothing was changed. It would{' be REFUSED, see below; else it would' if refused else ''}",
            f"restore {say_window(planned.window)}, of {counted(len(planned.refs), 'backup')} ({size(planned.bytes)})",
            f"into {planned.target_server}, database {planned.target_database}: at most {counted(planned.rows, 'row')}",
            *(f"read {say_id(ref)}: {ref}" for ref in planned.refs),
            *(f"create {name}" for name in planned.creates),
            *(f"keep for ever {name}" for name in planned.infinite),
            *(f"separate types in {name}" for name in planned.separated),
            *(f"widen {name}" for name in planned.widens),
            *(f"leave out {name}" for name in planned.drops),
            *(f"write {table.source} as {table.target}: at most {table.rows:,} rows" for table in planned.tables),
        ):
            self.log.info("%s", line)
        for gap in planned.gaps:
            self.log.warning("no backup of %s", gap)
        for refusal in planned.refusals:
            for line in folded(in_form_words(f"It would be REFUSED ({refusal.kind}): {refusal.message}")):
                self.log.warning("%s", line)
            for line in folded(in_form_words(f"What to do: {refusal.hint}")):
                self.log.warning("%s", line)
        words = f"{counted(planned.rows, 'row')}, nothing written"
        if refused:
            words = f"would be REFUSED ({', '.join(refused)}), nothing written"
        self.told(context, f"DRY RUN -> {planned.target_database}: {words}")
        return {
            "dry_run": True,
            "refused": refused,
            "start": format_instant(planned.window.start),
            "end": format_instant(planned.window.end),
            "target_server": planned.target_server,
            "target_database": planned.target_database,
            "refs": len(planned.refs),
            "backups": list(planned.refs[:MOST_IDS]),
            "tables": len(planned.tables),
            "rows": planned.rows,
            "bytes": planned.bytes,
            "creates": len(planned.creates),
            "drops": len(planned.drops),
            "gaps": len(planned.gaps),
        }

    def _tell(self, report: RestoreReport, request: RestoreRequest, context: Mapping[str, Any]) -> dict[str, Any]:
        self.log.info(
            "Restored %s of %s into %s, database %s, %s, in %s; %s were read back.",
            counted(report.rows, "row"), counted(report.tables, "table"), report.target_server,
            report.target_database, "as whole shards" if report.writer == "shard" else "by line protocol",
            seconds(report.seconds), report.proved_by,
        )  # fmt: skip
        for line in _warnings(report):
            self.log.warning("%s", line)
        words = [f"-> {report.target_database}: {counted(report.rows, 'row')}", seconds(report.seconds)]
        words += [f"{number(len(report.lost))} LOST"] if report.lost else []
        words += [counted(report.rejects, "reject")] if report.rejects else []
        self.told(context, " · ".join(words))
        return {
            "restore_id": report.restore_id,
            **_range_of(request, report.refs),
            "target_server": report.target_server,
            "target_database": report.target_database,
            "refs": len(report.refs),
            "backups": list(report.refs[:MOST_IDS]),
            "tables": report.tables,
            "rows": report.rows,
            "values": report.values,
            "rejects": report.rejects,
            "lost": len(report.lost),
            "seconds": round(report.seconds, 3),
        }


def _warnings(report: RestoreReport) -> Iterator[str]:
    """What of a restore is not as a person expects it, a line for each."""
    if not report.rows and not report.dropped_points:
        yield "No point was restored: the backups hold none of this range with these names and tags."
    for name in report.infinite:
        yield f"Created {name} to keep points for ever: the source's duration would drop them."
    for name in report.separated:
        yield f"Created {name}: shard groups that keep types of fields apart."
    for name in report.widened:
        yield f"Widened {name}: it existed, and now keeps points for ever."
    for gap in report.gaps:
        yield f"Not restored: no backup of {gap}."
    for lost in report.lost:
        yield f"LOST: {lost.path}: {lost}"
    if report.dropped_points:
        yield f"Not written: {number(report.dropped_points)} points older than the target keeps."
    if report.written_again:
        yield "Written twice: the first time the server had confirmed points that it did not hold."
    if report.rejects:
        yield f"Refused: {number(report.rejects)} points, kept in {report.reject_file}."
        yield from report.reject_reasons


def _range_of(request: RestoreRequest, refs: Sequence[str]) -> dict[str, str]:
    """Start and end of what was restored: as asked, else what the named backups hold together."""
    from influxdb_backup.archive.layout import REFS, parse_ref_key
    from influxdb_backup.windows import format_instant

    windows = [request.window] if request.window else []
    windows += [] if windows else [found.window for ref in refs if (found := parse_ref_key(f"{REFS}{ref}.json"))]
    if not windows:
        return {}
    return {
        "start": format_instant(min(window.start for window in windows)),
        "end": format_instant(max(window.end for window in windows)),
    }


def names(name: str, value: Any) -> tuple[str, ...] | None:
    """A list of names; an empty one is none. Raises UsageError for a single text, whose letters would be the names."""
    if not given(value):
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise UsageError(f"{name} is {value!r}, not a list.", hint=f"Write [{value!r}].")
    return tuple(str(item) for item in value)


def pairs(name: str, value: Any) -> dict[str, str]:
    """Texts by texts. Raises UsageError for anything else."""
    if not given(value):
        return {}
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} is {value!r}, not a mapping.", hint='Write {"host": "a"}.')
    return {str(key): str(text) for key, text in value.items()}


def count(name: str, value: Any) -> int:
    """A whole number, or the text a template renders one to. Raises UsageError for anything else."""
    try:
        return int(str(value))
    except ValueError:
        raise UsageError(f"{name} is {value!r}.", hint="Give a whole number.") from None


def restore_id_of(context: Mapping[str, Any]) -> str:
    """An id that every try of one task run shares, and no other task run has."""
    task = context["ti"]
    return identity(task.run_id, task.dag_id, task.task_id, str(task.map_index))
