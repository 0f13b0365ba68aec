"""Parts: from record batches to hashed, uploaded objects, and from objects back to record batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from influxdb_backup.archive.fetching import FetchedParts
from influxdb_backup.archive.layout import check_key
from influxdb_backup.archive.parquet import (
    Normaliser,
    ParquetFile,
    has_tag,
    in_window,
    read_batches,
    sliced,
)
from influxdb_backup.archive.salvage import LostRows, describe_damage, read_salvaged
from influxdb_backup.archive.store import Store, file_digest, is_disk_full
from influxdb_backup.errors import BackupNotFoundError, IntegrityError, StoreError, UsageError
from influxdb_backup.fingerprint import TableFingerprint, add_fingerprints
from influxdb_backup.model import (
    Column,
    FieldCount,
    InfluxType,
    Part,
    Table,
    TableEntry,
    Window,
    encode_name,
    printable,
)
from influxdb_backup.temporary import temporary_folder
from influxdb_backup.windows import format_window

PART_BYTES = 256 << 20
"""a part that has grown to this size is closed and the next one begun"""
_AT_ONCE = 2
"""parts that are written in turns"""
_WORTH_A_THREAD = 1 << 20
"""bytes of a part that is hashed while it is uploaded: for a small one a thread costs more than it saves"""
_FEWEST_ROWS = 4096
"""of a row group after which the other part has its turn: of long texts one at a time is in memory"""


@dataclass(frozen=True)
class PartPlace:
    """Where a writer's parts go, and what stands in their metadata."""

    plan: str
    window: Window
    table: Table
    piece: Window
    temporary: Path
    """what the local files are called that parts are written to before their upload; no other writer has the name"""
    next_key: Callable[[], str]
    """a key that nobody else was given"""
    uploaded: Callable[[str], None]
    """told of each key before its upload begins"""
    upload: Callable[[Path, str], None]
    """uploads a small file beside what follows, and removes it here; raises the error of an earlier one"""
    withdraw: Callable[[tuple[str, ...]], None]
    """removes uploaded objects that are not wanted, as far as the store lets it"""
    find_equal: Callable[[TableFingerprint, tuple[Column, ...]], Part | None] = lambda *_: None
    """an unharmed part of the window's last revision that holds exactly these points of the piece, if there is one"""


@dataclass
class _Open:
    """A part that is being written."""

    file: ParquetFile
    fingerprint: TableFingerprint


