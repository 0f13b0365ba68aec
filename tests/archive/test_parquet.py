"""Parts: every type and hostile text comes back bit by bit, in bounded memory, and what the file says is true."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influxdb_backup.archive import parquet, parts
from influxdb_backup.archive.parquet import (
    ORDER_KEY,
    ROW_GROUP_ROWS,
    SLICE_BYTES,
    Normaliser,
    ParquetFile,
    described,
    read_batches,
    row_bytes,
    sliced,
)
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import Store, open_store
from influxdb_backup.columns import TIME, TIME_TYPE, arrow_schema, batch_columns
from influxdb_backup.errors import FormatError, IntegrityError, StoreError
from influxdb_backup.fingerprint import fingerprint_batches
from influxdb_backup.model import MAX_END, MIN_TIME, Column, InfluxType, Part, Role, Table, Window, decode_name
from tests.archive.build import ALL_FIELDS, COLUMNS, DAY, HOST, SECOND, TABLE, Row, batch, rows, wait_for_upload

EVER = Window(start=MIN_TIME, end=MAX_END)

hostile = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["", "\x00", "\n", '"', "\\", "a\\", "🦊" * 20, "x" * 70_000, "=, ", "é", "e\u0301", "\r\n\t", "\ufeff"]
)
raw_names = st.binary(min_size=1, max_size=40).map(decode_name) | hostile.filter(bool)
values = {
    InfluxType.FLOAT: st.floats(allow_nan=False, allow_infinity=False, width=64)
    | st.sampled_from([-0.0, 5e-324, 1.7976931348623157e308, 2.2250738585072014e-308]),
    InfluxType.INTEGER: st.integers(-(2**63), 2**63 - 1),
    InfluxType.UNSIGNED: st.integers(0, 2**64 - 1),
    InfluxType.STRING: hostile,
    InfluxType.BOOLEAN: st.booleans(),
}


def bits(value: object) -> object:
    """Floats by their bits, since -0.0 == 0.0."""
    return struct.pack("<d", value) if isinstance(value, float) else value


def points(batches: Sequence[pa.RecordBatch]) -> Counter[tuple[object, ...]]:
    """Time, tags and fields of every row, by role, name and type; nulls left out."""
    found: Counter[tuple[object, ...]] = Counter()
    for one in batches:
        columns = batch_columns(one.schema)
        lists = [column.to_pylist() for column in one.columns[1:]]
        for n, time in enumerate(one.column(0).cast(pa.int64()).to_pylist()):
            row: list[object] = [time]
            for column, column_values in zip(columns, lists, strict=True):
                value = column_values[n]
                if value is not None:
                    raw = value.encode() if isinstance(value, str) else value
                    row.append((column.role, column.name, column.type, bits(raw)))
            found[tuple(row)] += 1
    return found


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], list[Row]]:
    """Columns with hostile and colliding names, and rows of extreme values."""
    tag_names = draw(st.lists(raw_names, max_size=3, unique=True))
    field_names = draw(
        st.lists(raw_names | st.sampled_from(tag_names or ["time"]), min_size=1, max_size=4, unique=True)
    )
    columns = [Column(role=Role.TAG, name=name, type=InfluxType.TAG) for name in tag_names]
    kinds = draw(st.lists(st.sampled_from(list(values)), min_size=len(field_names), max_size=len(field_names)))
    columns += [Column(role=Role.FIELD, name=name, type=kind) for name, kind in zip(field_names, kinds, strict=True)]
    row = st.tuples(
        st.integers(MIN_TIME, MAX_END - 1),
        *[st.none() | (hostile.filter(bool) if c.role is Role.TAG else values[c.type]) for c in columns],
    )
    return columns, draw(st.lists(row, min_size=1, max_size=12))


def write(folder: Path, batches: Sequence[pa.RecordBatch], name: str = "x.parquet") -> Path:
    """One file with these batches."""
    path = folder / name
    with ParquetFile(
        path, Normaliser(batches[0].schema)(batches[0]).schema, plan="p", window=EVER, table=TABLE, piece=EVER
    ) as file:
        for one in batches:
            for rows_ in sliced(Normaliser(one.schema)(one)):
                file.write(rows_)
    return path


@given(tables())
@settings(max_examples=50)
def test_every_value_and_name_round_trips(tmp_path: Path, table: tuple[list[Column], list[Row]]) -> None:
    """Floats by bits, integers to their limits, any text, any bytes in names, colliding names, holes."""
    columns, table_rows = table
    written = batch(columns, table_rows)
    read = list(read_batches(write(tmp_path, [written]), "x"))
    assert points(read) == points([written])
    assert all(one.schema.equals(written.schema, check_metadata=True) for one in read)
    assert fingerprint_batches("m", read).hexadecimal == fingerprint_batches("m", [written]).hexadecimal


def test_bytes_that_are_not_utf8_round_trip(tmp_path: Path) -> None:
    """As binary columns: tag values and strings."""
    text = Column(role=Role.FIELD, name="s", type=InfluxType.STRING)
    written = batch([HOST, text], [(1, b"\xff\x00", b"\xc3("), (2, None, None)], frozenset({HOST, text}))
    read = list(read_batches(write(tmp_path, [written]), "x"))
    assert points(read) == points([written])
    assert read[0].schema.field("s").type == pa.binary()
    assert read[0].schema.field("host").type == pa.dictionary(pa.int32(), pa.binary())


def test_what_is_read_at_once_is_bounded(tmp_path: Path) -> None:
    """About 4 MB, or a row group of numbers for whom each batch costs much: texts never, hashing needs copies of them."""
    count, fields = 100_000, [Column(role=Role.FIELD, name=f"v{n}", type=InfluxType.FLOAT) for n in range(5)]
    numbers = batch(fields, [(number, *[float(number)] * 5) for number in range(count)])
    path = write(tmp_path, [numbers, numbers], "numbers.parquet")
    read = list(read_batches(path, "x"))
    assert sum(one.num_rows for one in read) == 2 * count
    assert max(row_bytes(one) for one in read) <= SLICE_BYTES
    read = list(read_batches(path, "x", large=True))
    assert [one.num_rows for one in read] == [ROW_GROUP_ROWS // 8, ROW_GROUP_ROWS, 2 * count - ROW_GROUP_ROWS * 9 // 8]
    text = Column(role=Role.FIELD, name="s", type=InfluxType.STRING)
    texts = batch([text], [(number, f"{number:0100d}") for number in range(count)])
    for large in (False, True):
        read = list(read_batches(write(tmp_path, [texts, texts], "texts.parquet"), "x", large=large))
        assert sum(one.num_rows for one in read) == 2 * count
        assert max(row_bytes(one) for one in read) <= SLICE_BYTES


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    """Without the manifest: table, piece and every column's role, exact name and type, also for InfluxDB 3's tools."""
    table = Table(retention_policy="autogen", measurement="weather \udcff")
    path = tmp_path / "x.parquet"
    schema = batch(COLUMNS, rows()).schema
    with ParquetFile(path, schema, plan="p", window=DAY, table=table, piece=DAY) as file:
        file.write(batch(COLUMNS, rows()))
    said = described(path, "x")
    assert Table.model_validate(said["table"]) == table
    assert Window.model_validate(said["piece"]) == DAY
    assert said["columns"][0] == {"column": "time", "role": "time", "name": "time", "type": "timestamp"}  # type: ignore[index]
    assert [Column.model_validate(column) for column in said["columns"][1:]] == list(COLUMNS)  # type: ignore[index]
    field = pq.read_schema(path).field("v float")
    assert field.metadata[b"iox::column::type"] == b"iox::column_type::field::float"
    with pytest.raises(FormatError):
        described(Path(__file__), "this is no part")


def test_encodings_are_those_of_the_format(tmp_path: Path) -> None:
    """Zstd everywhere; byte stream split, delta and dictionary where the format says so."""
    metadata = pq.read_metadata(write(tmp_path, [batch(COLUMNS, rows(count=200))]))
    columns = [metadata.row_group(0).column(n) for n in range(metadata.num_columns)]
    encodings = {column.path_in_schema: set(column.encodings) for column in columns}
    assert {column.compression for column in columns} == {"ZSTD"}
    assert "DELTA_BINARY_PACKED" in encodings["time"] & encodings["v integer"] & encodings["v unsigned"]
    assert "BYTE_STREAM_SPLIT" in encodings["v float"]
    assert "RLE_DICTIONARY" in encodings["host"] & encodings["v string"]
    assert metadata.row_group(0).sorting_columns == ()


def test_row_groups_say_which_times_and_series_they_hold(tmp_path: Path) -> None:
    """Least and greatest of time and tags stand in the file, so that readers skip row groups; of fields none."""
    metadata = pq.read_metadata(write(tmp_path, [batch(COLUMNS, rows(count=200))]))
    columns = [metadata.row_group(0).column(n) for n in range(metadata.num_columns)]
    noted = {column.path_in_schema for column in columns if column.is_stats_set and column.statistics.has_min_max}
    assert noted == {"time", "host"}


@pytest.mark.parametrize(
    ("order", "claimed"),
    [
        ([("a", 1), ("a", 2), ("b", 1)], True),
        ([("b", 5), ("a", 1), ("a", 9)], True),
        ([(None, 1), ("a", 1), ("a", 2)], True),
        ([("a", 2), ("a", 1), ("b", 1)], False),
        ([("a", 1), ("b", 1), ("a", 2)], False),
        ([("a", 1), ("a", 1)], False),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 10])
def test_the_order_is_claimed_only_when_it_holds(
    tmp_path: Path, order: list[tuple[str | None, int]], claimed: bool, size: int
) -> None:
    """Series contiguous, time ascending: proved across batches, never assumed."""
    made = [(time, tag, 1.0, None, None, None, None) for tag, time in order]
    batches = [batch(COLUMNS, made[n : n + size]) for n in range(0, len(made), size)]
    metadata = pq.read_metadata(write(tmp_path, batches)).metadata
    assert (ORDER_KEY in metadata) is claimed


def test_row_groups_are_bounded_by_bytes_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 KB strings make short row groups, one dictionary for all rows does not make tiny ones."""
    text = Column(role=Role.FIELD, name="s", type=InfluxType.STRING)
    big = batch([HOST, text], [(n, f"host {n % 3}", f"{n:05d}" * 13_000) for n in range(700)])
    assert big.nbytes > parquet.ROW_GROUP_BYTES
    metadata = pq.read_metadata(write(tmp_path, [big]))
    assert metadata.num_row_groups in {3, 4}
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 100)
    metadata = pq.read_metadata(write(tmp_path, [batch(COLUMNS, rows(count=125))] * 2))
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [12, 100, 100, 100, 100, 88]
    wide = pa.array([f"{n:06d}" * 100 for n in range(70_000)]).dictionary_encode().slice(0, 5_000)
    schema = arrow_schema([HOST])
    series = pa.RecordBatch.from_arrays([pa.array(range(5_000), pa.int64()).cast(TIME_TYPE), wide], schema=schema)
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 131_072)
    assert pq.read_metadata(write(tmp_path, [series])).num_row_groups == 1


