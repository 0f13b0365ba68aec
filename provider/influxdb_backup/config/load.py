"""
Reads the YAML file. Whatever is wrong in it is one ConfigError that names file, line, key and what is allowed.

Several mistakes are reported together, one line each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from influxdb_backup.config.explain import describe, line_of
from influxdb_backup.config.fields import PLAN_NAME
from influxdb_backup.config.model import Config, Plan, PlanSettings, RepositoryConfig
from influxdb_backup.config.names import listed, suggestion
from influxdb_backup.errors import ConfigError

_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TOP = ("repositories", "defaults", "plans")
_MERGED = ("drill", "airflow")
Location = tuple[str | int, ...]
_Model = TypeVar("_Model", bound=BaseModel)


class _Loader(_BaseLoader):  # type: ignore[misc]
    """Safe YAML that refuses a key given twice and keys that are no text, and leaves times as they are written."""


# YAML's own times lose nanoseconds and the difference between "no zone" and UTC.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _BaseLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: Any, node: Any) -> dict[str, object]:
    lines: dict[str, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            what = "a boolean (yes, no, on and off are booleans too)" if isinstance(key, bool) else "no text"
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key_node.value} is {what}: put it in quotes", key_node.start_mark
            )
        if key in lines:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given twice, first in line {lines[key]}", key_node.start_mark
            )
        lines[key] = line
    loader.flatten_mapping(node)
    return {loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value}


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load(path: str | Path) -> Config:
    """The checked configuration of a YAML file. Raises ConfigError."""
    file = Path(path)
    return loads(_read(file), file)


def loads(text: str, path: Path) -> Config:
    """The checked configuration in ``text``; ``path`` is what messages call it. Raises ConfigError."""
    document = _parse(text, path)
    problems = _Problems(path, text)
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path} is empty." if document is None else f"{path} must be a mapping with the keys {', '.join(_TOP)}.",
            hint="Write at least repositories: and plans:.",
        )
    for key in document:
        if key not in _TOP:
            problems.add((key,), f"unknown key.{suggestion(key, _TOP)} Allowed: {', '.join(_TOP)}.")
    repositories = _repositories(document, problems)
    defaults = _defaults(document, problems)
    plans = _plans(document, defaults, problems)
    _references(defaults, plans, document, problems)
    final: dict[str, Plan] = {}
    for name, entry in plans.items():
        called = name if re.fullmatch(PLAN_NAME, name) else "wrong"  # what it holds is checked all the same
        plan = problems.check(Plan, {**entry, "name": called}, ("plans", name))
        if plan is not None:
            final[name] = plan
    problems.raise_any()
    return Config.model_construct(path=path, repositories=repositories, plans=final)


class _Problems:
    """Collects what is wrong, each with its place in the file."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._found: list[tuple[Location, str]] = []

    def add(self, location: Location, message: str) -> None:
        if (location, message) not in self._found:
            self._found.append((location, message))

    def check(self, model: type[_Model], value: object, location: Location) -> _Model | None:
        """The validated model, or None with the problems noted."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for place, message in describe(error, model):
                self.add((*location, *place), message)
            return None

    def keys_under(self, section: str) -> set[str | int]:
        """The second keys of the places that are wrong in a section."""
        return {place[1] for place, _ in self._found if place[:1] == (section,) and len(place) > 1}

    def raise_any(self) -> None:
        if not self._found:
            return
        lines = []
        for location, message in self._found:
            line = line_of(self._text, location)
            lines.append(f"{self._path}{f', line {line}' if line else ''}: {dotted(location)}: {message}")
        raise ConfigError("\n".join(lines))


def dotted(location: Sequence[str | int]) -> str:
    """``plans.telemetry.drill.checks[0].min``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration file {file}.",
            hint="Name the one there is: --config, INFLUXDB_BACKUP_CONFIG, or in Airflow the path in the DAG file.",
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8: {error.reason} at byte {error.start}.") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None


def _parse(text: str, path: Path) -> object:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a safe loader with more refusals)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: {error.problem or error.context}.", hint="This is not valid YAML.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}.") from None


def _section(document: Mapping[str, Any], key: str, problems: _Problems) -> dict[str, Any]:
    value = document.get(key)
    if value is None and key == "defaults":
        return {}
    if not isinstance(value, dict) or (not value and key != "defaults"):
        problems.add((key,), "must be a mapping with at least one entry.")
        return {}
    return value


def _named(document: Mapping[str, Any], key: str, problems: _Problems) -> dict[str, dict[str, Any]]:
    entries = {}
    for name, entry in _section(document, key, problems).items():
        if not re.fullmatch(PLAN_NAME, name):
            problems.add(
                (key, name), "the name must be 1 to 64 of a-z, 0-9, '_' and '-', and start with a letter or a digit."
            )
        if not isinstance(entry, dict):
            problems.add((key, name), "must be a mapping of keys and values.")
        else:
            entries[name] = entry
    return entries


def _repositories(document: Mapping[str, Any], problems: _Problems) -> dict[str, RepositoryConfig]:
    checked = {
        name: problems.check(RepositoryConfig, entry, ("repositories", name))
        for name, entry in _named(document, "repositories", problems).items()
    }
    return {name: repository for name, repository in checked.items() if repository is not None}


def _defaults(document: Mapping[str, Any], problems: _Problems) -> dict[str, Any]:
    """The keys that are right; those that are wrong are reported once, here, and not in every plan."""
    written = _section(document, "defaults", problems)
    problems.check(PlanSettings, written, ("defaults",))
    wrong = problems.keys_under("defaults")
    return {key: value for key, value in written.items() if key not in wrong}


def _plans(document: Mapping[str, Any], defaults: Mapping[str, Any], problems: _Problems) -> dict[str, dict[str, Any]]:
    plans = {}
    for name, entry in _named(document, "plans", problems).items():
        if "name" in entry:
            problems.add(("plans", name, "name"), "unknown key: a plan's name is the key it stands under.")
            continue
        plans[name] = merged(defaults, entry)
    return plans


def merged(defaults: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """A plan's keys over the defaults; ``drill`` and ``airflow`` are merged one level deeper."""
    result = {**defaults, **entry}
    for key in _MERGED:
        if isinstance(entry.get(key), dict) and isinstance(defaults.get(key), dict):
            result[key] = {**defaults[key], **entry[key]}
    return result


def _references(
    defaults: Mapping[str, Any],
    plans: Mapping[str, dict[str, Any]],
    document: Mapping[str, Any],
    problems: _Problems,
) -> None:
    """Repositories that plans name must be defined; a plan that names none gets the only one there is."""
    known = document["repositories"] if isinstance(document.get("repositories"), dict) else {}
    for name, entry in plans.items():
        named = entry.get("repositories")
        if named is None and "repositories" not in entry:
            if len(known) == 1:
                entry["repositories"] = list(known)
            elif known and "repositories" not in problems.keys_under("defaults"):
                example = f"repositories: [{next(iter(known))}]"
                problems.add(
                    ("plans", name), f"{listed(known)} are defined: write which of them it uses, as {example}."
                )
            continue
        if not isinstance(named, list):
            continue
        inherited = named is defaults.get("repositories")
        location: Location = ("defaults", "repositories") if inherited else ("plans", name, "repositories")
        for position, repository in enumerate(named):
            if isinstance(repository, str) and repository not in known:
                problems.add(
                    (*location, position),
                    f"{repository!r} is no repository of this file.{suggestion(repository, known)} "
                    f"Defined: {listed(known)}.",
                )
