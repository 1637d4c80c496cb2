"""Sockets that are bound early and accept late, and what stops the start with one line. On 127.0.0.1 and ::1."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from zkbroker.broker import listening
from zkbroker.model.cluster import Endpoint
from zkbroker.model.errors import StartError


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def bound() -> Iterator[list[listening.BoundSocket]]:
    made: list[listening.BoundSocket] = []
    yield made
    for one in made:
        one.socket.close()


class FakeReactor:
    """Adopts a port as Twisted does: it duplicates the descriptor."""

    def __init__(self) -> None:
        self.adopted: list[socket.socket] = []

    def adoptStreamPort(self, descriptor: int, family: int, factory: object) -> socket.socket:
        self.adopted.append(socket.socket(fileno=socket.dup(descriptor)))
        return self.adopted[-1]


def connect(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
        client.settimeout(2)
        return client.connect_ex((host, port))


def test_bound_but_not_listening_refuses_and_then_accepts(bound: list[listening.BoundSocket]) -> None:
    one = listening.bind(Endpoint("PLAINTEXT", "127.0.0.1", 0))
    bound.append(one)
    assert one.port > 0
    port = one.port
    assert connect("127.0.0.1", port) == errno.ECONNREFUSED
    reactor = FakeReactor()
    adopted = listening.listen(one, None, reactor)  # type: ignore[arg-type]
    with adopted:
        assert connect("127.0.0.1", port) == 0
    assert (one.socket.fileno(), one.port) == (-1, port)
    assert connect("127.0.0.1", port) == errno.ECONNREFUSED


def test_a_port_that_somebody_listens_on_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for host in ("127.0.0.1", "0.0.0.0", ""):
            endpoint = Endpoint("PLAINTEXT", host, port)
            with pytest.raises(StartError) as caught:
                listening.bind(endpoint)
            assert str(caught.value) == f"listener {endpoint}: port {port} is in use by another process"


def test_of_two_that_bound_one_port_the_second_to_listen_is_told(bound: list[listening.BoundSocket]) -> None:
    first = listening.bind(Endpoint("PLAINTEXT", "127.0.0.1", 0))
    bound.append(first)
    second = listening.bind(Endpoint("PLAINTEXT", "127.0.0.1", first.port))
    bound.append(second)
    reactor = FakeReactor()
    with (
        listening.listen(first, None, reactor),  # type: ignore[arg-type]
        pytest.raises(StartError, match=r"port \d+ is in use by another process"),
    ):
        listening.listen(second, None, reactor)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["does-not-exist.invalid", "a" * 70 + ".example", "a..b"])
def test_a_host_that_does_not_resolve_is_one_line(host: str) -> None:
    with pytest.raises(StartError) as caught:
        listening.bind(Endpoint("PLAINTEXT", host, 9092))
    assert str(caught.value).startswith(f"listener PLAINTEXT://{host}:9092: the host name does not resolve (")


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(StartError, match=r"^listener PLAINTEXT://192\.0\.2\.1:9092: cannot bind: "):
        listening.bind(Endpoint("PLAINTEXT", "192.0.2.1", 9092))


@needs_ipv6
def test_an_ipv6_address_is_bound_and_named_in_brackets(bound: list[listening.BoundSocket]) -> None:
    one = listening.bind(Endpoint("PLAINTEXT", "::1", 0))
    bound.append(one)
    port = one.port
    with listening.listen(one, None, FakeReactor()):  # type: ignore[arg-type]
        assert connect("::1", port) == 0
        assert connect("127.0.0.1", port) == errno.ECONNREFUSED
        with pytest.raises(StartError, match=rf"^listener PLAINTEXT://\[::1\]:{port}: port {port} is in use"):
            listening.bind(Endpoint("PLAINTEXT", "::1", port))


@needs_ipv6
@pytest.mark.parametrize("host", ["", "::"])
def test_every_interface_is_every_interface_of_both_families(bound: list[listening.BoundSocket], host: str) -> None:
    one = listening.bind(Endpoint("PLAINTEXT", host, 0))
    bound.append(one)
    port = one.port
    with listening.listen(one, None, FakeReactor()):  # type: ignore[arg-type]
        assert connect("127.0.0.1", port) == 0
        assert connect("::1", port) == 0


def test_without_ipv6_every_interface_is_that_of_ipv4(
    bound: list[listening.BoundSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_has_ipv6", lambda: False)
    one = listening.bind(Endpoint("PLAINTEXT", "", 0))
    bound.append(one)
    assert one.socket.family == socket.AF_INET
    assert one.socket.getsockname()[0] == "0.0.0.0"
