"""How results are shown: tables on a terminal, aligned plain lines elsewhere, one JSON document on request."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from influxdb_backup.messages import printable, shown, shown_lines

if TYPE_CHECKING:
    from influxdb_backup.jobs.progress import Progress as JobProgress
    from influxdb_backup.jobs.progress import ProgressCallback

PLAIN_SECONDS = 5.0
"""at most one progress line in this time where there is no terminal"""
_UNITS = {
    "read": "pieces",
    "check": "parts",
    "write": "parts",
    "verify": "parts",
    "read-back": "tables",
    "compare": "tables",
    "recheck": "tables",
}


class OutputError(Exception):
    """Standard output takes no more, such as a file on a full disk."""


def document(value: BaseModel | dict[str, Any]) -> None:
    """
    One JSON document on standard output: field names of the models, 64-bit numbers as decimal strings.

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
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


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


def failure(message: str, hint: str = "") -> None:
    """An error for a person: what is wrong, and what to do."""
    sys.stderr.write(f"Error: {_lines(message)}\n")
    if hint:
        sys.stderr.write(f"Hint: {shown(hint)}\n")


def _lines(message: str) -> str:
    """Lines below the first are indented, so that none is taken for a line of the program's own."""
    return "\n  ".join(shown(one) for one in message.split("\n"))


def trace(error: BaseException) -> None:
    """Where an error was raised and what caused it, on standard error."""
    for text in traceback.format_exception(error):
        sys.stderr.write(shown_lines(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[str] = ()) -> None:
    """A table on standard output; ``numbers`` names the columns that are aligned to the right."""
    texts = [[shown(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, texts, numbers)
        return
    widths = [max(len(column), *(len(row[at]) for row in texts), 0) for at, column in enumerate(columns)]
    for row in [list(columns), *texts]:
        cells = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        _put("  ".join(cells).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        shown.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    Console().print(shown)


def pairs(rows: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        line(f"{name.ljust(width)}  {value}".rstrip())


def number(value: int) -> str:
    """``1,234,567``."""
    return f"{value:,}"


def counted(count: int, what: str) -> str:
    """``1 row``, ``1,440 rows``."""
    return f"{number(count)} {what}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Bytes for people: ``1.2 MB``, powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def seconds(value: float) -> str:
    """``0.8 s``, ``75 s``, ``12 min``."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 180 else f"{value / 60:.0f} min"


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
    parts = [f"{number(event.done)}/{number(event.total)} {_UNITS.get(event.stage, 'steps')}"]
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
