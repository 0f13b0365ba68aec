"""Why a figure misses its bound: the floor that was measured beside it, and what the rest is."""

from __future__ import annotations

from benchmarks.table import Result

REASONS: dict[str, str] = {
    **{
        f"{server}: restore by shards of {days} days / ": (
            "The server's own restore copies files and proves nothing; to prove and decode parts, encode the servers' "
            "blocks, send them and copy them back takes four to seven times its processor seconds, as `make bench` "
            "measures beside it. The rest is the start of the command, the digests of what was sent and came back, and "
            "the server's count of every table."
        )
        for server in ("1.6", "1.12", "2.9")
        for days in (30, 116)
    },
    **{
        f"{server}: restore by shards of {days} days: cores used": (
            "Building and sending overlap, and the command alone keeps one core busy; the server takes one copy after "
            "the other in, and flushes each. Other programs had a part of the two cores meanwhile, as the line above "
            "the table says."
        )
        for server in ("1.6", "1.12", "2.9")
        for days in (30, 116)
    },
    **{
        f"peak memory of {job}": (
            "What is anonymous stands beside it and is below 350 MB; the rest are pages of libraries and of the mapped "
            "copy, which the kernel drops when it needs their room. It maps 64 KB and more around each byte that is "
            "read, of which these shards have many far apart."
        )
        for job in ("drill by shards, 1,000,000 series", "export by shards, 250,000,000 random floats")
    },
    "1.12: restore by line protocol, 2 connections / the same bodies, prepared": (
        "it was the median of five runs under another bound, of which two of the same differ by a tenth."
    ),
    **{
        f"{server}: `influxdb-backup export` of ten minutes, process and imports": (
            "Half of it is the libraries that an export stands on, which are measured beside it; the rest is the "
            "modules and models of this package, the configuration, and the first request to server and store."
        )
        for server in ("1.6", "1.12", "2.9")
    },
    **{
        f"{server}: export of ten minutes (6,000 points) in a warm process": (
            "Most of it is the server's answer to two queries, for the points and for their count, which `make bench` "
            "measures beside it. The rest is the listings before and after, what the points take to be decoded and "
            "encoded, and a dozen small files that are flushed and read back, parts before the manifest and that "
            "before the ref."
        )
        for server in ("1.6", "1.12", "2.9")
    },
    **{
        f"`influxdb-backup {what}`, 300 tables: S3 with 30 ms a request / local": (
            "S3's client alone needs the seconds that `make bench` measures beside it, to be loaded and to move as "
            "many objects, and moto's processor those of its own row; both share two cores with the command. The delay "
            "itself is waited for 20 times, since 16 requests are under way at once."
        )
        for what in ("export", "verify", "restore")
    },
    "1.12: the server's processor seconds per million values, 4,320,000 points": (
        "a series has three blocks in six hours, of which counting a stretch decodes one; in a whole day it has nine."
    ),
    "2.9: export by shards, counts apart / curl of the shard": (
        "2.x hands the shard out in 35 ms, less than half of what 1.x takes. What is decoded, proved and encoded "
        "again is the same on both, about 0.4 s of a processor."
    ),
}
"""by the beginning of what a row measures"""


def reason(row: Result) -> str | None:
    """Why a row does not hold; None for one that holds, or of which no reason is known."""
    if row.ok is not False:
        return None
    return next((text for start, text in REASONS.items() if row.what.startswith(start)), None)
