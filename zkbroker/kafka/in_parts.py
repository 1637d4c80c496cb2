"""Requests of thousands of rows, served as many requests of a few rows each, one after the other, some in each turn of
the reactor. Worked on at once, a hundred thousand rows would keep everybody else waiting for a second or two (and the
watchdog would end the broker).

The frame is cut between rows, each part is decoded, served and answered like any request of its API, and the answers'
rows are put together. So no API knows of it. A row is worth the same in any company; what Kafka checks across the rows
of one request does not go this way. Of a large OffsetCommit each part is a write of its own, in order: what is not
written is told in its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from twisted.python.failure import Failure

from zkbroker.kafka.cutting import Answers, Part, cut
from zkbroker.kafka.layouts import Layout, layout, offset_commit_v1
from zkbroker.kafka.request import Api, Request, Services
from zkbroker.kafka.versions import (
    DELETE_RECORDS,
    DESCRIBE_CONFIGS,
    DESCRIBE_PRODUCERS,
    LEAVE_GROUP,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    OFFSET_DELETE,
    OFFSET_FETCH,
    OFFSET_FOR_LEADER_EPOCH,
)
from zkbroker.kafka.wire import DECODE_ERRORS, encode_size

LARGE_BYTES = 8_192
"""A smaller request is worked on at once: of the smallest rows, 4 bytes each, it has 2,000."""

ANSWER_BYTES_MAX = 256 * 1024 * 1024
"""A request that is answered with more closes its connection."""


class Plan(NamedTuple):
    asked: tuple[str, ...]
    """The arrays of the request, one inside the other; the last one's elements are the rows."""
    answered: tuple[str, ...]
    """The same of the response."""
    rows: int = 50
    """Of one part: about a millisecond's work."""
    once: bool = False
    """The same row is answered once, however often it is there."""
    since: int = 0
    """The first version with such an array."""


_PARTITIONS = ("topics", "partitions")

_PLANS = {
    METADATA: Plan(("topics",), ("topics",), once=True),
    LIST_OFFSETS: Plan(_PARTITIONS, _PARTITIONS),
    OFFSET_FOR_LEADER_EPOCH: Plan(_PARTITIONS, _PARTITIONS),
    DELETE_RECORDS: Plan(_PARTITIONS, _PARTITIONS),
    DESCRIBE_PRODUCERS: Plan(("topics", "partition_indexes"), _PARTITIONS, rows=10),
    DESCRIBE_CONFIGS: Plan(("resources",), ("results",), rows=5),
    OFFSET_COMMIT: Plan(_PARTITIONS, _PARTITIONS, rows=200),
    OFFSET_DELETE: Plan(_PARTITIONS, _PARTITIONS, rows=200),
    OFFSET_FETCH: Plan(("topics", "partition_indexes"), _PARTITIONS),
    LEAVE_GROUP: Plan(("members",), ("members",), rows=200, since=3),
}
_FETCH_OF_GROUPS = Plan(("groups", "topics", "partition_indexes"), ("groups", "topics", "partitions"))
_FETCH_OF_GROUPS_FROM = 8
_COMMIT_IN_KIO_FROM = 2


class Route(NamedTuple):
    plan: Plan
    asked: Layout
    answered: Layout


_routes: dict[tuple[int, int], Route] = {}


def route_of(request: Request) -> Route | None:
    """How this request is cut; None for one that is served at once."""
    key, version = request.key, request.version
    if request.size < LARGE_BYTES or key not in _PLANS or version < _PLANS[key].since:
        return None
    route = _routes.get((key, version))
    if route is None:
        plan = _FETCH_OF_GROUPS if key == OFFSET_FETCH and version >= _FETCH_OF_GROUPS_FROM else _PLANS[key]
        if key == OFFSET_COMMIT and version < _COMMIT_IN_KIO_FROM:  # the answers of 1 and 2 are the same
            asked, answered = offset_commit_v1(), layout(key, _COMMIT_IN_KIO_FROM, "response", plan.answered)
        else:
            asked = layout(key, version, "request", plan.asked)
            answered = layout(key, version, "response", plan.answered)
        route = _routes[key, version] = Route(plan, asked, answered)
    return route


class Turns(Protocol):
    """``shares.Shares``"""

    def claim(self, claimant: Any) -> bool: ...
    def ended(self) -> None: ...
    def forget(self, claimant: Any) -> None: ...


