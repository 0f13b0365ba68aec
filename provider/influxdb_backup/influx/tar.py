"""
The members of a tar archive from bytes that nobody vouches for.

Not the standard library's reader, which takes negative sizes (and then never ends), reads extended headers of any size
into memory and follows them without a bound. What a server's archives never have is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

RECORD = 512
_LARGEST_EXTENSION = 1 << 16
"""bytes of the header that holds a name that is too long for the common one"""
_CHECKSUM = slice(148, 156)
_REGULAR, _FOLDER, _EXTENDED, _LONG_NAME = (b"0", b"\0"), b"5", b"x", b"L"


class Stream(Protocol):
    """What an archive is read from: a file, or a reply, which goes forward only."""

    def seek(self, at: int, /) -> object:
        """Goes to this byte of the archive."""

    def read(self, size: int, /) -> bytes:
        """So many bytes from there; fewer only at the end."""


class TarError(Exception):
    """These bytes are no whole archive; the words complete a sentence about it."""


@dataclass(frozen=True)
class Member:
    """One entry: its bytes are ``size`` from ``offset`` on, and the next entry begins at ``end``."""

    name: str
    regular: bool
    offset: int
    size: int
    end: int


def members(stream: Stream, total: int) -> Iterator[Member]:
    """
    The entries up to what is no header, as the empty records at the end of an archive, in a stream of ``total`` bytes.

    Nothing is read again, and between two entries the caller may read the bytes of the first. Raises TarError when one
    is not whole. The caller proves what stands behind the last one.
    """
    at = 0
    long_name: bytes | None = None
    long_size: int | None = None
    while at < total:
        stream.seek(at)
        head = stream.read(RECORD)
        if len(head) < RECORD or not _is_header(head):
            break
        kind = head[156:157]
        size = 0 if kind == _FOLDER else _number(head[124:136], at)
        if long_size is not None:
            size, long_size = long_size, None
        offset, end = at + RECORD, at + RECORD + -(-size // RECORD) * RECORD
        if end > total:
            raise TarError(f"it ends inside of a file (its entry is at byte {at})")
        if kind in (_EXTENDED, _LONG_NAME):
            if size > _LARGEST_EXTENSION or long_name is not None:
                raise TarError(f"the header at byte {at} is larger than a server's")
            content = stream.read(size)
            long_name, long_size = (content.rstrip(b"\0"), None) if kind == _LONG_NAME else _extended(content, at)
        elif kind in (*_REGULAR, _FOLDER):
            name = long_name or _name(head)
            long_name = None
            yield Member(name.decode("utf-8", "surrogateescape"), kind != _FOLDER, offset, size, end)
        else:
            raise TarError(f"the entry at byte {at} is neither a file nor a folder")
        at = end
    if long_name is not None:
        raise TarError("its end is missing: a name stands there without its file")


def _is_header(head: bytes) -> bool:
    return _octal(head[_CHECKSUM]) == sum(head) - sum(head[_CHECKSUM]) + 8 * ord(" ")


def _octal(field: bytes) -> int | None:
    digits = field.strip(b"\0 ")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def _number(field: bytes, at: int) -> int:
    value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if value is None:
        raise TarError(f"the header at byte {at} has no size")
    return value


def _name(head: bytes) -> bytes:
    name, prefix = head[:100].split(b"\0", 1)[0], b""
    if head[257:263] == b"ustar\0":
        prefix = head[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix else name


def _extended(content: bytes, at: int) -> tuple[bytes, int | None]:
    """The name (empty when it stands in the common header) and the size that an extended header tells."""
    name, size = b"", None
    while content:
        digits, space, _ = content[:8].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = content[len(digits) + 1 : length]
        key, equals, value = record[:-1].partition(b"=")
        if length > len(content) or record[-1:] != b"\n" or not equals:
            raise TarError(f"the header at byte {at} cannot be read")
        if key == b"path":
            name = value
        elif key == b"size":
            if not value.isdigit() or len(value) > len(str(2**63)):
                raise TarError(f"the header at byte {at} has no size")
            size = int(value)
        content = content[length:]
    return name, size
