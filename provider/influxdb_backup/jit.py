"""How kernels are compiled: once for each machine, without the interpreter's lock while they run. Needs numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """
    Compiles a function over numpy arrays and numbers at its first call and keeps the machine code on disk.

    numba checks no index: a kernel bounds every place that it computes from the bytes of a file.
    """
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True)(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """A small kernel that becomes part of each that calls it: a call with arrays costs more than some do."""
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True, forceinline=True)(function))
