"""
Which organisation a 2.x token speaks for.

``/query`` answers from the token's own organisation and ignores every other that is named (run on 2.9.1), so the
configured organisation must be the token's, or one organisation's data would be backed up under another's name.
No endpoint tells a token's organisation; the databases that ``/query`` shows are compared with the mappings of
each organisation that the token can see, and where two organisations have the same names, the list of tokens
decides. In doubt the connection is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from influxdb_backup.errors import AccessError, ConfigError
from influxdb_backup.influx.control2 import ControlPlane, Organization
from influxdb_backup.model import printable

_TRIES = 3
_PAUSE = 0.2
"""seconds, and twice that: buckets come and go between the listings that are compared"""


def own_organization(
    control: ControlPlane, shown: Callable[[], Iterable[str]], *, configured: str | None, token: str, name: str
) -> Organization:
    """
    The token's organisation.

    ``shown`` asks /query for its databases. Raises AccessError when ``configured`` (name or id) is not the
    token's or cannot be seen, ConfigError when none is configured and several fit.
    """
    visible = _visible(control)
    wanted = _named(control, configured, name) if configured else None
    if wanted is not None and wanted.id not in {organization.id for organization in visible}:
        visible.append(wanted)
    for number in range(_TRIES):
        time.sleep(_PAUSE * number)
        databases = set(shown())
        fitting = [candidate for candidate in visible if _databases(control, candidate) == databases]
        if fitting:
            break
    if len(fitting) > 1:
        fitting = _told_by_tokens(control, fitting, token)
    if wanted is not None:
        if [organization.id for organization in fitting] == [wanted.id]:
            return wanted
        raise _not_the_tokens(wanted, fitting, name)
    if len(fitting) != 1:
        raise ConfigError(
            f"Which organisation of {name} the token belongs to cannot be told.",
            hint="Give the connection its organisation, and a token that reads this organisation only.",
        )
    return fitting[0]


def _visible(control: ControlPlane) -> list[Organization]:
    """Organisations that the token reads, and those of buckets that it reads."""
    found = {organization.id: organization for organization in control.organizations()}
    for bucket in control.buckets():
        identity = bucket.organization_id
        found.setdefault(identity, Organization(identity, identity))
    return list(found.values())


def _named(control: ControlPlane, configured: str, name: str) -> Organization:
    found = control.organization(configured)
    if found is None:
        raise AccessError(
            f"The token of {name} sees nothing of the organisation {printable(configured)!r}.",
            hint="Configure the organisation that the token was made in.",
        )
    return found


def _databases(control: ControlPlane, organization: Organization) -> set[str]:
    return {mapping.database for mapping in control.mappings(organization.id)}


def _told_by_tokens(control: ControlPlane, fitting: list[Organization], token: str) -> list[Organization]:
    """
    The organisations among these that may have made the token, by the list of tokens.

    A token that saw several organisations reads beyond its own. From 2.9 on tokens are stored as hashes and not
    shown, so that every one that reads beyond its own organisation may be this one.
    """
    listed = control.authorizations()
    exact = {entry.organization_id for entry in listed if entry.token == token}
    hashed = {entry.organization_id for entry in listed if not entry.token and entry.reads_beyond}
    possible = exact or hashed
    return [organization for organization in fitting if not possible or organization.id in possible]


def _not_the_tokens(wanted: Organization, fitting: list[Organization], name: str) -> AccessError:
    others = ", ".join(printable(organization.name) for organization in fitting) or "another one"
    return AccessError(
        f"The token of {name} speaks for {others}, or that cannot be told; "
        f"configured is the organisation {printable(wanted.name)!r}. Queries would read the token's own organisation.",
        hint="Use a token that was made in the configured organisation and reads no other.",
    )
