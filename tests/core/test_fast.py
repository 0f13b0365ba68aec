"""The extra ``fast`` is used only where it is installed and compiled, and says why when it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from numba.core.caching import _CacheLocator

PROVIDER = Path(__file__).parents[2] / "provider"


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own."""
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(PROVIDER), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


ASK = "from influxdb_backup.fast import why_not_fast; print(why_not_fast())"
MAIN = "import sys; from influxdb_backup.cli.main import run; sys.exit(run())"
WITHOUT = """
import sys, importlib.util
known = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else known(name, *rest)
sys.modules["numba"] = None
"""


def keep_machine_code(folder: Path) -> None:
    """Puts what was compiled beside the sources where numba looks for it in another folder: compiling takes a minute."""
    for code in PROVIDER.rglob("__pycache__/*.nb[ci]"):
        own = folder / _CacheLocator.get_suitable_cache_subpath(str(code.parents[1] / "any.py"))
        own.mkdir(parents=True, exist_ok=True)
        shutil.copy2(code, own)


def test_loops_are_used_only_after_warm(tmp_path: Path) -> None:
    """Before ``warm`` the reason names the command; after it there is none, and the second time does nothing."""
    keep_machine_code(tmp_path)
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert "influxdb-backup warm" in run("-c", ASK, **cache).stdout
    first = run("-c", MAIN, "warm", **cache)
    assert first.returncode == 0, first.stderr
    assert " s." in first.stdout
    assert run("-c", ASK, **cache).stdout == "None\n"
    assert run("-c", MAIN, "warm", **cache).stdout == "The loops are compiled.\n"


def test_without_the_extra_the_fingerprint_is_the_same() -> None:
    """Without numba everything works by numpy, and ``warm`` says how to install the extra."""
    digest = (
        "import pyarrow as pa; from influxdb_backup.columns import *; from influxdb_backup.model import *;"
        "from influxdb_backup.fingerprint import *;"
        "schema = arrow_schema([Column(role=Role.FIELD, name='f', type=InfluxType.FLOAT)]);"
        "times = pa.array(range(5000), pa.int64()).cast(TIME_TYPE);"
        "batch = pa.RecordBatch.from_arrays([times, pa.array([i / 7 for i in range(5000)])], schema=schema);"
        "print(default_loops().__name__, fingerprint_batches('m', [batch]).hexadecimal)"
    )
    plain, usual = run("-c", WITHOUT + digest).stdout.split(), run("-c", digest).stdout.split()
    assert plain[0] == "influxdb_backup.fingerprint_loops"
    assert plain[1] == usual[1]
    assert "not installed" in run("-c", WITHOUT + ASK).stdout
    refused = run("-c", WITHOUT + MAIN, "warm")
    assert refused.returncode == 2
    assert "[fast]" in refused.stderr
