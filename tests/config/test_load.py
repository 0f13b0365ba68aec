"""The YAML file: what it becomes, and how each mistake in it is explained."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from influxdb_backup.config.load import load, loads
from influxdb_backup.config.model import Config
from influxdb_backup.errors import ConfigError, UsageError
from influxdb_backup.model import VerifyLevel

HEAD = """
repositories:
  primary: {url: "file:///srv/backups"}
plans:
  telemetry:
    database: telemetry
"""


def parse(text: str) -> Config:
    """The configuration in a text."""
    return loads(text, Path("backup.yaml"))


def refused(text: str) -> str:
    """The message with which a text is refused."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def with_key(line: str) -> str:
    """The smallest file with one more line in its plan."""
    return f"{HEAD}    {line}\n"


def test_smallest_file() -> None:
    """Repository, plan and database are enough; everything else has the documented default."""
    plan = parse(HEAD).plan("telemetry")
    assert (plan.name, plan.database, plan.repositories, plan.repository) == (
        "telemetry",
        "telemetry",
        ("primary",),
        "primary",
    )
    assert (plan.schedule, plan.settle, plan.verify, plan.unreadable) == (
        "0 0 * * *",
        1_800_000_000_000,
        VerifyLevel.VALID,
        "warn",
    )
    assert (plan.connection, plan.concurrency, plan.catchup, plan.start, plan.drill) == (
        "influxdb_default",
        2,
        False,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("keys", "runs"),
    [
        ("schedule: '@daily'", 1),
        ("schedule: '@hourly'", 1),
        ("schedule: '*/10 * * * *'", 4),
        ("schedule: '*/10 * * * *'\n    settle: 0s", 1),
        ("schedule: '0 0 * * 0'\n    settle: 3d", 1),
        ("schedule: '@hourly'\n    settle: 2d", 49),
        ("schedule: '@hourly'\n    settle: 3h\n    airflow: {max_active_runs: 3}", 3),
        ("settle: 3d\n    catchup: true\n    start: 2026-01-01T00:00:00Z\n    airflow: {max_active_runs: 1}", 1),
    ],
)
def test_every_window_that_waits_has_a_run(keys: str, runs: int) -> None:
    """Windows that settle longer than they last get a run each, or Airflow would leave all but the latest out."""
    assert parse(with_key(keys)).plan("telemetry").max_active_runs == runs


def test_defaults_are_merged() -> None:
    """A plan's own keys win over the defaults; drill and airflow are merged key by key, and null switches off."""
    config = parse(
        """
repositories:
  a: {url: "s3://bucket/x", connection: aws}
  b: {url: "gs://bucket"}
defaults:
  connection: main
  repositories: [a, b]
  schedule: "@hourly"
  drill: {schedule: "0 6 * * 0", pick: random}
  airflow: {pool: small, retries: 5}
plans:
  one: {database: one, airflow: {retries: 1}, drill: {pick: latest}}
  two: {database: two, repositories: [b], drill: null}
"""
    )
    one, two = config.plan("one"), config.plan("two")
    assert one.drill is not None
    assert (one.drill.schedule, one.drill.pick, one.airflow.pool, one.airflow.retries) == (
        "0 6 * * 0",
        "latest",
        "small",
        1,
    )
    assert (two.drill, two.repositories, two.schedule, two.airflow.retries) == (None, ("b",), "0 * * * *", 5)
    assert one.connection == two.connection == "main"


def test_values_are_frozen() -> None:
    """A plan cannot be changed after it was checked."""
    with pytest.raises(ValueError, match="frozen"):
        parse(HEAD).plan("telemetry").database = "other"  # type: ignore[misc]


def test_scope_ignores_order() -> None:
    """The same names in another order are the same scope."""
    first = parse(with_key("measurements: [b, a]")).plan("telemetry").scope
    second = parse(with_key("measurements: [a, b]")).plan("telemetry").scope
    assert first == second
    assert first.measurements == ("a", "b")


