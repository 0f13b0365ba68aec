"""How results and progress are shown."""

from __future__ import annotations

import io
import threading

import pytest

from influxdb_backup.cli import output
from influxdb_backup.cli.listing import counting_check
from influxdb_backup.cli.session import ServerChoice, Session
from influxdb_backup.jobs.progress import Progress
from influxdb_backup.model import Problem, VerifyLevel, VerifyReport


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def event(done: int, stage: str = "read") -> Progress:
    """One moment of a job."""
    return Progress(stage, done, 1000, done * 10, 0, "autogen.c[red]pu")


def test_plain_progress_is_rare(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no terminal, at most one line in five seconds goes to standard error."""
    clock = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: clock[0])
    with output.progress("export telemetry") as tell:
        for done in range(1000):
            clock[0] = done / 100
            tell(event(done))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "export telemetry: read 500/1,000 pieces, 5,000 rows, autogen.c[red]pu\n"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a bar follows all stages, called from several threads, and names are no markup."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with output.progress("restore") as tell:
        threads = [
            threading.Thread(target=lambda stage=stage: [tell(event(done, stage)) for done in range(200)])
            for stage in ("check", "write")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "restore: write" in stream.getvalue()
    assert "c[red]pu" in stream.getvalue()


def test_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a table is drawn, and names are no markup."""
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    output.table(("name", "rows"), [("[bold]cpu[/bold]", 12)], numbers=("rows",))
    assert "[bold]cpu[/bold]" in stream.getvalue()


def test_plain_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Elsewhere columns are aligned with spaces and hold no control characters."""
    output.table(("name", "rows"), [("a\nb", 5), ("c", 1234)], numbers=("rows",))
    assert capsys.readouterr().out == "name  rows\na\\nb     5\nc     1234\n"


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5_141_000, "5.1 MB"), (2 * 10**18, "2000.0 PB")],
)
def test_sizes(count: int, expected: str) -> None:
    """Bytes are shown in powers of 1000."""
    assert output.size(count) == expected


def report(level: VerifyLevel, *problems: str) -> VerifyReport:
    """A verification with problems of these kinds."""
    found = tuple(Problem(kind=kind, object="x", message="y") for kind in problems)
    return VerifyReport(
        ref="a", manifest="b", level=level, ok=not found, problems=found, tables=1, parts=1, rows=1, bytes=1, seconds=1
    )


def test_check_that_counts() -> None:
    """The newest damage counts until a later check holds; otherwise the highest level that held does."""
    valid, complete = report(VerifyLevel.VALID), report(VerifyLevel.COMPLETE)
    damaged, undrilled = report(VerifyLevel.VALID, "digest"), report(VerifyLevel.RESTORABLE, "drill")
    assert counting_check([]) is None
    assert counting_check([undrilled]) is None
    assert counting_check([valid, complete, undrilled]) is valid
    assert counting_check([valid, damaged]) is damaged
    assert counting_check([valid, damaged, complete]) is complete


def test_damage_stands_until_a_check_that_would_see_it_holds() -> None:
    """Sizes that are right refute no changed byte, and digests that are right refute no wrong count."""
    present, complete, valid = (report(level) for level in list(VerifyLevel)[:3])
    flipped, miscounted = report(VerifyLevel.VALID, "digest"), report(VerifyLevel.RESTORABLE, "counts", "drill")
    lost = report(VerifyLevel.VALID, "missing")
    assert counting_check([flipped, present]) is flipped
    assert counting_check([flipped, complete, present]) is complete
    assert counting_check([miscounted, complete]) is miscounted
    assert counting_check([miscounted, valid]) is valid
    assert counting_check([lost, present]) is present


def test_options_keep_their_secrets() -> None:
    """Neither the environment nor a target's password or token is in a repr."""
    choice = ServerChoice(url="http://h:1", token="topsecret", password="topsecret")
    assert "topsecret" not in repr(choice) + repr(Session(None, {"AIRFLOW_CONN_X": "topsecret"}))
