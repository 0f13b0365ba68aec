"""What Airflow knows of the package once it is installed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from influxdb_backup.config.server_settings import _EXTRAS
from influxdb_backup.provider_info import get_provider_info

AIRFLOW = str(Path(sys.executable).with_name("airflow"))
PACKAGE = "airflow-provider-influxdb-backup"


@pytest.fixture(scope="module")
def info() -> Any:
    """What the entry point returns."""
    return get_provider_info()


def test_airflow_lists_the_provider() -> None:
    """``airflow providers get`` finds the installed package by its name."""
    done = subprocess.run(
        [AIRFLOW, "providers", "get", PACKAGE, "--full", "--output", "json"], capture_output=True, text=True, check=True
    )

    assert PACKAGE in done.stdout
    assert "influxdb_backup.hooks.influxdb.InfluxdbBackupHook" in done.stdout


def test_info_imports_nothing() -> None:
    """The module that Airflow loads while it sets itself up imports neither Airflow nor anything heavy."""
    program = "import sys, influxdb_backup.provider_info; print(sorted(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert not {"airflow", "pyarrow", "pydantic", "numpy"} & set(json.loads(done.stdout.replace("'", '"')))


def test_info_fits_airflows_schema(info: Any) -> None:
    """The description is what Airflow's own schema allows."""
    import airflow

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(info, schema)


def test_every_named_module_and_class_exists(info: Any) -> None:
    """Nothing is announced that cannot be imported, and every operator and sensor module is announced."""
    named = [module for kind in ("hooks", "operators", "sensors") for module in info[kind][0]["python-modules"]]
    for module in named:
        importlib.import_module(module)
    classes = [entry["hook-class-name"] for entry in info["connection-types"]]
    for path in classes:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_connection_form_in_airflow(metadata_database: None) -> None:
    """Airflow's own manager has the connection type with its relabelled and own fields."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    hook = manager.hooks["influxdb_backup"]
    assert hook is not None
    assert hook.hook_name == "InfluxDB backup"
    form = get_provider_info()["connection-types"][0]["conn-fields"]  # type: ignore[index]
    assert set(form) == set(_EXTRAS)


def test_connection_form_says_which_servers_are_supported(info: Any) -> None:
    """The field of the version names what is supported, what was not tried, and what is refused."""
    field = info["connection-types"][0]["conn-fields"]["version"]
    assert "1.13" in field["schema"]["enum"]
    assert "Not supported: 3.x" in field["description"]


def test_secret_fields_are_masked(info: Any) -> None:
    """A field that is shown as a password has a name by which Airflow masks it in its API and logs."""
    from airflow._shared.secrets_masker import should_hide_value_for_key

    for name, field in info["connection-types"][0]["conn-fields"].items():
        assert should_hide_value_for_key(name) == (field["schema"].get("format") == "password")
