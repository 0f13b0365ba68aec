"""Memory of a loaded library is let go of, and the library works as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import re
from pathlib import Path
import pyarrow as pa
import pyarrow.compute as pc
from influxdb_backup.resident import Library

def sizes(name):
    entries = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    own = [entry for entry in entries if name in entry.partition("\\n")[0]]
    return [sum(int(re.search(rf"(?m)^{key}: +([0-9]+)", entry)[1]) for entry in own) for key in ("Rss", "Anonymous")]

library = Library("libarrow.so")
before, written = sizes("libarrow.so")
library.let_go()
after, kept = sizes("libarrow.so")
assert pc.sum(pa.array([1, 2, 3]).cast(pa.float64())).as_py() == 6.0
try:
    pa.array([1]).cast(pa.binary())
except pa.ArrowNotImplementedError:
    print(before, after, written, kept)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux alone tells what is resident")
def test_a_library_is_let_go_of_but_for_what_its_loader_wrote() -> None:
    """The code and constants of libarrow leave memory, its relocated addresses stay, and it works as before."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after, written, kept = map(int, done.stdout.split())
    assert before > written > 0
    assert after < before / 2
    assert kept == written
