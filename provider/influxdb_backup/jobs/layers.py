"""Backups laid over each other: which of them says what a table holds at an instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        self._known: dict[tuple[int, ...], tuple[tuple[Window, Held], ...]] = {}

    def stretches(self, order: Sequence[int]) -> tuple[tuple[Window, Held], ...]:
        """Every stretch of time with the topmost backup there: of those with these numbers, from the bottom up."""
        key = tuple(order)
        if key not in self._known:
            found = overlay([(self.backups[n].ref.window, n) for n in key], self._window)
            self._known[key] = tuple((stretch, self.backups[key[position]]) for stretch, position in found)
        return self._known[key]
