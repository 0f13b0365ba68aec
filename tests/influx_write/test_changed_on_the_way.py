"""Bytes of lines that change between the product and a server are found by the server, and sent again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3

from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import ServerSettings, WriteOptions
from tests.influx_write.support import batch_of, field, read_points, tag
from tests.listening import QuietHandler, listening
from tests.servers import RunningServer

COLUMNS = [tag("t"), field("v")]
ROWS = [(time, {"t": "a"}, {"v": time / 4}) for time in range(500)]
FLIPS = 25


@contextmanager
def flipping(url: str, seed: int) -> Iterator[tuple[str, list[int]]]:
    """A relay that flips one bit of the body of every first write of its kind; its URL, and where it did."""
    pool = urllib3.PoolManager(retries=False, timeout=30)
    chance = random.Random(seed)
    flipped: list[int] = []

    class Relay(QuietHandler):
        def answer(self) -> None:
            body = bytearray(self.body())
            if "/write" in self.path and not flipped:
                bit = chance.randrange(len(body) * 8)
                body[bit // 8] ^= 1 << bit % 8
                flipped.append(bit)
            headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Content-Length")}
            reply = pool.request(
                self.command, url + self.path, body=bytes(body) or None, headers=headers, decode_content=False
            )
            self.send_response_only(reply.status)
            for name, value in reply.headers.items():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Length", str(len(reply.data)))
            self.end_headers()
            self.wfile.write(reply.data)

    with listening(Relay) as relay:
        yield relay, flipped


def test_a_flipped_bit_in_a_body_is_refused_and_sent_again(any_influx: RunningServer, database: str) -> None:
    """Wherever the bit is, what the server holds in the end is what was to be written, and nothing else."""
    any_influx.create_database(database)
    for seed in range(FLIPS):
        with flipping(any_influx.url, seed) as (url, flipped):
            settings = ServerSettings(url=url, token=any_influx.token, organization=any_influx.organization)
            server = connect(settings)
            with server.writer(database, "autogen", WriteOptions(connections=1)) as writer:
                writer.write(f"m{seed}", batch_of(COLUMNS, ROWS))
            server.close()
        assert (len(flipped), writer.result.rejects) == (1, 0)
    key = frozenset({(b"t", b"a")})
    assert read_points(any_influx, database) == {
        (b"m%d" % seed, key, time): {b"v": time / 4} for seed in range(FLIPS) for time in range(len(ROWS))
    }
