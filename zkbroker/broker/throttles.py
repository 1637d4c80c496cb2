"""Replication throttles (KIP-73): how many bytes per second replicas may cost that catch up, for example in a
reassignment. Replicas in the ISR are never throttled: clients wait for them.

``leader.replication.throttled.rate`` and ``follower.replication.throttled.rate`` are the broker's, and change while it
runs; which replicas they are for the topics' ``….throttled.replicas`` say, as ``partition:broker`` pairs or ``*``.
"""

from __future__ import annotations

from collections.abc import Sequence

from zkbroker.model.clock import Clock
from zkbroker.model.config import BrokerConfig

LEADER_RATE = "leader.replication.throttled.rate"
FOLLOWER_RATE = "follower.replication.throttled.rate"

LISTS_COUNT_MAX = 100
"""Lists of replicas that are kept as sets."""

DELAY_S_MAX = 1.0
"""Then it is looked again: the rate may be another one by then."""


class Throttle:
    """Paces bytes to ``rate`` per second: whoever took more than that has to wait until the time for it has passed.
    Kafka allows what the last ten seconds left unused; here nothing is saved up, so that a rate is one from the start.
    """

    __slots__ = ("_at", "_clock", "_debt_bytes", "rate")

    def __init__(self, clock: Clock, rate: int) -> None:
        self._clock = clock
        self.rate = rate
        """Bytes per second; 0: none at all."""
        self._debt_bytes = 0.0
        """Taken, and not paid for by time yet; as of ``_at``."""
        self._at = clock.monotonic()

    def __repr__(self) -> str:
        return f"Throttle({self.rate} bytes/s, debt={self._debt_bytes:.0f})"

    def delay_s(self) -> float:
        """How long nothing may be taken; 0.0: now something may, whatever its size."""
        if self.rate <= 0:
            return DELAY_S_MAX
        self._pay()
        return min(DELAY_S_MAX, self._debt_bytes / self.rate)

    def took(self, size: int) -> None:
        """So many bytes went."""
        self._pay()
        self._debt_bytes += size

    def _pay(self) -> None:
        now = self._clock.monotonic()
        self._debt_bytes = max(0.0, self._debt_bytes - self.rate * (now - self._at))
        self._at = now


class ReplicationThrottles:
    """The two of one broker."""

    def __init__(self, clock: Clock, config: BrokerConfig) -> None:
        self.leader = Throttle(clock, 0)
        self.follower = Throttle(clock, 0)
        self._sets: dict[int, tuple[Sequence[str], frozenset[str]]] = {}
        """By the identity of a topic's list, which is kept so that no other one gets it: asked for each fetch of each
        replica, and a topic of thousands of partitions names them all."""
        self.settings_changed(config)

    def __repr__(self) -> str:
        return f"ReplicationThrottles({self.leader!r}, {self.follower!r})"

    def settings_changed(self, config: BrokerConfig) -> None:
        """``config`` has the dynamic settings of this moment."""
        self.leader.rate = config.get_int(LEADER_RATE)
        self.follower.rate = config.get_int(FOLLOWER_RATE)

    def names(self, replicas: Sequence[str], partition: int, broker_id: int) -> bool:
        """Does a topic's ``….throttled.replicas`` name this replica?"""
        if not replicas:
            return False
        known = self._sets.get(id(replicas))
        if known is None:
            if len(self._sets) >= LISTS_COUNT_MAX:
                self._sets.clear()
            known = self._sets[id(replicas)] = replicas, frozenset(replicas)
        return not known[1].isdisjoint(("*", f"{partition}:{broker_id}"))
