"""The subscribers of one term: a snapshot each, then deltas numbered per subscription."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed

from zkbroker.controller.effects import PushDelta
from zkbroker.model.channel import UNREGISTERED
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.replication.ports import Subscriber


class _Subscription:
    __slots__ = ("number", "subscriber")

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.number = 0
        """Of the last delta sent; the snapshot is 0."""


class Subscribers:
    """Brokers that hold a channel; at most one each, the latest counts."""

    def __init__(
        self,
        *,
        broker_epoch: Callable[[int], int | None],
        settled_epoch: Callable[[int], int | None],
        snapshot: Callable[[int], ClusterDelta],
        look_again: Callable[[], None],
    ) -> None:
        self._broker_epoch = broker_epoch
        self._settled_epoch = settled_epoch
        """Like ``broker_epoch``, but None while the broker must not be told the cluster yet."""
        self._snapshot = snapshot
        self._look_again = look_again
        self._subscriptions: dict[int, _Subscription] = {}
        self._waiting: list[tuple[Subscriber, Deferred[None]]] = []

    def __repr__(self) -> str:
        return f"Subscribers({sorted(self._subscriptions)}, waiting={len(self._waiting)})"

    def subscribe(self, subscriber: Subscriber, *, is_ready: bool) -> Deferred[None]:
        """Fires, after the snapshot was pushed, when the image holds the subscriber's broker epoch. Fails with
        BrokerError STALE_BROKER_EPOCH when the image holds a higher one."""
        known = self._settled_epoch(subscriber.broker_id) if is_ready else None
        if known is not None and known > subscriber.broker_epoch:
            return fail(stale(subscriber.broker_id, subscriber.broker_epoch, known))
        if known == subscriber.broker_epoch:
            self._open(subscriber)
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append((subscriber, waiting))
        if is_ready:
            self._look_again()
        return waiting

    def unsubscribe(self, subscriber: Subscriber) -> None:
        subscription = self._subscriptions.get(subscriber.broker_id)
        if subscription is not None and subscription.subscriber is subscriber:
            del self._subscriptions[subscriber.broker_id]
        self._waiting = [entry for entry in self._waiting if entry[0] is not subscriber]

    def image_changed(self) -> None:
        """Serve those whose registration has been seen now; close those whose broker is gone."""
        waiting, self._waiting = self._waiting, []
        for subscriber, deferred in waiting:
            known = self._settled_epoch(subscriber.broker_id)
            if known is None or known < subscriber.broker_epoch:
                self._waiting.append((subscriber, deferred))
            elif known > subscriber.broker_epoch:
                deferred.errback(stale(subscriber.broker_id, subscriber.broker_epoch, known))
            else:
                self._open(subscriber)
                deferred.callback(None)
        for broker_id in list(self._subscriptions):
            subscription = self._subscriptions[broker_id]
            if self._broker_epoch(broker_id) != subscription.subscriber.broker_epoch:
                del self._subscriptions[broker_id]
                subscription.subscriber.close(UNREGISTERED)

    def push(self, effect: PushDelta) -> None:
        orders = dict(effect.orders)
        for broker_id in list(self._subscriptions):
            subscription = self._subscriptions.get(broker_id)
            if subscription is None:
                continue
            subscription.number += 1
            subscription.subscriber.push(
                effect.delta._replace(number=subscription.number, deleted_replicas=orders.get(broker_id, ()))
            )

    def push_snapshot(self, broker_id: int) -> None:
        """Everything again; numbers start anew."""
        subscription = self._subscriptions.get(broker_id)
        if subscription is not None:
            subscription.number = 0
            subscription.subscriber.push(self._snapshot(broker_id))

    def close(self, reason: str) -> None:
        """The term is over."""
        subscriptions, self._subscriptions = self._subscriptions, {}
        waiting, self._waiting = self._waiting, []
        for broker_id in sorted(subscriptions):
            subscriptions[broker_id].subscriber.close(reason)
        for _, deferred in waiting:
            deferred.errback(BrokerError(ErrorCode.NOT_CONTROLLER, reason))

    def _open(self, subscriber: Subscriber) -> None:
        before = self._subscriptions.get(subscriber.broker_id)
        if before is not None and before.subscriber is not subscriber:
            before.subscriber.close("the broker subscribed again")
        self._subscriptions[subscriber.broker_id] = _Subscription(subscriber)
        subscriber.push(self._snapshot(subscriber.broker_id))


def stale(broker_id: int, broker_epoch: int, known: int) -> BrokerError:
    return BrokerError(
        ErrorCode.STALE_BROKER_EPOCH, f"broker {broker_id} speaks as epoch {broker_epoch}, registered is {known}"
    )
