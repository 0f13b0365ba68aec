"""
Makes operators.md from the code. Run it after a change: python docs/reference/generate_operators.py

It needs Airflow. tests/airflow/test_reference.py fails while the page is not current.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "provider"))

MARK = "<!-- Made by docs/reference/generate_operators.py from the code; do not edit. -->"
CLASSES = (
    ("Operators", "influxdb_backup.operators.export", "ExportWindowOperator"),
    ("Operators", "influxdb_backup.operators.verify", "VerifyBackupOperator"),
    ("Operators", "influxdb_backup.operators.restore", "RestoreOperator"),
    ("Operators", "influxdb_backup.operators.drill", "RestoreDrillOperator"),
    ("Operators", "influxdb_backup.operators.drill", "DropScratchOperator"),
    ("Operators", "influxdb_backup.operators.guard", "RestoreGuardOperator"),
    ("Sensors", "influxdb_backup.sensors.settled", "WindowSettledSensor"),
    ("Sensors", "influxdb_backup.sensors.fresh", "BackupFreshSensor"),
)
_EXAMPLE = """\
from datetime import UTC, datetime

from airflow.sdk import DAG, CronDataIntervalTimetable

from influxdb_backup.operators.export import ExportWindowOperator
from influxdb_backup.operators.verify import VerifyBackupOperator

with DAG(
    "my_backup",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
):
    common = {"config_path": "/opt/airflow/dags/influxdb_backup.yaml", "plan": "telemetry"}
    export = ExportWindowOperator(task_id="export", **common)
    verify = VerifyBackupOperator(task_id="verify", ref="{{ ti.xcom_pull(task_ids='export')['ref'] }}", **common)
    export >> verify"""


@dataclass(frozen=True)
class Documented:
    """A class's docstring, taken apart."""

    text: str
    parameters: dict[str, str]
    returns: str


def read_docstring(documented: Any) -> Documented:
    """The text, ``:param name:`` entries of the class and its bases, and ``:returns:``."""
    parameters: dict[str, str] = {}
    for base in reversed(documented.__mro__):
        if base.__module__.startswith("influxdb_backup."):
            fields = re.findall(r":param (\w+): (.*?)(?=\n\s*:|\Z)", inspect.getdoc(base) or "", re.DOTALL)
            parameters.update({name: " ".join(text.split()) for name, text in fields})
    own = inspect.getdoc(documented) or ""
    returns = re.search(r":returns: (.*?)(?=\n\s*:|\Z)", own, re.DOTALL)
    return Documented(
        text=re.split(r"\n\s*:(?:param|returns)", own)[0].strip(),
        parameters=parameters,
        returns=" ".join(returns[1].split()) if returns else "",
    )


def arguments(documented: Any) -> dict[str, inspect.Parameter]:
    """The keyword-only arguments of our own constructors, a base's first."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(documented.__mro__):
        if base.__module__.startswith("influxdb_backup.") and "__init__" in vars(base):
            signature = inspect.signature(inspect.unwrap(base.__init__))
            found.update({name: one for name, one in signature.parameters.items() if one.kind is one.KEYWORD_ONLY})
    return found


def page() -> str:
    """The page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Operators and sensors"
    yield ""
    yield MARK
    yield ""
    yield (
        "The generated DAGs are made of these; they can be used in DAGs of your own as well. All arguments are "
        "keyword-only, and those of Airflow's `BaseOperator` (retries, pool, queue, …) are accepted too. XCom carries "
        "ids and counts only. An error that may pass by itself is retried as the task says; any other, damage above "
        "all, fails the task at once."
    )
    yield ""
    yield "```python"
    yield _EXAMPLE
    yield "```"
    yield ""
    yield (
        "The window of a run is decided in one place: the params `window_start` and `window_end`, else the partition "
        "(one period of the plan's schedule), else the data interval. Give the DAG a "
        "`CronDataIntervalTimetable`: the intervals of a bare cron string have no length and are refused."
    )
    heading = ""
    for section, module, name in CLASSES:
        if section != heading:
            heading = section
            yield ""
            yield f"## {section}"
        yield from _class(module, name)


def _class(module: str, name: str) -> Iterator[str]:
    documented = getattr(import_module(module), name)
    read = read_docstring(documented)
    yield ""
    yield f"### {name}"
    yield ""
    yield f"`from {module} import {name}`"
    yield ""
    yield read.text.replace("``", "`")
    yield ""
    yield "| argument | default | meaning |"
    yield "|---|---|---|"
    for argument, parameter in arguments(documented).items():
        default = "**required**" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        meaning = read.parameters.get(argument, "As in Airflow.").replace("``", "`").replace("|", "\\|")
        yield f"| `{argument}` | {default} | {meaning[0].upper()}{meaning[1:]} |"
    if read.returns:
        yield ""
        yield f"Returns {read.returns}."


if __name__ == "__main__":
    (FOLDER / "operators.md").write_text(page(), encoding="utf-8")
