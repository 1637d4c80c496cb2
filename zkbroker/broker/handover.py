"""Controlled shutdown, the broker's side: the controller is asked to move its leaderships before it goes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from zkbroker.model.clock import Clock
from zkbroker.model.errors import BrokerError
from zkbroker.model.topics import TopicPartition

SHUTDOWN_RETRY_S = 0.1
"""Pause before the controller is asked again about leaderships that remain."""

CLIENTS_TOLD_S = 0.1
"""So long clients are still answered, then: that another broker leads, and which (KIP-951). One whose connection closes
while it waits for nothing looks for the new leader a second later (librdkafka)."""


@inlineCallbacks
def hand_over(
    *,
    ask: Callable[[], Deferred[tuple[TopicPartition, ...]]],
    somebody_else: Callable[[], bool],
    has_clients: Callable[[], bool],
    moved: Callable[[], None],
    seconds_max: float,
    clock: Clock,
    reactor: Any,
    log: Callable[[str], None],
) -> Generator[Deferred[Any], Any, None]:
    """Ask the controller until no leadership remains; go on without it when nobody could take them or time is up."""
    until = clock.monotonic() + seconds_max
    remaining: tuple[TopicPartition, ...] = ()
    complaint = ""
    while somebody_else() and clock.monotonic() < until:
        try:
            asked = ask()
            asked.addTimeout(max(until - clock.monotonic(), 0.01), reactor)
            remaining = yield asked
        except Exception as error:
            why = str(error) if isinstance(error, BrokerError) else type(error).__name__
            if why != complaint:
                complaint = why
                log(f"controlled shutdown: {why}")
        else:
            if not remaining:
                log("all leaderships have moved")
                moved()
                if has_clients():
                    yield _pause(reactor, CLIENTS_TOLD_S)
                return
        yield _pause(reactor, SHUTDOWN_RETRY_S)
    if remaining:
        log(f"{len(remaining)} leaderships could not move")


def _pause(reactor: Any, seconds: float) -> Deferred[None]:
    over: Deferred[None] = Deferred()
    reactor.callLater(seconds, over.callback, None)
    return over
