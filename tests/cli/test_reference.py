"""The reference pages are what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def generator() -> ModuleType:
    """docs/reference/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate_reference", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["config.schema.json", "yaml.md", "cli.md"])
def test_page_is_current(name: str) -> None:
    """Each generated page is current; `python docs/reference/generate.py` renews it."""
    assert (FOLDER / name).read_text(encoding="utf-8") == generator().pages()[name]


def test_every_command_is_there() -> None:
    """Every command that the decisions name has its section."""
    page = (FOLDER / "cli.md").read_text(encoding="utf-8")
    commands = (
        "export list show verify coverage restore drill databases repo·init repo·check config·check config·schema"
    )
    for command in commands.replace("·", "-").split():
        assert f"\n## {command.replace('-', ' ')}\n" in page
