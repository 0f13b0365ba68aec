"""Whether a server's clock can be believed: it says which windows have settled, and what a policy still keeps."""

from __future__ import annotations

from collections.abc import Callable

from influxdb_backup.errors import SourceError
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Clocks
from influxdb_backup.windows import format_duration, format_instant

logger = logger_of(__name__)

_MOST = 5 * 60 * 10**9
"""ns by which two clocks may differ; a server's Date has whole seconds, and clocks of one network differ by less"""


def compare_clocks(
    server: int, worker: int, ask_store: Callable[[], int], *, where: str, store: str, accept: bool
) -> Clocks | None:
    """
    None when the server's clock is that of the worker or that of the store; all three where it is accepted that not.

    The store is asked only where server and worker differ. Raises SourceError (``clock-skew``), naming the clocks.
    """
    if abs(server - worker) <= _MOST:
        return None
    clocks = Clocks(server=server, worker=worker, store=ask_store())
    if abs(server - clocks.store) <= _MOST:
        logger.warning(
            "The clock of this machine says %s, those of %s and of the repository say %s: set it right.",
            format_instant(worker),
            where,
            format_instant(server),
        )
        return None
    if accept:
        logger.warning("The clock of %s is taken as it is: %s", where, _said(clocks, where, store))
        return clocks
    raise SourceError(
        f"The clock of {where} cannot be believed: {_said(clocks, where, store)}",
        kind="clock-skew",
        hint="Set it right. --accept-clock goes on for once, and the backup records the clocks.",
    )


def _said(clocks: Clocks, where: str, store: str) -> str:
    return (
        f"{where} says {format_instant(clocks.server)}, this machine {format_instant(clocks.worker)} and {store} "
        f"{format_instant(clocks.store)}, and more than {format_duration(_MOST)} is no delay."
    )


__all__ = ["compare_clocks"]
