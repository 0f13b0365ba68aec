"""What the fingerprint promises: the definition to the bit, in any order, from any cut."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup import fingerprint_kernels, fingerprint_loops
from influxdb_backup.columns import arrow_schema
from influxdb_backup.fingerprint import Loops, TableFingerprint, add_fingerprints, fingerprint_batches
from influxdb_backup.model import Column, InfluxType, Role

M64 = 2**64 - 1
both_ways = pytest.mark.parametrize("loops", [fingerprint_loops, fingerprint_kernels], ids=["numpy", "compiled"])


def mix(x: int) -> int:
    """The definition's mix."""
    x ^= x >> 33
    x = x * 0xFF51AFD7ED558CCD & M64
    x ^= x >> 33
    x = x * 0xC4CEB9FE1A85EC53 & M64
    return x ^ x >> 33


def lp(raw: bytes) -> bytes:
    """Length-prefixed bytes."""
    return struct.pack("<I", len(raw)) + raw


def value_hash(
    measurement: bytes, tags: Mapping[bytes, bytes], time: int, field: bytes, code: bytes, value: object
) -> int:
    """The definition of the module, written again one value at a time."""
    series = lp(measurement) + b"".join(lp(key) + lp(tags[key]) for key in sorted(tags) if tags[key])
    s = xxhash.xxh3_128_intdigest(series)
    c = xxhash.xxh3_128_intdigest(code + lp(field))
    if code == b"s":
        assert isinstance(value, bytes)
        v = xxhash.xxh3_128_intdigest(value)
        v0, v1 = v & M64, v >> 64
    elif code == b"f":
        v0 = v1 = struct.unpack("<Q", struct.pack("<d", value))[0]
    else:
        v0 = v1 = int(value) & M64  # type: ignore[call-overload]
    t = time & M64
    h0 = mix(mix((s & M64) ^ t) ^ (c & M64) ^ v0)
    h1 = mix((mix(((s >> 64) + t) & M64) + (c >> 64) + v1) & M64)
    return h1 << 64 | h0


COLUMNS = [
    Column(role=Role.TAG, name="host", type=InfluxType.TAG),
    Column(role=Role.TAG, name="a", type=InfluxType.TAG),
    Column(role=Role.FIELD, name="f", type=InfluxType.FLOAT),
    Column(role=Role.FIELD, name="i", type=InfluxType.INTEGER),
    Column(role=Role.FIELD, name="u", type=InfluxType.UNSIGNED),
    Column(role=Role.FIELD, name="s", type=InfluxType.STRING),
    Column(role=Role.FIELD, name="b", type=InfluxType.BOOLEAN),
]
CODES = {"f": b"f", "i": b"i", "u": b"u", "s": b"s", "b": b"b"}
Row = tuple[int, str | None, str | None, float | None, int | None, int | None, str | None, bool | None]

rows = st.lists(
    st.tuples(
        st.integers(-(2**63) + 2, 2**63 - 2),
        st.none() | st.sampled_from(["x", "y", "z z"]),
        st.none() | st.text(max_size=4).filter(lambda text: "\x00" not in text),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.integers(0, 2**64 - 1),
        st.none() | st.text(max_size=8),
        st.none() | st.booleans(),
    ),
    max_size=30,
)


def to_batch(data: Sequence[Row]) -> pa.RecordBatch:
    """A batch with every type of column."""
    schema = arrow_schema(COLUMNS)
    columns = list(zip(*data, strict=True)) if data else [[] for _ in range(8)]
    arrays = [
        pa.array(column, type=pa.int64()).cast(schema[0].type) if n == 0 else None for n, column in enumerate(columns)
    ]
    for n in range(1, 8):
        kind = schema[n].type
        if pa.types.is_dictionary(kind):
            arrays[n] = pa.array(columns[n], pa.string()).dictionary_encode()
        else:
            arrays[n] = pa.array(columns[n], kind)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def expected(data: Sequence[Row], measurement: bytes = b"m") -> str:
    """The fingerprint by the definition."""
    total = 0
    for time, host, a, *fields in data:
        tags = {b"host": (host or "").encode(), b"a": (a or "").encode()}
        for name, value in zip("fiusb", fields, strict=True):
            if value is not None:
                raw = value.encode() if isinstance(value, str) else value
                total += value_hash(measurement, tags, time, name.encode(), CODES[name], raw)
    return f"{total % 2**128:032x}"


@both_ways
@given(data=rows)
def test_the_vectorised_form_equals_the_definition(loops: Loops, data: list[Row]) -> None:
    """Every type, null, tag and time hashes as the definition says, in numpy and compiled."""
    assert fingerprint_batches("m", [to_batch(data)], loops).hexadecimal == expected(data)


