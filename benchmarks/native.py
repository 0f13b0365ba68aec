"""The servers' own ways to back up and restore, each as the whole command that a person types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.shards import ShardBed

BACKUP = {1: "influxd backup -portable", 2: "curl of the backup API"}
"""by generation; 2.x: what `influx backup --compression none` asks for, its metadata and then one request a shard"""
COPY = {1: "influxd backup -portable", 2: "curl of the shard"}
RESTORE = {1: "influxd restore -portable", 2: "curl of the restore API"}
TEXT = {1: "influx_inspect export -compress", 2: "influxd inspect export-lp --compress"}


def back_up(bed: ShardBed, database: str, target: Path) -> float:
    """Seconds of a backup of one database into a new folder ``target``. Raises CalledProcessError."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    if bed.running.generation == 1:
        command = [bed.running.binary, "backup", "-portable", "-host", str(bed.running.backup_address)]
        return _run([*command, "-db", database, str(target)])
    started = time.perf_counter()
    manifest = _manifest(bed, database)
    (target / "manifest").write_text(json.dumps(manifest))
    _copy(bed, manifest, target)
    return time.perf_counter() - started


def copy_shards(bed: ShardBed, database: str, target: Path) -> float:
    """Seconds in which the server hands its files out: of a backup on 1.x, of the shards alone on 2.x."""
    if bed.running.generation == 1:
        return back_up(bed, database, target)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return _copy(bed, _manifest(bed, database), target)


def _copy(bed: ShardBed, manifest: dict[str, Any], target: Path) -> float:
    lines = _curl(bed)
    for shard in map(str, _shards(manifest)):
        lines += [f'url = "{bed.running.url}/api/v2/backup/shards/{shard}"', f'output = "{target / shard}"']
    return _run(["curl", "--config", "-"], "\n".join(lines))


def restore(bed: ShardBed, source: Path, database: str, new: str) -> float:
    """Seconds of a restore of what ``back_up`` made, under another name. Raises CalledProcessError and HTTPError."""
    if bed.running.generation == 1:
        command = [bed.running.binary, "restore", "-portable", "-host", str(bed.running.backup_address)]
        return _run([*command, "-db", database, "-newdb", new, str(source)])
    started = time.perf_counter()
    manifest = {**json.loads((source / "manifest").read_text()), "bucketName": new}
    url, headers = (
        f"{bed.running.url}/api/v2/restore/bucketMetadata",
        {**_token(bed), "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(manifest).encode(), headers)) as reply:
        places = {mapped["oldId"]: mapped["newId"] for mapped in json.loads(reply.read())["shardMappings"]}
    for shard in _shards(manifest):
        lines = [*_curl(bed), "request = POST", f'upload-file = "{source / str(shard)}"', 'header = "Expect:"']
        lines += [f'url = "{bed.running.url}/api/v2/restore/shards/{places[shard]}"']
        _run(["curl", "--config", "-"], "\n".join(lines))
    return time.perf_counter() - started


def export_text(bed: ShardBed, database: str, out: Path) -> float:
    """Seconds of a compressed text export of the server's files."""
    assert bed.inspect is not None
    folder = bed.running.folder
    if bed.running.generation == 1:
        command = [str(bed.inspect), "export", "-datadir", f"{folder}/data", "-waldir", f"{folder}/wal"]
        command += ["-database", database, "-compress", "-out", str(out)]
    else:
        command = [str(bed.inspect), "inspect", "export-lp", "--engine-path", f"{folder}/engine", "--compress"]
        command += ["--bucket-id", bucket_id(bed, database), "--output-path", str(out)]
    out.unlink(missing_ok=True)
    return _run(command)


def import_text(bed: ShardBed, database: str, text: Path, new: str) -> float:
    """Seconds of `influx -import` of a text export, on 1.x, under another name."""
    renamed = text.with_name("renamed.gz")
    names = f"s/^CREATE DATABASE {database} /CREATE DATABASE {new} /; s/^(# CONTEXT-DATABASE: *){database}$/\\1{new}/"
    pipe = f"zcat '{text}' | sed -E -e '1,20{{{names}}}' | gzip -1 > '{renamed}'"
    subprocess.run(["sh", "-c", pipe], check=True)
    host, port = bed.running.url.removeprefix("http://").split(":")
    try:
        return _run(["influx", "-host", host, "-port", port, "-import", "-compressed", "-path", str(renamed)])
    finally:
        renamed.unlink()


def bucket_id(bed: ShardBed, database: str) -> str:
    """The id of a 2.x server's bucket."""
    return str(json.loads(bed.running.get(f"/api/v2/buckets?name={database}"))["buckets"][0]["id"])


def processor_seconds(pid: int) -> float:
    """What a process, all of its threads, has used of the processor since its start, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _manifest(bed: ShardBed, database: str) -> dict[str, Any]:
    """What a 2.x server says of a bucket's shards when it is asked for a backup."""
    request = urllib.request.Request(f"{bed.running.url}/api/v2/backup/metadata", headers=_token(bed))
    with urllib.request.urlopen(request) as reply:
        head = f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + reply.read(), policy=policy.HTTP).iter_parts()
    (buckets,) = (part for part in parts if 'name="buckets"' in str(part.get("Content-Disposition")))
    listed = json.loads(buckets.get_content())
    found: dict[str, Any] = next(bucket for bucket in listed if bucket["bucketName"] == database)
    return found


def _shards(manifest: dict[str, Any]) -> list[int]:
    return [
        shard["id"]
        for policy in manifest["retentionPolicies"]
        for group in policy["shardGroups"]
        if not group.get("deletedAt")
        for shard in group["shards"]
    ]


def _token(bed: ShardBed) -> dict[str, str]:
    return {"Authorization": f"Token {bed.running.token}"} if bed.running.token else {}


def _curl(bed: ShardBed) -> list[str]:
    return ["silent", "fail", *(f'header = "{name}: {value}"' for name, value in _token(bed).items())]


def _run(command: list[str], given: str = "") -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, input=given.encode())
    return time.perf_counter() - started
