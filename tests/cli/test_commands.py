"""Each command on a real server and a local repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from influxdb_backup.archive import layout
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.config.model import Plan
from influxdb_backup.jobs.drill import drill
from influxdb_backup.jobs.drill_scratch import SCRATCH_PREFIX
from influxdb_backup.jobs.drills import ScratchStarted
from tests.cli.conftest import DAY, MIDNIGHT, NEXT_DAY, ROWS, Cli, Site
from tests.jobs.support import new_database, new_name, opened
from tests.jobs.test_drill import Undroppable
from tests.servers import start_influxdb1
from tests.wire import swallowing


def test_export_is_idempotent(backed_up: Site, cli: Cli) -> None:
    """The same export again makes no new revision, and says so."""
    again = cli.ok("export", "telemetry", *DAY, "--json").document
    assert (again["created"], again["revision"], again["rows"]) == (False, 0, ROWS)
    assert "Nothing new" in cli.ok("export", "telemetry", *DAY).out


def test_list_shows_what_is_known(backed_up: Site, cli: Cli) -> None:
    """A backup is listed with its rows, then as verified, then as drilled."""
    listed = cli.ok("list", "telemetry")
    assert "2026-01-01, 1 day " in listed.out
    assert f" {ROWS}  " in listed.out
    assert "valid" not in listed.out
    cli.ok("verify", "telemetry@latest")
    assert "  valid, verify " in cli.ok("list").out
    cli.ok("drill", "telemetry")
    [entry] = cli.ok("list", "--json").document["backups"]
    assert (entry["verified"]["level"], entry["verified"]["ok"], entry["drilled"]["ok"]) == ("valid", True, True)
    assert entry["ref"]["window"]["start"] == "1767225600000000000"


def test_list_of_a_range(backed_up: Site, cli: Cli) -> None:
    """A range lists the windows that touch it; ids can be used as they are."""
    cli.ok("export", "telemetry", *NEXT_DAY)
    assert len(cli.ok("list", "--ids").out.splitlines()) == 2
    [ref] = cli.ok("list", "telemetry", "--ids", *NEXT_DAY).out.splitlines()
    assert cli.ok("show", ref, "--json").document["id"] == ref
    empty = cli.ok("list", "telemetry", "--start", "2020-01-01T00:00:00Z", "--end", "2020-01-02T00:00:00Z")
    assert (empty.out, "There are no backups" in empty.err) == ("", True)


def test_show(backed_up: Site, cli: Cli) -> None:
    """A backup is shown with source, tables and types."""
    shown = cli.ok("show", "telemetry@latest").out
    assert f"{backed_up.database}, InfluxDB 1." in shown
    assert "autogen.cpu" in shown
    assert "host tag, msg string, n integer, usage float" in shown
    manifest = cli.ok("show", "telemetry@latest", "--json").document["manifest"]
    assert manifest["tables"][0]["rows"] == str(ROWS)


def test_verify_finds_damage(backed_up: Site, cli: Cli) -> None:
    """A changed byte makes verify fail with the object's name, and list shows it until the backup is whole again."""
    cli.ok("verify", "telemetry", "--level", "complete")
    [part] = Path(backed_up.repository.removeprefix("file://")).glob("data/**/*.parquet")
    whole = part.read_bytes()
    part.chmod(0o644)
    middle = len(whole) // 2
    part.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    damaged = cli("verify", "telemetry", "--json")
    assert (damaged.status, damaged.document["ok"]) == (1, False)
    assert part.name in damaged.document["reports"][0]["problems"][0]["object"]
    text = cli("verify", "telemetry@latest")
    assert (text.status, "NOT valid: telemetry, 2026-01-01, 1 day, revision 0" in text.out) == (1, True)
    assert "DAMAGED" in cli.ok("list").out
    covered = cli("coverage", "telemetry", *DAY)
    assert (covered.status, "DAMAGED: telemetry, 2026-01-01, 1 day" in covered.out) == (1, True)
    assert len(cli("coverage", "telemetry", *DAY, "--json").document["damaged"]) == 1
    assert cli("coverage", "telemetry", *NEXT_DAY, "--json").document["damaged"] == []
    drilled = cli("drill", "telemetry")
    assert (drilled.status, "did NOT hold" in drilled.out) == (1, True)
    part.write_bytes(whole)
    cli.ok("verify", "telemetry")
    assert "DAMAGED" not in cli.ok("list").out
    cli.ok("coverage", "telemetry", *DAY)