def test_a_dictionary_of_unused_entries_is_not_stored(tmp_path: Path) -> None:
    """A batch that is a slice of a large one does not carry all of its tags."""
    wide = pa.array([f"{n:06d}" * 10 for n in range(70_000)]).dictionary_encode().slice(0, 10)
    times = pa.array(range(10), pa.int64()).cast(TIME_TYPE)
    one = pa.RecordBatch.from_arrays([times, wide], schema=arrow_schema([HOST]))
    assert write(tmp_path, [one]).stat().st_size < 10_000


def test_large_strings_and_plain_tags_are_taken(tmp_path: Path) -> None:
    """``large_string`` and tags that are no dictionary become the seam's own types."""
    text = Column(role=Role.FIELD, name="s", type=InfluxType.STRING)
    good = batch([HOST, text], [(1, "a", "x"), (2, None, None)])
    schema = good.schema.set(1, good.schema.field(1).with_type(pa.string()))
    schema = schema.set(2, schema.field(2).with_type(pa.large_string()))
    odd = pa.RecordBatch.from_arrays(
        [good.column(0), good.column(1).dictionary_decode(), good.column(2).cast(pa.large_string())], schema=schema
    )
    assert Normaliser(odd.schema)(odd).equals(good)
    missing = pa.RecordBatch.from_arrays(
        [pa.array([1, None], pa.int64()).cast(TIME_TYPE), good.column(1), good.column(2)], names=good.schema.names
    )
    fields = [good.schema.field(0).with_nullable(True), *list(good.schema)[1:]]
    with pytest.raises(FormatError, match="no time"):
        Normaliser(good.schema)(pa.RecordBatch.from_arrays(missing.columns, schema=pa.schema(fields)))


