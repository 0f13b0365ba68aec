"""S3 and what speaks it, with a proxy between that loses replies, refuses, or does what it should not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.check import check_store
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import Store, open_store
from influxdb_backup.archive.verify import verify_ref
from influxdb_backup.errors import StoreError
from influxdb_backup.jobs.restore_documents import RestoreIdentity
from influxdb_backup.jobs.verify import verify
from influxdb_backup.model import PlanIdentity, VerifyLevel, VerifyReport
from tests.archive.build import backup
from tests.archive.proxy import Asked, Reply, Rule, Swallow, Without, error, proxied
from tests.s3 import create_bucket

Open = Callable[..., Store]


@contextmanager
def store_behind(endpoint: str, rule: Rule, **more: object) -> Iterator[tuple[Store, list[Asked]]]:
    """A new bucket's store behind the proxy."""
    bucket = f"b{uuid4().hex}"
    create_bucket(endpoint, bucket)
    with proxied(endpoint, rule) as (address, seen):
        options = {
            "key": "testing-key-id",
            "secret": "testing-secret",
            "token": "testing-session-token",
            "client_kwargs": {"endpoint_url": address, "region_name": "us-east-1"},
            **more,
        }
        yield open_store(f"s3://{bucket}/some/prefix", options), seen


class LosesReplies:
    """The first reply to the creation of every object is lost."""

    def __init__(self) -> None:
        self.lost: set[str] = set()

    def __call__(self, asked: Asked) -> Reply | Swallow | Without | None:
        """Swallows a conditional PUT's reply once for each key."""
        if asked.method == "PUT" and "if-none-match" in asked.headers and asked.path not in self.lost:
            self.lost.add(asked.path)
            return Swallow()
        return None


def test_a_lost_reply_is_success_for_every_writer(s3_endpoint: str) -> None:
    """The client repeats, is told that its own object is in the way, and what stands is read back."""
    rule = LosesReplies()
    with store_behind(s3_endpoint, rule) as (store, _):
        repository = Repository.init(store)
        assert Repository.open(store).repository_id == repository.repository_id
        identity = PlanIdentity(plan="telemetry", database="d", generation=1, instance_id=None, source=None)
        repository.claim_plan(identity)
        done = backup(repository)
        assert done.created and verify_ref(repository, done.ref, VerifyLevel.VALID).ok
        report = verify(repository, done.ref, VerifyLevel.PRESENT)
        assert report.ok and len(repository.read_documents(layout.CHECKS, VerifyReport)) == 1
        restore = RestoreIdentity(
            restore_id="r", request="sha256:" + "0" * 64, target_server="s", target_database="d", started_at=1
        )
        repository.put_document(layout.restore_key("r"), restore)
        assert {path.split("/prefix/")[1].split("/")[0] for path in rule.lost} == {
            "preflight",
            "repository.json",
            "README.txt",
            "plans",
            "manifests",
            "refs",
            "checks",
            "restores",
        }
        with pytest.raises(FileExistsError):
            repository.put_document(layout.restore_key("r"), restore.model_copy(update={"started_at": 2}))


@pytest.mark.parametrize(
    ("status", "code", "message", "way_out"),
    [
        (
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the server's time is too large",
            "NTP",
        ),
        (400, "InvalidArgument", "Unsupported header 'x-amz-checksum-crc32' received", "request_checksum_calculation"),
    ],
)
def test_a_refusal_that_is_no_matter_of_rights_tells_its_way_out(
    s3_endpoint: str, status: int, code: str, message: str, way_out: str
) -> None:
    """Clocks that differ, and checksum headers that a store does not know, are not called missing rights."""

    def refuse(asked: Asked) -> Reply | None:
        return error(status, code, message) if asked.method == "PUT" else None

    with store_behind(s3_endpoint, refuse) as (store, _), pytest.raises(StoreError) as caught:
        Repository.init(store)
    assert way_out in caught.value.hint and "rights" not in caught.value.hint


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_refused_and_sends_nothing_there(
    s3_endpoint: str, status: int, tmp_path: Path
) -> None:
    """Neither the session token nor any request reaches the other host, and its answer is nobody's repository."""
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(bytes(17 << 20))
    small.write_bytes(b"PAR1")
    with proxied(s3_endpoint, lambda _: None) as (elsewhere, reached):

        def redirect(asked: Asked) -> Reply:
            return Reply(status, b"", {"Location": f"{elsewhere}{asked.path}?X-Amz-Signature=presigned-secret"})

        with store_behind(s3_endpoint, redirect) as (store, asked):
            verbs: list[Callable[[], object]] = [
                lambda: Repository.init(store),
                lambda: Repository.open(store),
                lambda: store.list("refs/"),
                lambda: store.size("repository.json"),
                lambda: store.delete("data/x.parquet"),
                lambda: store.upload(small, "data/x.parquet"),
                lambda: store.upload(large, "data/x.parquet"),
                lambda: store.download("data/x.parquet", tmp_path / "copy"),
                lambda: store.read_range("data/x.parquet", 0, 8),
                lambda: store.digest("data/x.parquet"),
                lambda: store.modified("data/x.parquet"),
            ]
            for verb in verbs:
                asked.clear()
                with pytest.raises(StoreError) as caught:
                    verb()
                assert asked
                assert elsewhere in caught.value.message and f"http://{asked[0].headers['host']}" in str(caught.value)
                assert "endpoint_url" in caught.value.hint and "presigned-secret" not in str(caught.value)
                assert reached == []


