"""
Records every scenario against a real 2.9 server: ``python -m tests.recorded.record``.

Needs an influxd 2.x as the tests do (INFLUXDB2_INFLUXD, or the cache folder). Each scenario has a server of its own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.influx2.support import Preparation
from tests.recorded.exchanges import FOLDER, Exchange, save
from tests.recorded.play import playing
from tests.recorded.scenarios import SCENARIOS
from tests.recorded.servers import recording
from tests.servers import find_influxd2, start_influxdb2


def main() -> int:
    """Writes the recordings; 1 without a server to record."""
    binary = find_influxd2()
    if binary is None:
        print("no influxd 2.x: set INFLUXDB2_INFLUXD")
        return 1
    for scenario in SCENARIOS:
        exchanges: list[Exchange] = []
        with tempfile.TemporaryDirectory() as folder, start_influxdb2(Path(folder), binary) as server:
            two = Preparation(server)
            tokens = {"operator": str(server.token), **scenario.prepare(two)}
            with recording(server.url, tokens, exchanges) as url, playing(url) as connect:
                scenario.play(connect)
        path = FOLDER / f"{scenario.name}.jsonl"
        save(path, exchanges)
        print(f"{scenario.name}: {len(exchanges)} exchanges, {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
