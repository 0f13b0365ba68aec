"""Columns as people have them: what the encodings of parts are measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from benchmarks.data import START
from influxdb_backup.columns import TIME_TYPE

ROWS = 262_144
SERIES = 32
_EACH = ROWS // SERIES
Random = np.random.Generator


def _series(make: Callable[[], np.ndarray]) -> np.ndarray:
    return np.concatenate([make() for _ in range(SERIES)])


def _sensor(random: Random, decimals: int) -> np.ndarray:
    """A value that drifts around 21 by some degrees, with noise of the last digit."""
    drift = 3 * np.sin(np.linspace(0, 6, _EACH) + random.uniform(0, 6))
    return np.round(21 + drift + random.normal(0, 0.1, _EACH), decimals)


def _sparse(values: np.ndarray, random: Random) -> pa.Array:
    return pa.array(values, mask=random.random(ROWS) < 0.9)


def floats() -> Mapping[str, pa.Array]:
    """Float fields."""
    random = np.random.default_rng(5)
    two = _series(lambda: _sensor(random, 2))
    arrays = {
        "walk, 4 decimals": np.round(50 + _series(lambda: np.cumsum(random.normal(0, 0.2, _EACH))), 4),
        "walk, all bits": 50 + _series(lambda: np.cumsum(random.normal(0, 0.2, _EACH))),
        "sensor, 2 decimals": two,
        "sensor, 1 decimal": _series(lambda: _sensor(random, 1)),
        "random doubles": random.random(ROWS),
        "counter as float": _series(lambda: np.cumsum(random.integers(0, 1000, _EACH)).astype(float)),
        "0 to 100 as float": random.integers(0, 101, ROWS).astype(float),
        "constant in a series": np.repeat(random.random(SERIES), _EACH),
    }
    return {**{name: pa.array(values) for name, values in arrays.items()}, "1 in 10 has it": _sparse(two, random)}


def integers() -> Mapping[str, pa.Array]:
    """Integer fields."""
    random = np.random.default_rng(6)
    counter = _series(lambda: np.cumsum(random.integers(0, 1000, _EACH)))
    arrays = {
        "0 to 100": random.integers(0, 101, ROWS),
        "status codes": random.choice(np.array([200, 204, 404, 500]), ROWS, p=[0.9, 0.06, 0.03, 0.01]),
        "counter": counter,
        "counter of bytes": _series(lambda: np.cumsum(random.integers(0, 10**7, _EACH))),
        "gauge of 4 KB pages": _series(lambda: 2**33 + 4096 * np.cumsum(random.integers(-50, 51, _EACH))),
        "random 64 bits": random.integers(-(2**63), 2**63 - 1, ROWS),
        "constant in a series": np.repeat(random.integers(0, 10**6, SERIES), _EACH),
    }
    return {**{name: pa.array(values) for name, values in arrays.items()}, "1 in 10 has it": _sparse(counter, random)}


def times() -> Mapping[str, pa.Array]:
    """Time columns."""
    random = np.random.default_rng(7)
    steps = np.arange(_EACH, dtype=np.int64) * 10**10
    arrays = {
        "every 10 s": np.tile(steps, SERIES),
        "10 s, ms of jitter": np.tile(steps, SERIES) + random.integers(0, 200, ROWS) * 10**6,
        "10 s, ns of jitter": np.tile(steps, SERIES) + random.integers(0, 10**9, ROWS),
        "series of 2 points": np.tile(np.array([0, 600 * 10**9]), ROWS // 2),
    }
    return {name: pa.array(START + values).cast(TIME_TYPE) for name, values in arrays.items()}


def strings() -> Mapping[str, pa.Array]:
    """String fields."""
    random = np.random.default_rng(8)
    rows = ROWS // 4
    hosts, paths = random.integers(0, 255, (rows, 4)), random.integers(0, 5000, rows)
    sizes, seconds = random.integers(100, 99_999, rows), random.integers(0, 60, rows)
    log = [
        f"10.{a}.{b}.{c} - - [01/Jan/2026:00:{second:02d}:{d % 60:02d}] GET /api/items/{path} 200 {size} Mozilla/5.0"
        for (a, b, c, d), path, size, second in zip(
            hosts.tolist(), paths.tolist(), sizes.tolist(), seconds.tolist(), strict=True
        )
    ]
    words = np.array(["running", "idle", "stopped", "failed", "degraded"])
    return {
        "status words": pa.array(words[random.integers(0, 5, ROWS)]),
        "log lines": pa.array(log),
        "1,000 different lines": pa.array([log[number] for number in random.integers(0, 1000, rows).tolist()]),
        "random ids": pa.array([random.bytes(16).hex() for _ in range(rows)]),
    }


def booleans() -> Mapping[str, pa.Array]:
    """Boolean fields."""
    random = np.random.default_rng(9)
    return {
        "booleans, random": pa.array(random.random(ROWS) < 0.5),
        "booleans, rare": pa.array(random.random(ROWS) < 0.001),
    }


def tags() -> Mapping[str, pa.Array]:
    """Tag columns."""
    hosts = pa.array([f"host_{number:07d}.example.org" for number in range(ROWS // 2)])
    few = pa.array([f"host_{number:07d}.example.org" for number in range(SERIES)])
    return {
        "100,000 series": pa.DictionaryArray.from_arrays(np.repeat(np.arange(ROWS // 2, dtype=np.int32), 2), hosts),
        "32 series": pa.DictionaryArray.from_arrays(np.repeat(np.arange(SERIES, dtype=np.int32), _EACH), few),
    }
