"""
Snappy's block format, byte for byte as Go's library writes it, which is what the servers compress strings with.

The order of decisions follows github.com/golang/snappy (v1.0.0, in 2.9.1 and 1.12.4), under this notice:

Copyright (c) 2011 The Snappy-Go Authors. All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

   * Redistributions of source code must retain the above copyright notice, this list of conditions and the
     following disclaimer.
   * Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the
     following disclaimer in the documentation and/or other materials provided with the distribution.
   * Neither the name of Google Inc. nor the names of its contributors may be used to endorse or promote products
     derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES,
INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT OWNER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY,
WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.tsm.encode_words import put_uvarint
from influxdb_backup.jit import kernel

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]

TABLE_SIZE = 1 << 14
"""numbers in the table that put_snappy needs as space"""
_STRETCH = 65536
_SHORTEST = 17
_MARGIN = 15
_PRIME = np.uint32(0x1E35A7BD)


@kernel
def snappy_bound(size: int) -> int:
    """Bytes that put_snappy writes at most for ``size`` bytes."""
    return 32 + size + size // 6


@kernel
def _load32(source: U8, at: int) -> np.uint32:
    return np.uint32(
        np.uint32(source[at])
        | (np.uint32(source[at + 1]) << np.uint32(8))
        | (np.uint32(source[at + 2]) << np.uint32(16))
        | (np.uint32(source[at + 3]) << np.uint32(24))
    )


@kernel
def _hash(value: np.uint32, shift: int) -> int:
    return int(np.int64(np.uint32(value * _PRIME) >> np.uint32(shift)))


@kernel
def _put_literal(out: U8, at: int, source: U8, start: int, stop: int) -> int:
    length = stop - start - 1
    if length < 60:
        out[at] = np.uint8(length << 2)
        at += 1
    elif length < 256:
        out[at] = np.uint8(60 << 2)
        out[at + 1] = np.uint8(length)
        at += 2
    else:
        out[at] = np.uint8(61 << 2)
        out[at + 1] = np.uint8(length & 0xFF)
        out[at + 2] = np.uint8(length >> 8)
        at += 3
    for position in range(start, stop):
        out[at] = source[position]
        at += 1
    return at


@kernel
def _put_far_copy(out: U8, at: int, offset: int, length: int) -> int:
    out[at] = np.uint8(((length - 1) << 2) | 2)
    out[at + 1] = np.uint8(offset & 0xFF)
    out[at + 2] = np.uint8(offset >> 8)
    return at + 3


@kernel
def _put_copy(out: U8, at: int, offset: int, length: int) -> int:
    while length >= 68:
        at = _put_far_copy(out, at, offset, 64)
        length -= 64
    if length > 64:
        at = _put_far_copy(out, at, offset, 60)
        length -= 60
    if length >= 12 or offset >= 2048:
        return _put_far_copy(out, at, offset, length)
    out[at] = np.uint8(((offset >> 8) << 5) | ((length - 4) << 2) | 1)
    out[at + 1] = np.uint8(offset & 0xFF)
    return at + 2


@kernel
def _put_stretch(out: U8, at: int, source: U8, first: int, stop: int, table: U16) -> int:
    """One stretch of 17 to 65,536 bytes; places in ``table`` are relative to ``first``."""
    shift, size = 24, 256
    while size < TABLE_SIZE and size < stop - first:
        shift -= 1
        size *= 2
    table[:size] = 0
    limit = stop - _MARGIN
    emitted = first
    at_source = first + 1
    following = _hash(_load32(source, at_source), shift)
    while True:
        skip = 32
        ahead = at_source
        while True:
            at_source = ahead
            step = skip >> 5
            ahead = at_source + step
            skip += step
            if ahead > limit:
                return _put_literal(out, at, source, emitted, stop) if emitted < stop else at
            candidate = first + int(np.int64(table[following]))
            table[following] = np.uint16(at_source - first)
            following = _hash(_load32(source, ahead), shift)
            if _load32(source, at_source) == _load32(source, candidate):
                break
        at = _put_literal(out, at, source, emitted, at_source)
        while True:
            base = at_source
            at_source += 4
            match = candidate + 4
            while at_source < stop and source[match] == source[at_source]:
                match += 1
                at_source += 1
            at = _put_copy(out, at, base - candidate, at_source - base)
            emitted = at_source
            if at_source >= limit:
                return _put_literal(out, at, source, emitted, stop) if emitted < stop else at
            table[_hash(_load32(source, at_source - 1), shift)] = np.uint16(at_source - 1 - first)
            here = _load32(source, at_source)
            place = _hash(here, shift)
            candidate = first + int(np.int64(table[place]))
            table[place] = np.uint16(at_source - first)
            if here != _load32(source, candidate):
                following = _hash(_load32(source, at_source + 1), shift)
                at_source += 1
                break


@kernel
def put_snappy(out: U8, at: int, source: U8, size: int, table: U16) -> int:
    """Compresses ``source[:size]``; ``out`` has snappy_bound(size) bytes from ``at``. Returns where it ends."""
    at = put_uvarint(out, at, np.uint64(size))
    first = 0
    while first < size:
        stop = min(first + _STRETCH, size)
        if stop - first < _SHORTEST:
            at = _put_literal(out, at, source, first, stop)
        else:
            at = _put_stretch(out, at, source, first, stop, table)
        first = stop
    return at
