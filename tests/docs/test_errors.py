"""docs/errors.md knows every error there is."""

from __future__ import annotations

import ast
import inspect
import re

from influxdb_backup import errors
from tests.docs.pages import DOCS, ROOT, read

PAGE = read(DOCS / "errors.md").text
CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, errors.InfluxdbBackupError) and found.__module__ == errors.__name__
]


def _kinds_in_code() -> set[str]:
    """Every ``kind="..."`` of the code, also in a conditional, but for the kinds of progress and columns."""
    found: set[str] = set()
    for path in (ROOT / "provider").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if not (name.endswith("Error") or name == "Problem"):
                continue
            for keyword in node.keywords:
                if keyword.arg == "kind":
                    found |= {
                        inner.value
                        for inner in ast.walk(keyword.value)
                        if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
                    }
    return found


def test_every_error_class_is_explained() -> None:
    """Nobody meets an error whose class the page does not name."""
    missing = [found.__name__ for found in CLASSES if f"`{found.__name__}`" not in PAGE]
    assert not missing


def test_every_kind_is_explained() -> None:
    """Each default kind, each kind that errors.py promises and each kind raised anywhere stands in the page."""
    promised = set(re.findall(r"``([a-z]+(?:-[a-z]+)*)``", " ".join(found.__doc__ or "" for found in CLASSES)))
    kinds = {found.default_kind for found in CLASSES} | (promised - {"kind", "hint", "retryable", "problems"})
    kinds |= _kinds_in_code()
    assert len(kinds) > 30
    assert sorted(kind for kind in kinds if f"`{kind}`" not in PAGE) == []


def test_the_page_names_no_error_that_does_not_exist() -> None:
    """A removed class does not stay in the page."""
    known = {found.__name__ for found in CLASSES} | {"ValueError", "LookupError"}
    assert set(re.findall(r"`([A-Z]\w+Error)`", PAGE)) <= known


def test_the_page_says_what_is_retried() -> None:
    """The column "retried" agrees with the classes."""
    for name, kind, retried in re.findall(r"^\| `(\w+Error)` \| `([\w-]+)` \| (yes|no) \|", PAGE, re.MULTILINE):
        assert getattr(errors, name).retryable == (retried == "yes"), (name, kind)
