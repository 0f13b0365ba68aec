"""
Whether compiled loops are used: the extra ``fast`` is installed, and they were compiled for this machine before.

numba compiles a loop at its first call, which takes seconds, and keeps the machine code on disk. So that no export
begins with that, the loops are used only once ``influxdb-backup warm`` has left a mark beside the machine code.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from fnmatch import fnmatch
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from influxdb_backup.resident import compiler_code

_KERNELS = ("*_kernels.py", "influx/*_kernels.py", "influx/tsm/*.py")
_MARK = "influxdb-backup-{}.compiled"
_FOLDER = Path(__file__).parent
_WORTH_LOADING = 100_000
"""values that numpy goes through in about that time"""


def is_installed() -> bool:
    """Whether numba can be imported."""
    return find_spec("numba") is not None


@lru_cache(1)
def why_not_fast() -> str | None:
    """Why the compiled loops are not used, for a log line; None when they are."""
    if not is_installed():
        return "the extra 'fast' is not installed (pip install 'airflow-provider-influxdb-backup[fast]')"
    try:
        folder = _cache_folder()
        marks = [folder / name for name in os.listdir(folder) if fnmatch(name, _MARK.format("*"))]  # noqa: PTH208
    except FileNotFoundError:
        marks = []
    except (OSError, RuntimeError) as error:  # a home that cannot be read, or none at all
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"their folder cannot be read: {reason} (set NUMBA_CACHE_DIR to one that can)"
    if not marks or _mark() not in marks:  # any at all, before LLVM is loaded: it has 100 MB
        return "the loops are not compiled for this machine and user (run: influxdb-backup warm)"
    return None


def pays(values: int) -> bool:
    """Whether so many values are worth what loading numba takes, a quarter of a second; always once it is loaded."""
    return values >= _WORTH_LOADING or "numba" in sys.modules


def cache_folder() -> Path | None:
    """Where the machine code is kept, made when it is not there; None where nothing can be written."""
    try:
        folder = _cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def leave_mark() -> None:
    """Says that every kernel was compiled. Raises OSError where nothing can be written."""
    mark = _mark()
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps({"compiled": time.time()}))


def _mark() -> Path:
    """The mark's place: numba keeps machine code for one state of the sources, one processor and one user."""
    from llvmlite.binding import get_host_cpu_name  # numba's own, which needs a tenth of the time that numba does

    processor = get_host_cpu_name()
    compiler_code().let_go()
    sources = sorted(source for pattern in _KERNELS for source in _FOLDER.glob(pattern))
    stamps = [(source.name, source.stat().st_mtime_ns, source.stat().st_size) for source in sources]
    parts = [version("numba"), version("llvmlite"), platform.python_version(), processor, stamps]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return _cache_folder() / _MARK.format(digest)


def _cache_folder() -> Path:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen)
    beside = _FOLDER / "__pycache__"
    if os.access(beside if os.path.exists(beside) else _FOLDER, os.W_OK):  # noqa: PTH110  never raises
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "influxdb-backup"
