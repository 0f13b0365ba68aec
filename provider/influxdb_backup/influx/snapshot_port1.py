"""
The backup port of InfluxDB 1.x (``bind-address``, 8088): no credentials, no TLS.

A connection begins with the byte 3 (which service), a type byte and a request in JSON with an end of line; the reply
ends with the connection. A failure only ends it too (source of 1.7.11 and 1.12.4: ``services/snapshotter``).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from influxdb_backup.errors import IncompleteReadError, ServerUnavailableError
from influxdb_backup.influx.http import slow_reply
from influxdb_backup.influx.metadata1 import described_shards
from influxdb_backup.influx.pace import Pace, SlowReply
from influxdb_backup.messages import logger_of
from influxdb_backup.model import encode_name

logger = logger_of(__name__)

_SERVICE = b"\x03"
_SHARD_BACKUP, _METADATA_BACKUP, _DATABASE_INFO, _SHARD_UPDATE = 0, 1, 3, 7
_LONGEST_LISTING = 64 << 20
_SEND_SECONDS = 1800.0
"""a server builds its index of a shard before it ends the connection: some 100,000 series a second (run on 1.12.4)"""
_TELL_SECONDS = 60.0
_BLOCK = 1 << 16

Request = Mapping[str, object]


class Reply:
    """What the port answers on one connection."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._pace = Pace(stream.gettimeout())

    def recv(self, size: int) -> bytes:
        """The next bytes, b"" at the end. Raises OSError, SlowReply among them."""
        began = time.monotonic()
        block = self._stream.recv(size)
        self._pace.add(len(block), time.monotonic() - began)
        return block


class SnapshotPort:
    """One backup port at ``address`` (host:port); ``name`` is what messages call its server."""

    def __init__(self, address: str, timeout: float, name: str) -> None:
        self.address = address
        self._timeout = timeout
        self._name = name

    def open_shards(self, database: str) -> set[int]:
        """The numbers of the shards of a database that the server has open. Raises IncompleteReadError."""
        with self._asked(_DATABASE_INFO, {"BackupDatabase": database}) as stream:
            reply = self._whole(stream)
        if not reply:
            return set()
        try:
            return {int(path.rsplit("/", 1)[-1]) for path in json.loads(reply)["Paths"] or []}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._no_backup_port(error) from error

    def described_shards(self) -> dict[str, dict[tuple[str, int], int]]:
        """See ``metadata1.described_shards``. Raises IncompleteReadError."""
        with self._asked(_METADATA_BACKUP, {}) as stream:
            reply = self._whole(stream)
        try:
            return described_shards(reply)
        except ValueError as error:
            raise self._no_backup_port(error) from error

    @contextmanager
    def shard(self, request: Request) -> Iterator[Reply]:
        """The archive of a shard as it arrives; ``receive`` reads it."""
        with self._asked(_SHARD_BACKUP, request) as stream:
            yield stream

    def receive(self, stream: Reply, what: str, size: int = _BLOCK) -> bytes:
        """The next bytes, b"" at the end. Raises IncompleteReadError calling it ``what``."""
        try:
            return stream.recv(size)
        except SlowReply as error:
            raise slow_reply(f"The backup port {self.address} of {self._name}, asked for {what},", error) from error
        except OSError as error:
            raise IncompleteReadError(
                f"The backup port {self.address} of {self._name} broke off in {what}: {error}.", kind="shard-copy"
            ) from error

    def send_shard(self, number: int, archive: Iterable[bytes]) -> None:
        """Sends the archive to a shard and waits until the server is done with it. Raises ServerUnavailableError."""
        with self._connected(_SEND_SECONDS) as stream:
            try:
                stream.sendall(_SERVICE + bytes([_SHARD_UPDATE]) + number.to_bytes(8, "big"))
                for block in archive:
                    stream.sendall(block)
                stream.shutdown(socket.SHUT_WR)
                self._wait_for_end(stream)
            except OSError as error:
                raise ServerUnavailableError(
                    f"The backup port {self.address} of {self._name} did not take a shard: {error}.",
                    hint="The server's log may say why.",
                ) from error

    def _wait_for_end(self, stream: socket.socket) -> None:
        """Waits until the server ends the connection, and tells every minute that it does."""
        began = time.monotonic()
        stream.settimeout(_TELL_SECONDS)
        while True:
            try:
                if not stream.recv(_BLOCK):
                    return
            except TimeoutError:
                waited = time.monotonic() - began
                if waited > _SEND_SECONDS:
                    raise
                logger.info(
                    "Waiting for %s, which takes in a shard since %.0f s; for %.0f s at most.",
                    self._name,
                    waited,
                    _SEND_SECONDS,
                )

    @contextmanager
    def _asked(self, kind: int, request: Request) -> Iterator[Reply]:
        line = json.dumps({"Type": kind, **request}, ensure_ascii=False)
        with self._connected(self._timeout) as stream:
            try:
                stream.sendall(_SERVICE + bytes([kind]) + encode_name(line) + b"\n")
            except OSError as error:
                raise self._unreachable(error) from error
            yield Reply(stream)

    @contextmanager
    def _connected(self, timeout: float) -> Iterator[socket.socket]:
        host, _, port = self.address.rpartition(":")
        try:
            stream = socket.create_connection((host.strip("[]"), int(port)), timeout=self._timeout)
        except OSError as error:
            raise self._unreachable(error) from error
        with stream:
            stream.settimeout(timeout)
            yield stream

    def _whole(self, stream: Reply) -> bytes:
        parts: list[bytes] = []
        left = _LONGEST_LISTING
        while block := self.receive(stream, "what it lists"):
            left -= len(block)
            if left < 0:
                raise IncompleteReadError(f"The backup port {self.address} of {self._name} does not stop answering.")
            parts.append(block)
        return b"".join(parts)

    def _no_backup_port(self, error: Exception) -> IncompleteReadError:
        return IncompleteReadError(
            f"What answers at {self.address} does not answer as a backup port of InfluxDB 1.x ({error}).",
            hint="Correct snapshot_address, or the tunnel that it leads to.",
        )

    def _unreachable(self, error: OSError) -> ServerUnavailableError:
        return ServerUnavailableError(
            f"The backup port {self.address} of {self._name} cannot be reached: {error.strerror or error}.",
            hint="It listens on the server's own host only, unless bind-address says otherwise; a tunnel helps.",
        )
