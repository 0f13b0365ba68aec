"""
InfluxQL text: quoting, time bounds, and what a name must be for a query to reach it.

Not every stored name can be written in a query (run on 1.6.7, 1.12.4 and 2.9.1): a measurement with bytes that
are not UTF-8 or with NUL or a carriage return is never matched by ``FROM "..."``, and a few names with a leading
underscore are taken for the server's own sources. Those are reached by an exact regular expression instead, and
the reader checks that the answer carries the wanted bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from influxdb_backup.model import Window, is_utf8

UNQUERYABLE_MEASUREMENTS = frozenset({"_series", "_fieldKeys", "_tagKeys"})
"""Stored when written, and never readable: InfluxQL takes them for system sources, by regular expression too."""

INDEX_FIELDS = frozenset({"_name", "_tagKey", "_tagValue", "_seriesKey", "_fieldKey"})
"""
Fields that a query of any measurement answers from the server's index, at time 0, in the place of what was written (run
on 1.6.7, 1.12.4 and 2.9.1). At that time the answer is put into the rows of real points. Tags and measurements of these
names are as any other, and so are ``_fieldType``, ``_measurement``, ``_tags``, ``_time``, ``_field``, ``_value``.
"""

_SYSTEM_SOURCES = frozenset({"_measurements", "_tags", "_name", "_tagKey"})
_NOT_NAMEABLE = re.compile("[\x00\r]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_RISKY = re.compile(r"\binto\b|;", re.IGNORECASE)
_TOKEN = re.compile(
    r"""\s+|--[^\n]*|/\*.*?\*/|(?P<string>'(?:[^'\\\n]|\\.)*')|(?P<name>"(?:[^"\\\n]|\\.)*")"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<other>.)""",
    re.DOTALL,
)


def quote_ident(name: str) -> str:
    """A double-quoted identifier."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def quote_string(text: str) -> str:
    """A single-quoted string."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def between(window: Window) -> str:
    """The half-open time condition of a window, in integer nanoseconds."""
    return f"time >= {window.start} AND time < {window.end}"


def is_nameable(measurement: str) -> bool:
    """Whether ``FROM "measurement"`` reaches it."""
    return (
        is_utf8(measurement)
        and not _NOT_NAMEABLE.search(measurement)
        and measurement not in _SYSTEM_SOURCES
        and measurement not in UNQUERYABLE_MEASUREMENTS
    )


def as_matched(name: str) -> str:
    """The name as the server's regular expressions see it: every byte that is not UTF-8 is U+FFFD."""
    return _SURROGATE.sub("\ufffd", name)


def exact_regex(name: str) -> str:
    r"""
    A regular expression literal that matches the name and no other that ``as_matched`` tells apart.

    All but plain letters and digits is written as ``\x{...}``, so that no delimiter, line end or NUL stands in it.
    """
    body = "".join(
        character if character.isascii() and character.isalnum() else f"\\x{{{ord(character):X}}}"
        for character in as_matched(name)
    )
    return f"/^{body}$/"


def source(retention_policy: str, measurement: str) -> str:
    """What stands after ``FROM`` for one measurement of one policy."""
    name = quote_ident(measurement) if is_nameable(measurement) else exact_regex(measurement)
    return f"{quote_ident(retention_policy)}.{name}"


def every_source(retention_policy: str) -> str:
    """What stands after ``FROM`` for all measurements of one policy."""
    return f"{quote_ident(retention_policy)}./.*/"


def select_all(retention_policy: str, measurement: str, piece: Window, fields: Sequence[str] | None = None) -> str:
    """Every point of a measurement in a piece, one series after the other; of ``fields`` alone where they are named."""
    what = "*" if fields is None else ", ".join(f"{quote_ident(field)}::field" for field in fields)
    return f"SELECT {what} FROM {source(retention_policy, measurement)} WHERE {between(piece)} GROUP BY *"


def call_all(function: str, retention_policy: str, measurement: str, piece: Window) -> str:
    """``function(*)`` over a measurement in a piece: one row with ``<function>_<field>`` for every field."""
    return f"SELECT {function}(*) FROM {source(retention_policy, measurement)} WHERE {between(piece)}"


def call_one(function: str, retention_policy: str, measurement: str, piece: Window, field: str) -> str:
    """``function`` of one field of a measurement in a piece: one row with the column ``<function>``."""
    call = f"{function}({quote_ident(field)}::field)"
    return f"SELECT {call} FROM {source(retention_policy, measurement)} WHERE {between(piece)}"


def explain_fields(retention_policy: str, measurement: str, piece: Window) -> str:
    """The plan of a query of no series: cheap, and it lists the fields that the shards of the piece have."""
    where = f"{between(piece)} AND {quote_ident('influxdb_backup')}::tag = 'no series'"
    return f"EXPLAIN SELECT * FROM {source(retention_policy, measurement)} WHERE {where}"


def is_plain_select(query: str) -> bool:
    """
    Whether the text is a single SELECT without INTO, or a single SHOW: something that cannot write.

    A regular expression may hold quotes, which hide what follows them from this scanner, so beside a slash no INTO and
    no second statement is accepted anywhere.
    """
    if "/" in query and _RISKY.search(query.rstrip().rstrip(";")):
        return False
    words: list[str] = []
    ended = False
    for found in _TOKEN.finditer(query):
        if found.lastgroup is None:
            continue
        if ended:
            return False
        if found.lastgroup == "other":
            ended = found["other"] == ";"
        if found.lastgroup == "word":
            words.append(found["word"].upper())
    return bool(words) and words[0] in {"SELECT", "SHOW"} and "INTO" not in words