# parts of an attempt


def all_points(repository: Repository, found: Sequence[Part]) -> Counter[tuple[object, ...]]:
    """What the parts hold."""
    wait_for_upload(repository, found)
    return points([one for part in found for one in repository.read_part(part)])


def test_parts_roll_over(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a size, each with its own counts, bounds and fingerprint, and together they are everything."""
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 50)
    monkeypatch.setattr(parts, "PART_BYTES", 1_000)
    written = [batch(COLUMNS, rows(seed, start=DAY.start + seed * 100 * SECOND)) for seed in range(10)]
    with repository.begin("telemetry", DAY) as attempt:
        writer = attempt.part_writer(3, TABLE, written[0].schema, DAY)
        for one in written:
            writer.write(one)
        assert writer.rows == 400
        found = writer.close()
        assert len(found) > 2
        assert [part.path.rsplit("/", 2)[-2:] for part in found] == [
            ["0003-cpu-load", f"{n:04d}.parquet"] for n in range(len(found))
        ]
        assert all_points(repository, found) == points(written)
        for part in found:
            own = fingerprint_batches(TABLE.measurement, repository.read_part(part))
            assert (own.hexadecimal, own.rows, own.counts) == (part.fingerprint, part.rows, part.counts)
            assert (own.min_time, own.max_time) == (part.min_time, part.max_time)
        whole = parts.table_entry(3, TABLE, (), found)
        assert whole.fingerprint == fingerprint_batches(TABLE.measurement, written).hexadecimal
        assert whole.counts == fingerprint_batches(TABLE.measurement, written).counts


@pytest.fixture
def two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small row groups are written in turns as large ones are."""
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 50)
    monkeypatch.setattr(parts, "_FEWEST_ROWS", 1)


