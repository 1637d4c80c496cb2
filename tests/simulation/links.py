"""A client's connection to one broker process: requests and answers in order, each an event, lost with the connection.

Requests are calls of the broker's ports, not bytes: what a Kafka listener would do with a frame is tested elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.network import HostState

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

Answered = Callable[[Any], None]
"""Called in the client with the answer, or with None: the connection is gone, and nobody knows what was done."""

RESET_S = 0.002
"""How long it takes a client to hear that its connection was reset."""


class _Request:
    __slots__ = ("answer", "answered", "cancellable", "is_done", "text")

    def __init__(self, text: str, answered: Answered) -> None:
        self.text = text
        self.answered = answered
        self.answer: Any = None
        self.is_done = False
        """The broker has answered."""
        self.cancellable: Any = None


class Link:
    """``loss_share``: of requests, that the connection breaks on their way or on the way of their answer."""

    def __init__(self, world: World, process: Process, *, delay_s_max: float, loss_share: float) -> None:
        self._world = world
        self.process = process
        self._delay_s_max = delay_s_max
        self._loss_share = loss_share
        self._arrives_at = 0.0
        self._answers_at = 0.0
        self._waiting: deque[_Request] = deque()
        """Sent and not answered yet, oldest first: answers come in this order."""
        self.is_open = True
        self._is_breaking = False
        """Nothing that is sent from now on arrives."""

    def __repr__(self) -> str:
        return f"Link({self.process!r} open={self.is_open} waiting={len(self._waiting)})"

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def send(self, text: str, run: Callable[[Answered], Any], answered: Answered) -> None:
        """Have the process ``run``, which calls what it is given with the answer, once, now or later; it returns what
        can be cancelled, or None."""
        world = self._world
        request = _Request(text, answered)
        self._waiting.append(request)
        chance = world.random.random()
        if chance < self._loss_share / 2 and not self._is_breaking:
            # It breaks on the way of the request; what is sent behind it does not arrive either.
            self._is_breaking = True
            self._break_later()
        if self._is_breaking:
            return
        self._arrives_at = max(self._arrives_at, world.now + world.random.random() * self._delay_s_max)
        self.process.call(self._arrives_at - world.now, "request", text, self._arrived, request, run)
        if chance < self._loss_share:
            # It breaks while the request is at the broker, or its answer on the way.
            self._break_later(self._arrives_at - world.now)

    def _break_later(self, after: float = 0.0) -> None:
        delay = after + self._world.random.random() * self._delay_s_max
        self._world.call_later(delay, "client", self.broke, f"connection to {self.process!r} breaks")

    # At the broker

    def _arrived(self, request: _Request, run: Callable[[Answered], Any]) -> None:
        # What was on its way when the connection broke is still read and done: the broker learns of the end later.
        cancellable = run(lambda answer: self._answered(request, answer))
        if not request.is_done:
            request.cancellable = cancellable

    def _answered(self, request: _Request, answer: Any) -> None:
        request.is_done = True
        request.answer = answer
        if self.is_open:
            while self._waiting and self._waiting[0].is_done:
                self._deliver(self._waiting.popleft())

    def _deliver(self, request: _Request) -> None:
        world = self._world
        self._answers_at = max(self._answers_at, world.now + world.random.random() * self._delay_s_max)
        world.call_later(self._answers_at - world.now, "answer", lambda: self._received(request), _told(request))

    # At the client

    def _received(self, request: _Request) -> None:
        # An answer that is on its way when the connection breaks is lost: the client does not read on.
        request.answered(request.answer if self.is_open else None)

    def check(self) -> None:
        """See whether the other end still lives, as a client's kernel does."""
        if self.is_open and not self.process.is_alive:
            self.broke()

    def broke(self) -> None:
        """The connection is gone: the client hears of it for each request that was under way, the broker later."""
        if not self.is_open:
            return
        self.is_open = False
        waiting, self._waiting = list(self._waiting), deque()
        self.process.call(RESET_S, "request", "", self._closed, waiting)
        for request in waiting:
            request.answered(None)

    def _closed(self, waiting: list[_Request]) -> None:
        for request in waiting:
            if request.cancellable is not None and not request.is_done:
                request.is_done = True
                request.cancellable.cancel()


def _told(request: _Request) -> str:
    """A request and what came of it, for the trace."""
    row = request.answer[0] if isinstance(request.answer, tuple | list) and request.answer else None
    error = getattr(row, "error", None)
    return request.text if error is None else f"{request.text} → {error.name} {getattr(row, 'base_offset', '')}"


def can_connect(world: World, broker_id: int, *, is_beside_firewall: bool) -> bool:
    """Whether a client's connect would be accepted just now."""
    node = world.nodes[broker_id]
    state = world.network.states[broker_id]
    if state is not HostState.UP and not (state is HostState.REJECTS and is_beside_firewall):
        return False
    return node.is_ready
