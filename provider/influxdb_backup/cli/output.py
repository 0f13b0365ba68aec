"""How results are shown: tables on a terminal, aligned plain lines elsewhere, one JSON document on request."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TextIO
from unicodedata import combining, east_asian_width

from pydantic import BaseModel

from influxdb_backup import words
from influxdb_backup.messages import mask, printable, shown, shown_lines
from influxdb_backup.windows import format_instant

if TYPE_CHECKING:
    from influxdb_backup.jobs.progress import Progress as JobProgress
    from influxdb_backup.jobs.progress import ProgressCallback

PLAIN_SECONDS = 5.0
"""at most one progress line in this time where there is no terminal"""
counted, number, seconds, size = words.counted, words.number, words.seconds, words.size
_BOLD, _RED = "1", "1;31"
_ALARM = re.compile(r"\b(?:GAP|FAILED|DAMAGED|STALE|NOT [A-Z]+|NOT|NO|NONE|REFUSED|Error)\b")
_NARROWEST = 10
_TIMES = frozenset(
    {"start", "end", "read_start", "read_end", "min_time", "max_time", "started_at", "dropped_at", "ended_at", "newest"}
)
"""fields that hold an instant in ns; documents have them as RFC 3339 too"""


class OutputError(Exception):
    """Standard output takes no more, such as a file on a full disk."""


def document(value: BaseModel | dict[str, Any]) -> None:
    """
    One JSON document on standard output: field names of the models, 64-bit numbers as decimal strings, instants also
    as RFC 3339.

    Where standard output is not UTF-8 the document is ASCII, since JSON knows no other encoding.
    """
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    _put(_dumped(_plain(value), is_utf8=is_utf8))


def _dumped(value: Any, *, is_utf8: bool) -> str:
    """JSON whose control characters and direction marks, also those above ASCII, are escapes of JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=not is_utf8)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(one if one == "\n" or one.isprintable() else f"\\u{ord(one):04x}" for one in text)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, dict):
        return {key: told for name, item in value.items() for key, told in _entries(name, _plain(item))}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _entries(name: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """An instant is there twice: ``start`` in ns as a decimal string, and ``start_rfc3339``."""
    yield name, value
    if name in _TIMES and isinstance(value, str) and value.lstrip("-").isdecimal():
        with suppress(OverflowError, ValueError):
            yield f"{name}_rfc3339", format_instant(int(value))


def line(text: str = "") -> None:
    """
    One line of a result on standard output, without secrets and without what a terminal obeys.

    Raises BrokenPipeError when nobody reads on, else OutputError.
    """
    _put(shown(text))


def identifier(text: str) -> None:
    """As ``line``, for a name that a script uses as it is: nothing in it is masked."""
    _put(printable(text))


def _put(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"The output cannot be written: {error.strerror}.") from error


def note(text: str) -> None:
    """One line on standard error: warnings and next steps, which are no part of the result."""
    sys.stderr.write(shown(text) + "\n")


@dataclass(frozen=True)
class Teller:
    """How errors are put out: for a person on standard error, or as the one JSON document on standard output."""

    as_json: bool

    def failure(self, message: str, hint: str = "", *, kind: str = "error", problems: Sequence[str] = ()) -> None:
        """An error: what is wrong, what to do, its stable word for programs, and every finding."""
        if self.as_json:
            found = {"kind": kind, "message": mask(message), "hint": mask(hint), "problems": [*map(mask, problems)]}
            with suppress(OutputError, BrokenPipeError):
                document({"error": found})
            return
        sys.stderr.write(f"{_painted('Error', sys.stderr)}: {_lines(message)}\n")
        if hint:
            sys.stderr.write(f"Hint: {shown(hint)}\n")
        for problem in problems:
            note(f"  {problem}")


def _lines(message: str) -> str:
    """Lines below the first are indented, so that none is taken for a line of the program's own."""
    return "\n  ".join(shown(one) for one in message.split("\n"))


def trace(error: BaseException) -> None:
    """Where an error was raised and what caused it, on standard error."""
    for text in traceback.format_exception(error):
        sys.stderr.write(shown_lines(text))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[str] = (), alarms: Sequence[str] = ()
) -> None:
    """
    A table on standard output.

    ``numbers`` names the columns that are aligned to the right, ``alarms`` those whose words in capitals are coloured.
    On a terminal the widest texts are wrapped so that it fits; elsewhere every row is one line.
    """
    texts = [[shown(str(cell)) for cell in row] for row in rows]
    widths = [max(_width(column), *(_width(row[at]) for row in texts), 0) for at, column in enumerate(columns)]
    if sys.stdout.isatty():
        _narrow(widths, [at for at, column in enumerate(columns) if column not in numbers], terminal_columns())
    for index, row in enumerate([list(columns), *texts]):
        wrapped = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for cells in zip_longest(*wrapped, fillvalue=""):
            aligned = [
                _aligned(cell, width, right=column in numbers, is_last=column == columns[-1])
                for cell, width, column in zip(cells, widths, columns, strict=True)
            ]
            if index == 0:
                _put(_styled("  ".join(aligned).rstrip(), _BOLD, sys.stdout))
            else:
                painted = [
                    _painted(cell, sys.stdout) if column in alarms else cell
                    for cell, column in zip(aligned, columns, strict=True)
                ]
                _put("  ".join(painted).rstrip())


