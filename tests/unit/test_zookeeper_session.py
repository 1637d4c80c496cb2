"""What of the real session needs no ensemble. All else is in tests/contract and tests/integration."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kazoo import exceptions as kazoo_errors
from kazoo.protocol.states import ZnodeStat
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as TwistedClock
from twisted.python.failure import Failure

from zkbroker.zookeeper.client import (
    BadVersionError,
    Check,
    ConnectionLossError,
    Create,
    MultiError,
    SessionState,
    SetData,
    Stat,
    ZooKeeperError,
)
from zkbroker.zookeeper.kazoo_link import Link, multi_results, split_connect_string, to_error
from zkbroker.zookeeper.session import KazooSession

STAT = ZnodeStat(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
OPS = (Check("/a", 1), Create("/b", b""), SetData("/b", b""))


class _Clock(TwistedClock):
    def monotonic(self) -> float:
        return float(self.seconds())

    def wall_ms(self) -> int:
        return 0

    def callFromThread(self, callable: Callable[..., object], *args: object) -> None:  # noqa: A002
        callable(*args)


def _session(clock: _Clock, log: Callable[[str], None] = print) -> KazooSession:
    return KazooSession(
        "127.0.0.1:1/x", session_timeout_ms=6000, connection_timeout_ms=6000, clock=clock, reactor=clock, log=log
    )


@pytest.mark.parametrize(
    ("text", "hosts", "chroot"),
    [
        ("a:1", "a:1", ""),
        ("a:1,b:2/", "a:1,b:2", ""),
        (" a:1,b:2/x/y/ ", "a:1,b:2", "/x/y"),
        ("[::1]:2181//x", "[::1]:2181", "/x"),
    ],
)
def test_a_connect_string_may_end_with_a_chroot(text: str, hosts: str, chroot: str) -> None:
    assert split_connect_string(text) == (hosts, chroot)


@pytest.mark.parametrize("text", ["", "/x", "a:b", "a:1,,b:2", "a:99999"])
def test_what_is_no_connect_string_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a list of host:port"):
        split_connect_string(text)


def test_results_of_a_multi() -> None:
    stat = Stat(1, 2, 5, 8, 10, 6, 4)
    assert multi_results(OPS, [True, "/b", STAT]) == [True, "/b", stat]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_op_that_failed_is_found_among_those_rolled_back(index: int) -> None:
    results: list[Exception] = [kazoo_errors.RolledBackError() for _ in range(index)]
    results.append(kazoo_errors.BadVersionError())
    results += [kazoo_errors.RuntimeInconsistency() for _ in range(2 - index)]
    with pytest.raises(MultiError) as caught:
        multi_results(OPS, results)
    assert caught.value.index == index
    assert isinstance(caught.value.error, BadVersionError)
    assert caught.value.error.path == OPS[index].path


@pytest.mark.parametrize("results", [[], [True, "/b"], [kazoo_errors.RolledBackError()] * 3])
def test_results_that_make_no_sense_are_an_error(results: list[object]) -> None:
    with pytest.raises(ZooKeeperError):
        multi_results(OPS, results)


def test_an_error_without_a_name_of_ours_keeps_its_own() -> None:
    error = to_error(kazoo_errors.NoChildrenForEphemeralsError(), "/a")
    assert type(error) is ZooKeeperError
    assert "NoChildrenForEphemeralsError" in str(error)


def test_connecting_to_a_host_takes_its_share_and_longer_with_each_round() -> None:
    link = Link("a:1,b:2,c:3", 6.0, 60.0, _Clock(), None, lambda *news: None)
    waits = [round(link._next_connect_timeout_s(), 3) for _ in range(9)]
    assert waits == [0.667] * 3 + [1.333] * 3 + [2.0] * 3
    short = Link("a:1,b:2,c:3", 6.0, 0.5, _Clock(), None, lambda *news: None)
    assert short.connect_timeout_s() == 0.5


def test_without_a_connection_a_call_fails_at_once() -> None:
    session = _session(_Clock())
    calls: list[Deferred[object]] = [session.get("/a"), session.set("/a", b""), session.multi([Check("/a", 1)])]
    for call in calls:
        failures: list[Failure] = []
        call.addErrback(failures.append)
        assert failures[0].check(ConnectionLossError)
        assert failures[0].value.path == "/a"


def test_while_there_is_no_session_the_log_says_why_more_and_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ensemble whose servers answer and commit nothing makes none for as long as it stays so."""
    monkeypatch.setattr(Link, "start", lambda link: None)
    clock, lines = _Clock(), list[tuple[float, str]]()
    session = _session(clock, lambda line: lines.append((clock.seconds(), line)))
    session.start()
    link = session._link
    assert link is not None
    clock.pump([0.5] * 11)
    assert lines == []
    link.warning.text = "socket time-out during read"
    clock.pump([0.5] * 489)
    assert [at for at, _ in lines] == [6, 12, 24, 48, 96, 156, 216]
    assert lines[2][1] == "no session with ZooKeeper for 24 s: socket time-out during read"
    del lines[:]
    session._connected(7, b"", SessionState.CONNECTED)
    clock.pump([0.5] * 100)
    assert [line for _, line in lines] == ["ZooKeeper session 0x7 connected"]
    session._link_lost(link)
    clock.pump([0.5] * 20)
    assert [at for at, line in lines if line.startswith("no session")] == [306]
    session.stop()


def test_a_session_that_was_never_started_stops_at_once() -> None:
    session = _session(_Clock())
    stopped: list[object] = []
    session.stop().addCallback(stopped.append)
    assert stopped == [None]
    session.start()
    assert repr(session) == "KazooSession(127.0.0.1:1/x 0x0 stopped)"


def test_a_relative_path_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        _session(_Clock()).get("a")
