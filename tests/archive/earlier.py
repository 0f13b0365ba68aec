"""Earlier windows of a plan, as many as years of backups leave behind, without a server."""

from __future__ import annotations

from uuid import uuid4

from influxdb_backup.archive.documents import content_id, ref_of, sha256, to_bytes
from influxdb_backup.archive.layout import manifest_key, ref_key
from influxdb_backup.archive.repository import Repository, at_once
from influxdb_backup.model import Window


def multiply(repository: Repository, ref: str, count: int) -> None:
    """As many further windows before a backup's own, each as long as it and of the same parts."""
    first = repository.ref(ref)
    said = repository.manifest(first)
    length = first.window.end - first.window.start

    def put(number: int) -> None:
        span = Window(start=first.window.start - number * length, end=first.window.end - number * length)
        content = content_id(said.source, said.scope, span, said.tables)
        manifest = said.model_copy(update={"window": span, "content_id": content})
        data = to_bytes(manifest)
        digest = sha256(data)
        repository.store.create(manifest_key(digest), data)
        copy = ref_of(manifest, digest, len(data), revision=0, write_id=uuid4().hex)
        repository.store.create(ref_key(copy.plan, copy.window, 0), to_bytes(copy))

    at_once(put, range(1, count + 1))
