"""The offsets of one group: what is committed, and what is being written.

A commit counts from the moment its write is known to be replicated; until then the one before it is told. Each change
carries its place in the log's order (its write's id, or its number among the records replayed), so that a later one is
never undone by the outcome of an earlier one:

1. commit A of a partition is being written, then the deletion D of its offsets, then commit B;
2. A's success, told before D's, makes A the committed offset; D's success removes it, B's makes B that;
3. were A's success to be told after D's, it must not bring A back: D is remembered while anything is under way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from zkbroker.coordinator.records import NO_TIMESTAMP, StoredOffset

Place = tuple[str, int]
"""Topic and partition; TopicPartition is one, but costs more to make."""


class Committed(NamedTuple):
    stored: StoredOffset
    order: int


class GroupOffsets:
    __slots__ = ("committed", "in_flight", "transactional")

    def __init__(self) -> None:
        self.committed: dict[Place, Committed] = {}
        self.in_flight: dict[Place, list[int]] = {}
        """Place → [how many changes of it are being written, the order of the latest removal among them that is, the
        order of the latest that began]"""
        self.transactional: dict[int, dict[Place, Committed]] = {}
        """Producer id → what its open transaction commits if it does."""

    @property
    def has_any(self) -> bool:
        """Also such as may come to be: the group must not be removed."""
        return bool(self.committed or self.transactional)

    def begin(self, places: Iterable[Place], order: int) -> None:
        """A change of these is being written."""
        for place in places:
            flight = self.in_flight.get(place)
            if flight is None:
                self.in_flight[place] = [1, -1, order]
            else:
                flight[0] += 1
                flight[2] = order

    def end(self, places: Iterable[Place]) -> None:
        """Its outcome is known, and applied if it was a success."""
        for place in places:
            flight = self.in_flight[place]
            flight[0] -= 1
            if flight[0] == 0:
                del self.in_flight[place]

    def commit(self, place: Place, stored: StoredOffset, order: int) -> None:
        current = self.committed.get(place)
        if current is not None and current.order > order:
            return
        flight = self.in_flight.get(place)
        if flight is None or flight[1] < order:
            self.committed[place] = Committed(stored, order)

    def remove(self, place: Place, order: int) -> None:
        current = self.committed.get(place)
        if current is not None and current.order <= order:
            del self.committed[place]
        flight = self.in_flight.get(place)
        if flight is not None and flight[1] < order:
            flight[1] = order
        for producer_id, offsets in list(self.transactional.items()):
            offsets.pop(place, None)
            if not offsets:
                del self.transactional[producer_id]

    def commit_in_transaction(self, producer_id: int, place: Place, stored: StoredOffset | None, order: int) -> None:
        """It counts when ``transaction_ended``; None takes it back."""
        if stored is not None:
            self.transactional.setdefault(producer_id, {})[place] = Committed(stored, order)
        elif producer_id in self.transactional:
            self.transactional[producer_id].pop(place, None)

    def transaction_ended(self, producer_id: int, *, is_committed: bool) -> None:
        ended = self.transactional.pop(producer_id, {})
        if is_committed:
            for place, (stored, order) in ended.items():
                self.commit(place, stored, order)

    def is_unstable(self, place: Place) -> bool:
        """Whether a change of it is under way (KIP-447)."""
        return place in self.in_flight or any(place in offsets for offsets in self.transactional.values())

    def places(self) -> set[Place]:
        """All that there are or may come to be."""
        return set().union(self.committed, self.in_flight, *self.transactional.values())

    def has_newer(self, place: Place, order: int) -> bool:
        """Whether a change of it after that is known or under way."""
        flight = self.in_flight.get(place)
        if flight is not None and flight[2] > order:
            return True
        holders = (self.committed, *self.transactional.values())
        return any(place in offsets and offsets[place].order > order for offsets in holders)

    def expired(
        self, now_ms: int, retention_ms: int, since_ms: int | None, subscribed: Collection[str] = ()
    ) -> list[Place]:
        """Those whose retention is over, counted from ``since_ms``, or (None) from their commit; one with an expiry of
        its own goes by that. Not those of ``subscribed`` topics, nor any that is being changed (KIP-211)."""
        found = []
        for place, (stored, _) in self.committed.items():
            if place[0] in subscribed or place in self.in_flight:
                continue
            if stored.expire_timestamp_ms != NO_TIMESTAMP:
                is_due = now_ms >= stored.expire_timestamp_ms
            else:
                start_ms = stored.commit_timestamp_ms if since_ms is None else since_ms
                is_due = now_ms - start_ms >= retention_ms
            if is_due:
                found.append(place)
        return found
