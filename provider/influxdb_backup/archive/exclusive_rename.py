"""A rename that replaces nothing, and what kind of file system a folder is on: for folders without hard links."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_MOUNTS = Path("/proc/self/mountinfo")
_OF_A_PROGRAM = ("fuse", "virtiofs", "9p")
"""file systems whose renames a program does, which may look first and rename then"""


def rename_new(source: Path, target: Path) -> None:
    """
    Renames a file in one act to a name that must not exist (Linux ``renameat2`` with RENAME_NOREPLACE).

    Raises FileExistsError; OSError with ENOSYS or EINVAL where system or file system know no such rename.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(source), None, str(target))
    if rename(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(target))


def file_system_of(folder: Path) -> str:
    """The type of the file system of a folder, such as ``ext4`` or ``fuse.sshfs``; empty where nothing tells it."""
    place, found, longest = os.path.realpath(folder), "", -1
    with suppress(OSError):
        for line in _MOUNTS.read_bytes().splitlines():
            mount, _, kind = line.partition(b" - ")
            point = os.fsdecode(mount.split(b" ")[4].decode("unicode_escape").encode("latin-1"))
            within = place == point or place.startswith(point.rstrip("/") + "/")
            if within and len(point) >= longest:  # the last of several at one place hides the others
                found, longest = kind.split(b" ")[0].decode(), len(point)
    return found


def renames_are_proved(file_system: str) -> bool:
    """
    Whether the kernel, or the server's protocol, keeps ``rename_new`` from replacing what another machine just wrote.

    A file system in user space may ignore the flag, and one client cannot see that.
    """
    return file_system != "" and not file_system.startswith(_OF_A_PROGRAM)