@given(rows, st.randoms(use_true_random=False), st.integers(1, 7))
def test_order_and_cuts_do_not_matter(data: list[Row], random: object, size: int) -> None:
    """The same points in another order and in other batches have the same fingerprint, rows and counts."""
    shuffled = list(data)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    whole = fingerprint_batches("m", [to_batch(data)])
    cut = fingerprint_batches("m", [to_batch(shuffled[n : n + size]) for n in range(0, len(shuffled), size)])

    assert (cut.hexadecimal, cut.rows, cut.counts) == (whole.hexadecimal, whole.rows, whole.counts)


@given(rows, rows)
def test_fingerprints_add(first: list[Row], second: list[Row]) -> None:
    """A table's fingerprint is the sum of its parts' fingerprints."""
    parts = [fingerprint_batches("m", [to_batch(data)]).hexadecimal for data in (first, second)]
    assert add_fingerprints(parts) == fingerprint_batches("m", [to_batch(first), to_batch(second)]).hexadecimal


ONE: Row = (1_000, "x", "y", 1.5, 2, 3, "text", True)


@pytest.mark.parametrize(
    "changed",
    [
        (1_001, "x", "y", 1.5, 2, 3, "text", True),
        (1_000, "y", "x", 1.5, 2, 3, "text", True),
        (1_000, "x", None, 1.5, 2, 3, "text", True),
        (1_000, "x", "y", 1.5000000000000002, 2, 3, "text", True),
        (1_000, "x", "y", 1.5, 3, 2, "text", True),
        (1_000, "x", "y", 1.5, 2, 3, "text ", True),
        (1_000, "x", "y", 1.5, 2, 3, "text", False),
        (1_000, "x", "y", 1.5, 2, 3, None, True),
    ],
)
def test_any_change_shows(changed: Row) -> None:
    """A changed time, tag, value, swapped fields or a lost value gives another fingerprint."""
    assert fingerprint_batches("m", [to_batch([ONE])]).value != fingerprint_batches("m", [to_batch([changed])]).value


def test_negative_zero_is_not_zero() -> None:
    """-0.0 and 0.0 are different values."""
    zero, negative = ((1, "x", None, value, None, None, None, None) for value in (0.0, -0.0))
    assert fingerprint_batches("m", [to_batch([zero])]).value != fingerprint_batches("m", [to_batch([negative])]).value


def test_type_is_part_of_the_hash() -> None:
    """The integer 1 and the unsigned 1 of one field are different values."""
    results = set()
    for kind, value in ((InfluxType.INTEGER, 1), (InfluxType.UNSIGNED, 1), (InfluxType.BOOLEAN, True)):
        schema = arrow_schema([Column(role=Role.FIELD, name="v", type=kind)])
        times = pa.array([5], pa.int64()).cast(schema[0].type)
        batch = pa.RecordBatch.from_arrays([times, pa.array([value], schema[1].type)], schema=schema)
        results.add(fingerprint_batches("m", [batch]).hexadecimal)
    assert len(results) == 3


@both_ways
def test_vectors(loops: Loops) -> None:
    """The published test vectors, which must never change."""
    assert TableFingerprint("m", loops).hexadecimal == "0" * 32
    assert fingerprint_batches("cpu", [to_batch([ONE])], loops).hexadecimal == "9ad1e3f6c980fea2898ac4a4b54d0b3e"
    many: list[Row] = [(n * 10**9, "x" if n % 2 else None, "é", n / 3, -n, n, "a\nb", n % 3 == 0) for n in range(1000)]
    assert fingerprint_batches("cpu", [to_batch(many)], loops).hexadecimal == "7cdbbb0fd1fbf6e574a5d8c78a576a7c"


def test_bytes_that_are_not_utf8_hash_as_bytes() -> None:
    """A binary column hashes its bytes, and equal text hashes equally as string and as binary."""
    column = Column(role=Role.FIELD, name="s", type=InfluxType.STRING)
    times = pa.array([5, 6], pa.int64())
    results = []
    for schema, values in (
        (arrow_schema([column]), pa.array(["a", "b"])),
        (arrow_schema([column], frozenset([column])), pa.array([b"a", b"b"], pa.binary())),
        (arrow_schema([column], frozenset([column])), pa.array([b"a", b"\xff"], pa.binary())),
    ):
        batch = pa.RecordBatch.from_arrays([times.cast(schema[0].type), values], schema=schema)
        results.append(fingerprint_batches("m", [batch]).hexadecimal)
    assert results[0] == results[1] != results[2]
