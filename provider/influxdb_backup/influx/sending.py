"""
A writer's ``send`` over HTTP: one try for each body, compressed where the way to the server is long.

Every body travels as gzip, whose checksum the server proves before it takes a line (run on 1.6.7, 1.12.4): a byte that
changed on the way ends in a refusal, and the body is sent again. TCP's own checksum is too weak for that.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping

from influxdb_backup.errors import IncompleteReadError, ServerUnavailableError
from influxdb_backup.influx.http import Http, is_loopback
from influxdb_backup.influx.writer import Send, SendResult

_FASTEST = 1
_STORED = 0


def compresses(url: str, wanted: bool | None) -> bool:
    """Whether bodies to this server are made smaller: as ``wanted`` says, else where it is not on this machine."""
    return not is_loopback(url) if wanted is None else wanted


def http_sender(http: Http, path: str, parameters: Mapping[str, str], *, compress: bool) -> Send:
    """A Send that posts line protocol to ``path`` as gzip, of the fastest level or, without ``compress``, stored."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip"}
    level = _FASTEST if compress else _STORED

    def send(body: memoryview) -> SendResult:
        data = gzip.compress(body, level, mtime=0)
        try:
            reply = http.request("POST", path, parameters=parameters, body=data, headers=headers, retry=False)
        except IncompleteReadError as error:
            raise ServerUnavailableError(error.message, hint=error.hint) from error
        return SendResult(reply.status, "" if reply.status == 204 else reply.reason, reply.retry_after)

    return send
