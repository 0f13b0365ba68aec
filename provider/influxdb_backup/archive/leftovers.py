"""What exports that were killed left in a repository: parts that no backup names. Nothing is removed here."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository, at_once

GRACE = 86_400 * 10**9
"""ns: an export that uploaded something within a day may still be at work"""


@dataclass(frozen=True)
class Leftover:
    """What one export left below ``data/``, or one part of it where a backup names others beside it."""

    place: str
    """a prefix that ends with ``/``, nothing below which is in a backup; or one key"""
    objects: int
    bytes: int


def leftovers(repository: Repository, now: int) -> tuple[Leftover, ...]:
    """
    Parts below ``data/`` that no manifest names, of exports that uploaded nothing within a day before ``now``.

    ``now`` is the store's clock in ns. Data are listed before refs, so that a backup that is made meanwhile is seen.
    Reads every manifest. Raises the error of a ref or manifest that cannot be read: what that names is not known.
    """
    found: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for key, size in repository.store.list(layout.DATA):
        if (name := layout.parse_part_key(key)) is not None:
            found[layout.attempt_prefix(name.plan, name.window, name.attempt)].append((key, size))
    refs = [ref for plan in repository.plans() for ref in repository.refs(plan)]
    manifests = at_once(repository.manifest, refs)
    named = {part.path for manifest in manifests for entry in manifest.tables for part in entry.parts}
    written: defaultdict[str, int] = defaultdict(int)
    for key, at in repository.store.list_times(layout.DATA):
        if (name := layout.parse_part_key(key)) is not None:
            prefix = layout.attempt_prefix(name.plan, name.window, name.attempt)
            written[prefix] = max(written[prefix], at)
    left = []
    for prefix, parts in sorted(found.items()):
        nameless = [(key, size) for key, size in parts if key not in named]
        if not nameless:
            continue
        last = written[prefix] or max(repository.store.modified(key) for key, _ in nameless)
        if last < now - GRACE:
            whole = len(nameless) == len(parts)
            left += (
                [Leftover(prefix, len(nameless), sum(size for _, size in nameless))]
                if whole
                else [Leftover(key, 1, size) for key, size in nameless]
            )
    return tuple(left)
