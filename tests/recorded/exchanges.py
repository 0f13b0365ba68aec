"""Recorded HTTP exchanges: how one is kept in a file, and by what a request finds its answer again."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

FOLDER = Path(__file__).parent / "influxdb-2.9.1"
KEPT_HEADERS = ("Content-Type", "Date", "X-Influxdb-Version", "X-Influxdb-Build", "Transfer-Encoding", "Retry-After")
_FREE_PARAMETERS = frozenset({"chunked", "chunk_size"})
"""parameters that change how an answer is cut and not what it says"""

Key = tuple[str, str, str, str]


def _text(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _bytes(text: str | Mapping[str, str]) -> bytes:
    return text.encode() if isinstance(text, str) else base64.b64decode(text["base64"])


@dataclass(frozen=True)
class Exchange:
    """One request of one token (by its label, never the token itself) and the server's reply."""

    token: str
    method: str
    target: str
    request: bytes
    status: int
    headers: Mapping[str, str]
    reply: bytes

    @property
    def key(self) -> Key:
        """What a request must have in common with this one to get its reply."""
        return key_of(self.token, self.method, self.target, self.request)


def key_of(token: str, method: str, target: str, body: bytes) -> Key:
    """Token, method, path with parameters in any order, and body; forms by their parameters."""
    parts = urlsplit(target)
    parameters = sorted(parse_qsl(parts.query, keep_blank_values=True))
    content = _text(body)
    if parts.path == "/query" and isinstance(content, str):
        pairs = parse_qsl(content, keep_blank_values=True, errors="surrogateescape")
        content = json.dumps(sorted(pair for pair in pairs if pair[0] not in _FREE_PARAMETERS))
    return token, method, json.dumps([parts.path, parameters]), json.dumps(content)


def save(path: Path, exchanges: Sequence[Exchange]) -> None:
    """Writes a scenario's exchanges, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {
                "token": exchange.token,
                "method": exchange.method,
                "target": exchange.target,
                "request": _text(exchange.request),
                "status": exchange.status,
                "headers": dict(exchange.headers),
                "reply": _text(exchange.reply),
            }
        )
        for exchange in exchanges
    ]
    path.write_text("".join(line + "\n" for line in lines))


def load(path: Path) -> list[Exchange]:
    """A scenario's exchanges in the order of recording."""
    found = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        entry["request"], entry["reply"] = _bytes(entry["request"]), _bytes(entry["reply"])
        found.append(Exchange(**entry))
    return found


class Answers:
    """Recorded replies by request; a request that was made several times gets its replies in order, then the last."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._replies: dict[Key, list[Exchange]] = defaultdict(list)
        for exchange in exchanges:
            self._replies[exchange.key].append(exchange)
        self.unknown: list[Key] = []

    def find(self, token: str, method: str, target: str, body: bytes) -> Exchange | None:
        """The reply to a request; None, and noted, when nothing like it was recorded."""
        key = key_of(token, method, target, body)
        replies = self._replies.get(key)
        if not replies:
            self.unknown.append(key)
            return None
        return replies.pop(0) if len(replies) > 1 else replies[0]
