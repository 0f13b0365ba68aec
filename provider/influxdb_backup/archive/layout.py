"""
Every object key of a repository is built and parsed here, and nowhere else.

A key is relative to the repository's root, uses ``/`` and only ASCII letters, digits and ``._-=``. InfluxDB names
never stand in a key, only a slug of them: the manifest holds the true name and is the authority.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from influxdb_backup.errors import UsageError
from influxdb_backup.model import Window, printable
from influxdb_backup.windows import format_key, parse_key, say_window

REPOSITORY = "repository.json"
README = "README.txt"
PLANS = "plans/"
REFS = "refs/"
MANIFESTS = "manifests/"
DATA = "data/"
DRILLS = "drills/"
CHECKS = "checks/"
RESTORES = "restores/"
PREFLIGHT = "preflight/"
SLUG_LENGTH = 48
MAX_REVISION = 999_999

_PLAN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
_TOKEN = re.compile(r"[0-9A-Za-z_-]{1,64}\Z")
_IDS = "`influxdb-backup list --ids` shows the ids of backups as they are written."
_REVISION = re.compile(r"[0-9]{6}\Z")
_SAFE_SEGMENT = re.compile(r"[0-9A-Za-z._=~@+:-]{1,255}\Z")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")
_REF = re.compile(r"refs/([^/]+)/([^/]+)/([0-9]{6})(\.tombstone)?\.json\Z")
_PART = re.compile(r"data/([^/]+)/([^/]+)/([^/]+)/([0-9]+)-([^/]*)/([0-9]+)\.parquet\Z")


@dataclass(frozen=True)
class RefName:
    """What a key below ``refs/`` says."""

    plan: str
    window: Window
    revision: int
    tombstone: bool = False
    """the revision was used once and is gone: its number is never used again"""
    written: int = field(default=0, compare=False)
    """when it was written, by the store's clock (ns); 0 where a listing does not say"""

    @property
    def id(self) -> str:
        """``plan/start_end/revision``, as every command takes it."""
        return f"{self.plan}/{format_window_key(self.window)}/{self.revision:06d}"


@dataclass(frozen=True)
class PartName:
    """What a key below ``data/`` says; the slug is decoration."""

    plan: str
    window: Window
    attempt: str
    table: int
    slug: str
    number: int


def check_key(key: str) -> str:
    """
    The key itself when it stays inside of the repository on every store.

    Raises UsageError for an absolute path, ``.`` or ``..`` or an empty segment, or a character that is not safe.
    """
    for segment in key.split("/"):
        if segment in {"", ".", ".."} or not _SAFE_SEGMENT.match(segment):
            raise UsageError(f"{printable(key)!r} is not a key of a repository.")
    return key


def check_plan(plan: str) -> str:
    """The plan's name itself. Raises UsageError when it cannot be a name."""
    if not _PLAN.match(plan):
        raise UsageError(
            f"{plan!r} is not a plan's name.", hint="Use 1 to 64 of a-z, 0-9, _ and -, starting with a letter or digit."
        )
    return plan


def format_window_key(window: Window) -> str:
    """``<start>_<end>`` of a window."""
    return f"{format_key(window.start)}_{format_key(window.end)}"


def parse_window_key(text: str) -> Window:
    """Inverse of format_window_key. Raises UsageError."""
    start, separator, end = text.partition("_")
    if not separator:
        raise UsageError(f"{text!r} is not a window of the form <start>_<end>.", hint=_IDS)
    try:
        first, last = parse_key(start), parse_key(end)
    except UsageError as error:
        raise UsageError(error.message, hint=error.hint or _IDS) from None
    if first >= last:
        raise UsageError(f"The window {text!r} is empty: its start must be before its end.")
    return Window(start=first, end=last)


def slug(name: str) -> str:
    """At most 48 safe characters that remind a person of an InfluxDB name; may be empty, need not be unique."""
    return re.sub(r"[^0-9A-Za-z_]+", "-", name)[:SLUG_LENGTH].strip("-")


def escape_segment(text: str) -> str:
    """
    Any text as one key segment: safe characters as they are, every other byte of its UTF-8 as ``=XX``.

    Raises UsageError when the result is empty or too long for a file name.
    """
    escaped = "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "_-+:.") else f"={byte:02X}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
    if escaped.startswith("."):
        escaped = "=2E" + escaped[1:]
    if not 1 <= len(escaped) <= 200:
        raise UsageError(f"{printable(text)!r} cannot be part of a key.", hint="Use 1 to 200 plain characters.")
    return escaped