def test_verify_of_a_plan_goes_on_after_a_damaged_ref(backed_up: Site, cli: Cli) -> None:
    """A ref that cannot be read is one that does not hold, and all others are verified and kept all the same."""
    cli.ok("export", "telemetry", *NEXT_DAY)
    folder = Path(backed_up.repository.removeprefix("file://"))
    first = min(folder.glob("refs/telemetry/*/*.json"))
    first.chmod(0o644)
    first.write_bytes(b"")
    text = cli("verify", "telemetry")
    assert (text.status, "1 of 2 backups are valid." in text.out) == (1, True)
    assert f"refs/telemetry/{first.parent.name}/{first.name}" in text.out
    document = cli("verify", "telemetry", "--json").document
    assert [report["ok"] for report in document["reports"]] == [False, True]
    assert len(list(folder.glob("checks/telemetry/*/*/*.json"))) == 2


def test_verify_of_a_plan_counts_what_the_disk_does_not_give(backed_up: Site, cli: Cli) -> None:
    """A backup of which nothing is known is one of those that were asked for, and no other verdict is lost."""
    cli.ok("export", "telemetry", *NEXT_DAY)
    part = min(Path(backed_up.repository.removeprefix("file://")).glob("data/telemetry/*/*/*/*.parquet"))
    part.unlink()
    part.symlink_to(part.name)  # too many levels, as a failing disk also for root
    text = cli("verify", "telemetry")
    assert (text.status, "1 of 2 backups are valid; of 1 it is not known." in text.out) == (1, True)
    assert "NOT VERIFIED: telemetry, 2026-01-01, 1 day, revision 0" in text.err


def test_a_range_says_how_many_windows_were_tried(site: Site, cli: Cli) -> None:
    """Where the rest of a range cannot succeed, the count is of those that were tried."""
    cli.ok("repo", "init", "primary")
    text = cli("export", "telemetry", *DAY[:3], "2100-01-01T00:00:00Z")
    assert text.status == 1
    assert re.search(r"^Backed up \d+ of \d+ windows that were tried, ", text.out, re.MULTILINE)
    assert "Not tried, since it would fail as well: " in text.err


@pytest.mark.parametrize(
    ("damaged", "commands", "expected"),
    [
        ("repository.json", (["list"], ["repo", "init", "primary"]), "every manifest holds the repository_id"),
        ("plans/*.json", (["coverage", "telemetry", *DAY],), "the next export goes by the source"),
        ("manifests/*.json", (["show", "telemetry@latest"],), "Restore another revision"),
        ("data/*/*/*/*/*.parquet", (["restore", "telemetry@latest", "--target-database", "x"],), "Restore another"),
    ],
)
def test_every_damaged_object_is_named_with_a_way_out(
    backed_up: Site, cli: Cli, damaged: str, commands: tuple[list[str], ...], expected: str
) -> None:
    """Whatever file of a repository is cut short: the error names it and says what to do."""
    cli.ok("verify", "telemetry")
    [path] = Path(backed_up.repository.removeprefix("file://")).glob(damaged)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-10])
    for command in commands:
        failed = cli(*command)
        assert (failed.status, path.name in failed.err) == (1, True)
        assert expected in failed.err


