"""What pydantic found wrong, in words for the person who wrote the file, and the line where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from influxdb_backup.config.names import suggestion

_PLAIN = {
    "bool_type": "must be true or false.",
    "int_type": "must be a whole number.",
    "dict_type": "must be a mapping of keys and values.",
    "model_type": "must be a mapping of keys and values.",
    "model_attributes_type": "must be a mapping of keys and values.",
    "tuple_type": "must be a list.",
    "list_type": "must be a list.",
    "missing": "is missing.",
}


def describe(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The place below ``model`` and the message of every problem."""
    for item in error.errors(include_url=False):
        place = _place(item["loc"], model)
        yield place, _message(item, place, model)


def _place(location: tuple[str | int, ...], model: type[BaseModel]) -> tuple[str | int, ...]:
    """The keys of the file; pydantic adds the names of the members of a union, which nobody wrote."""
    place: list[str | int] = []
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            place.append(part)
        elif current is not None and not (place and "[" in part):
            place.append(part)
            current = _model_of(current.model_fields[part].annotation) if part in current.model_fields else None
    return tuple(place)


def _message(item: Any, place: Sequence[str | int], model: type[BaseModel]) -> str:
    kind, value = str(item["type"]), item.get("input")
    if kind == "extra_forbidden":
        allowed = _keys(model, place[:-1])
        return f"unknown key.{suggestion(str(place[-1]), allowed)} Allowed: {', '.join(allowed)}."
    if kind in ("literal_error", "enum"):
        expected = re.findall(r"'([^']*)'", str(item["ctx"]["expected"]))
        near = suggestion(value, expected) if isinstance(value, str) else ""
        return f"{_shown(value)} is not allowed.{near} Allowed: {', '.join(expected)}."
    if value is None and kind != "value_error":
        return "has no value: give one or remove the key."
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = next(iter(item["ctx"].values()))
        return f"{_shown(value)} must be {'at least' if kind.startswith('greater') else 'at most'} {bound}."
    if kind == "value_error":
        return str(item["ctx"]["error"])
    return _PLAIN.get(kind, f"{item['msg']}.")


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _keys(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    current = model
    for part in place:
        if isinstance(part, str):
            inner = _model_of(current.model_fields[part].annotation)
            if inner is not None:
                current = inner
    return sorted(name for name in current.model_fields if name != "name")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part)) is not None), None)


def line_of(text: str, location: Sequence[str | int]) -> int | None:
    """The line (from 1) of the key or item at ``location``, or of what is nearest above it."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line: int | None = None
    for part in location:
        found: Any = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, found = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = node.value[part]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line