@pytest.mark.usefixtures("two_at_once")
@pytest.mark.parametrize("size", [1_000, 10**9])
def test_large_tables_are_written_in_turns(repository: Repository, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Two parts at a time, in the same encodings, each in order, and together they are everything."""
    monkeypatch.setattr(parts, "PART_BYTES", size)
    written = [batch(COLUMNS, rows(seed, start=DAY.start + seed * 100 * SECOND)) for seed in range(20)]
    with repository.begin("telemetry", DAY) as attempt:
        writer = attempt.part_writer(3, TABLE, written[0].schema, DAY)
        for one in written:
            writer.write(one)
        found = writer.close()
        assert len(found) == 2 if size == 10**9 else len(found) > 2
        assert min(part.rows for part in found[:2]) > 50
        assert all_points(repository, found) == points(written)
        for part in found:
            own = fingerprint_batches(TABLE.measurement, repository.read_part(part))
            assert (own.hexadecimal, own.rows, own.counts) == (part.fingerprint, part.rows, part.counts)


@pytest.mark.usefixtures("two_at_once")
def test_a_part_that_cannot_be_encoded_ends_both(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one beside it does not wait for its choice for ever, and nothing of either stays."""

    def refuse(_: pa.Table) -> None:
        raise MemoryError("no memory for a trial")

    monkeypatch.setattr(parquet, "choose_encodings", refuse)
    with repository.begin("telemetry", DAY) as attempt:
        writer = attempt.part_writer(3, TABLE, batch(COLUMNS, rows()).schema, DAY)
        with pytest.raises(MemoryError, match="trial"):
            for seed in range(20):
                writer.write(batch(COLUMNS, rows(seed, start=DAY.start + seed * 100 * SECOND)))
            writer.close()
        writer.discard()


def test_a_column_that_turns_binary_begins_a_new_part(repository: Repository) -> None:
    """And stays binary, so that alternating batches do not make many parts."""
    text = Column(role=Role.FIELD, name="s", type=InfluxType.STRING)
    written = [
        batch([HOST, text], [(DAY.start, "a", "x")]),
        batch([HOST, text], [(DAY.start + 1, "a", b"\xff")], frozenset({text})),
        batch([HOST, text], [(DAY.start + 2, "a", "x")]),
        batch([HOST, text], [(DAY.start + 3, b"\xfe", "x")], frozenset({HOST})),
        batch([HOST, text], [(DAY.start + 4, "b", "y")]),
    ]
    with repository.begin("telemetry", DAY) as attempt:
        writer = attempt.part_writer(0, TABLE, written[0].schema, DAY)
        for one in written:
            writer.write(one)
        found = writer.close()
        assert [part.rows for part in found] == [1, 2, 2]
        assert all_points(repository, found) == points(written)


def test_a_field_of_two_types_makes_parts_of_two_schemas(repository: Repository) -> None:
    """As when its type differs between shards."""
    number = Column(role=Role.FIELD, name="v", type=InfluxType.FLOAT)
    whole = Column(role=Role.FIELD, name="v", type=InfluxType.INTEGER)
    written = [batch([number], [(DAY.start, 1.5)]), batch([whole], [(DAY.start + 1, 2**62)])]
    with repository.begin("telemetry", DAY) as attempt:
        writer = attempt.part_writer(0, TABLE, written[0].schema, DAY)
        for one in written:
            writer.write(one)
        found = writer.close()
        assert [part.columns for part in found] == [(number,), (whole,)]
        assert all_points(repository, found) == points(written)
        assert parts.table_entry(0, TABLE, (), found).columns == (number, whole)


@pytest.fixture
def remote_part(store: Store) -> tuple[Repository, Part]:
    """A part in each kind of store."""
    repository = Repository.init(store)
    attempt = repository.begin("telemetry", DAY)
    writer = attempt.part_writer(0, TABLE, batch(COLUMNS, rows()).schema, DAY)
    writer.write(batch(COLUMNS, rows(hosts=3)))
    parts = writer.close()
    wait_for_upload(repository, parts)
    return repository, parts[0]


def test_reading_filters_by_half_open_time_and_tags(remote_part: tuple[Repository, Part]) -> None:
    """The start is in, the end is not; a tag must be equal; the empty value means no such tag."""
    repository, part = remote_part

    def count(window: Window | None = None, **tags: str) -> int:
        return sum(one.num_rows for one in repository.read_part(part, window=window, tags=tags))

    t = DAY.start
    assert count() == 60
    assert count(Window(start=t + 5 * SECOND, end=t + 7 * SECOND)) == 6
    assert count(Window(start=t + 5 * SECOND + 1, end=t + 7 * SECOND + 1)) == 6
    assert count(Window(start=t - 5, end=t)) == 0
    assert count(DAY, host="host 1") == 20
    assert count(Window(start=t, end=t + SECOND), host="host 2") == 1
    assert count(host="") == 20
    assert count(host="host") == 0
    assert count(nothing="x") == 0
    assert count(nothing="") == 60
    assert count(host="host 1", nothing="x") == 0


def test_filtered_batches_keep_the_schema(remote_part: tuple[Repository, Part]) -> None:
    """The seam's schema comes out, metadata included, whatever is selected."""
    repository, part = remote_part
    for window, tags in ((None, {}), (Window(start=DAY.start, end=DAY.start + SECOND), {"host": "host 1"})):
        for one in repository.read_part(part, window=window, tags=tags):
            assert one.schema.equals(arrow_schema(COLUMNS), check_metadata=True)
            assert one.column(0).null_count == 0 and one.schema.names[0] == TIME


def test_reading_stops_early_without_leftovers(
    remote_part: tuple[Repository, Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that stops in the middle leaves no temporary folder."""
    repository, part = remote_part
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    reading = repository.read_part(part)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: None, "no longer holds"),
        (lambda data: data[:-1], "bytes instead of"),
        (lambda data: data + b"\x00", "bytes instead of"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "has the digest"),
        (lambda data: data[:200] + bytes([data[200] ^ 128]) + data[201:], "has the digest"),
    ],
)
def test_changed_bytes_are_never_read(remote_part: tuple[Repository, Part], change: object, reason: str) -> None:
    """Size and digest are proved before the first row comes out, and the error names the key."""
    repository, part = remote_part
    data = repository.store.read(part.path)
    repository.store.delete(part.path)
    damaged = change(data)  # type: ignore[operator]
    if damaged is not None:
        repository.store.create(part.path, damaged)
    with pytest.raises(IntegrityError, match=reason) as found:
        next(iter(repository.read_part(part)))
    assert part.path in str(found.value)


def test_a_path_that_leaves_the_repository_is_refused(remote_part: tuple[Repository, Part]) -> None:
    """A manifest cannot make a reader open other files."""
    repository, part = remote_part
    for path in ("../../etc/passwd", "/etc/passwd", "data/../../x", "data//x"):
        with pytest.raises(IntegrityError, match="leaves the repository"):
            next(iter(repository.read_part(part.model_copy(update={"path": path}))))


def test_a_full_disk_here_says_what_to_do(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary folder, not the store, ran out of space."""

    def full(self: object, rows_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ParquetFile, "write", full)
    with (
        pytest.raises(StoreError, match="Free space, or set TMPDIR") as found,
        repository.begin("telemetry", DAY) as attempt,
    ):
        attempt.part_writer(0, TABLE, batch(COLUMNS, rows()).schema, DAY).write(batch(COLUMNS, rows()))
    assert found.value.kind == "disk-full"


def test_counts_say_what_is_there(repository: Repository) -> None:
    """Per field and type, values that are not null."""
    with repository.begin("telemetry", DAY) as attempt:
        writer = attempt.part_writer(0, TABLE, batch(COLUMNS, rows()).schema, DAY)
        writer.write(batch(COLUMNS, rows()))
        part = writer.close()[0]
    assert {(c.name, c.type): c.count for c in part.counts} == {
        (field.name, field.type): 26 if field.type is InfluxType.INTEGER else 40 for field in ALL_FIELDS
    }


def test_many_threads_write_at_once(tmp_path: Path) -> None:
    """Writers of one attempt do not share keys or files."""
    from concurrent.futures import ThreadPoolExecutor

    repository = Repository.init(open_store(f"file://{tmp_path}/r"))
    with repository.begin("telemetry", DAY) as attempt, ThreadPoolExecutor(4) as pool:

        def work(n: int) -> tuple[Part, ...]:
            writer = attempt.part_writer(n % 2, TABLE, batch(COLUMNS, rows()).schema, DAY)
            writer.write(batch(COLUMNS, rows(n)))
            return writer.close()

        found = [part for some in pool.map(work, range(12)) for part in some]
        assert len({part.path for part in found}) == 12
        assert all_points(repository, found) == points([batch(COLUMNS, rows(n)) for n in range(12)])
