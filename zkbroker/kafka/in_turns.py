"""Requests that name many things, worked on in many turns of the reactor: a client may name half a million groups in
one, and everybody else would wait until the last is answered (and the watchdog would end the broker)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.python.failure import Failure

from zkbroker.kafka.messages import encode_response
from zkbroker.kafka.ports import Cancellable
from zkbroker.kafka.request import Request, Services
from zkbroker.kafka.wire import encode_size
from zkbroker.model.errors import ErrorCode

W = TypeVar("W")
A = TypeVar("A")

_I16 = struct.Struct(">h")

PER_TURN = 50
"""Things of one request in one turn; each takes some 20 µs."""


class InTurns(Generic[W, A]):
    """Asks a port about the things, some in each turn, and answers when all are answered. Fills ``Cancellable``.

    The response is one array (``field``) behind a throttle time that version 0 may lack and perhaps an ``error``.
    ``ask`` is the port's method, ``row`` makes an array's element of an answer.
    """

    def __init__(
        self,
        services: Services,
        request: Request,
        message: Any,
        wanted: Sequence[W],
        ask: Callable[[Sequence[W], Callable[[Sequence[A]], None]], Cancellable | None],
        row: Callable[[A], dict[str, Any]],
        field: str,
        throttle_from: int,
        error: ErrorCode | None = None,
    ) -> None:
        self._services = services
        self._request = request
        self._message = message
        self._wanted = wanted
        self._ask = ask
        self._row = row
        self._field = field
        self._error = error
        self._head = bytes(4) if request.version >= throttle_from else b""
        if error is not None:
            self._head += _I16.pack(error)
        self._begun = 0
        self._parts: list[bytes | None] = []
        """Encoded elements; None where the port has not answered yet."""
        self._unanswered = 0
        self._open: dict[int, Cancellable] = {}
        self._call: Any = None

    def __repr__(self) -> str:
        return f"InTurns({self._begun}/{len(self._wanted)})"

    def start(self) -> None:
        self._step()
        self._request.waits_for(self)

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for one in list(self._open.values()):
            one.cancel()
        self._open.clear()

    def _step(self) -> None:
        self._call = None
        try:
            some = self._wanted[self._begun : self._begun + PER_TURN]
            self._begun += len(some)
            index = len(self._parts)
            self._parts.append(None)
            self._unanswered += 1
            cancellable = self._ask(some, lambda answers: self._answered(index, answers))
            if cancellable is not None and self._parts[index] is None:
                self._open[index] = cancellable
        except Exception:
            self._failed()
            return
        if self._begun < len(self._wanted):
            self._call = self._services.call_later(0, self._step)

    def _answered(self, index: int, answers: Sequence[A]) -> None:
        self._open.pop(index, None)
        try:
            self._parts[index] = self._encode(answers)
            self._unanswered -= 1
            if self._begun == len(self._wanted) and not self._unanswered:
                self._finish([part for part in self._parts if part is not None])
        except Exception:
            self._failed()

    def _encode(self, answers: Sequence[A]) -> bytes:
        request = self._request
        fields = {"error_code": self._error, self._field: [self._row(one) for one in answers]}
        body = encode_response(request.key, request.version, fields)
        start = len(self._head) + len(encode_size(len(answers), request.flexible))
        return body[start : len(body) - request.flexible]

    def _finish(self, parts: list[bytes]) -> None:
        flexible = self._request.flexible
        chunks = [self._head, encode_size(len(self._wanted), flexible), *parts, b"\x00" if flexible else b""]
        self._request.answer_chunks(chunks, sum(map(len, chunks)))

    def _failed(self) -> None:
        failure = Failure()
        self.cancel()
        self._request.connection.request_failed(self._request, self._message, failure)