def test_the_region_redirects_of_s3_itself_still_reach_the_bucket(s3_endpoint: str) -> None:
    """S3 says in its answer where a bucket's region is, and botocore asks again by itself: no redirect is followed."""
    body = b"<Error><Code>PermanentRedirect</Code><Message>Use the endpoint.</Message></Error>"

    def of_another_region(asked: Asked) -> Reply | None:
        if "/us-east-1/" in asked.headers.get("authorization", ""):
            return Reply(301, body, {"Content-Type": "application/xml", "x-amz-bucket-region": "eu-west-1"})
        return None

    with store_behind(s3_endpoint, of_another_region) as (store, asked):
        repository = Repository.init(store)
        assert Repository.open(store).repository_id == repository.repository_id
        assert any("/eu-west-1/" in one.headers["authorization"] for one in asked)


def ignores_the_condition(asked: Asked) -> Without | None:
    """A store that takes every PUT."""
    return Without("if-none-match") if asked.method == "PUT" else None


def refuses_deletes(asked: Asked) -> Reply | None:
    """Credentials that may create and read."""
    return error(403, "AccessDenied", "no DeleteObject for you") if asked.method == "DELETE" else None


def test_no_repository_is_made_in_a_store_that_ignores_the_condition(s3_endpoint: str) -> None:
    """`repo init` tries what backups rest on, says what is wrong, and leaves nothing."""
    with store_behind(s3_endpoint, ignores_the_condition) as (store, _):
        with pytest.raises(StoreError, match="does not refuse to create") as caught:
            Repository.init(store)
        assert caught.value.kind == "store-unfit" and "If-None-Match" in caught.value.hint
        assert store.list("") == []


def test_a_store_that_ignores_the_condition_takes_no_backup(s3_endpoint: str) -> None:
    """A repository that was made before, or moved there: an export ends before its ref, and asks once for each job."""
    ignores: list[bool] = []

    def rule(asked: Asked) -> Without | None:
        return ignores_the_condition(asked) if ignores else None

    with store_behind(s3_endpoint, rule) as (store, asked):
        repository = Repository.init(store)
        ignores.append(True)
        with pytest.raises(StoreError, match="does not refuse to create manifests/") as caught:
            backup(repository)
        assert caught.value.kind == "store-unfit" and store.list(layout.REFS) == []
        ignores.clear()
        asked.clear()
        assert backup(repository).created and backup(repository, seed=7, read_start=1_900_000_000 * 10**9).created
        puts = [one.path for one in asked if one.method == "PUT" and "/manifests/" in one.path]
        assert len(puts) == 3 and puts[0] == puts[1]


def test_a_store_that_allows_no_deletes_is_fit_and_told_what_follows(s3_endpoint: str) -> None:
    """Exports, restores and verifications need no deletes; what stays behind is named."""
    with store_behind(s3_endpoint, refuses_deletes) as (store, _):
        repository = Repository.init(store)
        assert backup(repository).created
        report = check_store(store)
        assert report.failed == () and report.ok, report
        assert {item.name for item in report.items if not item.ok} == {"delete", "clean-up"}
        (remark,) = report.remarks
        assert "cannot delete" in remark and "preflight/" in remark and "data/" in remark