def test_times_keep_nanoseconds() -> None:
    """A start is exact to the nanosecond, quoted or not, and an offset counts."""
    for written in ("2026-01-01T00:00:00.123456789Z", '"2026-01-01T01:00:00.123456789+01:00"'):
        assert parse(with_key(f"start: {written}")).plan("telemetry").start == 1_767_225_600_123_456_789


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "shedule: x",
            ["line 7", "plans.telemetry.shedule: unknown key", "Did you mean 'schedule'?", "Allowed: ahead, airflow"],
        ),
        ("recheck: 3", ["plans.telemetry.recheck: unknown key"]),
        ("name: x", ["plans.telemetry.name", "the key it stands under"]),
        ("start: 2026-01-01", ["plans.telemetry.start", "no time zone", "2026-01-01T00:00:00Z"]),
        ("start: 2026-01-01T00:00:00", ["no time zone"]),
        ("catchup: true", ["catchup: true needs start:"]),
        ("catchup: yes please", ["plans.telemetry.catchup: must be true or false"]),
        ("settle: 30", ["plans.telemetry.settle: 30 has no unit", "30m"]),
        ("settle: soon", ["'soon' is not a duration"]),
        ("settle: true", ["YAML boolean true"]),
        ("verify: vald", ["Did you mean 'valid'?", "present, complete, valid."]),
        ("verify: restorable", ["proved by a drill"]),
        ("unreadable: ignore", ["'ignore' is not allowed", "Allowed: warn, fail"]),
        ("schedule: '0 0 * *'", ["five fields"]),
        ("schedule: '0 25 * * *'", ["'25' in the field hour", "0 to 23"]),
        ("schedule: '0 0 31 2 *'", ["never happens"]),
        ("concurrency: 0", ["must be at least 1"]),
        ("concurrency: '2'", ["must be a whole number"]),
        ("concurrency:", ["has no value"]),
        ("measurements: cpu", ["write [cpu]"]),
        ("measurements: []", ["empty list"]),
        ("measurements: [cpu, cpu]", ["names 'cpu' twice"]),
        ("measurements: [on]", ["plans.telemetry.measurements[0]: is the YAML boolean true", "quote it"]),
        ("{measurements: [tmp_a], exclude_measurements: ['tmp_*']}", ["must"]),
        ("retention_policies: [2024]", ["is the number 2024", "quotes"]),
        ("repositories: [prmary]", ["Did you mean 'primary'?", "repositories[0]"]),
        ("connection: 'a b'", ["no connection id"]),
        ("drill: {pick: lates}", ["plans.telemetry.drill.pick", "Did you mean 'latest'?"]),
        ("drill: {chekcs: []}", ["plans.telemetry.drill.chekcs: unknown key", "Did you mean 'checks'?"]),
        ("drill: {checks: [{query: SELECT 1}]}", ["drill.checks[0]", "exactly one expectation"]),
        ("drill: {checks: [{query: SELECT 1, min: 2, max: 1}]}", ["can never hold"]),
        ("drill: {checks: [{query: SELECT 1, min: .nan}]}", ["drill.checks[0].min"]),
        ("drill: {checks: [{query: DROP DATABASE x, min: 2}]}", ["one InfluxQL SELECT"]),
        ("drill: {checks: [{query: SELECT * INTO y FROM x, min: 2}]}", ["without INTO"]),
        ("drill: {checks: [{query: 'SELECT * FROM x; DROP DATABASE x', min: 2}]}", ["one InfluxQL SELECT"]),
        ("airflow: {retires: 2}", ["plans.telemetry.airflow.retires", "Did you mean 'retries'?"]),
        ("airflow: 3", ["must be a mapping"]),
        (
            "airflow: {max_active_runs: 2}\n    schedule: '*/10 * * * *'",
            ["max_active_runs: 2 would leave windows out", "waits 30m", "after 10m", "at least 3"],
        ),
        ("airflow: {execution_timeout: 0s}", ["longer than nothing"]),
        ("database: other", ["'database' is given twice", "line 7", "first in line 6"]),
        ("yes: 1", ["the key yes is a boolean", "quotes"]),
    ],
)
def test_mistakes_in_a_plan(line: str, expected: list[str]) -> None:
    """Each mistake is refused, and the message names the key and what is allowed."""
    if line.startswith("{"):
        text = HEAD.replace("    database: telemetry\n", "").replace(
            "telemetry:", "telemetry: {database: x, " + line.strip("{}") + "}"
        )
        expected = ["both named and excluded"]
    else:
        text = with_key(line)
    message = refused(text)
    assert message.startswith("backup.yaml")
    for words in expected:
        assert words in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("- a", "must be a mapping"),
        ("plans: {a: {database: x}}", "repositories: must be a mapping"),
        ("repositories: {a: {url: 'file:///x'}}", "plans: must be a mapping"),
        (HEAD.replace("primary", "Primary"), "the name must be 1 to 64"),
        (HEAD.replace("  telemetry:\n", "  Tele/metry:\n"), "plans.Tele/metry: the name must be"),
        (HEAD.replace("    database: telemetry", "    allow_empty: true"), "plans.telemetry.database: is missing"),
        (HEAD.replace("database: telemetry", "database: yes"), "YAML boolean true"),
        (HEAD.replace("database: telemetry", "database: ''"), "is empty"),
        (HEAD + "default: {}", "Did you mean 'defaults'?"),
        (HEAD + "defaults: {database: x}", "defaults.database: unknown key"),
        (HEAD + "offsite: {}", "offsite: unknown key"),
        (HEAD.replace("{url:", "{ulr:"), "Did you mean 'url'?"),
        (
            HEAD.replace("  primary", "  second: {url: 's3://b'}\n  primary"),
            "write which of them it uses, as repositories: [second].",
        ),
        ("plans: [}", "backup.yaml, line 1, column"),
        ("plans: {a: !!python/object:os.system {}}", "backup.yaml, line 1"),
    ],
)
def test_mistakes_in_the_file(text: str, expected: str) -> None:
    """Missing sections, unknown sections, bad names and bad YAML are refused with their place."""
    assert expected in refused(text)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:topsecret@bucket/x",
        "s3://topsecret@bucket/x",
        "abfs://user:topsecret@account.dfs.core.windows.net/x",
        "s3://bucket/x?secret=topsecret",
        "ftp://host/topsecret",
        "/srv/topsecret",
        "file://topsecret",
        "file://../topsecret",
        "s3:///topsecret",
        "file:///srv/../topsecret",
    ],
)
def test_bad_urls(url: str) -> None:
    """A URL with credentials, of an unknown store or without a bucket is refused and never repeated."""
    message = refused(HEAD.replace("file:///srv/backups", url))
    assert "repositories.primary.url" in message
    assert "topsecret" not in message


