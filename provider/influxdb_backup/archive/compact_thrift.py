"""
Thrift's compact protocol, as far as the footers, page headers and page indexes of Parquet need it.

pyarrow reads whole columns only and shows no page, so what a damaged file still holds is found here (Apache Thrift:
thrift-compact-protocol.md; Apache Parquet: parquet.thrift).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Decoded: TypeAlias = "bool | int | bytes | Struct | list[Decoded]"

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_DEEPEST = 16
_MOST = 1 << 20
"""elements of a list"""


class ThriftError(ValueError):
    """The bytes are no such structure."""


@dataclass(frozen=True)
class Struct:
    """A structure's fields by their numbers."""

    fields: Mapping[int, Decoded]

    def integer(self, number: int) -> int:
        """A number that must be there. Raises ThriftError."""
        value = self.fields.get(number)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ThriftError(f"field {number} is no number")
        return value

    def optional(self, number: int) -> int | None:
        """A number, or None when it is not there. Raises ThriftError."""
        return self.integer(number) if number in self.fields else None

    def struct(self, number: int) -> Struct:
        """A structure that must be there. Raises ThriftError."""
        value = self.fields.get(number)
        if not isinstance(value, Struct):
            raise ThriftError(f"field {number} is no structure")
        return value

    def structs(self, number: int) -> list[Struct]:
        """A list of structures; empty when it is not there. Raises ThriftError."""
        value = self.fields.get(number, [])
        if not isinstance(value, list):
            raise ThriftError(f"field {number} is no list")
        found = [entry for entry in value if isinstance(entry, Struct)]
        if len(found) != len(value):
            raise ThriftError(f"field {number} is no list of structures")
        return found

    def text(self, number: int) -> str:
        """Bytes as text; those that are not UTF-8 as surrogates. Raises ThriftError."""
        value = self.fields.get(number)
        if not isinstance(value, bytes):
            raise ThriftError(f"field {number} is no text")
        return value.decode("utf-8", "surrogateescape")


def read_struct(data: bytes) -> tuple[Struct, int]:
    """The structure that the bytes begin with, and its length. Raises ThriftError."""
    reader = _Reader(data)
    return reader.struct(0), reader.place


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self.place:
            raise ThriftError("it ends early")
        self.place += count
        return self._data[self.place - count : self.place]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7
            if shift > 63:
                raise ThriftError("a number has more than 64 bits")

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def struct(self, depth: int) -> Struct:
        if depth > _DEEPEST:
            raise ThriftError("it is too deep")
        fields: dict[int, Decoded] = {}
        last = 0
        while True:
            head = self._take(1)[0]
            if not head:
                return Struct(fields)
            last = last + (head >> 4) if head >> 4 else self._integer()
            fields[last] = self._value(head & 0x0F, depth)

    def _value(self, kind: int, depth: int) -> Decoded:
        if kind in {_TRUE, _FALSE}:
            return kind == _TRUE
        if kind == _BYTE:
            return self._take(1)[0]
        if kind in {_I16, _I32, _I64}:
            return self._integer()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind in {_LIST, _SET}:
            return self._list(depth)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ThriftError(f"it has a field of the unknown type {kind}")

    def _list(self, depth: int) -> list[Decoded]:
        head = self._take(1)[0]
        count = head >> 4 if head >> 4 != 15 else self._varint()
        if count > min(_MOST, len(self._data) - self.place):
            raise ThriftError("a list is longer than what is left")
        kind = head & 0x0F
        if kind in {_TRUE, _FALSE}:
            return [byte == 1 for byte in self._take(count)]
        return [self._value(kind, depth + 1) for _ in range(count)]


def encode_struct(fields: Mapping[int, int | Mapping[int, int]]) -> bytes:
    """A structure of 32-bit numbers and structures of such, numbered 1 to 15 in ascending order."""
    out = bytearray()
    last = 0
    for number, value in fields.items():
        nested = isinstance(value, Mapping)
        out.append((number - last) << 4 | (_STRUCT if nested else _I32))
        out += encode_struct(value) if isinstance(value, Mapping) else encode_varint(value << 1 ^ value >> 63)
        last = number
    return bytes(out) + b"\0"


def encode_varint(number: int) -> bytes:
    """A number that is not negative, seven bits to a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
