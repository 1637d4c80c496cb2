"""The fetch sessions of a broker's clients (KIP-227): ids, epochs, and who gives way when there is no room.

A session outlives its connection, as in Kafka: it goes when its client ends it or begins anew, when it is empty, or
when another takes its place. What its partitions have to say is the broker's part (``ports.ConsumeSession``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from zkbroker.kafka.ports import ConsumeRow, ConsumeSession
from zkbroker.model.clock import Clock
from zkbroker.model.errors import ErrorCode

INITIAL_EPOCH = 0
"""A whole request, from which a session may begin."""
FINAL_EPOCH = -1
"""A whole request that wants no session."""
NO_SESSION = 0
"""The session id of who has none."""
EVICTION_S = 120.0
"""A session that was not used for so long gives way to any other; one that is younger gives way to none that is not
stale (Kafka's constant, ``min.incremental.fetch.session.eviction.ms``)."""
PARTITIONS_MAX = 300_000
"""Partitions of all sessions together, some 500 bytes each: past it clients send whole requests."""
_ID_MAX = 2**31 - 1


class Session:
    """One client's session at this broker."""

    __slots__ = (
        "cached_size",
        "created_at",
        "data",
        "epoch",
        "id",
        "last_used_at",
        "unresolved",
        "uses_ids",
        "waiting",
    )

    def __init__(self, data: ConsumeSession, uses_ids: bool) -> None:
        self.id = NO_SESSION
        self.data = data
        self.uses_ids = uses_ids
        """It began with a request that names topics by id; the others must do so too."""
        self.epoch = INITIAL_EPOCH
        """What the next request must carry."""
        self.unresolved: dict[tuple[str, int], ConsumeRow] = {}
        """By topic id and partition: rows whose id is not known yet, or no more."""
        self.waiting: Callable[[], None] | None = None
        """Tells the request that waits that another has come in its place."""
        self.created_at = self.last_used_at = 0.0
        self.cached_size = 0

    def __repr__(self) -> str:
        return f"Session({self.id} epoch={self.epoch} partitions={self.size})"

    @property
    def size(self) -> int:
        return self.data.size + len(self.unresolved)

    def is_replaced(self) -> None:
        """Another request comes, or the session ends: whoever waits is told."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting()


class FetchSessions:
    """All of them, at most ``slots``, in the order of their last use."""

    def __init__(
        self, slots: int, clock: Clock, draw: Callable[[int, int], int], partitions_max: int = PARTITIONS_MAX
    ) -> None:
        """``draw(a, b)``: a random whole number from a to b."""
        self._slots = slots
        self._clock = clock
        self._draw = draw
        self._partitions_max = partitions_max
        self._sessions: OrderedDict[int, Session] = OrderedDict()
        self.partitions = 0
        """Of all sessions together, as they were last used."""

    def __repr__(self) -> str:
        return f"FetchSessions({len(self._sessions)}/{self._slots} partitions={self.partitions})"

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, session_id: int, epoch: int, uses_ids: bool) -> Session | ErrorCode:
        """The session that a request with this epoch goes on with, or why there is none."""
        session = self._sessions.get(session_id)
        if session is None:
            return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        if session.epoch != epoch:
            return ErrorCode.INVALID_FETCH_SESSION_EPOCH
        if session.uses_ids != uses_ids:
            return ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
        return session

    def begin(self, session: Session) -> bool:
        """Give the session an id and a slot. False when there is no room for one so small: nobody need remember it."""
        size, now = session.size, self._clock.monotonic()
        if not self._has_room(size, now):
            return False
        if len(self._sessions) >= self._slots and not self._evict(size, now):
            return False
        while session.id == NO_SESSION or session.id in self._sessions:
            session.id = self._draw(1, _ID_MAX)
        session.epoch = next_epoch(INITIAL_EPOCH)
        session.created_at = session.last_used_at = now
        session.cached_size = size
        self.partitions += size
        self._sessions[session.id] = session
        return True

    def go_on(self, session: Session) -> bool:
        """A request of the session was taken. False when it has grown beyond what there is room for."""
        session.last_used_at = self._clock.monotonic()
        self._sessions.move_to_end(session.id)
        added = session.size - session.cached_size
        if added > 0 and not self._has_room(added, session.last_used_at):
            return False
        self.partitions += added
        session.cached_size += added
        session.epoch = next_epoch(session.epoch)
        return True

    def end(self, session_id: int) -> None:
        """Forget the session, if there is one of that id."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self.partitions -= session.cached_size
            session.is_replaced()
            session.data.close()

    def _has_room(self, added: int, now: float) -> bool:
        """May there be so many partitions more? Stale sessions go for them."""
        while self.partitions + added > self._partitions_max:
            stalest = next(iter(self._sessions.values()), None)
            if stalest is None or now - stalest.last_used_at <= EVICTION_S:
                return False
            self.end(stalest.id)
        return True

    def _evict(self, size: int, now: float) -> bool:
        """Make room for a session of ``size`` partitions, by Kafka's rules: the one that was unused the longest goes if
        it is stale; else the smallest of those that are not young, if it is smaller."""
        stalest = next(iter(self._sessions.values()), None)
        if stalest is None:
            return False
        if now - stalest.last_used_at > EVICTION_S:
            self.end(stalest.id)
            return True
        settled = (one for one in self._sessions.values() if one.last_used_at - one.created_at > EVICTION_S)
        smallest = min(settled, key=lambda one: (one.cached_size, one.id), default=None)
        if smallest is None or size <= smallest.cached_size:
            return False
        self.end(smallest.id)
        return True


def next_epoch(epoch: int) -> int:
    """Epochs count up; after the largest comes 1, since 0 begins a session."""
    return 1 if epoch >= _ID_MAX else epoch + 1
