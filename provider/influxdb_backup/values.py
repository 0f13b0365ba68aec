"""
The base of all frozen values, and the scalars in them: exact names, 64-bit numbers, digests.

Numbers that can exceed 2^53 are decimal strings in JSON; names that are not UTF-8 are ``{"base64": ...}`` and in
Python ``str`` with surrogate escapes, as for file names.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints, WithJsonSchema

MIN_TIME = -(2**63) + 2
"""The earliest instant InfluxDB stores, in ns."""
MAX_END = 2**63 - 1
"""The end of a window that contains the latest instant InfluxDB stores (2^63 - 2 ns)."""


def encode_name(name: str) -> bytes:
    """The bytes of an InfluxDB name."""
    return name.encode("utf-8", "surrogateescape")


def decode_name(raw: bytes) -> str:
    """A name as ``str``; bytes that are not UTF-8 become surrogate escapes and survive encode_name."""
    return raw.decode("utf-8", "surrogateescape")


def is_utf8(name: str) -> bool:
    """Whether the name's bytes are UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_name(value: object) -> object:
    if isinstance(value, dict) and set(value) == {"base64"}:
        text = value["base64"]
        if not isinstance(text, str):
            raise ValueError("the base64 of a name is not a string")
        return decode_name(base64.b64decode(text, validate=True))
    return value


def _write_name(name: str) -> object:
    return name if is_utf8(name) else {"base64": base64.b64encode(encode_name(name)).decode("ascii")}


class _AnyString:
    """Strings with surrogate escapes are not valid for pydantic's own ``str``; this accepts every ``str``."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(str)


Name = Annotated[
    str,
    _AnyString,
    BeforeValidator(_read_name),
    PlainSerializer(_write_name, when_used="json"),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"base64": {"type": "string"}},
                    "required": ["base64"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""An InfluxDB name, exactly."""

Int64 = Annotated[
    int,
    Field(ge=-(2**63), le=2**64 - 1),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^-?[0-9]+$"}),
]
"""A 64-bit number: a decimal string in JSON."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""The sum modulo 2^128 of a table's value hashes, 32 hexadecimal digits, most significant first."""


class Value(BaseModel):
    """Base of all frozen values: immutable, comparable, JSON by field name."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
