"""A copy of a shard is whole, or it is an error: its archive is proved to its last byte."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.shard_door import ShardInfo, Spooled, SpooledFile
from influxdb_backup.influx.shard_tar import archived_digests, archived_files, spool
from influxdb_backup.model import Window

CONTENT = {
    "db/autogen/1/000000001-000000002.tsm": b"one" * 300,
    "db/autogen/1/000000001-000000002.tombstone": b"",
    "db/autogen/1/000000002-000000001.tsm": b"x" * 1024,
    "db/autogen/1/index/L0-000000001.tsi": b"not read",
    "db/autogen/1/fields.idx": b"not read",
}


def archive(content: dict[str, bytes]) -> bytes:
    """As a Go server writes it: two empty records at the end and nothing behind them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        end = tar.offset
    return out.getvalue()[: end + 1024]


def spooled(folder: Path, raw: bytes) -> Path:
    """The bytes as ``spool`` keeps them, given in pieces."""
    path = folder / "shard.tar"
    source = io.BytesIO(raw)
    spool(lambda size: source.read(min(size, 700)), path)
    return path


def digested(raw: bytes, most: int = 10 << 20) -> frozenset[str]:
    """The digests of the same bytes as they arrive, also in pieces, the first of them read before."""
    source = io.BytesIO(raw)
    return archived_digests(lambda size: source.read(min(size, 700)), "shard 1", most, source.read(700))


def test_the_files_of_a_shard_are_found(tmp_path: Path) -> None:
    """TSM files and tombstones with their bytes; other files are left out."""
    path = spooled(tmp_path, archive(CONTENT))
    files = archived_files(path, "shard 1")
    held = path.read_bytes()
    assert {file.name: held[file.offset : file.offset + file.size] for file in files} == {
        name.rsplit("/", 1)[1]: data
        for name, data in CONTENT.items()
        if name.endswith((".tsm", ".tombstone")) and "index" not in name
    }
    contents = [held[file.offset : file.offset + file.size] for file in files]
    assert digested(held) == {hashlib.sha256(content).hexdigest() for content in contents}
    assert len(contents) == 3


def test_an_empty_shard_has_no_files(tmp_path: Path) -> None:
    """A shard without a file is an archive of two empty records."""
    assert archived_files(spooled(tmp_path, archive({})), "shard 1") == ()
    assert digested(archive({})) == frozenset()


@given(place=st.integers(0, len(archive(CONTENT)) - 1))
def test_an_archive_that_ends_early_is_refused(tmp_path: Path, place: int) -> None:
    """Cut at any byte, also between two files and inside of the end mark."""
    with pytest.raises(IncompleteReadError, match="shard 1"):
        archived_files(spooled(tmp_path, archive(CONTENT)[:place]), "shard 1")
    with pytest.raises(IncompleteReadError, match="shard 1"):
        digested(archive(CONTENT)[:place])


def test_a_copy_without_an_end_is_given_up(tmp_path: Path) -> None:
    """What is digested as it arrives fills no disk, so that it has a limit of its own; more empty bytes are an error."""
    with pytest.raises(IncompleteReadError, match="more than 5000 bytes"):
        archived_digests(bytes, "shard 1", 5000, archive(CONTENT))
    raw = archive(CONTENT) + bytes(3 << 20)
    with pytest.raises(IncompleteReadError, match="bytes more"):
        archived_files(spooled(tmp_path, raw), "shard 1")
    with pytest.raises(IncompleteReadError, match="bytes more"):
        digested(raw)


@pytest.mark.parametrize("count", [1, 2])
def test_words_behind_the_end_are_shown(tmp_path: Path, count: int) -> None:
    """An error that a server appends to a reply of status 200 is told in its words."""
    raw = archive(CONTENT) if count == 1 else archive(CONTENT)[:-1024]
    with pytest.raises(IncompleteReadError, match="too many open files"):
        archived_files(spooled(tmp_path, raw + b'{"message":"too many open files"}'), "shard 1")
    with pytest.raises(IncompleteReadError, match="too many open files"):
        digested(raw + b'{"message":"too many open files"}')


def test_a_reply_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    """Text, noise and a file that stands twice."""
    for raw in (b"shard not found", b"\x80" * 5000, archive({"a/b/1/1-1.tsm": b"x", "a/b/2/1-1.tsm": b"y"})):
        with pytest.raises(IncompleteReadError):
            archived_files(spooled(tmp_path, raw), "shard 1")
        with pytest.raises(IncompleteReadError):
            digested(raw)


def header(name: bytes, size: bytes, kind: bytes) -> bytes:
    """One header with its checksum, whatever stands in it."""
    head = bytearray(name.ljust(100, b"\0") + bytes(24) + size.ljust(12, b"\0") + bytes(12) + b" " * 8 + kind)
    head += b"\0" * (512 - len(head))
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


