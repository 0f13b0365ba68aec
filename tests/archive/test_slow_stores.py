"""A store that falls silent, or sends a byte now and then, ends every verb in time, with words that say so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from influxdb_backup.archive.store import Store, open_store
from influxdb_backup.errors import StoreError
from tests.s3 import create_bucket
from tests.wire import trickling

PATIENCE = 4
"""eight times the ``read_timeout`` of half a second"""
CONTENT = b"x" * 5000


@contextmanager
def store_behind(endpoint: str, marker: bytes, *, after: int, pause: float) -> Iterator[Store]:
    """A new bucket's store with two objects, whose answers to requests with ``marker`` are slow."""
    bucket = f"b{uuid4().hex}"
    create_bucket(endpoint, bucket)
    options = {"key": "testing-key-id", "secret": "testing-secret"}
    region = {"region_name": "us-east-1"}
    direct = open_store(f"s3://{bucket}/p", {**options, "client_kwargs": {"endpoint_url": endpoint, **region}})
    direct.create("refs/a.json", CONTENT)
    with trickling(urlsplit(endpoint).netloc, marker, after=after, times=1000, pause=pause) as address:
        client = {"endpoint_url": f"http://{address}", **region}
        yield open_store(
            f"s3://{bucket}/p", {**options, "client_kwargs": client, "config_kwargs": {"read_timeout": 0.5}}
        )


def upload(store: Store, folder: Path) -> object:
    """Uploads a part; one of several pieces has the more time, the larger it is."""
    (folder / "local").write_bytes(bytes(1 << 20))
    store.upload(folder / "local", "data/one.parquet")
    return folder


VERBS: dict[str, tuple[bytes, Callable[[Store, Path], object]]] = {
    "upload": (b"PUT /", upload),
    "read": (b"GET /", lambda store, _: store.read("refs/a.json", 10_000)),
    "range": (b"GET /", lambda store, _: store.read_range("refs/a.json", 0, 4000)),
    "size": (b"HEAD /", lambda store, _: store.size("refs/a.json")),
    "modified": (b"HEAD /", lambda store, _: store.modified("refs/a.json")),
    "delete": (b"DELETE /", lambda store, _: store.delete("refs/a.json")),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("after", "pause"), [(0, 600.0), (60, 0.2)], ids=["silent", "trickling"])
def test_every_verb_ends_in_time(s3_endpoint: str, tmp_path: Path, verb: str, after: int, pause: float) -> None:
    """No verb waits for ever or for minutes without a word, and the error may be tried again."""
    marker, act = VERBS[verb]
    with store_behind(s3_endpoint, marker, after=after, pause=pause) as store:
        began = time.monotonic()
        with pytest.raises(StoreError) as caught:
            act(store, tmp_path)
        took = time.monotonic() - began
    assert caught.value.retryable
    assert took < 4 * PATIENCE + 10
    assert "imeout" in caught.value.message or "was not done" in caught.value.message


def test_a_create_whose_reply_trickles_is_read_back(s3_endpoint: str) -> None:
    """What the store took stands, although it did not come to say so."""
    with store_behind(s3_endpoint, b"PUT /", after=60, pause=0.2) as store:
        began = time.monotonic()
        store.create("refs/b.json", CONTENT)
        assert time.monotonic() - began < 4 * PATIENCE + 10
        assert store.read("refs/b.json") == CONTENT
