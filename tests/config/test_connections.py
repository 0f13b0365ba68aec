"""Connections mean what they mean to Airflow, and never show their secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxdb_backup.config.connections import (
    ConnectionValues,
    connection_from_environment,
    connection_from_json,
    connection_from_uri,
    connection_values,
    server_settings,
    storage_options,
)
from influxdb_backup.errors import ConfigError
from influxdb_backup.influx.protocol import ServerSettings

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
SECRET = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=12)
"""what login and password may be: a control character in them is refused"""
HOST = st.from_regex(r"[a-z][a-z0-9\-]{0,10}(\.[a-z]{2,5})?", fullmatch=True)


def settings(conn_type: str = "influxdb_backup", **fields: Any) -> ServerSettings:
    """Settings from the fields of a connection."""
    return server_settings("main", connection_values(conn_id="main", conn_type=conn_type, **fields))


def refused(conn_type: str = "influxdb_backup", **fields: Any) -> str:
    """The message with which the fields are refused."""
    with pytest.raises(ConfigError) as caught:
        settings(conn_type, **fields)
    return str(caught.value)


@given(
    host=HOST,
    port=st.none() | st.integers(1, 65535),
    login=st.none() | SECRET,
    password=st.none() | SECRET,
    schema=st.none() | TEXT,
    extra=st.dictionaries(
        SECRET.filter(lambda key: key != "__extra__"), TEXT | st.booleans() | st.integers(), max_size=3
    ),
    protocol=st.sampled_from(["", "https://"]),
)
def test_uri_as_airflow_writes_it(
    host: str,
    port: int | None,
    login: str | None,
    password: str | None,
    schema: str | None,
    extra: dict[str, Any],
    protocol: str,
) -> None:
    """Whatever Airflow writes as a connection's URI or JSON is read with the same values as Airflow reads."""
    sdk = pytest.importorskip("airflow.sdk")
    made = sdk.Connection(
        conn_id="x",
        conn_type="influxdb_backup",
        host=protocol + host,
        port=port,
        login=login,
        password=password,
        schema=schema,
        extra=json.dumps(extra),
    )
    uri, text = made.get_uri(), made.as_json()
    read_uri, read_json = sdk.Connection.from_uri(uri, "x"), sdk.Connection.from_json(text, "x")
    for ours, theirs in ((connection_from_uri(uri, "x"), read_uri), (connection_from_json(text, "x"), read_json)):
        kept = {key: value for key, value in theirs.extra_dejson.items() if value not in (None, "")}
        assert (ours.conn_type, ours.host, ours.port) == (theirs.conn_type, theirs.host or None, theirs.port)
        assert (ours.login, ours.password) == (theirs.login or None, theirs.password or None)
        assert ours.schema == (theirs.schema or None)
        assert ours.extra == kept


@given(st.text(max_size=40))
def test_any_uri_is_read_or_refused(text: str) -> None:
    """A text that is no connection is a ConfigError, never another exception."""
    for parse in (connection_from_uri, connection_from_json):
        try:
            assert parse(text, "x").conn_type
        except ConfigError as error:
            assert "'x'" in str(error)


def test_environment_variables() -> None:
    """Our own variable wins over Airflow's, both take URI and JSON, and no variable is None."""
    airflow = {"AIRFLOW_CONN_MY_DB": "influxdb-backup://:t%2Fk@one:8087"}
    ours = {"INFLUXDB_BACKUP_CONN_MY_DB": '{"conn_type": "influxdb_backup", "host": "two"}'}
    assert connection_from_environment("my_db", {}) is None
    assert connection_from_environment("my_db", airflow) == ConnectionValues(
        conn_type="influxdb_backup", host="one", port=8087, password="t/k"
    )
    found = connection_from_environment("my_db", {**airflow, **ours})
    assert found is not None
    assert found.host == "two"
    assert connection_from_environment("my-db", ours) is not None


def test_broken_variable_is_named() -> None:
    """A variable that is neither URI nor JSON is named, and its content is not."""
    for value in (
        "nonsense-topsecret",
        "influxdb_backup://:topsecret@h",
        '{"password": "topsecret"',
        "a://u:topsecret@h:x",
    ):
        with pytest.raises(ConfigError, match="AIRFLOW_CONN_X: ") as caught:
            connection_from_environment("x", {"AIRFLOW_CONN_X": value})
        assert "topsecret" not in str(caught.value)


def test_own_type() -> None:
    """Login and password, token in the extra, password alone as token; TLS by extra; 8086 is the default port."""
    plain = settings(host="db", login="me", password="pw")
    assert (plain.url, plain.username, plain.password, plain.token) == ("http://db:8086", "me", "pw", None)
    assert (plain.verify_tls, plain.timeout, plain.name) == (True, 60.0, "main")
    token = settings(
        host="db",
        port=443,
        extra={
            "token": "t",
            "organization": "o",
            "tls": "true",
            "verify_tls": False,
            "timeout": "5",
            "version": "2.7.1",
        },
    )
    assert (token.url, token.token, token.organization, token.verify_tls) == ("https://db:443", "t", "o", False)
    assert (token.timeout, token.version) == (5.0, "2.7.1")
    assert settings(host="db", extra={"version": "v1.6.7~rc0"}).version == "1.6.7~rc0"  # as Debian's server says it
    assert settings(host="db", password="t").token == "t"
    assert settings(host="https://db/influx/", port=8443).url == "https://db:8443/influx"
    assert settings(host="::1").url == "http://[::1]:8086"
    assert settings(host="db:9999").url == "http://db:9999"


