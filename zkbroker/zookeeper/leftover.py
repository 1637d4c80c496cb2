"""The session that an earlier process left behind."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from zkbroker.model.clock import Clock
from zkbroker.zookeeper.kazoo_link import Link, LinkEvent, Reactor, close_link, split_connect_string


def close_session(
    connect_string: str, session_id: int, password: bytes, *, timeout_s: float, clock: Clock, reactor: Reactor
) -> Deferred[bool]:
    """Close a session that an earlier process left, so that its ephemerals go at once.

    True if it was there and is closed now; False if the ensemble does not know it (it expired, or the password is
    wrong) or could not be asked within ``timeout_s``. Never fails.
    """
    hosts, _ = split_connect_string(connect_string)
    result: Deferred[bool] = Deferred()

    is_ended = False

    def changed(link: Link, event: LinkEvent, number: int, session: tuple[int, bytes] | None) -> None:
        if session is not None:
            reactor.callFromThread(end, session[0] == session_id)

    def end(was_there: bool) -> None:
        nonlocal is_ended
        if not is_ended:
            is_ended = True
            # Without the session kazoo has made a new one: that is closed likewise.
            close_link(link, reactor).addCallback(lambda _: result.callback(was_there))

    link = Link(hosts, timeout_s, timeout_s, clock, (session_id, password), changed)
    reactor.callLater(timeout_s, end, False)
    link.start()
    return result
