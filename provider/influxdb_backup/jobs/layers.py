"""Backups laid over each other: which of them says what a table holds at an instant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from influxdb_backup.jobs.scope import table_in_scope
from influxdb_backup.model import Manifest, Ref, Table, TableEntry, Window
from influxdb_backup.windows import overlay


@dataclass(frozen=True)
class Held:
    """One backup, with its tables at hand."""

    ref: Ref
    entries: Mapping[Table, TableEntry]
    unreadable: frozenset[Table]

    @classmethod
    def of(cls, ref: Ref, manifest: Manifest) -> Held:
        """The same from a ref and its manifest."""
        entries = {entry.table: entry for entry in manifest.tables}
        return cls(ref, entries, frozenset(entry.table for entry in manifest.evidence.unreadable))

    def looked_at(self, table: Table) -> bool:
        """Whether it says what the table holds: it asked for it, saw its policy, and could read it or a part of it."""
        asked = table_in_scope(self.ref.scope, table) and table.retention_policy in self.ref.retention_policies
        entry = self.entries.get(table)
        return asked and (table not in self.unreadable or (entry is not None and bool(entry.parts)))


class Layers:
    """Backups on top of each other, within one window; the first is at the bottom."""

    def __init__(self, backups: Sequence[Held], window: Window) -> None:
        self.backups = tuple(backups)
        self._window = window
        self._known: dict[tuple[str, tuple[int, ...]], tuple[tuple[Window, Held], ...]] = {}

    def stretches(self, order: Sequence[int], retention_policy: str) -> tuple[tuple[Window, Held], ...]:
        """
        Every stretch of time with the topmost backup there: of those with these numbers, from the bottom up.

        Where the policy had begun to expire when a backup was read, that backup is below all that were read in time.
        """
        key = (retention_policy, tuple(order))
        if key not in self._known:
            self._known[key] = tuple(self._overlaid(order, retention_policy))
        return self._known[key]

    def _overlaid(self, order: Sequence[int], retention_policy: str) -> Iterator[tuple[Window, Held]]:
        late: list[tuple[Window, int, int]] = []
        layers: list[tuple[Window, int]] = []
        for n in order:
            ref = self.backups[n].ref
            kept_from = ref.kept_from(retention_policy)
            if kept_from > ref.window.start:
                expired = Window(start=ref.window.start, end=min(kept_from, ref.window.end))
                late.append((expired, n, kept_from))
            if kept_from < ref.window.end:
                layers.append((Window(start=kept_from, end=ref.window.end), n))
        late.sort(key=lambda layer: -layer[2])  # the one that was read earliest has most
        layers = [(window, n) for window, n, _ in late] + layers
        before: tuple[Window, int] | None = None
        for stretch, position in overlay(layers, self._window):
            number = layers[position][1]
            if before is not None and before[1] == number and before[0].end == stretch.start:
                before = Window(start=before[0].start, end=stretch.end), number
                continue
            if before is not None:
                yield before[0], self.backups[before[1]]
            before = stretch, number
        if before is not None:
            yield before[0], self.backups[before[1]]
