"""The follower's side of replication: what is followed, and one connection to each leader (``leader_fetcher``).

Fills ``FetcherPort``. What an answer does to a partition is the replica's business (``FollowerPort``); in these two
is decided what is asked, when, and which answers still count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from zkbroker.model.clock import Clock
from zkbroker.model.complaints import Unreachable
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.alarm import Alarm, Soon
from zkbroker.replication.follow_session import Followed, FollowState
from zkbroker.replication.leader_fetcher import LeaderFetcher
from zkbroker.replication.link import LinkSettings, Shell
from zkbroker.replication.ports import FollowerPort, IdentitySource


@dataclasses.dataclass(frozen=True, slots=True)
class FetcherSettings:
    """Kafka's ``replica.*`` keys."""

    fetch_max_bytes: int = 1_048_576
    """``replica.fetch.max.bytes``: of one partition."""
    response_max_bytes: int = 10_485_760
    """``replica.fetch.response.max.bytes``: of one answer."""
    catch_up_max_bytes: int = 2_097_152
    """Of one answer of the catch-up session: in-sync answers queue behind it on the same connection."""
    wait_max_ms: int = 500
    """``replica.fetch.wait.max.ms``"""
    min_bytes: int = 1
    """``replica.fetch.min.bytes``"""
    backoff_s: float = 1.0
    """``replica.fetch.backoff.ms``: before asking again after an error."""
    epoch_backoff_s: float = 0.05
    """The same after one of ``leader_fetcher.EPOCH_ERRORS``."""
    answer_timeout_s: float = 30.0
    """``replica.socket.timeout.ms``: how much later than ``wait_max_ms`` a leader may answer before a new call."""
    unreachable_s: float = 2.0
    """A leader that was to answer so long ago, or cannot be connected to for so long, is complained of."""


class _Address(NamedTuple):
    broker_epoch: int
    host: str
    port: int


