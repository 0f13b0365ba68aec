"""InfluxQL text reaches exactly the names that it was made for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.influx.influxql import (
    as_matched,
    exact_regex,
    is_nameable,
    is_plain_select,
    quote_ident,
    source,
)
from influxdb_backup.model import decode_name


@given(st.binary(min_size=1, max_size=20), st.binary(min_size=1, max_size=20))
def test_an_exact_regex_matches_its_name_and_no_other(first: bytes, second: bytes) -> None:
    """The expression matches a name as the server sees it if and only if both look the same to the server."""
    pattern = re.sub(
        r"\\x\{([0-9A-F]+)\}", lambda found: re.escape(chr(int(found[1], 16))), exact_regex(decode_name(first))
    )
    other = as_matched(decode_name(second))
    assert (re.fullmatch(pattern[2:-2], other, re.DOTALL) is not None) == (as_matched(decode_name(first)) == other)


@given(st.binary(min_size=1, max_size=20))
def test_a_regex_literal_holds_nothing_that_ends_it(name: bytes) -> None:
    """No slash, line end or NUL of a name stands in the literal."""
    body = exact_regex(decode_name(name))[1:-1]
    assert not set(body) & set("/\n\r\x00")


def test_identifiers_are_quoted() -> None:
    """Quotes, backslashes and line ends are escaped in the server's way."""
    assert quote_ident('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'


@pytest.mark.parametrize(
    ("name", "nameable"),
    [("cpu", True), ("_x", True), ("_name", False), ("a\x00b", False), ("a\rb", False), ("inv\udcff", False)],
)
def test_names_that_from_cannot_reach_are_read_by_regex(name: str, nameable: bool) -> None:
    """A source is an identifier where that works and a regular expression where it does not."""
    assert is_nameable(name) is nameable
    assert source("rp", name).startswith('"rp"."' if nameable else '"rp"./^')


@pytest.mark.parametrize(
    ("query", "plain"),
    [
        ("SELECT * FROM cpu", True),
        ("  select count(v) from \"into\" where s = 'a; DROP DATABASE x'  ;", True),
        ("SHOW SERIES", True),
        ("-- a remark\nSELECT 1", True),
        ("SELECT * INTO copy FROM cpu", False),
        ("SELECT * FROM cpu; DROP DATABASE x", False),
        ("SELECT * FROM cpu; SELECT * FROM cpu", False),
        ("DROP DATABASE x", False),
        ("/* SELECT */ DELETE FROM cpu", False),
        ("SELECT /'/ INTO x FROM cpu WHERE s = 'a'", False),
        ("SELECT /'/ FROM cpu; DROP DATABASE x --'", False),
        ("SELECT v FROM /c.*/ WHERE s =~ /a|b/;", True),
        ("", False),
    ],
)
def test_only_a_single_reading_statement_is_plain(query: str, plain: bool) -> None:
    """A check's query can never write, however it is dressed up."""
    assert is_plain_select(query) is plain