END = bytes(1024)
HOSTILE = {
    "negative size": header(b"a", b"\xff" * 12, b"0"),
    "size beyond all": header(b"a", b"\x80" + b"\xff" * 11, b"0"),
    "size that is no number": header(b"a", b"12x", b"0"),
    "a large header": header(b"a", b"%o" % (1 << 20), b"x") + bytes(1 << 20),
    "headers of headers": (header(b"a", b"10", b"x") + b"8 path=\n".ljust(512, b"\0")) * 5000,
    "a record of another length": header(b"a", b"12", b"x") + b"99 path=a\n".ljust(512, b"\0"),
    "a negative size in words": header(b"a", b"14", b"x") + b"12 size=-512\n"[:12].ljust(512, b"\0"),
    "a link": header(b"a/b/1/1-1.tsm", b"0", b"2"),
    "a name without its file": header(b"a", b"10", b"L") + bytes(512),
    "a file that no server names so": header(b"a/b/1/one-1.tsm", b"0", b"0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_headers_that_no_server_writes_are_refused(tmp_path: Path, case: str) -> None:
    """Sizes below zero, headers without end and links: an error at once, and no file is left out in silence."""
    with pytest.raises(IncompleteReadError, match="shard 1"):
        archived_files(spooled(tmp_path, HOSTILE[case] + END), "shard 1")
    with pytest.raises(IncompleteReadError, match="shard 1"):
        digested(HOSTILE[case] + END)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(tmp_path: Path, form: int) -> None:
    """A database may have a long name, which takes a header of its own."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        entry = tarfile.TarInfo(
            "d" * (90 if form == tarfile.USTAR_FORMAT else 250) + "é/autogen/1/000000001-000000002.tsm"
        )
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"one"))
        end = tar.offset
    path = spooled(tmp_path, out.getvalue()[: end + 1024])
    (file,) = archived_files(path, "shard 1")
    assert file.name == "000000001-000000002.tsm"
    assert path.read_bytes()[file.offset : file.offset + file.size] == b"one"
    assert digested(path.read_bytes()) == {hashlib.sha256(b"one").hexdigest()}


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The error names the folder and what to set."""
    with pytest.raises(IncompleteReadError, match="No space left") as caught:
        spool(lambda _: b"x" * 10_000, Path("/dev/full"))
    assert "TMPDIR" in caught.value.hint


class _Door:
    """Answers as told: file names (None: it breaks off), and whether the reply begins at once."""

    def __init__(self, replies: Sequence[tuple[list[str] | None, bool]]) -> None:
        self.replies: Iterator[tuple[list[str] | None, bool]] = iter(replies)
        self.asked: list[int | None] = []

    def closed(self) -> str | None:
        """Never."""
        return None

    def shards(self, database: str, retention_policy: str) -> tuple[ShardInfo, ...]:
        """None."""
        raise NotImplementedError

    def refuse_hot(self, database: str, retention_policy: str, shard: ShardInfo) -> None:
        """Nobody writes."""

    def stored_files(self, database: str, retention_policy: str, shard: ShardInfo) -> None:
        """It does not say."""

    def fetch(self, database: str, retention_policy: str, shard: ShardInfo, since: int | None, path: Path) -> Spooled:
        """The next reply."""
        self.asked.append(since)
        names, quick = next(self.replies)
        if names is None:
            raise IncompleteReadError("The connection ended.", kind="shard-copy")
        return Spooled(tuple(SpooledFile(name, path, 0, 1) for name in names), quick)


SHARD = ShardInfo(7, Window(start=0, end=10))


def fetch_all(door: _Door) -> set[tuple[str, str]]:
    """Names of files, with the reply that they are taken from."""
    pytest.importorskip("numba")
    from influxdb_backup.influx.shard_copy import fetch_settled

    files = fetch_settled(door, "db", "autogen", SHARD, lambda: 10**18, Path("copy"))
    return {(file.name, file.path.stem) for file in files}


def test_a_busy_server_is_asked_until_its_cache_is_in_the_files() -> None:
    """A reply that began late may lack the cache: two in a row must be quick, and the later file counts."""
    door = _Door([(["1-1.tsm"], True), (["2-1.tsm"], False), (["2-1.tsm", "3-1.tsm"], True), ([], True)])
    assert fetch_all(door) == {("1-1.tsm", "0"), ("2-1.tsm", "2"), ("3-1.tsm", "2")}
    assert door.asked == [None, *[10**18 - 10 * 10**9] * 3]


def test_a_reply_that_breaks_off_is_asked_for_again() -> None:
    """The same question, twice more at most; then it is an error."""
    door = _Door([(None, True), (["1-1.tsm"], True), (None, True), (None, True), ([], True)])
    assert fetch_all(door) == {("1-1.tsm", "0")}
    assert [since is None for since in door.asked] == [True, True, False, False, False]
    with pytest.raises(IncompleteReadError, match="The connection ended"):
        fetch_all(_Door([(None, True)] * 3))


def test_a_server_that_stays_busy_is_an_error() -> None:
    """Its cache cannot be copied, so nothing is taken from its files."""
    with pytest.raises(IncompleteReadError, match="shard 7") as caught:
        fetch_all(_Door([(["1-1.tsm"], number % 2 == 0) for number in range(9)]))
    assert "reader: query" in caught.value.hint
