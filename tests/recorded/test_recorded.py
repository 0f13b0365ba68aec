"""The product against recorded replies of a real 2.9.1: what holds there holds where no 2.x server is at hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.model import Window
from tests.influx2.support import DAY
from tests.recorded.exchanges import FOLDER, Answers, Exchange, load
from tests.recorded.play import playing
from tests.recorded.scenarios import SCENARIOS, Scenario
from tests.recorded.servers import replaying, without_secrets


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenarios_hold_on_the_recording(scenario: Scenario) -> None:
    """Every story plays on the recorded replies as on the real server, with no request that was not recorded."""
    answers = Answers(load(FOLDER / f"{scenario.name}.jsonl"))
    with replaying(answers) as url, playing(url) as connect:
        scenario.play(connect)
    assert not answers.unknown


def _cut(exchanges: list[Exchange], keep: float) -> list[Exchange]:
    """The recording with the replies to SELECT * cut short."""
    out = []
    for exchange in exchanges:
        reply = exchange.reply
        if b"SELECT%20%2A%20FROM" in exchange.request and b"GROUP%20BY%20%2A" in exchange.request:
            reply = reply[: int(len(reply) * keep)]
        out.append(replace(exchange, reply=reply))
    return out


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_recorded_reply_that_ends_early_is_no_read(keep: float) -> None:
    """A real reply that is cut at any place, and whose HTTP is well formed, is never taken for the whole."""
    exchanges = load(FOLDER / "operator.jsonl")
    whole, short = Answers(exchanges), Answers(_cut(exchanges, keep))
    with replaying(whole) as url, playing(url) as connect:
        server = connect("operator", "tests")
        (table,) = server.schema("types", "autogen").tables
        piece = server.pieces("types", "autogen", Window(start=19000 * DAY, end=19005 * DAY))[0]
        assert sum(batch.num_rows for batch in server.read("types", table, piece, ReadOptions())) == 2
    with replaying(short) as url, playing(url) as connect:
        server = connect("operator", "tests")
        with pytest.raises(IncompleteReadError):
            list(server.read("types", table, piece, ReadOptions()))


def test_recordings_hold_no_secrets() -> None:
    """No token, password or key-value store is in any recording."""
    for path in FOLDER.glob("*.jsonl"):
        text = path.read_text()
        assert "tests-operator-token" not in text
        assert "tests-password" not in text
        assert all(exchange.reply == without_secrets(exchange.reply) for exchange in load(path))
        assert all(exchange.token in {"", "operator", "reader", "nosuch"} for exchange in load(path))
        assert len(text) < 400_000


def test_an_unrecorded_request_is_said() -> None:
    """A request that the recording does not know fails the test that made it."""
    answers = Answers(load(FOLDER / "scratch.jsonl"))
    with replaying(answers) as url, playing(url) as connect, pytest.raises(Exception, match="not recorded"):
        connect("operator", "nosuch")
    assert answers.unknown
