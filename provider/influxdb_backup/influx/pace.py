"""How little a reply may bring: a server or proxy that sends a byte now and then counts as silent."""

from __future__ import annotations

LEAST_BYTES = 512
"""of a reply in twice the timeout: less than one small document with the head of its reply"""


class SlowReply(TimeoutError):
    """A reply that brings less than ``LEAST_BYTES`` in twice the timeout."""


class Pace:
    """
    What one reply has brought while somebody waited for it; ``seconds`` is the timeout, None for none.

    Only waiting counts: a client that is busy with what it has does not make the server slow.
    """

    def __init__(self, seconds: float | None) -> None:
        self._most = None if seconds is None else 2 * seconds
        self._bytes = 0
        self._waited = 0.0

    def add(self, size: int, waited: float) -> None:
        """Counts bytes that came after ``waited`` seconds. Raises SlowReply."""
        self._bytes += size
        self._waited += waited
        if self._bytes >= LEAST_BYTES:
            self._bytes, self._waited = 0, 0.0
        elif size and self._most is not None and self._waited > self._most:
            raise SlowReply(f"it brought {self._bytes} bytes in {self._waited:.0f} s")
