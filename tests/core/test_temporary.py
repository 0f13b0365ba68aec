"""What a killed process left in TMPDIR is removed by the next export, and nothing else is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from influxdb_backup.temporary import remove_dead_folders, temporary_folder
from tests.archive.build import backup
from tests.jobs.support import local_repository

MAKE = """
import sys
from influxdb_backup.temporary import temporary_folder
folder = temporary_folder(sys.argv[1])
print(folder.name, flush=True)
input()
"""


def made_by_another(purpose: str) -> tuple[subprocess.Popen[str], Path]:
    """A process that lives, and its folder with a file in it."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE, purpose], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    (folder / "part").write_bytes(b"points")
    return process, folder


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell whose number a process has")
def test_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a process that was killed goes; those of living ones, other boots and other makers stay."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    killed, left = made_by_another("shard")
    living, kept = made_by_another("")
    with temporary_folder() as own:
        other_boot = tmp_path / re.sub(r"[0-9a-f]{32}", "0" * 32, left.name)
        plain = tmp_path / "influxdb-backup-abcdefgh"
        recycled = tmp_path / left.name.replace(f"-{killed.pid}-", f"-{os.getpid()}-")
        for folder in (other_boot, plain, recycled):
            folder.mkdir()
        assert remove_dead_folders() == (recycled,)
        killed.kill()
        killed.wait()
        backup(local_repository(tmp_path))
        assert not left.exists()
        assert all(folder.is_dir() for folder in (kept, other_boot, plain, Path(own)))
    living.communicate("\n")