def test_azure_container_is_no_credential() -> None:
    """``abfs://container@account…`` names a container and is accepted."""
    text = HEAD.replace("file:///srv/backups", "abfs://backups@account.dfs.core.windows.net/influx/")
    assert parse(text).repositories["primary"].url == "abfs://backups@account.dfs.core.windows.net/influx"


def test_all_mistakes_at_once() -> None:
    """Several mistakes are reported together, and one in the defaults is reported once."""
    message = refused(HEAD + "    shedule: x\n    settle: 3\n  other: {database: x, foo: 1}\ndefaults: {verify: no}\n")
    lines = message.splitlines()
    assert len(lines) == 4
    assert sum("defaults.verify" in line for line in lines) == 1


def test_unknown_plan_is_suggested() -> None:
    """A mistyped plan is answered with the nearest known one and the list."""
    with pytest.raises(ConfigError, match=r"no plan 'telemtry'\. Did you mean 'telemetry'\? Plans: telemetry"):
        parse(HEAD).plan("telemtry")
    with pytest.raises(ConfigError, match=r"no repository 'primry'\. Did you mean 'primary'\?"):
        parse(HEAD).repository("primry")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is not UTF-8 are named."""
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            load(path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"plans: {\xe9: 1}")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(latin)


def test_names_that_are_not_utf8() -> None:
    """A measurement whose bytes are not UTF-8 can be named by base64."""
    assert parse(with_key('measurements: [{base64: "/w=="}]')).plan("telemetry").measurements == ("\udcff",)


def test_anchors_work() -> None:
    """YAML's anchors and merge keys are not mistaken for duplicate keys."""
    text = HEAD.replace("  telemetry:", "  telemetry: &base") + "  second:\n    <<: *base\n    database: second\n"
    assert parse(text).plan("second").database == "second"


def test_two_hundred_plans_are_quick(tmp_path: Path) -> None:
    """A file of 200 plans loads in well under a second, since Airflow parses it every few seconds."""
    path = tmp_path / "many.yaml"
    path.write_text(
        HEAD
        + "".join(
            f"  plan_{n}:\n    database: db_{n}\n    schedule: '{n % 60} * * * *'\n    drill: {{schedule: '0 6 * * 0'}}\n"
            for n in range(200)
        )
    )
    started = time.process_time()
    assert len(load(path).plans) == 201
    assert time.process_time() - started < 0.8


def test_no_heavy_imports() -> None:
    """Reading the YAML imports neither Airflow nor Arrow nor fsspec."""
    code = (
        "import sys; import influxdb_backup.config.load; "
        "bad = {'airflow', 'pyarrow', 'fsspec', 'numpy', 'urllib3'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(Path("provider").resolve())})


def test_the_mode_of_a_folder_is_written_as_people_write_it() -> None:
    """In quotes, as octal digits, with the owner's rights; and for folders only."""
    primary = 'primary: {url: "file:///srv/backups"'
    for written, mode in (('"0600"', 0o600), ('"640"', 0o640), ('"0644"', 0o644)):
        assert parse(HEAD.replace(primary, f"{primary}, mode: {written}")).repositories["primary"].mode == mode
    for written in ("0600", "384", '"0700"', '"0400"', '"rw"'):
        said = refused(HEAD.replace(primary, f"{primary}, mode: {written}"))
        assert "mode" in said and '"0600"' in said
    assert "file://" in refused(HEAD.replace(primary, 'primary: {url: "s3://bucket/x", mode: "0600"'))
