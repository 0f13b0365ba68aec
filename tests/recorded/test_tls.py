"""TLS to a 2.x server: what /query and the control plane speak to is proved in the same way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from influxdb_backup.errors import AccessError
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import ServerSettings
from tests.certificates import self_signed
from tests.recorded.exchanges import FOLDER, Answers, load
from tests.recorded.servers import replaying


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The certificate of the server, which signs itself."""
    return self_signed(tmp_path)


@pytest.fixture
def url(certificate: Path) -> Iterator[str]:
    """A server that replays a recording over TLS."""
    with replaying(Answers(load(FOLDER / "operator.jsonl")), certificate) as address:
        yield address


def settings(url: str, **more: object) -> ServerSettings:
    """How the operator reaches it."""
    return ServerSettings(url=url, token="operator", organization="tests", name="plant-7", timeout=20, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [None, "2.9"])
def test_an_unknown_certificate_is_refused_at_once(url: str, version: str | None) -> None:
    """Also where the version is given, so that the control plane is what asks first: no retry, and ca_file is named."""
    began = time.monotonic()
    with pytest.raises(AccessError, match=r"plant-7 does not prove who it is: .*certificate.*ca_file"):
        connect(settings(url, version=version))
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("how", ["own authority", "not verified"])
def test_a_server_over_tls_is_read(url: str, certificate: Path, how: str) -> None:
    """With its authority, or with verification switched off, everything works as without TLS."""
    more = {"ca_file": str(certificate)} if how == "own authority" else {"verify_tls": False}
    server = connect(settings(url, **more))
    assert (server.info.version, "types" in server.databases()) == ("2.9.1", True)
    assert [policy.name for policy in server.retention_policies("types")] == ["autogen", "rp"]
    assert {table.table.measurement for table in server.schema("types", "autogen").tables} == {"m"}
    server.close()
