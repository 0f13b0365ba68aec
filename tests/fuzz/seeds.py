"""Real bytes to begin with: a file with every type in every encoding, its blocks, tombstones and archives."""

from __future__ import annotations

import gzip
import io
import struct
import sys
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa

from influxdb_backup.influx.shard_files import ShardFileBuilder
from influxdb_backup.model import InfluxType
from tests.servers import CACHE
from tests.tsm_read.test_tombstones import tombstone
from tests.tsm_write.tables import GROUP, START, every_encoding

KINDS = (InfluxType.FLOAT, InfluxType.INTEGER, InfluxType.BOOLEAN, InfluxType.STRING, InfluxType.UNSIGNED)
KEY = b"m,aXb=\\=\xc3\xa9,a\\ b=h\\,0\\ #!~#float0"


def built_file(sizes: tuple[int, ...], kinds: tuple[InfluxType, ...] = KINDS) -> bytes:
    """What ShardFileBuilder makes of series with these numbers of points."""
    with tempfile.TemporaryDirectory() as folder:
        builder = ShardFileBuilder(Path(folder), GROUP, generation=2)
        for item in every_encoding(kinds, sizes):
            builder.add("m", item)
        (path,) = builder.finish()
        return path.read_bytes()


def blocks_of(data: bytes) -> list[bytes]:
    """The blocks of a sound file without their checksums."""
    found = []
    at = int.from_bytes(data[-8:], "big")
    while at < len(data) - 8:
        at += 2 + int.from_bytes(data[at : at + 2], "big")
        count = int.from_bytes(data[at + 1 : at + 3], "big")
        for entry in range(at + 3, at + 3 + 28 * count, 28):
            place, size = struct.unpack(">qI", data[entry + 16 : entry + 28])
            found.append(data[place + 4 : place + size])
        at += 3 + 28 * count
    return found


def sections_of(block: bytes) -> tuple[int, bytes, bytes]:
    """A block's type, times and values."""
    length, shift, at = 0, 0, 1
    while True:
        length |= (block[at] & 127) << shift
        shift += 7
        at += 1
        if block[at - 1] < 128:
            return block[0], block[at : at + length], block[at + length :]


def archive(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive that ends as Go's do."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        end = tar.offset
    return out.getvalue()[: end + 1024]


def seeds() -> dict[str, list[bytes]]:
    """The beginnings of each target."""
    small = [built_file((size,), (kind,)) for size in (1, 3, 40) for kind in KINDS]
    files = [*small, built_file((3, 125)), built_file((2, 9, 260, 1005))]
    sections: dict[str, set[bytes]] = {"times": set(), "0": set(), "1": set(), "2": set(), "3": set(), "4": set()}
    for data in files:
        for kind, times, values in map(sections_of, blocks_of(data)):
            sections["times"].add(times)
            sections[str(kind)].add(values)
    texts = [b"", b"a", b"abc" * 500, bytes(range(256)) * 9, "\n".join(map(str, range(900))).encode()]
    entries = [[(KEY, START, START + 10**11), (KEY, -1, 5)], [(KEY, -(2**63), 2**63 - 1)]]
    content = {"db/rp/1/000000001-000000001.tsm": small[0], "db/rp/1/000000001-000000001.tombstone": b"x"}
    return {
        "index": small,
        "file": files,
        "times": sorted(sections["times"]),
        "floats": sorted(sections["0"]),
        "integers": sorted(sections["1"] | sections["4"]),
        "booleans": sorted(sections["2"]),
        "strings": sorted(sections["3"]),
        "snappy": [pa.compress(text, "snappy").to_pybytes() for text in texts],
        "tombstone": [*(tombstone(version, entries) for version in (1, 2, 3, 4)), b"\0\0\x15\4" + gzip.compress(b"")],
        "tar": [archive(content, form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
        + [archive({"a" * 200 + "/" + name: data for name, data in content.items()}, form) for form in (1, 2)],
    }


def of_servers() -> list[bytes]:
    """TSM files of real servers that somebody has left in the cache folder of the tests."""
    return [path.read_bytes() for path in sorted(CACHE.glob("*.tsm"))]


def write(folder: Path) -> None:
    """Writes the seeds of each target to a folder of its own."""
    for target, contents in seeds().items():
        own = folder / target
        own.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate([*contents, *(of_servers() if target == "file" else [])]):
            (own / f"seed-{number}").write_bytes(content)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
