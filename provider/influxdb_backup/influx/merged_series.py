"""
Series that a query cannot tell apart.

A server knows the groups of ``GROUP BY *`` by their tag values joined by NUL (``encodeTags``, query/point.go).
Two series whose values read the same when they are joined, since some hold a NUL themselves, become one group, with the
tags of one of them (run on 1.6.7, 1.12.4 and 2.9.1): every count is right, and some of the points have wrong tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_COMMA = re.compile(rb"(?<!\\),")
_EQUALS = re.compile(rb"(?<!\\)=")


def may_be_merged(tags: Mapping[bytes, bytes]) -> bool:
    """Whether another series could be in the group that has these tags: both would hold a NUL."""
    return len(tags) > 1 and any(b"\0" in value for value in tags.values())


def merged(keys: Iterable[bytes], tags: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Two of these series keys that are one group by these tags (escaped as in a key, sorted); None without any."""
    seen: dict[bytes, bytes] = {}
    for key in keys:
        parts = (_EQUALS.split(part, 1) for part in _COMMA.split(key)[1:])
        values = {part[0]: part[-1] for part in parts}
        other = seen.setdefault(b"\0".join(values.get(tag, b"") for tag in tags), key)
        if other != key:
            return other, key
    return None