def terminal_columns() -> int:
    """How wide the terminal is."""
    return shutil.get_terminal_size((80, 24)).columns


def _narrow(widths: list[int], flexible: Sequence[int], most: int) -> None:
    """Takes from the widest of the flexible columns until the table fits, and leaves each readable."""
    while sum(widths) + 2 * (len(widths) - 1) > most and flexible:
        widest = max(flexible, key=lambda at: widths[at])
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1


def _wrapped(text: str, width: int) -> list[str]:
    if _width(text) <= width:
        return [text]
    lines, rest = [], text
    while _width(rest) > width:
        end = 1
        while end < len(rest) and _width(rest[: end + 1]) <= width:
            end += 1
        space = rest.rfind(" ", 0, end + 1)
        end = space if space > width // 2 else end
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*lines, rest] if rest else lines


def _width(text: str) -> int:
    """Columns of a terminal: some letters take two, and marks above letters none."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(one) in "WF" else 0 if combining(one) else 1 for one in text)


def _aligned(cell: str, width: int, *, right: bool, is_last: bool) -> str:
    space = " " * (width - _width(cell))
    if right:
        return space + cell
    return cell if is_last else cell + space


def _has_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _styled(text: str, style: str, stream: TextIO) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if text and _has_colour(stream) else text


def _painted(text: str, stream: TextIO) -> str:
    """The text with its alarming words (written in capitals, and ``Error``) in red: readable on dark and on light."""
    if not _has_colour(stream):
        return text
    return _ALARM.sub(lambda found: f"\x1b[{_RED}m{found[0]}\x1b[0m", text)


def verdict(text: str) -> None:
    """As ``line``, for a sentence whose words in capitals (GAP, FAILED, DAMAGED) are coloured on a terminal."""
    _put(_painted(shown(text), sys.stdout))


def pairs(rows: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line; on a terminal a value that does not fit stands below its name, to be copied."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        text = f"{name.ljust(width)}  {value}".rstrip()
        if sys.stdout.isatty() and _width(text) > terminal_columns():
            line(name)
            text = f"  {value}"
        line(text)


@contextmanager
def progress(label: str) -> Iterator[ProgressCallback]:
    """
    A callback for a job: a bar where standard error is a terminal, else a line every few seconds.

    Results go to standard output, so that progress never mixes with them.
    """
    if sys.stderr.isatty():
        with _bar(label) as callback:
            yield callback
    else:
        yield _PlainProgress(label)


def _counted(event: JobProgress) -> str:
    parts = [f"{number(event.done)}/{number(event.total)} {words.UNITS.get(event.stage, 'steps')}"]
    if event.rows:
        parts.append(f"{number(event.rows)} rows")
    return ", ".join(parts)


class _PlainProgress:
    """Lines for logs. Called from several threads."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._next = time.monotonic() + PLAIN_SECONDS
        self._lock = threading.Lock()

    def __call__(self, event: JobProgress) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + PLAIN_SECONDS
        note(f"{self._label}: {event.stage} {_counted(event)}, {event.table}")


@contextmanager
def _bar(label: str) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[counted]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}
        lock = threading.Lock()

        def callback(event: JobProgress) -> None:
            with lock:
                if event.stage not in tasks:
                    tasks[event.stage] = bar.add_task(escape(shown(f"{label}: {event.stage}")), total=None, counted="")
                bar.update(
                    tasks[event.stage],
                    completed=event.done,
                    total=event.total or None,
                    counted=f"{_counted(event)} {escape(shown(event.table))}",
                )

        yield callback
