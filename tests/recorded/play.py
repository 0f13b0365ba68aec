"""Opens the product's servers at one address, by tokens' labels, and closes what was opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import Server, ServerSettings
from tests.recorded.scenarios import Open


@contextmanager
def playing(url: str) -> Iterator[Open]:
    """What a scenario calls to open a server."""
    with ExitStack() as stack:

        def opened(token: str, organization: str | None) -> Server:
            server = connect(
                ServerSettings(url=url, token=token, organization=organization, name="recorded", timeout=20)
            )
            stack.callback(server.close)
            return server

        yield opened
