"""
Documents as bytes: JSON with sorted keys, UTF-8, no spaces, one newline at the end; and reading them back.

Digests are always of the bytes as stored, never of a document written again. A manifest's digest is its name; every
other document holds its own, of its bytes with zeros in the digest's place, so that each proves itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from influxdb_backup.errors import FormatError, IntegrityError
from influxdb_backup.model import (
    MANIFEST_MEDIA_TYPE,
    REPOSITORY_MEDIA_TYPE,
    Manifest,
    Ref,
    Scope,
    Source,
    TableEntry,
    Value,
    Window,
    encode_name,
)

V = TypeVar("V", bound=Value)

FORMAT_VERSION = 1
_NEWER = "Use a newer release."
KNOWN_FEATURES: frozenset[str] = frozenset()
DIGEST = "digest"
"""the field in which a document holds the digest of itself"""
NO_DIGEST = "0" * 64
"""what stands in its place while it is computed"""
_OWN_DIGEST = re.compile(rb'"digest"[ \t\r\n]*:[ \t\r\n]*"([0-9a-f]{64})"')
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SHOWN = 200
"""characters of a document that a message repeats"""
_MEDIA_TYPE = re.compile(r"(application/vnd\.influxdb-backup\.[a-z-]+)\.v([0-9]+)\+json\Z")


class RepositoryDocument(Value):
    """``repository.json``: says that a place is a repository, which one, and of which format."""

    media_type: str = REPOSITORY_MEDIA_TYPE
    format_version: int = FORMAT_VERSION
    features_required: tuple[str, ...] = ()
    repository_id: str
    created_at: str
    """RFC 3339, UTC; for people"""
    self_proving: bool = False
    """every document but manifests holds its own digest; False in repositories that were made before there was one"""


def sha256(data: bytes) -> str:
    """``sha256:<hex>`` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical(document: Any) -> bytes:
    """The bytes of a JSON value: keys sorted, UTF-8, no spaces, newline at the end."""
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def to_bytes(document: Value) -> bytes:
    """The bytes under which a document is stored: with its own digest, unless that is its name."""
    value = document.model_dump(mode="json")
    return canonical(value) if _media_type(type(document)) == MANIFEST_MEDIA_TYPE else seal(value)


def seal(document: dict[str, Any]) -> bytes:
    """The canonical bytes of a JSON object that holds the digest of itself."""
    blank = canonical({**document, DIGEST: NO_DIGEST})
    return blank.replace(_written(NO_DIGEST), _written(hashlib.sha256(blank).hexdigest()))


def _written(digest: str) -> bytes:
    return f'"{DIGEST}":"{digest}"'.encode()


def prove(data: bytes, key: str) -> bool:
    """
    Whether a document holds its own digest. Raises IntegrityError when that is not the digest of these bytes.

    Within strings of JSON a quotation mark is escaped, so what is found is a field, and there must be one.
    """
    found = list(_OWN_DIGEST.finditer(data))
    if not found:
        return False
    first, last = found[0].span(1)
    digest = hashlib.sha256(data[:first] + NO_DIGEST.encode() + data[last:]).hexdigest()
    if len(found) > 1 or found[0][1] != digest.encode():
        raise IntegrityError(f"{key} was changed: the digest of itself that it holds is not its own.", kind="digest")
    return True


