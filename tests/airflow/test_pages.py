"""What the pages show as files of the DAGs folder, Airflow finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, pages

AIRFLOW = str(Path(sys.executable).with_name("airflow"))


def test_airflow_lists_the_dags_of_the_pages(folder: Path) -> None:
    """Each file that a page shows and that makes DAGs: Airflow passes over files without its own name, in silence."""
    dags = folder / "dags"
    dags.mkdir()
    (dags / "influxdb_backup.yaml").write_text((ROOT / "dags" / "influxdb_backup.yaml").read_text())
    shown = {
        block.file: block.body
        for page in pages()
        for block in page.blocks
        if block.language == "python" and block.file and ("airflow.sdk" in block.body or "build_dags" in block.body)
    }
    for name, body in shown.items():
        (dags / name).write_text(body)
    environment = {**os.environ, "AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__DAGS_FOLDER": str(dags)}
    subprocess.run([AIRFLOW, "db", "migrate"], env=environment, check=True, capture_output=True)
    command = [AIRFLOW, "dags", "list", "--local", "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, set[str]] = {}
    for dag in json.loads(done.stdout[done.stdout.index("[{") :]):
        found.setdefault(Path(dag["fileloc"]).name, set()).add(dag["dag_id"])
    assert found.keys() == shown.keys()
    assert found["influxdb_backup_dags.py"] == {
        f"influxdb_{kind}__telemetry" for kind in ("backup", "restore", "drill")
    }
