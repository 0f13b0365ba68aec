"""The listing of shard groups in the backup metadata, without a server."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.metadata2 import listed_shards, multipart_part
from influxdb_backup.model import MAX_END, MIN_TIME

PARTS = {"kv": b"\x00--bound\r\n\xff" * 50, "sql": b"\r\n--boun", "buckets": b'[{"bucketID":"1"}]'}


def multipart(parts: dict[str, bytes]) -> bytes:
    """A reply as 2.9 sends it."""
    body = b"".join(
        b'--bound\r\nContent-Disposition: attachment; name="%b"\r\nContent-Type: x/y\r\n\r\n%b\r\n'
        % (name.encode(), part)
        for name, part in parts.items()
    )
    return body + b"--bound--\r\n"


def read_in_blocks(reply: bytes, size: int) -> bytes:
    """The buckets part when the reply arrives in blocks of this size."""
    source = io.BytesIO(reply)
    return multipart_part(lambda _: source.read(size), b"bound", b"buckets", "here")


@given(st.integers(1, 400), st.permutations(list(PARTS)), st.binary(max_size=100))
def test_the_part_is_found_in_any_blocks_and_order(size: int, order: list[str], content: bytes) -> None:
    """However the reply is cut, the wanted part comes out whole and the others do not matter."""
    parts = {name: PARTS[name] for name in order} | {"buckets": content.replace(b"\r\n--bound", b"")}
    parts["kv"] = parts["kv"].replace(b"\r\n--bound", b"")
    assert read_in_blocks(multipart(parts), size) == parts["buckets"]


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_a_reply_that_ends_early_is_no_listing(end: int, size: int) -> None:
    """Whatever is missing at the end, the reply is incomplete: an error in mid-reply only ends it."""
    whole = multipart(PARTS)
    with pytest.raises(IncompleteReadError):
        read_in_blocks(whole[: min(end, len(whole) - 4)], size)


def test_a_reply_without_the_part() -> None:
    """A reply without the buckets part is an error, not an empty listing."""
    with pytest.raises(IncompleteReadError, match="buckets"):
        read_in_blocks(multipart({"kv": b"x"}), 10)


def test_groups_are_clamped_and_deleted_ones_left_out() -> None:
    """The first group may start before int64, the last one ends at the maximum, expired groups do not count."""
    shards = {"shards": [{"id": 7}]}
    groups = [
        {"startTime": "1677-09-20T00:00:00Z", "endTime": "1677-09-27T00:00:00Z"},
        {"startTime": "2024-01-01T00:00:00Z", "endTime": "2024-01-02T00:00:00Z", "deletedAt": "2024-02-01T00:00:00Z"},
        {"startTime": "2262-04-07T00:00:00Z", "endTime": "2262-04-11T23:47:16.854775807Z"},
    ]
    first, last = listed_shards({"retentionPolicies": [{"shardGroups": [{**group, **shards} for group in groups]}]})
    assert (first.id, first.group.start, last.group.end) == (7, MIN_TIME, MAX_END)
    assert listed_shards({"retentionPolicies": [{"shardGroups": None}]}) == ()
