"""Types of single YAML values: what is written in the file, what the program gets, and how a mistake is explained."""

# ruff: noqa: TRY004  (pydantic collects ValueError only)

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from influxdb_backup.config.connection_values import check_connection_id
from influxdb_backup.config.cron import PRESETS, check_cron
from influxdb_backup.config.names import suggestion
from influxdb_backup.errors import ConfigError
from influxdb_backup.model import Name, VerifyLevel, printable
from influxdb_backup.windows import parse_duration, parse_instant

PLAN_NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
CONNECTION_ID = r"[A-Za-z0-9_#!()\-.:/\\]{1,250}"
SCHEMES = ("file", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "memory")
DURATION = r"([0-9]+(ns|us|µs|ms|s|m|h|d|w))+"
MAX_CONCURRENCY = 16
PLAN_LEVELS = ("present", "complete", "valid")


def _written_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise ValueError(
            f"is the YAML boolean {str(value).lower()}, not a text (yes, no, on and off are booleans too): quote it."
        )
    if isinstance(value, int | float):
        raise ValueError(f"is the number {value}, not a text: put it in quotes.")
    if value is None:
        raise ValueError("has no value: give one or remove the key.")
    raise ValueError("must be a text, not a list or a mapping.")


def _text(value: object) -> object:
    """The text as written; YAML's booleans, numbers and empty values are explained."""
    text = _written_text(value)
    if not text.strip():
        raise ValueError("is empty: give a value or remove the key.")
    return text


def _name(value: object) -> object:
    if isinstance(value, dict) and set(value) == {"base64"}:
        return value
    return _text(value)


def _list(value: object) -> object:
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("is an empty list: name at least one, or remove the key.")
        seen = [item for position, item in enumerate(value) if item in value[:position]]
        if seen:
            raise ValueError(f"names {printable(str(seen[0]))!r} twice.")
        return tuple(value)
    if isinstance(value, str):
        raise ValueError(f"must be a list: write [{value}].")
    raise ValueError("must be a list.")