class PartWriter:
    """
    Writes the points of one table in one piece of the window as parts of about 256 MB.

    Give it batches with the seam's schema; a batch whose column set or text encoding differs from the one before
    begins new parts. From the second row group on two parts are written in turns, each encoded by a thread of its own,
    since encoding takes longer than all the rest. Nothing that is written is part of a backup before
    ``Attempt.commit``. Not for use by two threads at once.
    """

    def __init__(self, store: Store, place: PartPlace, schema: pa.Schema) -> None:
        self._store = store
        self._place = place
        self._normalise = Normaliser(schema)
        self._open: dict[int, _Open] = {}
        self._turn = 0
        self._files = 0
        self._schema: pa.Schema | None = None
        self._parts: list[Part] = []
        self._keys: list[str] = []
        self._closed = False

    @property
    def rows(self) -> int:
        """Points written so far."""
        return sum(part.fingerprint.rows for part in self._open.values()) + sum(part.rows for part in self._parts)

    @property
    def totals(self) -> dict[str, int]:
        """Values written so far by field, of all its types."""
        counts = [count for part in self._open.values() for count in part.fingerprint.counts]
        totals: dict[str, int] = {}
        for count in [*counts, *(count for part in self._parts for count in part.counts)]:
            totals[count.name] = totals.get(count.name, 0) + count.count
        return totals

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds points. Raises StoreError when a disk is full or an upload fails, FormatError for a bad schema."""
        if self._closed:
            raise UsageError("The part writer is closed.")
        if not batch.num_rows:
            return
        for rows in sliced(self._normalise(batch)):
            if self._schema is not None and not self._schema.equals(rows.schema, check_metadata=True):
                self._roll(sorted(self._open))
                self._turn = 0
            self._schema = rows.schema
            self._add(rows)

    def _add(self, rows: pa.RecordBatch) -> None:
        with self._writing():
            part = self._open.get(self._turn) or self._begun(rows.schema)
            passed_on = part.file.write(rows)
        part.fingerprint.add(rows)
        if part.file.size >= PART_BYTES:
            self._roll([self._turn])
        if passed_on >= _FEWEST_ROWS:
            self._turn = (self._turn + 1) % _AT_ONCE

    def _begun(self, schema: pa.Schema) -> _Open:
        place = self._place
        self._files += 1
        temporary = place.temporary.with_name(f"{place.temporary.stem}-{self._files}{place.temporary.suffix}")
        beside = next(iter(self._open.values()), None)
        file = ParquetFile(
            temporary,
            schema,
            plan=place.plan,
            window=place.window,
            table=place.table,
            piece=place.piece,
            beside=beside.file if beside else None,
        )
        self._open[self._turn] = _Open(file, TableFingerprint(place.table.measurement))
        return self._open[self._turn]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise local_disk_error(self._place.temporary.parent, error) from error

    def _roll(self, turns: Sequence[int]) -> None:
        """Finishes open parts, hashes them as stored, uploads them and removes them here; two at once."""
        parts = [self._open[turn] for turn in turns]
        keys = [self._place.next_key() for _ in parts]
        self._keys += keys
        if len(parts) == 1:
            finished = [self._finished(parts[0], keys[0])]
        else:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="finish") as pool:
                finished = list(pool.map(self._finished, parts, keys))
        self._parts += finished
        for turn in turns:
            del self._open[turn]

    def _finished(self, part: _Open, key: str) -> Part:
        path = part.file.path
        with self._writing():
            part.file.close()
        equal = self._place.find_equal(part.fingerprint, part.file.columns)
        if equal is not None:
            path.unlink()
            return equal
        self._place.uploaded(key)
        if part.file.size < _WORTH_A_THREAD:
            with self._writing():
                size, digest = file_digest(path)
            self._place.upload(path, key)
        else:
            with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
                hashing = pool.submit(file_digest, path)
                self._store.upload(path, key)
                with self._writing():
                    size, digest = hashing.result()
            path.unlink()
        return self._describe(key, size, digest, part.file.columns, part.fingerprint)

    def _describe(self, key: str, size: int, digest: str, columns: tuple[Column, ...], seen: TableFingerprint) -> Part:
        piece = self._place.piece
        if seen.min_time is None or seen.max_time is None:
            raise IntegrityError(f"A part of {self._place.table} has no rows.")
        if seen.min_time < piece.start or seen.max_time >= piece.end:
            raise IntegrityError(
                f"Points of {self._place.table} lie outside of the piece {format_window(piece)} they were read for: "
                f"{seen.min_time} to {seen.max_time} ns.",
                kind="outside-piece",
            )
        return Part(
            path=key,
            size=size,
            sha256=digest,
            rows=seen.rows,
            min_time=seen.min_time,
            max_time=seen.max_time,
            piece=piece,
            columns=columns,
            counts=seen.counts,
            fingerprint=seen.hexadecimal,
        )

    def close(self) -> tuple[Part, ...]:
        """All parts, hashed, and uploaded or about to be; none when no point was written."""
        if not self._closed:
            self._roll(sorted(self._open))
            self._closed = True
        return tuple(self._parts)

    def discard(self) -> None:
        """Gives up: removes the local files, and the uploaded objects as far as the store lets it."""
        self._closed = True
        for part in self._open.values():
            part.file.abandon()
            part.file.path.unlink(missing_ok=True)
        self._open = {}
        self._parts = []
        keys, self._keys = tuple(self._keys), []
        self._place.withdraw(keys)


def local_disk_error(folder: Path, error: OSError) -> StoreError:
    """What an error of the disk that holds the temporary files means."""
    full = is_disk_full(error)
    return StoreError(
        f"{'No space is left' if full else 'Cannot write'} in the temporary folder {folder}: {error}.",
        hint="Free space, or set TMPDIR to a folder with room for a few parts of 256 MB."
        if full
        else "Look at the disk, the rights and the limits (ulimit) there, or set TMPDIR to another folder.",
        kind="disk-full" if full else None,
    )


def table_entry(number: int, table: Table, columns: tuple[Column, ...], parts: tuple[Part, ...]) -> TableEntry:
    """
    One table of a manifest from its parts.

    ``columns`` is what the server's schema lists; columns that only the parts have are appended.
    """
    union = dict.fromkeys([*columns, *(column for part in parts for column in part.columns)])
    counts: dict[tuple[str, InfluxType], int] = {}
    for count in (count for part in parts for count in part.counts):
        counts[count.name, count.type] = counts.get((count.name, count.type), 0) + count.count
    return TableEntry(
        number=number,
        table=table,
        columns=tuple(union),
        rows=sum(part.rows for part in parts),
        counts=tuple(
            FieldCount(name=name, type=kind, count=count)
            for (name, kind), count in sorted(counts.items(), key=lambda item: (encode_name(item[0][0]), item[0][1]))
        ),
        min_time=min((part.min_time for part in parts), default=None),
        max_time=max((part.max_time for part in parts), default=None),
        fingerprint=add_fingerprints(part.fingerprint for part in parts),
        parts=parts,
    )


def part_path(part: Part) -> str:
    """The part's key. Raises IntegrityError when it would leave the repository."""
    try:
        return check_key(part.path)
    except UsageError:
        raise IntegrityError(
            f"The path {printable(part.path)!r} of a part leaves the repository: the manifest is not ours.", kind="path"
        ) from None


