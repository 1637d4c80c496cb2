"""Listener texts, protocol maps, ports, and the REPLICATION listener that is always there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.model.cluster import Endpoint
from zkbroker.model.config.listeners import (
    ListenerProblem,
    advertise_replication,
    parse_endpoint,
    parse_endpoints,
    parse_protocol_map,
    port_clash,
    protocol_of,
    with_replication,
)

NAMES = st.from_regex(r"[A-Z0-9_.-]{1,12}", fullmatch=True)
HOSTS = st.one_of(
    st.just(""),
    st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True),
    st.ip_addresses().map(str),
)


@given(endpoint=st.builds(Endpoint, NAMES, HOSTS, st.integers(0, 65_535)))
@settings(max_examples=80, deadline=None)
def test_endpoints_round_trip(endpoint: Endpoint) -> None:
    assert parse_endpoint(str(endpoint)) == endpoint


@given(text=st.text(max_size=40))
@settings(max_examples=80, deadline=None)
def test_any_text_is_a_list_of_endpoints_or_a_problem(text: str) -> None:
    try:
        endpoints = parse_endpoints(text)
    except ListenerProblem as problem:
        assert "\n" not in str(problem).replace(text.strip(), "")
    else:
        assert len({endpoint.listener for endpoint in endpoints}) == len(endpoints)


def test_what_endpoints_look_like() -> None:
    assert parse_endpoint(" plaintext://:9092 ") == Endpoint("PLAINTEXT", "", 9092)
    assert parse_endpoint("A://[::1]:1") == Endpoint("A", "::1", 1)
    assert parse_endpoints("A://h:1 , B://h:2") == (Endpoint("A", "h", 1), Endpoint("B", "h", 2))
    assert parse_endpoints("") == ()


@pytest.mark.parametrize(
    "text", ["9092", "h:9092", "A://h", "A://h:", "A://h:x", "A://::1:9092", "A://h:9/x", "://h:1", "A://h:123456"]
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ListenerProblem, match="is not NAME://host:port"):
        parse_endpoint(text)


def test_a_port_beyond_the_last_one() -> None:
    with pytest.raises(ListenerProblem, match="70000 is not a port"):
        parse_endpoint("A://h:70000")


def test_two_listeners_of_one_name() -> None:
    with pytest.raises(ListenerProblem, match="two listeners are called A"):
        parse_endpoints("A://h:1,a://h:2")


def test_protocol_map() -> None:
    assert parse_protocol_map("a:plaintext, B:SASL_SSL") == {"A": "PLAINTEXT", "B": "SASL_SSL"}
    assert parse_protocol_map("") == {}
    for text, problem in [
        ("A", "'A' is not NAME:PROTOCOL"),
        (":SSL", "':SSL' is not NAME:PROTOCOL"),
        ("A:TLS", "'TLS' is not a security protocol"),
        ("A:SSL,a:SSL", "A is there twice"),
    ]:
        with pytest.raises(ListenerProblem, match=problem):
            parse_protocol_map(text)


def test_the_replication_listener_has_a_protocol_of_its_own() -> None:
    assert protocol_of("REPLICATION", {}) == "PLAINTEXT"
    assert protocol_of("REPLICATION", {"REPLICATION": "SSL"}) == "SSL"
    assert protocol_of("OTHER", {}) is None


@pytest.mark.parametrize(
    ("text", "clashes"),
    [
        ("A://h:1,B://h:2", False),
        ("A://h:1,B://h:1", True),
        ("A://:1,B://127.0.0.1:1", True),
        ("A://h:1,B://i:1", True),
        ("A://127.0.0.1:1,B://127.0.0.2:1", False),
        ("A://127.0.0.1:1,B://[::1]:1", False),
        ("A://0.0.0.0:1,B://[::]:1", False),
        ("A://h:0,B://h:0", False),
    ],
)
def test_ports_that_clash(text: str, clashes: bool) -> None:
    clash = port_clash(parse_endpoints(text))
    assert (clash is not None) == clashes
    assert clash is None or "have the same port" in clash


def test_a_replication_listener_is_added() -> None:
    added = with_replication(parse_endpoints("A://h:9092,B://h:9093"))
    assert added[2] == Endpoint("REPLICATION", "h", 19092)
    assert with_replication(added) == added
    assert with_replication(parse_endpoints("A://h:0"))[1].port == 0
    with pytest.raises(ListenerProblem, match="its default port, 70000, is none"):
        with_replication(parse_endpoints("A://h:60000"))


def test_the_replication_listener_is_advertised() -> None:
    listeners = parse_endpoints("A://0.0.0.0:1,B://0.0.0.0:2,REPLICATION://0.0.0.0:3")
    advertised = parse_endpoints("A://one:1,B://two:2")
    assert advertise_replication(advertised, listeners, None)[2] == Endpoint("REPLICATION", "one", 3)
    assert advertise_replication(advertised, listeners, "b")[2] == Endpoint("REPLICATION", "two", 3)
    bound = (*listeners[:2], Endpoint("REPLICATION", "10.0.0.1", 3))
    assert advertise_replication(advertised, bound, None)[2] == Endpoint("REPLICATION", "10.0.0.1", 3)
    written = (*advertised, Endpoint("REPLICATION", "three", 4))
    assert advertise_replication(written, listeners, None) == written
