"""The YAML and Python examples of the pages are right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from influxdb_backup.config.connections import connection_from_environment, server_settings, storage_options
from influxdb_backup.config.load import load
from tests.docs.pages import DOCS, ROOT, Block, Page, pages, read

PLANS = """\
repositories:
  primary: {url: "file:///srv/backups/influx"}
plans:
  telemetry:
    database: telemetry
    drill: {schedule: "0 6 * * 0"}
"""


def _blocks(*languages: str) -> list[tuple[Page, Block]]:
    return [
        (page, block)
        for page in pages()
        for block in page.blocks
        if block.language in languages and page.path.parent not in (DOCS / "format", DOCS / "reference")
    ]


def _name(value: object) -> str:
    return value.name if isinstance(value, Page) else "block"


@pytest.mark.parametrize(("page", "block"), _blocks("yaml"), ids=_name)
def test_yaml_examples_load(page: Page, block: Block, tmp_path: Path) -> None:
    """Every YAML example is a whole file that `config.load` takes."""
    file = tmp_path / "influxdb_backup.yaml"
    file.write_text(block.body)
    assert load(file).plans


@pytest.mark.parametrize(
    ("page", "block"), [found for found in _blocks("python") if "airflow.sdk" in found[1].body], ids=_name
)
def test_dag_examples_make_dags(page: Page, block: Block, tmp_path: Path) -> None:
    """Every DAG file of the pages is parsed by Airflow without an error and holds a DAG with tasks."""
    assert _dags(tmp_path, block)


@pytest.mark.parametrize(
    ("page", "block"), [found for found in _blocks("python") if "build_dags" in found[1].body], ids=_name
)
def test_the_loader_of_the_pages_makes_the_three_dags(page: Page, block: Block, tmp_path: Path) -> None:
    """The few lines that the README shows are all that Airflow needs."""
    assert _dags(tmp_path, block) == [
        "influxdb_backup__telemetry",
        "influxdb_drill__telemetry",
        "influxdb_restore__telemetry",
    ]
    assert block.body == (ROOT / "dags" / "influxdb_backup_dags.py").read_text()


def test_the_readme_shows_the_files_that_are_shipped() -> None:
    """Byte for byte: whoever copies the page has what the tests ran."""
    readme = read(ROOT / "README.md")
    shown = {block.file: block.body for block in readme.blocks if block.file}
    assert shown == {name: (ROOT / "dags" / name).read_text() for name in shown}
    assert set(shown) == {"influxdb_backup.yaml", "influxdb_backup_dags.py"}


def _dags(folder: Path, block: Block) -> list[str]:
    """The ids of the DAGs that a file makes, in a process of its own."""
    (folder / "influxdb_backup.yaml").write_text(PLANS)
    (folder / "example.py").write_text(block.body)
    script = (
        "import json, runpy\n"
        "from airflow.sdk import DAG\n"
        f"made = runpy.run_path({str(folder / 'example.py')!r})\n"
        "found = [value for value in made.values() if isinstance(value, DAG)]\n"
        "assert all(dag.tasks for dag in found)\n"
        "print('\\n' + json.dumps(sorted(dag.dag_id for dag in found)))\n"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "PYTHONPATH": str(ROOT / "provider"),
    }
    finished = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return list(json.loads(finished.stdout.strip().splitlines()[-1]))


@pytest.mark.parametrize(("page", "block"), _blocks("python"), ids=_name)
def test_python_examples_compile(page: Page, block: Block) -> None:
    """Every Python example is a whole program."""
    compile(block.body, page.name, "exec")


def test_connections_in_the_pages_are_read() -> None:
    """Every connection that a page exports is one that the program understands."""
    found = 0
    for page, block in _blocks("sh", "console"):
        text = re.sub(r"^> ", "", block.body, flags=re.MULTILINE)
        for name, value in re.findall(r"export (AIRFLOW_CONN_\w+)='([^']*)'", text):
            conn_id = name.removeprefix("AIRFLOW_CONN_").lower()
            values = connection_from_environment(conn_id, {name: value})
            assert values is not None, page.name
            if values.conn_type == "aws":
                assert storage_options("s3://backups/influx", values)
            else:
                assert server_settings(conn_id, values).url
            found += 1
    assert found >= 5


@pytest.mark.parametrize(("page", "block"), _blocks("sh"), ids=_name)
def test_shell_examples_are_shell(page: Page, block: Block) -> None:
    """What is not run is at least shell, and calls no command of the program that does not exist."""
    body = "\n".join(line for line in block.body.splitlines() if not re.match(r"[\d*]+ \*", line))
    assert subprocess.run(["bash", "-n"], input=body, text=True, check=False, capture_output=True).returncode == 0


def test_make_targets_in_the_pages_exist() -> None:
    """Nobody is told to run a target that the Makefile does not have."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {
        target
        for _, block in _blocks("sh")
        for line in re.findall(r"^make ((?:[a-z]+ ?)+)", block.body, re.MULTILINE)
        for target in line.split()
    }
    assert {"demo", "test"} <= told
    assert told <= targets
