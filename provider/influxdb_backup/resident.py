"""Memory that only looks used: pages of mapped files that are read again from the page cache when they are needed."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

_MAPS = Path("/proc/self/maps")


@cache
def _advise() -> Any:
    """The C library's ``madvise``; None where there is none, or pages cannot be let go."""
    if not _MAPS.exists() or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


def _advised(start: int, end: int, advice: int) -> None:
    """Tells the kernel something about whole pages; what it does not take changes nothing."""
    advise = _advise()
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    if advise is not None and end > first:
        advise(first, end - first, advice)


def _let_go(start: int, end: int) -> None:
    _advised(start, end, mmap.MADV_DONTNEED)


def let_go_of_file(data: npt.NDArray[Any]) -> None:
    """Lets go of the pages of an array that is a map of a file, to be read alone; of any other array nothing."""
    import numpy as np

    if isinstance(data, np.memmap) and getattr(data, "_mmap", None) is not None and not data.flags.writeable:
        _let_go(data.ctypes.data, data.ctypes.data + data.nbytes)


class Code:
    """
    The machine code of a loaded library, told by a part of its file's name.

    Nothing writes to what is mapped as code, so that it can be read from its file again. Linux maps whole stretches of
    a file as soon as one byte of them is needed: loading LLVM alone made 75 MB resident (kernel 6.18).
    """

    def __init__(self, name: str) -> None:
        lines = _MAPS.read_text().splitlines() if _advise() else []
        parts = [line.split() for line in lines]
        bounds = [part[0].split("-") for part in parts if part[1] == "r-xp" and name in part[-1]]
        self._ranges = [(int(start, 16), int(end, 16)) for start, end in bounds]
        for start, end in self._ranges:
            _advised(start, end, mmap.MADV_NOHUGEPAGE)

    def let_go(self) -> None:
        """Lets go of all of its pages."""
        for start, end in self._ranges:
            _let_go(start, end)


@cache
def compiler_code() -> Code:
    """LLVM, which must be loaded: machine code that is kept needs it for a moment, as the processor's name does."""
    return Code("libllvmlite")
