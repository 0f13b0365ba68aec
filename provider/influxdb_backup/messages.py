"""
Words that leave the program: they hold no secret of the run, and nothing that a terminal obeys.

Every error masks its message when it is made, every logger of the package masks its lines, and the command line and
the operators put out text through ``shown`` only. The secrets that are known stand in one place for the process,
since an exception and a line of a log have nobody who could hand them in; ``hide`` is called where a connection is
opened, at the edges.
"""

from __future__ import annotations

import html
import json
import logging
import re
import threading
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

HIDDEN = "***"
SHORTEST = 4
"""characters; a shorter secret is hidden in its encodings only, since every message would lose letters otherwise"""
_WORTH_A_LINE = 16
"""characters of a line of a secret of several lines (a private key) that is a secret of its own"""


def printable(name: str) -> str:
    """
    A text for one line of a terminal, a log or a page. Escaped once and escaped twice are the same.

    Control characters, direction marks, line ends and bytes that are not UTF-8 are shown as their escapes.
    """
    if name.isprintable():
        return name
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in name
    )


def forms(secret: str) -> frozenset[str]:
    """The texts in which a secret is seen: as it is, and as requests, JSON, HTML and Python write it."""
    raw = secret.encode("utf-8", "surrogatepass")
    escaped = {
        quote(raw, safe=""),
        quote(raw),
        quote_plus(raw),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        html.escape(secret, quote=False),
        repr(secret)[1:-1],
        repr(raw)[2:-1],
        printable(secret),
    }
    coded = {text.decode("ascii") for text in (b64encode(raw), urlsafe_b64encode(raw))}
    coded |= {text.rstrip("=") for text in coded}
    found = {secret, *escaped} if len(secret) >= SHORTEST else {text for text in escaped if len(text) > 2 * SHORTEST}
    return frozenset(found | {text for text in coded if len(text) > SHORTEST})


def _pattern(form: str) -> str:
    """Of a percent-encoded byte the digits may be large or small."""
    return re.sub("%[0-9A-F]{2}", lambda found: f"(?i:{found[0]})", re.escape(form))


class Masker:
    """Hides the secrets it was told, in all of their forms. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str | None]) -> None:
        """From now on these are hidden; empty ones are none."""
        found: set[str] = set()
        for secret in secrets:
            if secret:
                found |= forms(secret)
                for line in secret.splitlines() if len(secret.splitlines()) > 1 else ():
                    found |= forms(line) if len(line) >= _WORTH_A_LINE else set()
        with self._lock:
            if not found <= self._forms:
                self._become(self._forms | found)

    def mask(self, text: str) -> str:
        """The text with every form of every secret hidden."""
        pattern = self._pattern
        return text if pattern is None else pattern.sub(HIDDEN, text)

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """What is learned while the block runs is forgotten after it."""
        before = self._forms
        try:
            yield
        finally:
            with self._lock:
                self._become(before)

    def _become(self, known: frozenset[str]) -> None:
        longest_first = sorted(known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_pattern, longest_first))) if longest_first else None
        self._forms = known


MASKER = Masker()
"""what is secret in this process"""


def hide(*secrets: str | None) -> None:
    """From now on no message of this process shows these."""
    MASKER.learn(secrets)


def mask(text: str) -> str:
    """The text without the secrets of this process."""
    return MASKER.mask(text)


def shown(text: str) -> str:
    """One line for a person: without secrets, and without anything that a terminal obeys."""
    return printable(mask(text))


def quoted(text: str, longest: int) -> str:
    """The beginning of what somebody else said, as ``shown``; cut only when nothing secret can be cut in two."""
    return shown(text[: 100 * longest])[:longest]


def shown_lines(text: str) -> str:
    """As ``shown``, and line ends stay: for text whose lines are the program's own, such as a traceback."""
    return "\n".join(printable(line) for line in mask(text).split("\n"))


class _Shown(logging.Filter):
    """Makes the line of a record what may be shown."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = shown(record.getMessage()), None
        return True


_SHOWN = _Shown()


def logger_of(name: str) -> logging.Logger:
    """The logger of a module; whatever its lines quote, they are shown safely by every handler."""
    logger = logging.getLogger(name)
    if _SHOWN not in logger.filters:
        logger.addFilter(_SHOWN)
    return logger
