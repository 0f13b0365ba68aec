"""What a run of the suite proved on which servers, and which cases wait for a server that is not here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import CACHE_WORDS


@dataclass
class Proved:
    """Passed cases by server, and the node ids of cases that lack a file of the cache folder."""

    cases: Counter[str] = field(default_factory=Counter)
    lacking: dict[str, str] = field(default_factory=dict)
    """what it lacks, by node id"""

    @classmethod
    def read(cls, file: Path) -> Proved:
        """What an earlier run kept, empty when there is none."""
        if not file.exists():
            return cls()
        kept = json.loads(file.read_text())
        return cls(Counter(kept["cases"]), kept["lacking"])

    def keep(self, file: Path) -> None:
        """For a later run."""
        file.write_text(json.dumps({"cases": self.cases, "lacking": self.lacking}))

    def passed(self, servers: Iterable[str]) -> None:
        """A case passed that used these servers."""
        self.cases.update(set(servers))

    def skipped(self, node: str, reason: str) -> None:
        """A case was skipped; it counts when it lacks a file of the cache folder."""
        if reason.startswith("Skipped: lacks ") and reason.endswith(CACHE_WORDS):
            self.lacking[node] = reason.removeprefix("Skipped: lacks ").removesuffix(CACHE_WORDS).strip()

    def add(self, later: Proved) -> Proved:
        """Both, where the later run was of what this one lacked."""
        return Proved(self.cases + later.cases, dict(later.lacking))

    def lines(self) -> list[str]:
        """For people: a server a line, then what was lacking."""
        width = max(map(len, self.cases), default=0)
        proved = [f"proved on {name:{width}}  {count:5,} cases" for name, count in sorted(self.cases.items())]
        lacking = Counter(self.lacking.values())
        return proved + [f"not proved, for want of {what}: {count:,} cases" for what, count in sorted(lacking.items())]