class Fetchers:
    """All that this broker fetches, by leader."""

    def __init__(
        self,
        *,
        reactor: Any,
        clock: Clock,
        random: Any,
        identity: IdentitySource,
        follower: FollowerPort,
        settings: FetcherSettings | None = None,
        link_settings: LinkSettings | None = None,
    ) -> None:
        self.shell = Shell(reactor, clock, random.random, identity)
        self.follower = follower
        self.settings = settings or FetcherSettings()
        self.link_settings = link_settings or LinkSettings()
        self.alarm = Alarm(reactor, clock, self._rung)
        self._soon = Soon(reactor, self._flush)
        self._to_flush: dict[int, None] = {}
        self._addresses: dict[int, _Address] = {}
        self._leaders: dict[int, LeaderFetcher] = {}
        self._followed: dict[TopicPartition, Followed] = {}
        self.waiting: dict[Followed, None] = {}
        """Those with a ``retry_at``."""
        self._counts: dict[int, int] = {}
        """How many partitions are followed from each leader."""
        self._is_resting = False
        self.catch_up_delay_s: Callable[[TopicPartition], float] = lambda partition: 0.0
        """How long nothing may be fetched of a partition that catches up: replication throttles (KIP-73)."""

    def rest(self) -> None:
        """Follow nobody any more. A broker that has handed over and fetches on catches up; its leader then wants it
        back in the ISR, and acks=all waits for it although it goes."""
        self._is_resting = True
        for partition in list(self._followed):
            self.unfollow(partition)

    def follow(self, partition: TopicPartition, leader: int) -> None:
        if self._is_resting:
            return
        followed = self._followed.get(partition)
        if followed is not None and followed.leader != leader:
            self.unfollow(partition)
            followed = None
        if followed is None:
            followed = self._followed[partition] = Followed(partition, leader)
            self._counts[leader] = self._counts.get(leader, 0) + 1
        # Answers under way were asked for under the old epoch: whatever was asked, ask anew.
        followed.state = FollowState.TO_ASK
        self._changed(followed)

    def unfollow(self, partition: TopicPartition) -> None:
        followed = self._followed.pop(partition, None)
        if followed is None:
            return
        self.waiting.pop(followed, None)
        self._counts[followed.leader] -= 1
        fetcher = self._leaders.get(followed.leader)
        if fetcher is not None:
            fetcher.remove(followed)
            self._flush_soon(followed.leader)

    def position_changed(self, partition: TopicPartition) -> None:
        followed = self._followed.get(partition)
        if followed is None:
            return
        if followed.state is FollowState.APPLYING:
            followed.state = FollowState.TO_ASK
        self._changed(followed)

    def set_address(self, broker_id: int, broker_epoch: int, host: str, port: int) -> None:
        address = _Address(broker_epoch, host, port)
        if self._addresses.get(broker_id) == address:
            return
        self._addresses[broker_id] = address
        fetcher = self._leaders.get(broker_id)
        if fetcher is not None:
            fetcher.link.host, fetcher.link.port = host, port
            peer = fetcher.link.peer
            if peer is None or peer.broker_epoch != broker_epoch:
                fetcher.expect_now()
                fetcher.link.reconnect("the broker registered anew")
        else:
            self._flush_soon(broker_id)

    def remove_address(self, broker_id: int) -> None:
        self._addresses.pop(broker_id, None)
        self._drop_leader(broker_id)

    def identity_changed(self) -> None:
        """This broker registered under a new epoch: say HELLO again everywhere."""
        for fetcher in list(self._leaders.values()):
            fetcher.link.reconnect("this broker registered anew")

    def stop(self) -> None:
        """Say BYE to every leader and fetch nothing more."""
        self.alarm.stop()
        self._soon.stop()
        for fetcher in self._leaders.values():
            fetcher.link.stop(bye=True)
        self._leaders.clear()
        self._followed.clear()
        self._counts.clear()
        self.waiting.clear()

    def unreachable(self, now: float) -> tuple[Unreachable, ...]:
        """The leaders from which this broker wants to fetch and cannot, by id."""
        found = []
        for leader in sorted(self._leaders):
            silent_s = self._leaders[leader].silent_s(now)
            if silent_s >= self.settings.unreachable_s and leader in self._addresses:
                found.append(Unreachable(leader, self._addresses[leader].broker_epoch, silent_s))
        return tuple(found)

    def status_lines(self) -> list[str]:
        """One line for each leader, for people."""
        return [f"fetching: {self._leaders[leader]!r}" for leader in sorted(self._leaders)]

    def _changed(self, followed: Followed) -> None:
        fetcher = self._leaders.get(followed.leader)
        if fetcher is None:
            self._flush_soon(followed.leader)
            return
        fetcher.dirty[followed] = None
        if not fetcher.is_receiving:
            self._flush_soon(followed.leader)

    def _flush_soon(self, leader: int) -> None:
        self._to_flush[leader] = None
        self._soon.ask()

    def _flush(self) -> None:
        to_flush, self._to_flush = self._to_flush, {}
        for leader in to_flush:
            is_followed = self._counts.get(leader, 0) > 0
            if is_followed and leader not in self._leaders:
                self._add_leader(leader)
            elif not is_followed:
                self._drop_leader(leader)
            elif leader in self._leaders:
                self._leaders[leader].flush()

    def _add_leader(self, leader: int) -> None:
        address = self._addresses.get(leader)
        if address is None:
            return
        fetcher = self._leaders[leader] = LeaderFetcher(self, leader, address.host, address.port)
        for followed in self._followed.values():
            if followed.leader == leader:
                fetcher.dirty[followed] = None
        fetcher.link.start()

    def _drop_leader(self, leader: int) -> None:
        fetcher = self._leaders.pop(leader, None)
        if fetcher is not None:
            fetcher.link.stop()
            fetcher.link_lost("it is not followed any more")

    def _rung(self, now: float) -> None:
        for followed in [followed for followed in self.waiting if followed.retry_at <= now]:
            del self.waiting[followed]
            followed.state = FollowState.TO_ASK
            self._changed(followed)
        if self.waiting:
            self.alarm.at_latest(min(followed.retry_at for followed in self.waiting))
        for fetcher in list(self._leaders.values()):
            fetcher.check_silence(now)