def _duration(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value != 0:
        raise ValueError(f"{value} has no unit: write {value}s, {value}m or {value}h.")
    return parse_duration("0s" if value == 0 and not isinstance(value, bool) else _written_text(value))


def _positive(value: int) -> int:
    if value <= 0:
        raise ValueError("must be longer than nothing.")
    return value


def _instant(value: object) -> int:
    return parse_instant(_written_text(value))


def _connection_id(value: str) -> str:
    try:
        check_connection_id(value)
    except ConfigError as error:
        raise ValueError(f"{error.message} {error.hint}") from None
    if not re.fullmatch(CONNECTION_ID, value):
        raise ValueError("is no connection id: letters, digits and #!()-_.:/\\ are allowed.")
    return value


def _pattern(pattern: str, explanation: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"{value!r} {explanation}")
        return value

    return AfterValidator(check)


def check_repository_url(url: str) -> str:
    """
    The URL without a slash at its end. Raises ValueError when it names no known store or holds credentials.

    Messages never repeat what may be a secret.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or "://" not in url:
        raise ValueError(
            f"must start with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
            + ("; a folder is file:// and its absolute path." if url[:1] in "/.~" else ".")
        )
    _, at, _ = parts.netloc.rpartition("@")
    is_bucket = parts.scheme not in ("file", "memory")
    # A secret key often holds a slash, so that the rest of it is taken for the path.
    hidden = is_bucket and (":" in parts.netloc or re.search(r":[^/]*(/.*)?@", parts.netloc + parts.path) is not None)
    if parts.query or parts.fragment or hidden or (at and not parts.scheme.startswith("abfs")):
        raise ValueError(
            "holds credentials or options: a repository's URL is only the store, the bucket and the folder. "
            "Put credentials into a connection and name it with connection:."
        )
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise ValueError("must be file:// followed by an absolute path, such as file:///srv/backups.")
    if parts.scheme not in ("file", "memory") and not parts.netloc:
        raise ValueError("names no bucket.")
    if ".." in parts.path.split("/"):
        raise ValueError("must not contain '..'.")
    return url.rstrip("/") if parts.path.strip("/") or parts.netloc else url


FILE_MODE = "0?6[046][046]"


def _file_mode(value: object) -> int:
    if isinstance(value, int):  # YAML reads 0600 as 384
        raise ValueError('must be written in quotes, such as "0600".')
    if not isinstance(value, str) or not re.fullmatch(FILE_MODE, value):
        raise ValueError(
            f"{value!r} is not allowed: write the rights of files, which their owner reads and writes, such as "
            '"0600", "0640" or "0644"; folders are given the search rights with them.'
        )
    return int(value, 8)


def _select_only(query: str) -> str:
    bare = re.sub(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", "x", query).strip().rstrip(";")
    if not re.match(r"(?i)select\b", bare) or ";" in bare or re.search(r"(?i)\binto\b", bare):
        raise ValueError("must be one InfluxQL SELECT without INTO.")
    return query


def _plan_level(value: object) -> object:
    if value == VerifyLevel.RESTORABLE:
        raise ValueError(
            "'restorable' is proved by a drill, not after each export. Write present, complete or valid, "
            "and give the plan a drill:."
        )
    if _text(value) not in PLAN_LEVELS:
        near = suggestion(str(value), PLAN_LEVELS)
        raise ValueError(f"{value!r} is not allowed.{near} Allowed: {', '.join(PLAN_LEVELS)}.")
    return value


Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
InfluxName = Annotated[Name, BeforeValidator(_name)]
"""A name of InfluxDB as it is; ``{base64: ...}`` where it is not UTF-8."""
_LIST = Field(json_schema_extra={"minItems": 1, "uniqueItems": True})
Names = Annotated[tuple[InfluxName, ...], BeforeValidator(_list), _LIST]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_list), _LIST]
PlanName = Annotated[
    Text,
    _pattern(PLAN_NAME, "must be 1 to 64 of a-z, 0-9, '_' and '-', and start with a letter or a digit."),
    WithJsonSchema({"type": "string", "pattern": f"^{PLAN_NAME}$"}),
]
ConnectionId = Annotated[
    Text,
    AfterValidator(_connection_id),
    WithJsonSchema({"type": "string", "pattern": f"^{CONNECTION_ID}$"}),
]
RepositoryUrl = Annotated[
    Text,
    AfterValidator(check_repository_url),
    WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(SCHEMES)})://"}),
]
FileMode = Annotated[
    int,
    BeforeValidator(_file_mode),
    WithJsonSchema({"type": "string", "pattern": f"^{FILE_MODE}$", "examples": ["0600", "0640"]}),
]
"""Written ``"0600"``; the number in the program."""
Duration = Annotated[
    int, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": f"^{DURATION}$", "examples": ["30m"]})
]
"""Written ``30m`` or ``1h30m``; ns in the program."""
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
Instant = Annotated[
    int,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-01T00:00:00Z"]}),
]
"""Written as RFC 3339 with a zone; ns since 1970 in the program."""
Cron = Annotated[
    Text,
    AfterValidator(check_cron),
    WithJsonSchema({"type": "string", "examples": ["0 0 * * *", *PRESETS]}),
]
PlanLevel = Annotated[
    VerifyLevel,
    BeforeValidator(_plan_level),
    WithJsonSchema({"type": "string", "enum": [*PLAN_LEVELS]}),
]
SelectQuery = Annotated[Text, AfterValidator(_select_only)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0)]
Concurrency = Annotated[int, Field(strict=True, ge=1, le=MAX_CONCURRENCY)]
ActiveRuns = Annotated[int, Field(strict=True, ge=1)]


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number.")
    return value


Number = Annotated[int | float, BeforeValidator(_number), Field(allow_inf_nan=False)]


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str) or value != value:  # noqa: PLR0124  (NaN equals nothing)
        raise ValueError("must be a number, a text or a boolean.")
    return value


Scalar = Annotated[bool | int | float | str, BeforeValidator(_scalar)]
