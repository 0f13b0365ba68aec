"""How kernels are compiled: once for each machine, without the interpreter's lock while they run. Needs numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}
_MAKES_NO_ARRAY: dict[str, Any] = {"_nrt": False}


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """
    Compiles a function over numpy arrays and numbers at its first call and keeps the machine code on disk.

    numba checks no index: a kernel bounds every place that it computes from the bytes of a file. It makes no array, so
    that nobody who uses one needs to be counted: that took a fifth of the time of the loop that renders line protocol
    (numba 0.68 counts in an atomic step, at the call of a small kernel as well).
    """
    return cast("Callable[P, R]", numba.njit(**_OPTIONS, **_MAKES_NO_ARRAY)(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """A small kernel that becomes part of each that calls it: a call with arrays costs more than some do."""
    return cast("Callable[P, R]", numba.njit(**_OPTIONS, **_MAKES_NO_ARRAY, forceinline=True)(function))


def making_arrays(function: Callable[P, R]) -> Callable[P, R]:
    """A kernel that makes arrays."""
    return cast("Callable[P, R]", numba.njit(**_OPTIONS)(function))