def unescape_segment(segment: str) -> str:
    """Inverse of escape_segment."""
    raw = re.sub(rb"=([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), segment.encode())
    return raw.decode("utf-8", "surrogateescape")


def plan_key(plan: str) -> str:
    """Where a plan's source identity stands."""
    return f"{PLANS}{check_plan(plan)}.json"


def parse_plan_key(key: str) -> str | None:
    """The plan's name, or None when the key is something else."""
    name = key.removeprefix(PLANS).removesuffix(".json")
    return name if _PLAN.match(name) and key == plan_key(name) else None


def refs_prefix(plan: str, window: Window | None = None) -> str:
    """Below this stand the refs of a plan, or of one of its windows."""
    prefix = f"{REFS}{check_plan(plan)}/"
    return f"{prefix}{format_window_key(window)}/" if window else prefix


def _revision(revision: int) -> str:
    if not 0 <= revision <= MAX_REVISION:
        raise UsageError(f"{revision} is not a revision (0 to {MAX_REVISION}).")
    return f"{revision:06d}"


def ref_key(plan: str, window: Window, revision: int) -> str:
    """Where a ref stands: the commit point."""
    return f"{refs_prefix(plan, window)}{_revision(revision)}.json"


def tombstone_key(plan: str, window: Window, revision: int) -> str:
    """Marks a revision number that was used and whose ref is gone."""
    return f"{refs_prefix(plan, window)}{_revision(revision)}.tombstone.json"


def parse_ref_key(key: str) -> RefName | None:
    """What the key names, or None when it is neither a ref nor a tombstone."""
    found = _REF.match(key)
    if not found or not _PLAN.match(found[1]):
        return None
    try:
        window = parse_window_key(found[2])
    except (UsageError, ValueError):
        return None
    if format_window_key(window) != found[2]:
        return None
    return RefName(found[1], window, int(found[3]), bool(found[4]))


def say_id(ref: str) -> str:
    """A backup's id for people: ``telemetry, 2013-01-12, 1 day, revision 0``; another text stays as it is."""
    name = parse_ref_key(f"{REFS}{ref}.json")
    return ref if name is None else f"{name.plan}, {say_window(name.window)}, revision {name.revision}"


def manifest_key(digest: str) -> str:
    """Where the manifest with this ``sha256:<hex>`` stands."""
    found = _DIGEST.match(digest)
    if not found:
        raise UsageError(f"{digest!r} is not a digest of the form sha256:<64 hexadecimal digits>.")
    return f"{MANIFESTS}{found[1]}.json"


def parse_manifest_key(key: str) -> str | None:
    """The ``sha256:<hex>`` that the key names, or None when it is something else."""
    digest = "sha256:" + key.removeprefix(MANIFESTS).removesuffix(".json")
    return digest if _DIGEST.match(digest) and key == manifest_key(digest) else None


def attempt_prefix(plan: str, window: Window, attempt: str) -> str:
    """Below this stand the parts of one attempt, and nothing else."""
    if not _TOKEN.match(attempt):
        raise UsageError(f"{attempt!r} is not an attempt's id.")
    return f"{DATA}{check_plan(plan)}/{format_window_key(window)}/{attempt}/"


def part_key(attempt: str, table: int, measurement: str, number: int) -> str:
    """Where part ``number`` of table ``table`` stands; ``attempt`` is an attempt_prefix."""
    return f"{attempt}{table:04d}-{slug(measurement)}/{number:04d}.parquet"


def parse_part_key(key: str) -> PartName | None:
    """What the key names, or None when it is no part."""
    found = _PART.match(key)
    if not found or not _PLAN.match(found[1]) or not _TOKEN.match(found[3]):
        return None
    try:
        window = parse_window_key(found[2])
    except (UsageError, ValueError):
        return None
    return PartName(found[1], window, found[3], int(found[4]), found[5], int(found[6]))


def report_prefix(root: str, plan: str, window: Window | None = None, revision: int | None = None) -> str:
    """Below this stand the reports of ``DRILLS`` or ``CHECKS``: of a plan, of a window, or of one revision."""
    prefix = f"{root}{check_plan(plan)}/"
    if window is not None:
        prefix += f"{format_window_key(window)}/"
        if revision is not None:
            prefix += f"{_revision(revision)}/"
    return prefix


def drill_key(plan: str, window: Window, revision: int, time: int, drill_id: str) -> str:
    """Where a drill's report stands."""
    return f"{report_prefix(DRILLS, plan, window, revision)}{format_key(time)}_{escape_segment(drill_id)}.json"


def drill_stage_key(plan: str, window: Window, revision: int, drill_id: str, stage: str) -> str:
    """Where a drill records what became of its scratch: ``stage`` is ``started``, ``created`` or ``dropped``."""
    return f"{report_prefix(DRILLS, plan, window, revision)}{escape_segment(drill_id)}.{stage}.json"


def check_report_key(plan: str, window: Window, revision: int, time: int, check_id: str) -> str:
    """Where a verification's result stands."""
    return f"{report_prefix(CHECKS, plan, window, revision)}{format_key(time)}_{escape_segment(check_id)}.json"


def restore_key(restore_id: str) -> str:
    """Where a restore's identity stands."""
    return f"{RESTORES}{escape_segment(restore_id)}.json"


def restore_prefix(restore_id: str) -> str:
    """Below this stands the progress of a restore."""
    return f"{RESTORES}{escape_segment(restore_id)}/"


def restore_progress_key(restore_id: str, name: str) -> str:
    """Where one step of a restore's progress stands."""
    return f"{restore_prefix(restore_id)}{escape_segment(name)}.json"
