"""docker-compose.yml is valid, pinned, closed to the network, and its plans and connections are right."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from influxdb_backup.config.connections import connection_from_json, server_settings, storage_options
from influxdb_backup.config.load import load
from tests.docs.pages import ROOT


def _interpolated(text: str) -> str:
    text = re.sub(r"(?<!\$)\$\{\w+:-([^}]*)\}", r"\1", text)
    return text.replace("$$", "$")


@pytest.fixture
def compose() -> dict[str, Any]:
    """The file as compose reads it, with the defaults of its variables."""
    return dict(yaml.safe_load(_interpolated((ROOT / "docker-compose.yml").read_text())))


def _docker_compose() -> list[str] | None:
    for command in (["docker-compose"], ["docker", "compose"]):
        if shutil.which(command[0]) is None:
            continue
        version = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
        if version.returncode == 0 and not version.stdout.startswith("1."):
            return command
    return None


def test_docker_compose_takes_the_file() -> None:
    """The file is valid for the program that reads it, and nothing in it needs a variable to be set."""
    command = _docker_compose()
    if command is None:
        pytest.skip("lacks docker compose 2.23 or later")
    done = subprocess.run([*command, "config"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(yaml.safe_load(done.stdout)["services"]) == {
        "influxdb", "sample", "minio", "bucket", "repository", "airflow",
    }  # fmt: skip


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    """What is tried today is what was written down: every image has a version, none is the latest."""
    images = [service["image"] for service in compose["services"].values()]
    images += re.findall(r"^FROM (\S+)$", compose["x-airflow"]["build"]["dockerfile_inline"], re.MULTILINE)
    assert len(set(images)) >= 5
    for image in images:
        _, _, tag = image.rpartition(":")
        assert "/" not in tag
        assert tag not in ("", "latest"), image


def test_ports_are_for_this_machine_only(compose: dict[str, Any]) -> None:
    """Nothing with a known password listens on the network."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_airflow_of_the_image_is_the_one_of_the_constraints(compose: dict[str, Any]) -> None:
    """The image and the package agree on Airflow's version."""
    version = re.search(r"^apache-airflow==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert version is not None
    assert f"FROM apache/airflow:{version[1]}-python3.11" in compose["x-airflow"]["build"]["dockerfile_inline"]


def test_every_dependency_and_volume_exists(compose: dict[str, Any]) -> None:
    """Services wait for services that exist, and mount files that exist."""
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / source).is_file() if source.startswith(".") else source in compose["volumes"]
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"]


def test_the_plans_and_connections_are_right(compose: dict[str, Any], tmp_path: Path) -> None:
    """The YAML file of the compose setup loads, and both of its connections mean the services beside it."""
    file = tmp_path / "influxdb_backup.yaml"
    file.write_text(compose["configs"]["plans"]["content"])
    config = load(file)
    environment = compose["x-airflow"]["environment"]
    settings = server_settings(
        "influxdb_default", connection_from_json(environment["AIRFLOW_CONN_INFLUXDB_DEFAULT"], "influxdb_default")
    )
    assert settings.url == "http://influxdb:8086"
    assert settings.organization == compose["services"]["influxdb"]["environment"]["DOCKER_INFLUXDB_INIT_ORG"]
    assert settings.token == compose["services"]["influxdb"]["environment"]["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"]
    repository = config.repository("primary")
    assert repository.connection == "minio"
    options = storage_options(repository.url, connection_from_json(environment["AIRFLOW_CONN_MINIO"], "minio"))
    assert options["endpoint_url"] == "http://minio:9000"
    assert options["key"] == compose["services"]["minio"]["environment"]["MINIO_ROOT_USER"]
    assert config.plan("telemetry").connection == "influxdb_default"
