"""The controller as brokers reach it (``replication.ports.ControllerPort``): by the term of office, if there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail

from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.broker.controller_term import Term
from zkbroker.broker.office_requests import OfficeRequests
from zkbroker.broker.office_watch import OfficeWatch
from zkbroker.broker.partition_admin import PartitionAdmin
from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, Applied, NewTopic, TopicResult
from zkbroker.model.clock import Clock
from zkbroker.model.complaints import Word
from zkbroker.model.errors import BrokerError
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.ports import Subscriber
from zkbroker.zookeeper.client import ZooKeeperClient


class OfficePort(OfficeRequests, PartitionAdmin):
    """What the other brokers ask of the controller. While this broker is not in office every call is refused with
    NOT_CONTROLLER. Whoever holds the office fills what is declared here."""

    _zk: ZooKeeperClient
    _clock: Clock
    _settings: ControllerSettings
    _watch: OfficeWatch
    _term: Term | None
    _log: Callable[[str], None]

    def _serving(self) -> Term:
        """The term, if it may decide now. Raises BrokerError NOT_CONTROLLER."""
        raise NotImplementedError

    def zookeeper_age_s(self) -> float:
        """Seconds since ZooKeeper last replied to this broker."""
        return self._clock.monotonic() - self._zk.last_reply_at

    def subscribe(self, subscriber: Subscriber) -> Deferred[None]:
        try:
            term = self._serving()
        except BrokerError as error:
            return fail(error)
        term.flush()
        return term.subscribers.subscribe(subscriber, is_ready=term.is_ready)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        if self._term is not None:
            self._term.subscribers.unsubscribe(subscriber)

    def applied(self, broker_id: int, broker_epoch: int, applied: Applied) -> None:
        term = self._serving()
        term.checked_broker(broker_id, broker_epoch)
        term.event(lambda: term.controller.delta_applied(broker_id, broker_epoch, applied))

    def replica_deleted(self, broker_id: int, broker_epoch: int, partition: TopicPartition, topic_id: str) -> None:
        term = self._serving()
        term.checked_broker(broker_id, broker_epoch)
        term.event(lambda: term.controller.replica_deleted(broker_id, broker_epoch, partition, topic_id))

    def log_dir_offline(
        self, broker_id: int, broker_epoch: int, log_dir: str, partitions: Sequence[TopicPartition]
    ) -> None:
        term = self._serving()
        term.checked_broker(broker_id, broker_epoch)
        self._log(f"broker {broker_id} lost log folder {log_dir} with {len(partitions)} replicas")
        term.event(lambda: term.controller.log_dir_failed(broker_id, partitions, f"{log_dir} is offline"))

    def alter_partition(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
        try:
            term = self._serving()
        except BrokerError as error:
            return fail(error)
        ready = term.when_ready()
        return ready.addCallback(lambda _: term.ask(lambda token: term.controller.isr_change_requested(token, request)))

    def controlled_shutdown(self, broker_id: int, broker_epoch: int) -> Deferred[tuple[TopicPartition, ...]]:
        try:
            term = self._serving()
        except BrokerError as error:
            return fail(error)
        self._log(f"controlled shutdown of broker {broker_id}")
        ready = term.when_ready()
        return ready.addCallback(
            lambda _: term.ask(lambda token: term.controller.shutdown_requested(token, broker_id, broker_epoch))
        )

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]:
        created = self.create_topics([topic], int(self._settings.request_timeout_s * 1000), False)
        return created.addCallback(lambda results: results[0])

    def complained(self, broker_id: int, broker_epoch: int, word: Word) -> None:
        term = self._serving()
        term.checked_broker(broker_id, broker_epoch)
        self._watch.heard(broker_id)
        now = self._clock.monotonic()
        term.event(lambda: term.controller.complained(broker_id, broker_epoch, word, now))

    def heartbeat(self, broker_id: int, broker_epoch: int, zookeeper_age_s: float) -> float:
        term = self._serving()
        term.checked_broker(broker_id, broker_epoch)
        self._watch.heard(broker_id)
        return self.zookeeper_age_s()
