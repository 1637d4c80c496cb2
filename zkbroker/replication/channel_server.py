"""The controller's end of the controller channel: what a broker asks over one connection, and what it is pushed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.limits import MESSAGE_TEXT_LENGTH_MAX, REQUESTS_IN_FLIGHT_MAX
from zkbroker.replication.codec import FramingError, Message, encode_error, encode_ok, encode_push
from zkbroker.replication.complaints import decode_complaints
from zkbroker.replication.connection import log
from zkbroker.replication.deltas import encode_delta, encode_delta_rows
from zkbroker.replication.ports import ControllerPort, Identity
from zkbroker.replication.requests import (
    decode_alter_partition,
    decode_applied,
    decode_create_topic,
    decode_deleted,
    decode_offline,
    encode_alter_partition_answer,
    encode_remaining,
    encode_topic_result,
)


class Sender(Protocol):
    """The connection, as the channel writes to it."""

    def send(self, data: bytes) -> None: ...

    @property
    def is_closing(self) -> bool: ...


class DeltaRows:
    """The rows of the delta encoded last: a delta goes to every broker, and is encoded once for all.

    Each subscription numbers its own, so the same delta is known by its parts, not by being the same object.
    """

    def __init__(self) -> None:
        self._delta: ClusterDelta | None = None
        self._rows = b""

    def encode(self, delta: ClusterDelta) -> bytes:
        if self._delta is None or not _has_the_rows_of(delta, self._delta):
            self._rows = encode_delta_rows(delta)
            self._delta = delta
        return self._rows


def _has_the_rows_of(delta: ClusterDelta, other: ClusterDelta) -> bool:
    return (
        delta.partitions is other.partitions
        and delta.brokers is other.brokers
        and delta.removed_brokers is other.removed_brokers
        and delta.deleted_topics is other.deleted_topics
        and delta.deleted_replicas is other.deleted_replicas
        and delta.unreadable_topics == other.unreadable_topics
    )


class ChannelSubscriber:
    """Fills ``Subscriber``: pushes over one connection, under the correlation number of its SUBSCRIBE."""

    def __init__(self, sender: Sender, rows: DeltaRows, identity: Identity, correlation: int) -> None:
        self._sender = sender
        self._rows = rows
        self._correlation = correlation
        self._is_closed = False
        self.broker_id = identity.broker_id
        self.broker_epoch = identity.broker_epoch

    def __repr__(self) -> str:
        return f"ChannelSubscriber(broker={self.broker_id}, epoch={self.broker_epoch})"

    def push(self, delta: ClusterDelta) -> None:
        if not self._is_closed:
            self._sender.send(encode_delta(self._correlation, delta, self._rows.encode(delta)))

    def close(self, reason: str) -> None:
        if not self._is_closed:
            self._is_closed = True
            told: dict[str, str | int | None] = {"reason": reason[:MESSAGE_TEXT_LENGTH_MAX]}
            self._sender.send(encode_push(self._correlation, "UNSUBSCRIBED", told))

    def silence(self) -> None:
        """The connection is gone or subscribes anew: nothing more is written."""
        self._is_closed = True


class ChannelServer:
    """The channel's verbs on one connection of the listener."""

    def __init__(self, sender: Sender, controller: Callable[[], ControllerPort | None], rows: DeltaRows) -> None:
        self._sender = sender
        self._controller = controller
        self._rows = rows
        self._subscribed: tuple[ControllerPort, ChannelSubscriber] | None = None
        self._in_flight = 0
        self.verbs: dict[str, Callable[[ControllerPort, Identity, Message], None]] = {
            "SUBSCRIBE": self._subscribe,
            "APPLIED": self._applied,
            "DELETED": self._deleted,
            "OFFLINE": self._offline,
            "ALTER_PARTITION": self._alter_partition,
            "SHUTDOWN": self._shutdown,
            "CREATE_TOPIC": self._create_topic,
            "COMPLAINTS": self._complaints,
            "HEARTBEAT": self._heartbeat,
        }

    def request(self, identity: Identity, message: Message) -> None:
        """One of ``verbs``. Raises BrokerError, or FramingError past the limit of requests in flight."""
        controller = self._controller()
        if controller is None:
            raise BrokerError(ErrorCode.NOT_CONTROLLER, "this broker is not the controller")
        if self._in_flight >= REQUESTS_IN_FLIGHT_MAX:
            raise FramingError(f"more than {REQUESTS_IN_FLIGHT_MAX} requests are unanswered")
        self.verbs[message.verb](controller, identity, message)

    def close(self) -> None:
        """The connection is gone: it is subscribed no more."""
        if self._subscribed is not None:
            controller, subscriber = self._subscribed
            self._subscribed = None
            subscriber.silence()
            controller.unsubscribe(subscriber)

    def _later(self, message: Message, asked: Deferred[object], encode: Callable[[object], bytes]) -> None:
        """Answer when the controller has: with what ``encode`` makes of the result, or ERR."""
        self._in_flight += 1

        def answered(result: object) -> None:
            self._in_flight -= 1
            if not self._sender.is_closing:
                self._sender.send(encode(result))

        def failed(failure: Failure) -> None:
            self._in_flight -= 1
            error = failure.value
            if isinstance(error, BrokerError):
                answer = encode_error(message.correlation, error.error, str(error))
            else:
                log.failure("{verb} failed", failure, verb=message.verb)
                answer = encode_error(message.correlation, ErrorCode.UNKNOWN_SERVER_ERROR, repr(error))
            self._sender.send(answer)

        asked.addCallbacks(answered, failed)
        asked.addErrback(lambda failure: log.failure("answering {verb}", failure, verb=message.verb))

    def _subscribe(self, controller: ControllerPort, identity: Identity, message: Message) -> None:
        self.close()
        subscriber = ChannelSubscriber(self._sender, self._rows, identity, message.correlation)
        self._subscribed = (controller, subscriber)

        def failed(failure: Failure) -> Failure:
            if self._subscribed is not None and self._subscribed[1] is subscriber:
                self._subscribed = None
            subscriber.silence()
            return failure

        asked: Deferred[object] = controller.subscribe(subscriber)  # type: ignore[assignment]
        asked.addErrback(failed)
        self._later(message, asked, lambda _: encode_ok(message.correlation))

    def _applied(self, controller: ControllerPort, identity: Identity, message: Message) -> None:
        controller.applied(identity.broker_id, identity.broker_epoch, decode_applied(message))
        self._sender.send(encode_ok(message.correlation))

    def _deleted(self, controller: ControllerPort, identity: Identity, message: Message) -> None:
        partition, topic_id = decode_deleted(message)
        controller.replica_deleted(identity.broker_id, identity.broker_epoch, partition, topic_id)
        self._sender.send(encode_ok(message.correlation))

    def _offline(self, controller: ControllerPort, identity: Identity, message: Message) -> None:
        log_dir, partitions = decode_offline(message)
        controller.log_dir_offline(identity.broker_id, identity.broker_epoch, log_dir, partitions)
        self._sender.send(encode_ok(message.correlation))

    def _alter_partition(self, controller: ControllerPort, identity: Identity, message: Message) -> None:
        request = decode_alter_partition(message)
        if request.broker_id != identity.broker_id:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"broker {identity.broker_id} speaks for {request.broker_id}")
        asked: Deferred[object] = controller.alter_partition(request)  # type: ignore[assignment]
        self._later(message, asked, lambda response: encode_alter_partition_answer(message.correlation, response))  # type: ignore[arg-type]

    def _shutdown(self, controller: ControllerPort, identity: Identity, message: Message) -> None:
        asked: Deferred[object] = controller.controlled_shutdown(identity.broker_id, identity.broker_epoch)  # type: ignore[assignment]
        self._later(message, asked, lambda remaining: encode_remaining(message.correlation, remaining))  # type: ignore[arg-type]

    def _create_topic(self, controller: ControllerPort, identity: Identity, message: Message) -> None:
        asked: Deferred[object] = controller.create_topic(decode_create_topic(message))  # type: ignore[assignment]
        self._later(message, asked, lambda result: encode_topic_result(message.correlation, result))  # type: ignore[arg-type]

    def _complaints(self, controller: ControllerPort, identity: Identity, message: Message) -> None:
        controller.complained(identity.broker_id, identity.broker_epoch, decode_complaints(message))
        self._sender.send(encode_ok(message.correlation))

    def _heartbeat(self, controller: ControllerPort, identity: Identity, message: Message) -> None:
        heard = message.integer("zookeeper_age_ms") / 1000
        age_s = controller.heartbeat(identity.broker_id, identity.broker_epoch, heard)
        self._sender.send(encode_ok(message.correlation, {"zookeeper_age_ms": max(0, round(age_s * 1000))}))