def test_official_type() -> None:
    """A connection of the official provider means the same server as for its own hook."""
    conn = settings("influxdb", host="db", extra={"token": "t", "org": "o"})
    assert (conn.url, conn.token, conn.organization) == ("https://db:443", "t", "o")
    assert settings("influxdb", host="db", schema="http", login="u", password="p").url == "http://db:8086"
    conn = settings(
        "influxdb", host="db", schema="http", port=1, extra={"token": "t", "verify_ssl": False, "timeout": 5000}
    )
    assert (conn.url, conn.verify_tls, conn.timeout) == ("http://db:1", False, 5.0)
    assert "http or https" in refused("influxdb", host="db", schema="mydb")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "has no host"),
        ({"host": "user:topsecret@db"}, "without credentials"),
        ({"host": "ftp://db"}, "does not start with http://"),
        ({"host": "https://db"}, "no port"),
        ({"host": "https://db", "port": 443, "extra": '{"tls": false}'}, "Switch tls on, or leave https:// out"),
        ({"host": "http://db", "port": 80, "extra": '{"tls": true}'}, "Switch tls off, or leave http:// out"),
        ({"host": "db:1", "port": 2}, "two ports"),
        ({"host": "http://db", "port": 1, "extra": {"tls": True}}, "tls: true"),
        ({"host": "db", "schema": "telemetry"}, "schema"),
        ({"host": "db", "extra": {"verify_tsl": False}}, "Did you mean 'verify_tls'?"),
        ({"host": "db", "extra": {"tls": "maybe"}}, "true or false"),
        ({"host": "db", "extra": {"timeout": 0}}, "larger than 0"),
        ({"host": "db", "extra": {"timeout": "nan"}}, "larger than 0"),
        ({"host": "db", "extra": {"version": 2.7}}, "'2.7.11'"),
        ({"host": "db", "extra": {"ca_file": "/x"}}, "no TLS"),
        ({"host": "db", "login": "x", "extra": {"token": "topsecret"}}, "a token and also"),
        ({"host": "db", "extra": "topsecret"}, "not valid JSON"),
        ({"host": "db", "extra": "[]"}, "not a JSON object"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], expected: str) -> None:
    """A connection that is incomplete or says two things is refused by name, without its secrets."""
    message = refused(**fields)
    assert "'main'" in message
    assert expected in message
    assert "topsecret" not in message


def test_other_types_are_refused() -> None:
    """A connection to something else is no server."""
    assert "'postgres', which is no InfluxDB server" in refused("postgres", host="db")


def test_secrets_stay_out_of_repr() -> None:
    """Printing a connection or its settings shows no secret."""
    values = connection_values(
        conn_id="x", conn_type="influxdb_backup", host="db", password="topsecret", extra={"a": "topsecret"}
    )
    assert "topsecret" not in repr(values)
    assert "topsecret" not in repr(settings(host="db", password="topsecret"))


def aws(**fields: Any) -> ConnectionValues:
    """A connection of type aws."""
    return connection_values(conn_id="aws", conn_type="aws", **fields)


def test_storage_options() -> None:
    """Each kind of store gets its credentials under fsspec's names; no connection means the environment's own."""
    assert storage_options("s3://b", None) == {}
    extra = {"endpoint_url": "http://h:9000", "region_name": "eu-west-1", "aws_session_token": "s", "verify": "false"}
    assert storage_options("s3://b", aws(login="k", password="p", extra=extra)) == {
        "key": "k",
        "secret": "p",
        "token": "s",
        "endpoint_url": "http://h:9000",
        "client_kwargs": {"region_name": "eu-west-1", "verify": False},
    }
    google = connection_values(
        conn_id="g",
        conn_type="google_cloud_platform",
        extra={"extra__google_cloud_platform__keyfile_dict": '{"type": "x"}', "project": "p"},
    )
    assert storage_options("gs://b", google) == {"token": {"type": "x"}, "project": "p"}
    azure = connection_values(conn_id="a", conn_type="wasb", login="account", password="key")
    assert storage_options("abfs://c", azure) == {"account_name": "account", "account_key": "key"}


@pytest.mark.parametrize(
    ("url", "values", "expected"),
    [
        ("s3://b", aws(login="k"), "only one of login"),
        ("s3://b", aws(host="h"), "endpoint_url"),
        ("s3://b", aws(extra={"role_arn": "arn:x"}), "'role_arn', which is not supported here"),
        ("s3://b", connection_values(conn_id="g", conn_type="google_cloud_platform"), "Use the type aws"),
        ("gs://b", aws(), "Use the type google_cloud_platform"),
        ("file:///x", aws(), "needs no connection"),
    ],
)
def test_storage_connections_that_do_not_fit(url: str, values: ConnectionValues, expected: str) -> None:
    """A connection of another kind, or with credentials we would not use, is refused."""
    with pytest.raises(ConfigError) as caught:
        storage_options(url, values, name="aws")
    assert expected in str(caught.value)
