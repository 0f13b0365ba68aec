"""
Runs the console sessions of a page, in order, in one shell, in an empty folder, against a real server.

A block ````` ```console ````` holds commands after ``$ `` (further lines after ``> ``) and what each printed. The
commands of a block must succeed; with ``exit=1`` the last one must end with that status. A block after the
comment ``<!-- file: NAME -->`` is saved under that name first. What was printed is compared with the page word by word after numbers, ids and times have
been made equal, so that the page shows the real output of a real run; DOCS_WRITE=1 writes it into the page.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import ROOT, Page

PROMPT, MORE = "$ ", "> "
_PROGRESS = re.compile(r"^.+: (?:read|check|write|verify|read-back|compare) [\d,]+/[\d,]+ \w+.*\n", re.MULTILINE)
"""lines that a slow machine sees and a fast one does not"""


@dataclass(frozen=True)
class Step:
    """A command of a page, and what the page says that it prints."""

    command: str
    shown: str
    status: int
    start: int = 0
    """where in the page the shown output starts"""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    step: Step
    printed: str
    status: int


def steps(page: Page) -> list[Step]:
    """The commands of a page in their order; saved files become commands too."""
    placed: list[tuple[int, Step]] = []
    for block in page.blocks:
        if block.file:
            mark = secrets.token_hex(8)
            placed.append((block.offset, Step(f"cat > '{block.file}' <<'{mark}'\n{block.body}{mark}", "", 0)))
        if block.language == "console":
            placed += [(block.offset, step) for step in _console(block.body, block.offset, block.options)]
    return [step for _, step in sorted(placed, key=lambda item: item[0])]


def _console(body: str, offset: int, options: dict[str, str]) -> list[Step]:
    found: list[Step] = []
    command: list[str] = []
    shown, start = "", offset
    position = offset
    for line in body.splitlines(keepends=True):
        position += len(line)
        text = line.rstrip("\n")
        if text.startswith(PROMPT):
            if command:
                found.append(Step("\n".join(command), shown, 0, start))
            command, shown, start = [text[len(PROMPT) :]], "", position
        elif text.startswith(MORE) and not shown:
            command.append(text[len(MORE) :])
            start = position
        else:
            shown += line
    found.append(Step("\n".join(command), shown, int(options.get("exit", "0")), start))
    return found


@contextmanager
def held_ready(folder: Path) -> Iterator[str]:
    """The program, imported once for many calls; yields what calls it."""
    path = folder / "socket"
    command = [sys.executable, str(Path(__file__).with_name("warm.py")), str(path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT / "provider")}) as process:
        try:
            deadline = time.monotonic() + 120
            while not path.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"-ISs '{Path(__file__).with_name('call.py')}' '{path}'"
        finally:
            process.terminate()


def run(page: Page, folder: Path, program: str, replaced: dict[str, str], before: Sequence[str] = ()) -> list[Outcome]:
    """
    Runs a page's commands in ``folder``; ``program`` is what ``influxdb-backup`` calls. ``replaced``: texts of the page and what stands for each in this run.

    ``before``: commands that the page does not show.

    The program is the checkout's own, with an environment that has nothing of InfluxDB or Airflow in it.
    """
    wanted = [*(Step(command, "", 0) for command in before), *steps(page)]
    mark = f"@@{secrets.token_hex(8)}"
    script = []
    for step in wanted:
        script.append(
            f"{_replace(step.command, replaced)}\n__status=$?; printf '\\n{mark} %s\\n' $__status; (exit $__status)\n"
        )
    finished = subprocess.run(
        ["bash"],
        input="".join(script),
        cwd=folder,
        env=_environment(folder, program),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    pieces = re.split(rf"\n{mark} (\d+)\n", finished.stdout)
    printed, statuses = pieces[0:-1:2], [int(status) for status in pieces[1::2]]
    assert len(printed) == len(wanted), f"the shell ended early:\n{finished.stdout[-2000:]}"
    back = {real: text for text, real in replaced.items()}
    printed = [_replace(piece, back) for piece in printed]
    return [Outcome(*outcome) for outcome in zip(wanted, printed, statuses, strict=True)]


def _replace(text: str, replaced: dict[str, str]) -> str:
    pattern = "|".join(re.escape(found) for found in sorted(replaced, key=len, reverse=True))
    return re.sub(pattern, lambda match: replaced[match.group()], text) if pattern else text


def _environment(folder: Path, program: str) -> dict[str, str]:
    programs = folder / ".bin"
    programs.mkdir()
    _program(programs / "influxdb-backup", program)
    _program(programs / "python3", "")
    if shutil.which("curl") is None:
        _program(programs / "curl", f"'{Path(__file__).with_name('curl.py')}'")
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("INFLUX", "AIRFLOW", "AWS_", "COLUMNS", "FORCE_COLOR"))
    }
    return {
        **kept,
        "PATH": f"{programs}:{kept['PATH']}",
        "PYTHONPATH": str(ROOT / "provider"),
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
    }


def _program(path: Path, arguments: str) -> None:
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
    path.chmod(0o755)


def normal(text: str) -> str:
    """A text with everything that differs from run to run made equal: ids, digests, numbers, widths of columns."""
    text = _PROGRESS.sub("", text)
    text = re.sub(r"(?<![0-9A-Za-z])[0-9a-f]{8,}(?![0-9A-Za-z])", "ID", text)
    text = re.sub(r"\d+(?:[.,]\d+)*", "N", text)
    text = re.sub(r"\bN ?(B|KB|MB|GB|KiB|MiB|GiB|bytes)(/s)?(?!\w)", r"N B\2", text)
    text = re.sub(r"[─━═╌-]{3,}", "---", text)
    return "\n".join(re.sub(r"\s+", " ", line).strip() for line in text.strip().splitlines())


def rewritten(page: Page, outcomes: list[Outcome]) -> str:
    """The page with what the commands really printed."""
    text = page.text
    for outcome in reversed(outcomes):
        step = outcome.step
        if step.start:
            lines = [line.rstrip() for line in _PROGRESS.sub("", outcome.printed).splitlines()]
            real = "".join(f"{line}\n" for line in lines)
            text = text[: step.start] + real + text[step.start + len(step.shown) :]
    return text
