"""The decorator of this room's kernels."""

from __future__ import annotations

from influxdb_backup.jit import kernel

__all__ = ["kernel"]
