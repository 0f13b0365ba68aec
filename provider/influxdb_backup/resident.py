"""Memory that only looks used: pages of mapped files that are read again from the page cache when they are needed."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

_MAPS = Path("/proc/self/maps")
_ELF = b"\x7fELF\2\1"
"""64 bits, little endian"""
_ELF_BYTES = 64
_LOAD = 1
_WRITE = 2


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


class Library:
    """
    The machine code and the constants of a loaded library, told by a part of its file's name.

    Nothing writes to them, so that they can be read from their file again. What the loader writes to and then protects
    (addresses) is mapped to be read alone too, but its program header says that it is written to: that is left. Linux
    maps whole stretches of a file as soon as one byte of them is needed: loading LLVM alone made 100 MB resident
    (kernel 6.18).
    """

    def __init__(self, name: str) -> None:
        self._ranges = list(_unwritten(name)) if _advise() else []
        for start, end in self._ranges:
            _advised(start, end, mmap.MADV_NOHUGEPAGE)

    def let_go(self) -> None:
        """Lets go of all of its pages."""
        for start, end in self._ranges:
            _let_go(start, end)


def _unwritten(name: str) -> Iterator[tuple[int, int]]:
    """Where the files of that name are mapped, but for what their programs say is written to."""
    lines = [line.split() for line in _MAPS.read_text().splitlines() if name in line]
    for bounds, rights, offset, _, _, path, *_ in lines:
        if "w" not in rights and int(offset, 16) in _read_only(path):
            start, end = bounds.split("-")
            yield int(start, 16), int(end, 16)


def _read_only(path: str) -> set[int]:
    """Where in an ELF file what is loaded to be read or run alone begins, by its program headers; none of another."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(_ELF_BYTES)
            if len(start) < _ELF_BYTES or not start.startswith(_ELF):
                return set()
            at, size, count = *struct.unpack_from("<Q", start, 32), *struct.unpack_from("<HH", start, 54)
            file.seek(at)
            headers = file.read(size * count)
    except OSError:
        return set()
    found = [struct.unpack_from("<IIQ", headers, size * number) for number in range(len(headers) // size)]
    kept = [offset for kind, flags, offset in found if kind == _LOAD and not flags & _WRITE]
    return {offset // mmap.PAGESIZE * mmap.PAGESIZE for offset in kept}


@cache
def compiler_code() -> Library:
    """LLVM, which must be loaded: machine code that is kept needs it for a moment, as the processor's name does."""
    return Library("libllvmlite")
