"""Before a client is told who leads, the leaders are asked for a sign of life.

A client whose leader died asks in the same millisecond in which its peers hear of the death, perhaps before: a process
that dies closes one connection after the other. Told of the dead one, librdkafka asks again half a second to a second
later. A PONG to a PING that was sent after the client's question proves that its leader was alive when it asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

CALL_S = 0.05
"""Whoever says nothing for so long is not waited for, nor again until it speaks: a busy peer answers within this, a
stopped one never."""


class RollCall:
    """Answers wait here until every connected peer has answered, broke off, or CALL_S is over. One round at a time: who
    comes during one waits for the next, whose PINGs are younger than its question."""

    def __init__(self, reactor: Any, call: Callable[[], Mapping[int, int]]) -> None:
        """``call`` sends PING to every connected peer: broker → correlation."""
        self._reactor = reactor
        self._call = call
        self._awaited: dict[int, int] = {}
        self._silent: set[int] = set()
        """They let a round wait in vain, and have not spoken since."""
        self._answers: list[Callable[[], None]] = []
        """They wait for the present round."""
        self._next: list[Callable[[], None]] = []
        self._timer: Any = None

    def __repr__(self) -> str:
        return f"RollCall(awaited={sorted(self._awaited)}, waiting={len(self._answers)}+{len(self._next)})"

    def ask(self, answer: Callable[[], None]) -> None:
        """Call it when the peers were heard: at once if there are none."""
        self._next.append(answer)
        if not self._awaited:
            self._begin()

    def heard(self, broker_id: int, correlation: int) -> None:
        """A peer answered that request, and so all before it."""
        self._silent.discard(broker_id)
        awaited = self._awaited.get(broker_id)
        if awaited is not None and correlation >= awaited:
            self.gone(broker_id)

    def gone(self, broker_id: int) -> None:
        """Its connection broke: who waits may know now."""
        self._silent.discard(broker_id)
        if self._awaited.pop(broker_id, None) is not None and not self._awaited:
            self._end()

    def stop(self) -> None:
        """Nobody is waited for any more."""
        while self._answers or self._next:
            self._awaited.clear()
            self._answers += self._next
            self._next = []
            self._end()

    def _begin(self) -> None:
        self._answers, self._next = self._next, []
        called = self._call()
        self._awaited = {broker_id: number for broker_id, number in called.items() if broker_id not in self._silent}
        if self._awaited:
            self._timer = self._reactor.callLater(CALL_S, self._time_is_up)
        else:
            self._end()

    def _time_is_up(self) -> None:
        self._silent.update(self._awaited)
        self._awaited.clear()
        self._end()

    def _end(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        answers, self._answers = self._answers, []
        for answer in answers:
            answer()
        if self._next and not self._awaited:
            self._begin()