@pytest.mark.parametrize(
    ("damaged", "expected"),
    [
        ("checks/*/*/*/*.json", "verify or drill its backup again"),
        ("refs/*/*/*.json", "its window then counts as a gap"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"{", b"1" * 5000, b'{"a": "\\ud800"}'])
def test_one_bad_document_does_not_stop_what_others_say(
    backed_up: Site, cli: Cli, damaged: str, expected: str, content: bytes
) -> None:
    """A report or a ref that cannot be read is named with a way out, and every other backup is shown."""
    cli.ok("export", "telemetry", *NEXT_DAY)
    cli.ok("verify", "telemetry")
    path = min(Path(backed_up.repository.removeprefix("file://")).glob(damaged))
    path.chmod(0o644)
    path.write_bytes(content)
    listed = cli("list", "telemetry")
    assert listed.status == 0 and len([line for line in listed.out.splitlines() if "2026" in line]) >= 1
    covered = cli("coverage", "telemetry", *DAY)
    assert covered.status == (1 if damaged.startswith("refs") else 0)
    for said in (listed.err, covered.err):
        assert path.name in said and expected in " ".join(said.split())


def test_a_plan_of_another_database_is_refused(backed_up: Site, cli: Cli) -> None:
    """Backups of what the plan named before neither cover it nor are restored as if they were its own."""
    backed_up.config.write_text(backed_up.config.read_text().replace(backed_up.database, "elsewhere"))
    target = ("--target-database", f"{backed_up.database}_copy")
    for command in (
        ["export", "telemetry", *NEXT_DAY],
        ["coverage", "telemetry", *DAY],
        ["verify", "telemetry"],
        ["restore", "telemetry", *DAY, *target],
        ["drill", "telemetry"],
    ):
        failed = cli(*command)
        assert (failed.status, "now names 'elsewhere'" in failed.err) == (1, True)
    cli.ok("restore", "telemetry@latest", *target)


def test_export_of_less_than_before_needs_a_word_for_each_loss(site: Site, cli: Cli) -> None:
    """Points that expired, measurements that are gone and rows that are fewer are allowed one by one."""
    site.server.write(f"mem v=1 {MIDNIGHT * 10**9}", site.database)
    cli.ok("repo", "init", "primary")
    cli.ok("export", "telemetry", *DAY)
    site.server.query("DROP MEASUREMENT mem", db=site.database)
    flags = {"--accept-missing", "--accept-shrink"}
    for flag in flags:
        failed = cli("export", "telemetry", *DAY, *(flags - {flag}))
        assert (failed.status, flag in failed.err) == (1, True)
    assert cli.ok("export", "telemetry", *DAY, *flags, "--json").document["revision"] == 1
    site.server.write(f"mem v=1 {MIDNIGHT * 10**9}", site.database)
    assert cli.ok("export", "telemetry", *DAY, "--json").document["revision"] == 2
    site.server.query(f'ALTER RETENTION POLICY "autogen" ON "{site.database}" DURATION 1d SHARD DURATION 1h')
    site.server.query("DROP MEASUREMENT mem", db=site.database)  # as the server will do now
    failed = cli("export", "telemetry", *DAY, *flags)
    assert (failed.status, "--accept-expired" in failed.err) == (1, True)
    expired = cli.ok("export", "telemetry", *DAY, "--accept-expired", "--json").document
    assert (expired["revision"], expired["expired"][0]["retention_policy"]) == (3, "autogen")
    assert expired["ended"] == [{"retention_policy": "autogen", "measurement": "mem"}]


def test_export_heals_damage(backed_up: Site, cli: Cli) -> None:
    """What verify says to run makes a sound revision, although the source holds nothing new."""
    [part] = Path(backed_up.repository.removeprefix("file://")).glob("data/**/*.parquet")
    whole = part.read_bytes()
    part.chmod(0o644)
    part.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    assert f"influxdb-backup export telemetry {' '.join(DAY)}" in cli("verify", "telemetry").err
    assert cli.ok("export", "telemetry", *DAY, "--json").document["revision"] == 1
    cli.ok("verify", "telemetry")
    cli.ok("coverage", "telemetry", *DAY)


def test_verify_without_record(backed_up: Site, cli: Cli) -> None:
    """A verification that is not recorded leaves the repository as it was."""
    folder = Path(backed_up.repository.removeprefix("file://"))
    before = sorted(folder.rglob("*"))
    cli.ok("verify", "telemetry", "--no-record")
    assert sorted(folder.rglob("*")) == before


def test_restorable_needs_a_drill(backed_up: Site, cli: Cli) -> None:
    """A backup is restorable only after a drill; the level that it has is not lost by asking."""
    cli.ok("verify", "telemetry@latest")
    asked = cli("verify", "telemetry@latest", "--level", "restorable")
    assert (asked.status, "NOT restorable" in asked.out) == (1, True)
    assert "  valid, verify " in cli.ok("list").out
    cli.ok("drill", "telemetry", "--ref", "telemetry@latest")
    cli.ok("verify", "telemetry@latest", "--level", "restorable")


def test_coverage(backed_up: Site, cli: Cli) -> None:
    """Coverage is 0 for a covered range and 1 with gaps, which are named with the command that fills them."""
    assert "covered" in cli.ok("coverage", "telemetry", *DAY).out
    gaps = cli("coverage", "telemetry", "--start", DAY[1], "--end", NEXT_DAY[3])
    assert gaps.status == 1
    assert "2026-01-02  2026-01-03  1 day   GAP" in gaps.out
    assert f"export telemetry {' '.join(NEXT_DAY)}" in gaps.out
    report = cli("coverage", "telemetry", "--json").document
    assert report["gaps"][0]["start"] == "1767312000000000000"


def test_coverage_by_a_backup_whose_manifest_is_gone(backed_up: Site, cli: Cli) -> None:
    """What coverage itself finds missing is damage: status 1 and the command that backs the window up again."""
    for manifest in Path(backed_up.repository.removeprefix("file://")).glob("manifests/**/*.json"):
        manifest.unlink()
    found = cli("coverage", "telemetry", *DAY)
    assert found.status == 1
    assert "DAMAGED: telemetry, 2026-01-01, 1 day" in found.out
    assert f"export telemetry {' '.join(DAY)}" in found.out


def test_coverage_and_export_tell_points_outside_of_all_windows(site: Site, cli: Cli) -> None:
    """A device at 2100 and one before the plan's start: both name the stretch and the way to have it backed up."""
    site.server.write("cpu v=1 4103308800000000000\ncpu v=1 1262304000000000000", site.database)
    cli.ok("repo", "init", "primary")
    told = cli.ok("export", "telemetry", *DAY).err
    assert "shards of 'autogen' before the plan's start that no window of the plan reaches: 2009-12-28" in told
    assert "shards of 'autogen' later than now that no window of the plan reaches: 2100-01-" in told
    assert "set start or ahead in the plan" in told
    said = cli.ok("coverage", "telemetry", *DAY).out
    assert said.count("OUTSIDE of the plan's windows: the source has shards of 'autogen' for ") == 2
    found = cli.ok("coverage", "telemetry", *DAY, "--json").document["outside"]
    assert [one["retention_policy"] for one in found] == ["autogen", "autogen"]


def test_export_of_a_plan_takes_its_last_due_window(site: Site, cli: Cli) -> None:
    """No range is needed; a longer one is cut at the schedule, and the help says both."""
    cli.ok("repo", "init", "primary")
    last = cli.ok("export", "telemetry", "--json").document["window"]
    midnight = time.time_ns() // (86_400 * 10**9) * 86_400 * 10**9
    assert int(last["end"]) - int(last["start"]) == 86_400 * 10**9
    assert midnight - 86_400 * 10**9 <= int(last["end"]) <= midnight
    two = cli.ok("export", "telemetry", DAY[0], DAY[1], NEXT_DAY[2], NEXT_DAY[3]).out
    assert f"Backed up 2 of 2 windows, {2 * ROWS} rows" in two
    assert "Back the last due window of a plan up, or a range" in cli.ok("export", "-h").out


def test_coverage_rechecked(backed_up: Site, cli: Cli) -> None:
    """A late point is said only when the server is asked, with field, counts and a command that heals it."""
    unchanged = cli.ok("coverage", "telemetry", *DAY, "--recheck", "--json").document
    assert (unchanged["rechecked"], unchanged["stale"], unchanged["changes"]) == (True, [], [])
    backed_up.server.write(f"cpu,host=late usage=1 {MIDNIGHT * 10**9}", backed_up.database)
    silent = cli.ok("coverage", "telemetry", *DAY, "--json").document
    assert (silent["rechecked"], silent["stale"]) == (False, [])
    stale = cli("coverage", "telemetry", *DAY, "--recheck")
    assert stale.status == 1
    assert re.search(r"^2026-01-01  2026-01-02  1 day   STALE: changed at the source$", stale.out, re.MULTILINE)
    [line] = [line for line in stale.out.splitlines() if line.startswith("STALE: ")]
    assert f"autogen.cpu, field 'usage': {ROWS + 1} counted, {ROWS} backed up" in line
    assert "--accept" not in line
    command = line.partition("influxdb-backup ")[2].split()
    document = cli("coverage", "telemetry", *DAY, "--recheck", "--json").document
    [window] = document["stale"]
    assert (window["start"], window["end"]) == ("1767225600000000000", "1767312000000000000")
    assert (window["start_rfc3339"], window["end_rfc3339"]) == DAY[1::2]
    assert (document["changes"][0]["counted"], document["changes"][0]["field"]) == (str(ROWS + 1), "usage")
    cli.ok(*command)
    assert "stale" not in cli.ok("coverage", "telemetry", *DAY, "--recheck").out.lower()


def test_coverage_rechecked_after_deletions(backed_up: Site, cli: Cli) -> None:
    """What is fewer, or gone, is said, and never with an export that would empty the newest backup."""
    site = backed_up
    site.server.write(f"mem,host=h0 v=1 {MIDNIGHT * 10**9}", site.database)
    cli.ok("export", "telemetry", *DAY)
    site.server.query("DROP SERIES FROM cpu WHERE host = 'h1'", db=site.database)
    told = cli("coverage", "telemetry", *DAY, "--recheck").out
    [line] = [line for line in told.splitlines() if line.startswith("STALE: ")]
    assert f"autogen.cpu, field 'usage': {ROWS // 2} counted, {ROWS} backed up" in line
    assert "archived_before" in line
    assert "export" not in line
    site.server.query("DROP MEASUREMENT mem", db=site.database)
    stale = cli("coverage", "telemetry", *DAY, "--recheck")
    assert (stale.status, "--accept" in stale.out) == (1, False)
    assert "; and 1 more" in stale.out
    cli.ok("export", "telemetry", *DAY, "--accept-shrink", "--accept-missing")
    cli.ok("coverage", "telemetry", *DAY, "--recheck")


def test_coverage_rechecked_of_an_expired_window(backed_up: Site, cli: Cli) -> None:
    """A window that the source no longer keeps is named, and is not stale."""
    backed_up.server.query(f'ALTER RETENTION POLICY "autogen" ON "{backed_up.database}" DURATION 1d SHARD DURATION 1h')
    told = cli.ok("coverage", "telemetry", *DAY, "--recheck").out
    assert "ARCHIVED: 2026-01-01, 1 day: The retention policy 'autogen'" in told
    assert "stale" not in told.lower()
    assert cli.ok("coverage", "telemetry", *DAY, "--recheck", "--json").document["archived"]


def test_drill(backed_up: Site, cli: Cli) -> None:
    """A drill restores, compares and runs the plan's own checks, and drops its scratch."""
    report = cli.ok("drill", "telemetry", "--json").document
    assert (report["ok"], report["rows"], report["scratch_dropped"]) == (True, str(ROWS), True)
    assert report["checks"][0]["value"] == str(ROWS)
    assert report["scratch"] not in str(backed_up.server.query("SHOW DATABASES"))
    assert "No scratch database" in cli.ok("drill", "telemetry", "--clean").out


def test_drill_clean_says_what_a_record_may_not_drop(backed_up: Site, cli: Cli) -> None:
    """A record that names production drops nothing, and is told as what it is, on the page and as a document."""
    repository = Repository.open(open_store(backed_up.repository))
    ref = repository.ref("telemetry@latest")
    for name in (backed_up.database, "gone\x1b[31m"):
        record = ScratchStarted(drill_id="x", ref=ref.id, server="source", database=name, started_at=1)
        key = layout.drill_stage_key(ref.plan, ref.window, ref.revision, new_name(), "started")
        repository.put_document(key, record)
    told = cli.ok("drill", "telemetry", "--clean").out
    assert f"left {backed_up.database}: no drill calls a scratch so" in told
    assert "not seen gone\\x1b[31m: never made, gone, or hidden from these credentials of source" in told
    document = cli.ok("drill", "telemetry", "--clean", "--json").document
    assert (document["dropped"], document["forged"]) == ([], [backed_up.database])
    assert backed_up.database in str(backed_up.server.query("SHOW DATABASES"))


def test_drill_clean_drops_what_a_killed_drill_left(backed_up: Site, cli: Cli) -> None:
    """The scratch that a drill recorded and could not drop is dropped and named, once; others stay."""
    chosen = Plan(name="telemetry", database=backed_up.database, repositories=("primary",))
    repository = Repository.open(open_store(backed_up.repository))
    bystander = new_database(backed_up.server, SCRATCH_PREFIX.rstrip("_"))
    with opened(backed_up.server, name="source") as server:
        left = drill(chosen, repository=repository, server=Undroppable(server)).scratch
    assert left in str(backed_up.server.query("SHOW DATABASES"))
    assert cli.ok("drill", "telemetry", "--clean").out == f"dropped {left}\n"
    databases = str(backed_up.server.query("SHOW DATABASES"))
    assert (left in databases, bystander in databases, backed_up.database in databases) == (False, True, True)
    assert cli.ok("drill", "telemetry", "--clean", "--json").document == {
        "dropped": [], "running": [], "unseen": [], "foreign": [], "forged": []
    }  # fmt: skip


def test_drill_with_a_check_that_fails(backed_up: Site, cli: Cli) -> None:
    """A check of the user's own that does not hold makes the drill fail."""
    backed_up.config.write_text(backed_up.config.read_text().replace(f"equals: {ROWS}", "min: 1000"))
    failed = cli("drill", "telemetry")
    assert (failed.status, "must be at least 1000" in failed.out) == (1, True)


def test_restore_dry_run_changes_nothing(backed_up: Site, cli: Cli) -> None:
    """A dry run says what would be made and makes nothing."""
    target = f"{backed_up.database}_dry"
    plan = cli.ok("restore", "telemetry", *DAY, "--target-database", target, "--dry-run", "--json").document
    assert (plan["rows"], plan["creates"][0]) == (str(ROWS), f"database {target}")
    assert "Nothing was changed" in cli.ok("restore", "telemetry@latest", "--target-database", target, "--dry-run").out
    assert target not in str(backed_up.server.query("SHOW DATABASES"))


def test_restore_dry_run_tells_why_it_would_be_refused(backed_up: Site, cli: Cli) -> None:
    """Into production itself, which has points: what it would do, why not, and what to choose; status 1 on request."""
    told = cli.ok("restore", "telemetry", *DAY, "--dry-run").out
    assert "Nothing was changed. The restore would be REFUSED" in told
    assert re.search(r"^REFUSED \(target-not-empty\): The target .* already has points", told, re.MULTILINE)
    assert "--on-conflict merge" in told
    assert f"at most {ROWS:,} rows" in told
    checked = cli("restore", "telemetry", *DAY, "--dry-run", "--check", "--json")
    assert (checked.status, [why["kind"] for why in checked.document["refusals"]]) == (1, ["target-not-empty"])
    assert cli("restore", "telemetry", *DAY, "--dry-run", "--check", "--target-database", "x").status == 0
    assert cli("restore", "telemetry", *DAY, "--check").status == 2


def test_restore_of_a_range_and_a_tag(backed_up: Site, cli: Cli) -> None:
    """A restore of half a day and one host writes exactly these points."""
    target = f"{backed_up.database}_half"
    half = ("--start", "2026-01-01T00:00:00Z", "--end", "2026-01-01T12:00:00Z")
    report = cli.ok("restore", "telemetry", *half, "--tag", "host=h1", "--target-database", target, "--json").document
    assert report["rows"] == ROWS // 4
    assert backed_up.count(target) == ROWS // 4


def test_restore_says_which_policies_keep_points_for_ever(site: Site, cli: Cli) -> None:
    """Points older than the source keeps are restored without a retention, which the dry run and the result say."""
    cli.ok("repo", "init", "primary")
    alter = 'ALTER RETENTION POLICY "autogen" ON "{}" DURATION 1d SHARD DURATION 1h'
    site.server.query(alter.format(site.database))
    cli.ok("export", "telemetry", *DAY, "--accept-expired")
    target = f"{site.database}_old"
    asked = ("restore", "telemetry", *DAY, "--target-database", target)
    for result in (cli.ok(*asked, "--dry-run"), cli.ok(*asked)):
        assert re.search(r"^without retention +autogen$", result.out, re.MULTILINE)
    assert site.count(target) == ROWS


def test_restore_into_a_shorter_retention_is_refused_by_default(backed_up: Site, cli: Cli) -> None:
    """An existing policy that would drop the points is neither widened nor left to drop them without a word."""
    target = f"{backed_up.database}_short"
    backed_up.server.create_database(target)
    backed_up.server.query(f'ALTER RETENTION POLICY "autogen" ON "{target}" DURATION 1d SHARD DURATION 1h')
    asked = ("restore", "telemetry", *DAY, "--target-database", target)
    refused = cli(*asked)
    assert (refused.status, "would drop" in refused.err, "--retention widen" in refused.err) == (1, True, True)
    assert backed_up.count(target) == 0
    dropped = cli.ok(*asked, "--retention", "drop-points")
    assert re.search(rf"^not written +{ROWS} points older", dropped.out, re.MULTILINE)
    widened = cli.ok(*asked, "--retention", "widen")
    assert re.search(r"^widened +autogen: existed", widened.out, re.MULTILINE)
    assert backed_up.count(target) == ROWS


def test_restore_with_fingerprints(backed_up: Site, cli: Cli) -> None:
    """What was read back is said: the counts, and the fingerprints when they were asked for."""
    for number, options in enumerate([(), ("--fingerprints",)]):
        restored = cli.ok(
            "restore", "telemetry@latest", "--target-database", f"{backed_up.database}_{number}", *options
        )
        assert f"counts{' and fingerprints' if options else ''} were read back" in restored.out
    wrong = cli("restore", "telemetry", *DAY, "--fingerprints", "--on-conflict", "merge")
    assert (wrong.status, "--on-conflict merge" in wrong.err) == (2, True)


def test_restore_of_points_that_the_server_loses(backed_up: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points that were confirmed and are not there are written once more, and the result says so; then it is an error."""
    asked = ("restore", "telemetry", *DAY, "--writer", "lines", "--target-database")
    for lost, target in ((1, f"{backed_up.database}_once"), (2, f"{backed_up.database}_twice")):
        with swallowing(backed_up.server.url, lost) as url:
            monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", url.replace("http://", "influxdb-backup://"))
            restored = cli(*asked, target)
        if lost == 1:
            assert restored.status == 0, restored.err
            assert "twice: the first time the server had confirmed points that it did not hold" in restored.out
            assert backed_up.count(target) == ROWS
        else:
            assert (restored.status, "does not hold what was written" in restored.err) == (1, True)


def test_restore_refuses_a_target_with_points(backed_up: Site, cli: Cli) -> None:
    """Without further words the source itself is the target, and is refused since it has points there."""
    refused = cli("restore", "telemetry", *DAY)
    assert refused.status == 1
    assert "already has points" in refused.err
    assert "--on-conflict merge" in refused.err


def test_restore_of_points_that_the_target_would_not_keep(backed_up: Site, cli: Cli) -> None:
    """What is left out is told by time before, and by number after; it is not called a range without points."""
    target = f"{backed_up.database}_short"
    backed_up.server.query(f'CREATE DATABASE "{target}" WITH DURATION 1d SHARD DURATION 1h NAME "autogen"')
    arguments = ("restore", "telemetry", *DAY, "--target-database", target, "--retention", "drop-points")
    assert re.search(r"not write +points of autogen before 20\d\d-\d\d-\d\dT", cli.ok(*arguments, "--dry-run").out)
    done = cli.ok(*arguments)
    assert f"not written  {ROWS} points older than the target keeps" in done.out
    assert "Warning" not in done.err
    nothing = cli.ok("restore", "telemetry", *DAY, "--target-database", f"{target}_2", "--tag", "host=nosuch")
    assert "Warning: no point was restored" in nothing.err


def test_scrub_of_a_closed_door(backed_up: Site, cli: Cli) -> None:
    """A server whose shards cannot be copied is no sound server: status 1, the reason, and where to read on."""
    refused = cli("scrub-server", "source")
    assert (refused.status, refused.out) == (1, "")
    assert "source" in refused.err
    assert "shards.md" in refused.err
    assert cli("scrub-server", "source", "--json").document["error"]["kind"] == "shard-reader"


def test_restore_over_a_gap(backed_up: Site, cli: Cli) -> None:
    """A range with a gap is refused, and --allow-gaps restores what there is."""
    both = ("--start", DAY[1], "--end", NEXT_DAY[3], "--target-database", f"{backed_up.database}_gap")
    refused = cli("restore", "telemetry", *both)
    assert (refused.status, "--allow-gaps" in refused.err) == (1, True)
    assert cli.ok("restore", "telemetry", *both, "--allow-gaps", "--json").document["rows"] == ROWS


def test_restore_of_less_than_the_plan_asks_for(site: Site, cli: Cli) -> None:
    """A backup from when the plan asked for fewer measurements is partial, and a gap of a restore of the plan."""
    wide = site.config.read_text()
    cli.ok("repo", "init", "primary")
    site.config.write_text(wide.replace("    start: 2026", "    measurements: [cpu]\n    start: 2026"))
    cli.ok("export", "telemetry", *DAY)
    target = ("--target-database", f"{site.database}_copy", "--dry-run")
    cli.ok("restore", "telemetry", *DAY, *target)
    site.config.write_text(wide)
    covered = cli("coverage", "telemetry", *DAY)
    assert (covered.status, "partial" in covered.out) == (1, True)
    refused = cli("restore", "telemetry", *DAY, *target, "--check")
    assert (refused.status, "There is no backup of 2026-01-01" in refused.out) == (1, True)
    cli.ok("restore", "telemetry", *DAY, *target, "--allow-gaps")


def test_second_repository(backed_up: Site, cli: Cli) -> None:
    """--repository chooses another one of the plan's repositories."""
    cli.ok("repo", "init", "second")
    cli.ok("export", "telemetry", *NEXT_DAY, "--repository", "second")
    assert "2026-01-02, 1 day" not in cli.ok("list").out
    assert "2026-01-02, 1 day" in cli.ok("list", "--repository", "second").out
    cli.ok("verify", "telemetry", "--repository", "second")


def test_only_the_bucket_is_left(backed_up: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without configuration and connections: list, show, verify, restore and drill by URL alone."""
    monkeypatch.delenv("INFLUXDB_BACKUP_CONFIG")
    monkeypatch.delenv("INFLUXDB_BACKUP_CONN_SOURCE")
    place = ("--repository-url", backed_up.repository)
    target = ("--target-url", backed_up.server.url)
    [ref] = cli.ok("list", *place, "--ids").out.splitlines()
    cli.ok("show", ref, *place)
    cli.ok("verify", "telemetry", *place)
    database = f"{backed_up.database}_again"
    cli.ok("restore", ref, *place, *target, "--target-database", database)
    assert backed_up.count(database) == ROWS
    cli.ok("restore", "telemetry", *DAY, *place, *target, "--target-database", f"{database}_2")
    cli.ok("drill", "telemetry", *place, *target)


def test_databases(site: Site, cli: Cli) -> None:
    """Every database is listed with its plan; one without a plan makes --unplanned fail."""
    site.server.create_database(f"{site.database}_forgotten")
    listed = cli.ok("databases", "--json").document["databases"]
    plans = {entry["database"]: entry["plans"] for entry in listed}
    assert plans[site.database] == ["telemetry"]
    forgotten = cli("databases", "--unplanned")
    assert forgotten.status == 1
    unplanned = [line.split()[1:] for line in forgotten.out.splitlines()]
    assert [f"{site.database}_forgotten", "NONE"] in unplanned
    assert site.database not in [row[0] for row in unplanned]
    assert "Only databases that the credentials of these connections show were compared." in forgotten.err


def test_databases_that_are_not_seen_are_not_said_to_be_planned(
    site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every database that is shown has a plan, the answer is of those alone, and says so."""
    folder = site.config.parent / "alone"
    with start_influxdb1(folder, site.server.binary) as alone:
        alone.create_database(site.database)
        place = "influxdb-backup://" + alone.url.removeprefix("http://")
        monkeypatch.setenv("INFLUXDB_BACKUP_CONN_SOURCE", place)
        found = cli.ok("databases", "--unplanned")
        assert (found.out, "credentials" in found.err) == ("Every visible database has a plan.\n", True)
        alone.query(f'DROP DATABASE "{site.database}"')
        assert "The servers show no database." in cli.ok("databases", "--unplanned").out


def test_repo_check(site: Site, cli: Cli, tmp_path: Path) -> None:
    """A local folder keeps every promise; a place that keeps none is told as such, with status 1."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "preflight").write_text("not a folder")
    unfit = cli("repo", "check", f"file://{tmp_path}/taken")
    assert (unfit.status, "NOT fit for backups" in unfit.out, "restores" in unfit.out) == (1, True, False)
    assert "already" not in unfit.out
    cli.ok("repo", "init", "primary")
    report = cli.ok("repo", "check", "primary", "--json").document
    assert report["ok"] and report["remarks"] == []
    assert cli.ok("repo", "check", "primary").out.rstrip().endswith("fit for backups.")
    missing = cli("repo", "check", f"file://{tmp_path}/mistyped")
    assert (missing.status, missing.out) == (1, "")
    assert missing.err.count("There is no folder") == 1 and "`influxdb-backup repo init`" in missing.err
    (tmp_path / "mistyped").mkdir()
    mistyped = cli.ok("repo", "check", f"file://{tmp_path}/mistyped").out
    assert f"There is no repository in it: `influxdb-backup repo init file://{tmp_path}/mistyped`" in mistyped
    assert {"second-create", "racing-creates"} <= {item["name"] for item in report["items"]}


def test_repo_check_tells_what_killed_exports_left(backed_up: Site, cli: Cli) -> None:
    """Which objects no backup names, and how much room they take; the backup's own are none of them."""
    assert "left anything" in cli.ok("repo", "check", "primary", "--leftovers").out
    [part] = Path(backed_up.repository.removeprefix("file://")).glob("data/**/*.parquet")
    attempt = part.parents[1]
    dead = shutil.copytree(attempt, attempt.with_name("a-dead-one"))
    for path in dead.rglob("*.parquet"):
        os.utime(path, (MIDNIGHT, MIDNIGHT))
    told = cli.ok("repo", "check", "primary", "--leftovers").out
    assert "1 object (" in told
    assert "may be removed" in told
    assert "/a-dead-one/ 1 object, " in told
    assert attempt.name not in told
    [left] = cli.ok("repo", "check", "primary", "--leftovers", "--json").document["leftovers"]
    assert (left["objects"], left["bytes"]) == (1, part.stat().st_size)
    assert part.exists() and dead.exists()


def test_config(site: Site, cli: Cli, tmp_path: Path) -> None:
    """A right file is summed up, as text and as JSON; the schema is printed."""
    assert "is right: 1 plan." in cli.ok("config", "check").out
    document = cli.ok("config", "check", str(site.config), "--json").document
    assert document["plans"]["telemetry"]["settle"] == "1800000000000"
    assert cli.ok("config", "schema").document["$schema"].startswith("https://json-schema.org")


def test_version_and_help(cli: Cli) -> None:
    """The program tells its version, and helps without a command."""
    assert cli.ok("--version").out.startswith("influxdb-backup ")
    assert "restore" in cli("--help").out


def test_verbose_tells_what_the_program_chose(site: Site, cli: Cli) -> None:
    """Without it nothing is said about a closed backup door; with it, on standard error, and once."""
    cli.ok("repo", "init", "primary")
    assert "snapshot_address" not in cli.ok("export", "telemetry", *DAY).err
    told = cli.ok("--verbose", "export", "telemetry", *NEXT_DAY)
    assert "by queries" in told.err
    assert "queries" not in told.out
    assert "by queries" not in cli.ok("export", "telemetry", *NEXT_DAY).err


def test_the_mode_of_the_file_is_that_of_the_repository(site: Site, cli: Cli, tmp_path: Path) -> None:
    """`repo init` and every later command give their files the rights that the YAML file says."""
    root = tmp_path / "private"
    written = {
        "repositories": {"primary": {"url": f"file://{root}", "mode": "0600"}},
        "plans": {"telemetry": {"database": site.database}},
    }
    file = tmp_path / "private.yaml"
    file.write_text(json.dumps(written))
    cli.ok("--config", str(file), "repo", "init", "primary")
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*")} == {0o600}
    assert root.stat().st_mode & 0o777 == 0o700
