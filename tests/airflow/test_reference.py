"""The reference page of the operators is what the code says."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def generator() -> Any:
    """The script that makes the page."""
    spec = importlib.util.spec_from_file_location("generate_operators", FOLDER / "generate_operators.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_page_is_current(generator: Any) -> None:
    """A changed operator changes its page."""
    assert (FOLDER / "operators.md").read_text(encoding="utf-8") == generator.page(), (
        "run python docs/reference/generate_operators.py"
    )


def test_every_own_argument_is_explained(generator: Any) -> None:
    """Each argument of our own is explained, and is said to be templated exactly when it is."""
    for _, module, name in generator.CLASSES:
        documented = getattr(importlib.import_module(module), name)
        explained = generator.read_docstring(documented).parameters
        for argument in generator.arguments(documented):
            if argument in ("map_index_template", "mode", "poke_interval"):
                continue
            assert argument in explained, f"{name}.{argument}"
            assert ("(templated)" in explained[argument]) == (argument in documented.template_fields), (
                f"{name}.{argument}"
            )


def test_every_operator_is_on_the_page(generator: Any) -> None:
    """Nothing that the provider announces is missing."""
    from airflow.sdk import BaseOperator

    from influxdb_backup.provider_info import get_provider_info

    info: Any = get_provider_info()
    listed = {(module, name) for _, module, name in generator.CLASSES}
    for kind in ("operators", "sensors"):
        for module in info[kind][0]["python-modules"]:
            for name, found in vars(importlib.import_module(module)).items():
                if isinstance(found, type) and issubclass(found, BaseOperator) and found.__module__ == module:
                    assert (module, name) in listed or name.startswith("_"), name
