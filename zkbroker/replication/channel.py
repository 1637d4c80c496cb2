"""A broker's end of the controller channel: snapshot and deltas in, requests out, wherever the controller is.

The controller's own broker uses the same class: then the route is ``ControllerPort`` in memory (``channel_local.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail

from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, Applied, NewTopic, TopicResult
from zkbroker.model.clock import Clock
from zkbroker.model.complaints import Word
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.channel_local import LocalRoute
from zkbroker.replication.channel_remote import RemoteRoute
from zkbroker.replication.channel_state import ChannelSettings, DeltaReceiver, Route
from zkbroker.replication.link import LinkSettings, Shell
from zkbroker.replication.ports import BrokerPort, ControllerPort, IdentitySource

Result = TypeVar("Result")


class ControllerChannel:
    """This broker's one way to the controller, whoever it is. All requests fail with BrokerError: NOT_CONTROLLER when
    no controller is known or the one that was asked is none; NETWORK_EXCEPTION when there is no connection, or it broke
    before the answer (then the outcome is unknown); and what the controller itself answers."""

    def __init__(
        self,
        *,
        reactor: Any,
        clock: Clock,
        random: Any,
        identity: IdentitySource,
        broker: BrokerPort,
        local: Callable[[], ControllerPort | None],
        settings: ChannelSettings | None = None,
        link_settings: LinkSettings | None = None,
    ) -> None:
        self._shell = Shell(reactor, clock, random.random, identity)
        self._deltas = DeltaReceiver(broker)
        self._broker = broker
        self._local = local
        self._settings = settings or ChannelSettings()
        self._link_settings = link_settings or LinkSettings()
        self._target: tuple[int, str, int] | None = None
        self._route: Route | None = None

    def __repr__(self) -> str:
        return f"ControllerChannel({self._route!r}, {self._deltas!r})"

    @property
    def is_subscribed(self) -> bool:
        """True while a snapshot was applied and deltas follow it."""
        return self._route is not None and self._route.is_subscribed

    def controller_changed(self, controller_id: int, host: str, port: int) -> None:
        """The controller is that broker, whose REPLICATION listener is there (ignored when it is this broker)."""
        target = (controller_id, host, port)
        if target == self._target:
            return
        self._drop("the controller changed")
        self._target = target
        if controller_id == self._shell.identity().broker_id:
            self._route = LocalRoute(self._shell, self._settings, self._deltas, self._broker, self._local)
        else:
            self._route = RemoteRoute(
                self._shell, self._settings, self._link_settings, self._deltas, self._broker, controller_id, host, port
            )
        self._route.start()

    def controller_lost(self) -> None:
        """No controller is known."""
        self._drop("there is no controller")

    def identity_changed(self) -> None:
        """This broker registered under a new epoch: subscribe again with it."""
        self.subscribe_again("this broker registered anew")

    def subscribe_again(self, reason: str) -> None:
        """Leave the present subscription and ask for a new snapshot, whose receipt tells anew what cannot be served."""
        if self._route is not None:
            self._route.restart(reason)

    def stop(self) -> None:
        """This broker stops: say BYE."""
        self._drop("this broker stops", bye=True)

    def _drop(self, reason: str, bye: bool = False) -> None:
        route, self._route, self._target = self._route, None, None
        if route is not None:
            route.stop(reason, bye)

    def _ask(self, ask: Callable[[Route], Deferred[Result]]) -> Deferred[Result]:
        if self._route is None:
            return fail(BrokerError(ErrorCode.NOT_CONTROLLER, "no controller is known"))
        return ask(self._route)

    def alter_partition(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
        """Propose ISR changes."""
        return self._ask(lambda route: route.alter_partition(request))

    def controlled_shutdown(self) -> Deferred[tuple[TopicPartition, ...]]:
        """Move this broker's leaderships away; fires with those that remain."""
        return self._ask(lambda route: route.controlled_shutdown())

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]:
        """Create a topic on behalf of a client."""
        return self._ask(lambda route: route.create_topic(topic))

    def replica_deleted(self, partition: TopicPartition, topic_id: str) -> Deferred[None]:
        """The data of a replica is gone."""
        return self._ask(lambda route: route.replica_deleted(partition, topic_id))

    def log_dir_offline(self, log_dir: str, partitions: Sequence[TopicPartition]) -> Deferred[None]:
        """A log folder failed."""
        return self._ask(lambda route: route.log_dir_offline(log_dir, partitions))

    def complain(self, word: Word) -> Deferred[None]:
        """All that this broker has to complain of now."""
        return self._ask(lambda route: route.complain(word))

    def applied(self, applied: Applied) -> Deferred[None]:
        """A further receipt for a delta: what failed, or works now, after ``apply_delta`` returned."""
        return self._ask(lambda route: route.applied(applied))
