"""
Temporary folders that say whose they are, so that what a killed process left behind can be removed.

The name has the process, when it began, and the boot and PID namespace in which its number means something. Where the
system does not tell these (other than Linux) the names are plain, and nothing is ever removed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

from influxdb_backup.messages import logger_of

logger = logger_of(__name__)

_NAME = re.compile(r"influxdb-backup-(?:[a-z]+-)?([0-9a-f]{32}-[0-9]+)-([0-9]+)-([0-9]+)-[^-]*\Z")


def temporary_folder(purpose: str = "") -> tempfile.TemporaryDirectory[str]:
    """
    A new folder in TMPDIR of this process; raises OSError.

    What a thread that ends late still writes there at the end is left behind for ``remove_dead_folders``.
    """
    owner = f"{_place()}-{os.getpid()}-{_began(os.getpid())}-" if _place() else ""
    prefix = f"influxdb-backup-{f'{purpose}-' if purpose else ''}{owner}"
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def remove_dead_folders() -> tuple[Path, ...]:
    """
    Removes the folders in TMPDIR of this user's processes that are dead for certain; what was removed.

    A process is dead when its number is free, or is that of one which began at another time, in the very boot and PID
    namespace that it ran in. All other folders stay.
    """
    removed = []
    for folder in Path(tempfile.gettempdir()).glob("influxdb-backup-*"):
        found = _NAME.match(folder.name)
        if not found or found[1] != _place() or _began(int(found[2])) in (found[3], None):
            continue
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            shutil.rmtree(folder)
        except OSError as error:
            logger.info("%s, which a dead process left, cannot be removed: %s", folder, error)
            continue
        logger.info("Removed %s, which a process that was killed had left.", folder)
        removed.append(folder)
    return tuple(removed)


@cache
def _place() -> str:
    """The boot and PID namespace in which numbers of processes are this process's; "" where it cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}" if _began(os.getpid()) else ""
    except OSError:
        return ""


def _began(process: int) -> str | None:
    """When a process began, in ticks since the boot; "" when there is none of that number, None when it is not told."""
    try:
        words = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return ""
    except OSError:
        return None
    return words.rpartition(")")[2].split()[19]
