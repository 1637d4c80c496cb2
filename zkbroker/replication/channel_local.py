"""The controller channel of the controller's own broker: the same deltas and requests, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, Applied, NewTopic, TopicResult
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.complaints import Word
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.alarm import Alarm, Soon
from zkbroker.replication.channel_state import ChannelSettings, DeltaReceiver
from zkbroker.replication.connection import log
from zkbroker.replication.link import Shell
from zkbroker.replication.ports import BrokerPort, ControllerPort

Result = TypeVar("Result")


class LocalSubscriber:
    """Fills ``Subscriber``. What is pushed is applied at the end of the reactor's turn: the controller must not find
    its own broker calling back into it while it decides."""

    def __init__(self, route: LocalRoute, broker_id: int, broker_epoch: int) -> None:
        self._route: LocalRoute | None = route
        self.broker_id = broker_id
        self.broker_epoch = broker_epoch

    def __repr__(self) -> str:
        return f"LocalSubscriber(broker={self.broker_id}, epoch={self.broker_epoch})"

    def push(self, delta: ClusterDelta) -> None:
        if self._route is not None:
            self._route.pushed(delta)

    def close(self, reason: str) -> None:
        if self._route is not None:
            self._route.pushed(reason)

    def silence(self) -> None:
        """The route has let go of it."""
        self._route = None


class LocalRoute:
    """The way to this process's own controller. Fills ``Route``."""

    def __init__(
        self,
        shell: Shell,
        settings: ChannelSettings,
        deltas: DeltaReceiver,
        broker: BrokerPort,
        controller: Callable[[], ControllerPort | None],
    ) -> None:
        self._shell = shell
        self._settings = settings
        self._deltas = deltas
        self._broker = broker
        self._controller = controller
        self._alarm = Alarm(shell.reactor, shell.clock, self._rung)
        self._soon = Soon(shell.reactor, self._apply_pushed)
        self._pushed: deque[ClusterDelta | str] = deque()
        """Deltas to apply, or the reason why no more come."""
        self._subscribed: tuple[ControllerPort, LocalSubscriber] | None = None
        self._subscribe_at = 0.0
        self._heartbeat_at = 0.0
        self._failures = 0
        self.is_subscribed = False

    def __repr__(self) -> str:
        return f"LocalRoute({'subscribed' if self.is_subscribed else 'not subscribed'})"

    def start(self) -> None:
        now = self._shell.clock.monotonic()
        self._subscribe_at = now
        self._heartbeat_at = now
        self._alarm.at_latest(now)

    def stop(self, reason: str, bye: bool) -> None:
        self._alarm.stop()
        self._soon.stop()
        self._unsubscribed(reason)

    def restart(self, reason: str) -> None:
        self._unsubscribed(reason)
        self.start()

    def pushed(self, delta: ClusterDelta | str) -> None:
        self._pushed.append(delta)
        self._soon.ask()

    def _apply_pushed(self) -> None:
        while self._pushed and self._subscribed is not None:
            delta = self._pushed.popleft()
            if isinstance(delta, str):
                self._resubscribe(delta)
                return
            try:
                applied = self._deltas.take(delta)
            except BrokerError as error:
                self._resubscribe(str(error))
                return
            self.is_subscribed = True
            self._failures = 0
            self.applied(applied).addErrback(self._refused)

    def _refused(self, failure: Failure) -> None:
        failure.trap(BrokerError)
        log.debug("the controller refuses APPLIED: {reason}", reason=str(failure.value))

    def _unsubscribed(self, reason: str) -> None:
        subscribed, self._subscribed = self._subscribed, None
        self._pushed.clear()
        if subscribed is not None:
            controller, subscriber = subscribed
            subscriber.silence()
            controller.unsubscribe(subscriber)
        if self.is_subscribed:
            self.is_subscribed = False
            self._broker.channel_lost(reason)

    def _resubscribe(self, reason: str) -> None:
        self._unsubscribed(reason)
        pause_s = self._settings.backoff(self._failures, self._shell.random)
        self._failures += 1
        self._subscribe_at = self._shell.clock.monotonic() + pause_s
        self._alarm.at_latest(self._subscribe_at)

    def _rung(self, now: float) -> None:
        if self._subscribed is None and self._subscribe_at <= now:
            self._subscribe()
        if self._heartbeat_at <= now:
            self._heartbeat_at = now + self._settings.heartbeat_interval_s
            self._heartbeat()
        next_at = self._heartbeat_at
        self._alarm.at_latest(next_at if self._subscribed is not None else min(next_at, self._subscribe_at))

    def _subscribe(self) -> None:
        controller = self._controller()
        if controller is None:
            self._resubscribe("this broker is not the controller yet")
            return
        identity = self._shell.identity()
        subscriber = LocalSubscriber(self, identity.broker_id, identity.broker_epoch)
        self._subscribed = (controller, subscriber)

        def failed(failure: Failure) -> None:
            failure.trap(BrokerError)
            if self._subscribed is not None and self._subscribed[1] is subscriber:
                self._resubscribe(str(failure.value))

        maybeDeferred(controller.subscribe, subscriber).addErrback(failed)

    def _heartbeat(self) -> None:
        if self._subscribed is None:
            return
        controller, subscriber = self._subscribed
        try:
            age_s = controller.heartbeat(
                subscriber.broker_id, subscriber.broker_epoch, max(0.0, self._broker.zookeeper_age_s())
            )
        except BrokerError as error:
            self._resubscribe(str(error))
            return
        if self.is_subscribed:
            self._broker.controller_heard(self._deltas.controller_epoch, age_s)

    def _ask(self, ask: Callable[[ControllerPort, int, int], Deferred[Result] | Result]) -> Deferred[Result]:
        controller = self._controller()
        if controller is None:
            return fail(BrokerError(ErrorCode.NOT_CONTROLLER, "this broker is not the controller"))
        identity = self._shell.identity()
        try:
            result = ask(controller, identity.broker_id, identity.broker_epoch)
        except BrokerError as error:
            return fail(error)
        return result if isinstance(result, Deferred) else succeed(result)

    def alter_partition(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
        return self._ask(lambda controller, _id, _epoch: controller.alter_partition(request))

    def controlled_shutdown(self) -> Deferred[tuple[TopicPartition, ...]]:
        return self._ask(lambda controller, broker_id, epoch: controller.controlled_shutdown(broker_id, epoch))

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]:
        return self._ask(lambda controller, _id, _epoch: controller.create_topic(topic))

    def replica_deleted(self, partition: TopicPartition, topic_id: str) -> Deferred[None]:
        return self._ask(
            lambda controller, broker_id, epoch: controller.replica_deleted(broker_id, epoch, partition, topic_id)
        )

    def log_dir_offline(self, log_dir: str, partitions: Sequence[TopicPartition]) -> Deferred[None]:
        return self._ask(
            lambda controller, broker_id, epoch: controller.log_dir_offline(broker_id, epoch, log_dir, partitions)
        )

    def complain(self, word: Word) -> Deferred[None]:
        return self._ask(lambda controller, broker_id, epoch: controller.complained(broker_id, epoch, word))

    def applied(self, applied: Applied) -> Deferred[None]:
        return self._ask(lambda controller, broker_id, epoch: controller.applied(broker_id, epoch, applied))
