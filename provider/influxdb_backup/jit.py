"""How kernels are compiled: once for each machine, without the interpreter's lock while they run. Needs numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
from numba.core.runtime.nrt import rtsys

from influxdb_backup.resident import compiler_code

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}
_MAKES_NO_ARRAY: dict[str, Any] = {"_nrt": False}


def _loaded_lean(loop: Any) -> Any:
    """
    The same loop, whose machine code is taken from disk without what only compiling it needs.

    numba prepares to compile before it looks at the disk: everything that it can compile is imported and listed, which
    takes 0.3 s and 14 MB. Here that waits until something has to be compiled. And once the machine code is loaded, the
    compiler's own is let go of.
    """
    compile_it, files = loop.compile, loop._cache

    def load(signature: Any, context: Any) -> Any:
        rtsys.initialize(context)
        with files._guard_against_spurious_io_errors():
            found = files._load_overload(signature, context)
            if found is not None:
                return found
        context.refresh()
        return None

    def compile_loop(signature: Any) -> Any:
        found = compile_it(signature)
        if loop.stats.cache_hits:
            compiler_code().let_go()
        return found

    if hasattr(files, "_load_overload") and hasattr(files, "_guard_against_spurious_io_errors"):
        files.load_overload = load
    loop.compile = compile_loop
    return loop


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """
    Compiles a function over numpy arrays and numbers at its first call and keeps the machine code on disk.

    numba checks no index: a kernel bounds every place that it computes from the bytes of a file. It makes no array, so
    that nobody who uses one needs to be counted: that took a fifth of the time of the loop that renders line protocol
    (numba 0.68 counts in an atomic step, at the call of a small kernel as well).
    """
    return cast("Callable[P, R]", _loaded_lean(numba.njit(**_OPTIONS, **_MAKES_NO_ARRAY)(function)))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """A small kernel that becomes part of each that calls it: a call with arrays costs more than some do."""
    return cast("Callable[P, R]", numba.njit(**_OPTIONS, **_MAKES_NO_ARRAY, forceinline=True)(function))


def making_arrays(function: Callable[P, R]) -> Callable[P, R]:
    """A kernel that makes arrays."""
    return cast("Callable[P, R]", _loaded_lean(numba.njit(**_OPTIONS)(function)))


compiler_code().let_go()
