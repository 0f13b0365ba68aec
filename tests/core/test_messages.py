"""What leaves the program as words: no secret in any form, and nothing that a terminal obeys."""

from __future__ import annotations

import base64
import html
import json
import logging
import pickle
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

import influxdb_backup
from influxdb_backup.errors import IntegrityError, StoreError
from influxdb_backup.messages import MASKER, Masker, hide, logger_of, printable, quoted, shown, shown_lines

HOSTILE = "\x1b]52;c;cm0gLXJm\x07\x1b[2Jx\ry\x9b31m\u202egpj\u2066\nz\x7f"
"""OSC 52, CSI in both ways to write it, CR, direction marks, a line end, DEL"""
WAYS = (
    str,
    lambda text: quote(text, safe=""),
    quote_plus,
    lambda text: quote(text, safe="").replace("%2F", "%2f"),
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    repr,
    lambda text: repr(text.encode()),
    html.escape,
    printable,
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
)


@given(st.text(st.characters(codec="utf-8"), min_size=4, max_size=40))
def test_every_form_of_a_secret_is_hidden(secret: str) -> None:
    """Whatever characters it has, and in whatever way a request, JSON, HTML or Python writes it."""
    masker = Masker()
    masker.learn([secret])
    for way in WAYS:
        assert "***" in masker.mask(f"<{way(secret)}>"), way(secret)
    assert masker.mask(secret) == "***"


def test_short_secrets_are_hidden_where_requests_carry_them() -> None:
    """A secret of three letters would take letters out of every message; its Basic header is hidden all the same."""
    masker = Masker()
    masker.learn(["abc", "root:abc"])
    basic = base64.b64encode(b"root:abc").decode()
    assert masker.mask(f"Authorization: Basic {basic}, abc") == "Authorization: Basic ***, abc"


def test_a_block_keeps_its_secrets_for_itself() -> None:
    """What one run of the command line learned does not change the messages of the next."""
    masker = Masker()
    with masker.forgetting():
        masker.learn(["topsecret"])
        assert masker.mask("a topsecret") == "a ***"
    assert masker.mask("a topsecret") == "a topsecret"


def test_errors_are_masked_when_they_are_made() -> None:
    """Message, hint, findings, text, arguments and pickles hold no secret; what caused the error is not touched."""
    with MASKER.forgetting():
        hide("topsecret")
        error = IntegrityError("a topsecret", hint="use topsecret", problems=["x topsecret"])
        assert (error.message, error.hint, error.problems) == ("a ***", "use ***", ("x ***",))
        for text in (str(error), repr(error), str(error.args)):
            assert "topsecret" not in text
        assert b"topsecret" not in pickle.dumps(StoreError("a topsecret"))


def test_a_secret_is_not_cut_in_two() -> None:
    """Of a long answer the beginning is quoted, and no beginning of a secret with it."""
    with MASKER.forgetting():
        hide("0123456789abcdef")
        for length in range(1, 40):
            assert "0123" not in quoted("x" * 10 + "0123456789abcdef" + "y" * 100, length)


def test_nothing_that_a_terminal_obeys() -> None:
    """One function for every line; it changes nothing that it has escaped already."""
    escaped = shown(HOSTILE)
    assert escaped.isprintable()
    assert escaped == r"\x1b]52;c;cm0gLXJm\x07\x1b[2Jx\ry\x9b31m\u202egpj\u2066\nz\x7f"
    assert shown(escaped) == escaped
    assert shown_lines("a\nb\x1b[m\n") == "a\nb\\x1b[m\n"
    assert shown("plain ünïcode 東京") == "plain ünïcode 東京"


def test_every_module_logs_safely() -> None:
    """No module takes a logger that would show what it is given as it is."""
    folder = Path(influxdb_backup.__file__).parent
    bare = [path.name for path in folder.rglob("*.py") if "getLogger(__name__)" in path.read_text(encoding="utf-8")]
    assert bare == []


def test_loggers_show_safely(caplog: pytest.LogCaptureFixture) -> None:
    """Lines of the package's loggers are masked and escaped for every handler."""
    with MASKER.forgetting(), caplog.at_level(logging.INFO):
        hide("topsecret")
        logger_of("influxdb_backup.test").info("a %s of %d", HOSTILE + "topsecret", 3)
    [record] = caplog.records
    assert record.getMessage() == f"a {printable(HOSTILE)}*** of 3"
