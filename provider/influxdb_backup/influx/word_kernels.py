"""
Instructions that numba does not offer: eight bytes at any place at once, words of arrays that are given by their
address, zero bits counted, long products. Needs numba.

They are for machines that keep the lowest byte of a word first. Nothing is checked: a caller bounds every place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

Bytes = npt.NDArray[np.uint8]

_WORD = ir.IntType(64)
_LONG = ir.IntType(128)
_FLOAT = ir.DoubleType()
Codegen = Callable[[Any, Any, Any, Any], Any]


def _place(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), _WORD.as_pointer())


@intrinsic
def _load(typing: Any, source: Any, place: Any) -> tuple[Any, Codegen]:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *arguments), align=1)

    return types.uint64(source, types.int64), codegen


@intrinsic
def _store(typing: Any, out: Any, place: Any, word: Any) -> tuple[Any, Codegen]:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _place(context, builder, signature.args[0], *arguments[:2]), align=1)
        return context.get_dummy_value()

    return types.none(out, types.int64, types.uint64), codegen


def _element(builder: Any, kind: Any, address: Any, number: Any) -> Any:
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [number])


@intrinsic
def _word_at(typing: Any, address: Any, number: Any) -> tuple[Any, Codegen]:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_element(builder, _WORD, *arguments), align=1)

    return types.uint64(types.uint64, types.int64), codegen


@intrinsic
def _float_at(typing: Any, address: Any, number: Any) -> tuple[Any, Codegen]:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_element(builder, _FLOAT, *arguments), align=1)

    return types.float64(types.uint64, types.int64), codegen


@intrinsic
def _low_zeros(typing: Any, word: Any) -> tuple[Any, Codegen]:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.false_bit)

    return types.int64(types.uint64), codegen


@intrinsic
def _high_zeros(typing: Any, word: Any) -> tuple[Any, Codegen]:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], cgutils.false_bit)

    return types.int64(types.uint64), codegen


@intrinsic
def _high_word(typing: Any, left: Any, right: Any) -> tuple[Any, Codegen]:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.mul(builder.zext(arguments[0], _LONG), builder.zext(arguments[1], _LONG))
        return builder.trunc(builder.lshr(product, _LONG(64)), _WORD)

    return types.uint64(types.uint64, types.uint64), codegen


load = cast("Callable[[Bytes, int], np.uint64]", _load)
"""The eight bytes at a place."""
store = cast("Callable[[Bytes, int, np.uint64], None]", _store)
"""Puts eight bytes at a place."""
word_at = cast("Callable[[np.uint64, int], np.uint64]", _word_at)
"""A word of an array of words, by its number; the array is given by its address, so that its user keeps it alive."""
float_at = cast("Callable[[np.uint64, int], float]", _float_at)
"""The same as a float."""
low_zeros = cast("Callable[[np.uint64], int]", _low_zeros)
"""How many of the lowest bits are zero; 64 for zero."""
high_zeros = cast("Callable[[np.uint64], int]", _high_zeros)
"""How many of the highest bits are zero; 64 for zero."""
high_word = cast("Callable[[np.uint64, np.uint64], np.uint64]", _high_word)
"""The upper 64 bits of a product."""