class Owner(Protocol):
    """The connection."""

    repeated: Any

    @property
    def client_host(self) -> str: ...
    def repeat(self, repeated: Any) -> None: ...
    def answered(self, request: Request) -> None: ...
    def request_failed(self, request: Request, message: Any, failure: Failure) -> None: ...
    def close(self, reason: str | None = None) -> None: ...


class InParts:
    """One such request. Fills ``Cancellable``, ``request.Connection`` for its parts, and ``shares.Claimant``."""

    repeated: Any = None

    def __init__(
        self, services: Callable[[], Services], turns: Turns, owner: Owner, request: Request, api: Api, route: Route
    ) -> None:
        self._services = services
        self._turns = turns
        self._owner = owner
        self._request = request
        self._api = api
        self._route = route
        self._reader = reader = request.reader()
        self._body_offset = start = reader.offset
        route.asked.levels[0].head(reader)
        self._head = reader.data[start : reader.offset]
        self._tail = b""
        self._cutting: Iterator[Part] | None = cut(reader, route.asked, route.plan.rows, route.plan.once)
        self._parts: list[Part] = []
        self._begun = 0
        self._answers = Answers(route.answered)
        self._part: Request | None = None
        """What is being served."""
        self._is_stepping = False
        self._is_over = False

    def __repr__(self) -> str:
        return f"InParts({self._request!r}, {self._begun}/{len(self._parts)})"

    def start(self) -> None:
        self._request.waits_for(self)
        self._go_on()

    def cancel(self) -> None:
        """The client is gone."""
        self._is_over = True
        self._turns.forget(self)
        part = self._part
        if part is not None:
            part.is_done = True
            if part.cancellable is not None:
                part.cancellable.cancel()
                part.cancellable = None

    def share_came(self) -> None:
        self._go_on()

    def _go_on(self) -> None:
        while not self._is_over and self._part is None and self._turns.claim(self):
            self._is_stepping = True
            try:
                self._step()
            except DECODE_ERRORS as error:
                self._close(f"{type(error).__name__}: {error}")
            except Exception as error:
                self._close(f"{self._request!r} in parts: {error!r}")
            finally:
                self._is_stepping = False
                self._turns.ended()

    def _step(self) -> None:
        if self._cutting is not None:
            part = next(self._cutting, None)
            if part is not None:
                self._parts.append(part)
                return
            self._cutting = None
            start = self._reader.offset
            self._route.asked.levels[0].tail(self._reader)
            self._tail = self._reader.data[start : self._reader.offset]
        elif self._begun < len(self._parts):
            self._serve(self._parts[self._begun])
        else:
            chunks = self._answers.chunks()
            self._is_over = True
            self._request.answer_chunks(chunks, sum(map(len, chunks)))

    def _serve(self, part: Part) -> None:
        self._begun += 1
        whole = self._request
        data = self._reader.data
        if len(self._parts) == 1:  # few rows after all, or the array is null
            body = data[self._body_offset :]
        else:
            pieces = [chunk if isinstance(chunk, bytes) else data[chunk[0] : chunk[1]] for chunk in part.chunks]
            body = b"".join((self._head, encode_size(part.elements, whole.flexible), *pieces, self._tail))
        self._part = request = Request(
            self, body, whole.key, whole.version, whole.correlation_id, whole.client_id, whole.flexible, 0
        )
        message = self._api.decode(request)
        try:
            self._api.serve(self._services(), request, message)
        except Exception:
            self.request_failed(request, message, Failure())

    def _close(self, reason: str) -> None:
        self.cancel()
        self._owner.close(reason)

    # The connection of the parts

    @property
    def client_host(self) -> str:
        return self._owner.client_host

    def repeat(self, repeated: Any) -> None:
        raise NotImplementedError("a Fetch is not served in parts")

    def request_failed(self, request: Request, message: Any, failure: Failure) -> None:
        self._owner.request_failed(request, message, failure)

    def answered(self, request: Request) -> None:
        if self._is_over or request is not self._part:
            return
        self._part = None
        if request.must_close:
            self.cancel()
            self._request.close()
            return
        try:
            self._answers.add(b"".join(request.response[1:]))
        except (*DECODE_ERRORS, ValueError) as error:
            self._close(f"{self._request!r} in parts: {error!r}")
            return
        if self._answers.size > ANSWER_BYTES_MAX:
            self._close(f"{self._request!r} has an answer of more than {ANSWER_BYTES_MAX} bytes")
        elif not self._is_stepping:
            self._go_on()