def _media_type(kind: type[Value]) -> str:
    field = kind.model_fields.get("media_type")
    return str(field.default) if field else ""


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _brief(text: str) -> str:
    """What a message shows of a document that can be of any length."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def load(data: bytes, key: str) -> dict[str, Any]:
    """The JSON object in ``data``. Raises FormatError naming ``key``."""
    try:
        document = json.loads(data.decode(), parse_constant=_refuse_constant)
        if _SURROGATE.search(data):
            canonical(document)  # half of a pair of surrogates has no bytes, so that no name can be written with it
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{key} is not a JSON document: {_brief(str(error))}.") from None
    if not isinstance(document, dict):
        raise FormatError(f"{key} is not a JSON object.")
    return document


def load_proved(data: bytes, key: str, *, self_proving: bool) -> dict[str, Any]:
    """The JSON object in ``data``, proved by the digest that it holds; ``parse`` says what is raised."""
    has_digest = prove(data, key)
    document = load(data, key)
    if not has_digest and (self_proving or document.get("self_proving") is True):
        raise IntegrityError(f"{key} does not hold the digest of itself, as all documents here do.", kind="digest")
    return document


def is_a(document: dict[str, Any], kind: type[Value]) -> bool:
    """Whether the document says that it is of this kind, in whatever version."""
    said, wanted = _MEDIA_TYPE.match(str(document.get("media_type"))), _MEDIA_TYPE.match(_media_type(kind))
    return bool(said and wanted and said[1] == wanted[1])


def parse_document(document: dict[str, Any], kind: type[V], key: str) -> V:
    """
    The typed value of a loaded document. Fields that are not known are ignored.

    Raises FormatError for another media type, another version, an unknown required feature, or a missing or
    wrong field.
    """
    wanted = _media_type(kind)
    said = document.get("media_type")
    if said != wanted:
        what = "of another version" if is_a(document, kind) else "of another kind"
        raise FormatError(
            f"{key} is {what}: {_brief(repr(said))} instead of {wanted!r}.", hint="A newer release may read it."
        )
    version = document.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{key} has format version {_brief(repr(version))}; this release reads {FORMAT_VERSION}.", hint=_NEWER
        )
    features = document.get("features_required", [])
    unknown = (
        [f for f in features if not isinstance(f, str) or f not in KNOWN_FEATURES]
        if isinstance(features, list)
        else [features]
    )
    if unknown:
        raise FormatError(f"{key} requires {_brief(str(unknown))}, which this release does not know.", hint=_NEWER)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise FormatError(f"{key} is damaged: {_brief(place or 'document')}: {_brief(first['msg'])}.") from None


def parse(data: bytes, kind: type[V], key: str, *, self_proving: bool = False) -> V:
    """
    The typed value of a stored document: its own digest proved, then as load and parse_document say.

    Raises IntegrityError when it does not prove itself; with ``self_proving`` (the repository says that its documents
    do, or the document is one that says it) also when it holds no digest.
    """
    by_name = _media_type(kind) == MANIFEST_MEDIA_TYPE
    document = load(data, key) if by_name else load_proved(data, key, self_proving=self_proving)
    return parse_document(document, kind, key)


def _scope_value(scope: Scope) -> dict[str, Any]:
    def names(values: Iterable[str] | None) -> tuple[str, ...] | None:
        return None if values is None else tuple(sorted(set(values), key=encode_name))

    return Scope(
        retention_policies=names(scope.retention_policies),
        measurements=names(scope.measurements),
        exclude_measurements=names(scope.exclude_measurements) or (),
    ).model_dump(mode="json")


def scope_hash(scope: Scope) -> str:
    """``sha256:<hex>`` of a scope; the order of its lists does not matter."""
    return sha256(canonical(_scope_value(scope)))


def content_id(source: Source, scope: Scope, window: Window, tables: Iterable[TableEntry]) -> str:
    """
    ``sha256:<hex>`` of what a backup says, whoever made it, whenever, and however it was cut into parts.

    It covers the source's identity (database, generation, instance id, name), the scope, the window and, for each
    table with rows, retention policy, measurement, rows and fingerprint: a measurement without points in the window
    is no content.
    """
    identity = source.model_dump(mode="json", include={"database", "generation", "instance_id", "name"})
    held = [entry for entry in tables if entry.rows]
    ordered = sorted(held, key=lambda e: (encode_name(e.table.retention_policy), encode_name(e.table.measurement)))
    rows = []
    for entry in ordered:
        table = entry.table.model_dump(mode="json")
        rows.append([table["retention_policy"], table["measurement"], str(entry.rows), entry.fingerprint])
    return sha256(
        canonical(
            {
                "scope": _scope_value(scope),
                "source": identity,
                "tables": rows,
                "window": window.model_dump(mode="json"),
            }
        )
    )


def ref_of(manifest: Manifest, digest: str, size: int, *, revision: int, write_id: str) -> Ref:
    """
    The ref of a manifest that is stored with this digest and size: what a ref says beside number and id is the
    manifest's, so that a reader compares the two by making it again.
    """
    evidence = manifest.evidence
    return Ref(
        plan=manifest.plan,
        window=manifest.window,
        revision=revision,
        write_id=write_id,
        manifest=digest,
        manifest_size=size,
        content_id=manifest.content_id,
        scope=manifest.scope,
        scope_hash=scope_hash(manifest.scope),
        read_start=evidence.read_start,
        read_end=evidence.read_end,
        settle=evidence.settle,
        rows=manifest.rows,
        bytes=manifest.bytes,
        open=evidence.open,
        unreadable=len(evidence.unreadable),
        retention_policies=_looked_at(manifest),
        expired=evidence.expired,
        sequence=evidence.sequence,
    )


def _looked_at(manifest: Manifest) -> tuple[str, ...]:
    """The policies that the source had and the scope includes, also those without tables."""
    asked = manifest.scope.retention_policies
    had = [policy.name for policy in manifest.source.retention_policies if asked is None or policy.name in asked]
    return tuple(dict.fromkeys([*had, *(entry.table.retention_policy for entry in manifest.tables)]))