@contextmanager
def part_file(store: Store, part: Part, fetched: FetchedParts | None = None) -> Iterator[Path]:
    """
    The part as a local file whose size and sha256 were just proved; a downloaded copy is removed at the end.

    The copy is taken from ``fetched`` where it is there.
    Raises IntegrityError naming the key when the part is missing or its bytes are not those that were written.
    """
    key = part_path(part)
    local = store.local_path(key)
    with ExitStack() as temporary:
        folder = ""
        try:
            if local is None and fetched is not None and (local := fetched.take(part)) is not None:
                folder = str(local.parent)
                temporary.callback(local.unlink, missing_ok=True)
                size, digest = file_digest(local)
            elif local is None:
                folder = temporary.enter_context(temporary_folder())
                local = Path(folder) / "part.parquet"
                store.download(key, local)
                size, digest = file_digest(local)
            else:
                size, digest = store.digest(key)
        except BackupNotFoundError:
            raise IntegrityError(f"{store.url} no longer holds {key}.", kind="missing") from None
        except OSError as error:
            raise StoreError(f"Cannot read the copy of {key} in {folder}: {error}.") from error
        if size != part.size:
            raise IntegrityError(f"{key} has {size} bytes instead of {part.size}.", kind="size")
        if digest != part.sha256:
            raise IntegrityError(
                f"{key} has the digest {digest} instead of {part.sha256}. {describe_damage(local, part)}", kind="digest"
            )
        yield local


def read_part(
    store: Store,
    part: Part,
    *,
    window: Window | None = None,
    tags: Mapping[str, str] | None = None,
    large: bool = False,
    fetched: FetchedParts | None = None,
) -> Iterator[pa.RecordBatch]:
    """
    The points of a part within a half-open window and with all of the given tag values, in file order.

    The bytes are proved before the first batch comes. A tag value of ``""`` selects points without that tag.
    Batches have the seam's schema and are bounded as ``read_batches`` says (``large`` too); empty ones are left out.
    Raises IntegrityError, and FormatError when the bytes are right but cannot be decoded.
    """
    with part_file(store, part, fetched) as path:
        yield from _select(read_batches(path, part.path, large=large, rows=part.rows), part, window, tags)


def read_part_salvaged(
    store: Store,
    part: Part,
    measurement: str,
    on_lost: Callable[[LostRows], None],
    *,
    window: Window | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """
    As ``read_part``, but of a damaged part what is whole: ``on_lost`` is told of each stretch of rows that is not.

    That happens before the first batch, also for stretches outside of ``window``; of a part that is missing, cut or
    cannot be judged all rows are lost. Raises the store's errors: what cannot be reached is not lost.
    """
    with temporary_folder() as folder:
        copy = Path(folder) / "part.parquet"
        try:
            store.download(part_path(part), copy)
            whole = file_digest(copy) == (part.size, part.sha256)
            batches = (
                read_batches(copy, part.path, rows=part.rows)
                if whole
                else read_salvaged(copy, part, measurement, Path(folder) / "mended.parquet", on_lost)
            )
            yield from _select(batches, part, window, tags)
        except (BackupNotFoundError, IntegrityError) as error:
            on_lost(
                LostRows(
                    path=part.path,
                    first_row=0,
                    rows=part.rows,
                    min_time=part.min_time,
                    max_time=part.max_time,
                    column=None,
                    reason=error.message,
                )
            )


def _select(
    batches: Iterator[pa.RecordBatch], part: Part, window: Window | None, tags: Mapping[str, str] | None
) -> Iterator[pa.RecordBatch]:
    """The rows in the window and with the tag values; empty batches are left out."""
    within = window if window and not (window.start <= part.min_time and part.max_time < window.end) else None
    for batch in batches:
        mask = in_window(batch, within) if within else None
        for name, value in (tags or {}).items():
            has = has_tag(batch, name, value)
            mask = has if mask is None else pc.and_(mask, has)
        selected = batch if mask is None else batch.filter(mask)
        if selected.num_rows:
            yield selected
