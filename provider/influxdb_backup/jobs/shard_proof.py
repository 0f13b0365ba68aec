"""
Proof that the shards of a restore arrived and answer queries.

The files of every shard are fetched again, and must be the very ones that were sent, byte for byte; of a shard that the
server has made other files of since, every value is read and compared. And every field of every table is counted by the
server (``count(*)``). Where that would take longer than to fetch the files, the shard must know every field with its
type, and count all rows of each table by a field that all rows have, or by every field where none has.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from influxdb_backup.errors import InfluxdbBackupError, ServerError, SourceError, TargetError
from influxdb_backup.influx.protocol import NewShards
from influxdb_backup.jobs.compare import refuse_other_content
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.jobs.read_back import Expected, ReadBack
from influxdb_backup.jobs.restore_run import RestoreRun
from influxdb_backup.jobs.shard_building import BuiltGroup
from influxdb_backup.jobs.shard_pipeline import SENDERS, TELL_SECONDS, SentGroup
from influxdb_backup.messages import logger_of
from influxdb_backup.model import MAX_END, MIN_TIME, InfluxType, TableSchema, Window, printable
from influxdb_backup.windows import format_window, intersect

logger = logger_of(__name__)

_EVER = Window(start=MIN_TIME, end=MAX_END)
_PROVERS = 2
"""groups that are proved at a time: the server reads one while another is looked at here"""
COUNTED_PER_SECOND = 20_000_000
"""values that a server counts in a second at best, about (1.6.7: 10 million, 2.9.1: 50 million, two cores)"""
_CHEAPEST = (InfluxType.BOOLEAN, InfluxType.INTEGER, InfluxType.UNSIGNED, InfluxType.FLOAT, InfluxType.STRING)
"""types of fields, those first whose blocks a server decodes quickest"""
KEYS_PER_SECOND = 100_000
"""fields of series that a server begins to count in a second, or takes into its index, about (1.6.7: 90,000 each)"""


def prove(run: RestoreRun, made: NewShards, sent: Sequence[SentGroup]) -> None:
    """Raises TargetError (``read-back-differs``) and the errors of a request when something did not arrive."""
    seconds_sent = sum(group.seconds for group in sent) / SENDERS
    counting = sum(group.built.totals.values for group in sent) / COUNTED_PER_SECOND
    keys = sum(group.built.keys for group in sent) / KEYS_PER_SECOND
    by_files = seconds_sent - keys < counting + keys
    pool = ThreadPoolExecutor(_PROVERS, thread_name_prefix="proof")
    try:
        futures = [pool.submit(_prove_group, run, made, group, by_files=by_files) for group in sent]
        for position, future in enumerate(futures):
            while not wait([future], TELL_SECONDS).done:
                _tell(run, position, sent)
            future.result()
            _tell(run, position + 1, sent)
    except InfluxdbBackupError:
        pool.shutdown(cancel_futures=True)  # a database is not dropped well while it is read
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _tell(run: RestoreRun, done: int, sent: Sequence[SentGroup]) -> None:
    run.progress(Progress("read-back", done, len(sent), 0, 0, printable(sent[min(done, len(sent) - 1)].built.policy)))


def _prove_group(run: RestoreRun, made: NewShards, sent: SentGroup, *, by_files: bool) -> None:
    group = sent.built
    window = intersect(group.window, run.reads.window)
    if window is not None and not _arrived(run, made, sent, window, by_files=by_files):
        ReadBack(
            run.target.server,
            made.database,
            window,
            group.totals.expected,
            mixed=frozenset(),
            exact=True,
        ).prove()


def _arrived(run: RestoreRun, made: NewShards, sent: SentGroup, window: Window, *, by_files: bool) -> bool:
    """
    Whether the server answers from the files that were sent; False leaves that to a full count.

    Raises TargetError (``read-back-differs``) when it has other files, and other values in them.
    """
    group = sent.built
    with ThreadPoolExecutor(1, thread_name_prefix="files") as pool:
        files = pool.submit(_has_the_files, made, sent)
        answers = by_files and _has_the_fields(run, made, group, window) and _answers(run, made, group, window)
        has_files = files.result()
    if not has_files:
        try:
            refuse_other_content(run, made.database, group.policy, window)
        except SourceError as error:  # a block that is damaged there was whole here
            raise TargetError(
                f"A shard of {printable(made.database)} did not arrive as it was sent: {error.message}",
                kind="read-back-differs",
                hint="Look at the way to the server (TLS, proxies, its disk), then run the restore again.",
            ) from error
    return answers and has_files


def _has_the_files(made: NewShards, sent: SentGroup) -> bool:
    group = sent.built
    try:
        held = made.digests(group.policy, group.window)
    except ServerError as error:
        logger.info("The values of a shard of %s are compared: %s", printable(group.policy), error)
        return False
    return held == sent.digests


def _has_the_fields(run: RestoreRun, made: NewShards, group: BuiltGroup, window: Window) -> bool:
    """
    Whether the group's shard knows every field of every table with its type.

    A server that was killed once it had the files, and before their fields were in the shard's list, never reads them
    again where that list is not empty: 1.x with ``index-version = "tsi1"`` and 2.x (run on 1.6.7 and 1.12.4).
    """
    server, database = run.target.server, made.database
    return all(
        server.has_fields(database, table, window, fields) for table, fields in group.totals.table_fields.items()
    )


def _answers(run: RestoreRun, made: NewShards, group: BuiltGroup, window: Window) -> bool:
    """Whether every table counts its rows."""
    server, database = run.target.server, made.database
    for table, rows in group.totals.table_rows.items():
        counts = {
            name: count
            for name, count in group.totals.expected.of(table).items()
            if name not in server.dialect.index_fields  # which the files alone prove
        }
        types = {column.name: column.type for column in group.totals.table_fields[table]}
        whole = [name for name, count in counts.items() if count == rows]
        if whole:
            always = min(whole, key=lambda name: _CHEAPEST.index(types[name]))
            counts, found = {always: rows}, {always: server.count(database, table, window, always)}
        else:
            found = dict(server.counts(database, table.retention_policy, table.measurement, window, sorted(counts)))
        if any(found.get(name, 0) != count for name, count in counts.items()):
            return False
    return True


def others_points(run: RestoreRun, made: NewShards, built: Sequence[BuiltGroup]) -> str | None:
    """What the new database has more than was sent, in a few words; None when nobody else has written into it."""
    server, wanted = run.target.server, {(group.policy, group.window): group.totals.expected for group in built}
    for policy in server.retention_policies(made.database):
        found = server.schema(made.database, policy.name)
        if found.unreadable:
            return f"the measurement {found.unreadable[0].table}"
        pieces = server.pieces(made.database, policy.name, _EVER) if found.tables else ()
        for schema in found.tables:
            for piece in pieces:
                if _has_more(run, made, schema, piece, wanted.get((policy.name, piece), Expected())):
                    return f"more points of {schema.table} in {format_window(piece)}"
    return None


def _has_more(run: RestoreRun, made: NewShards, schema: TableSchema, piece: Window, expected: Expected) -> bool:
    table, sent = schema.table, expected.of(schema.table)
    fields = sorted({column.name for column in schema.fields})
    counts = run.target.server.counts(made.database, table.retention_policy, table.measurement, piece, fields)
    return any(count > sent.get(name, 0) for name, count in counts.items())
