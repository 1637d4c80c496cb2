"""The controller channel over the line protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, Applied, NewTopic, TopicResult
from zkbroker.model.complaints import Word
from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.alarm import Alarm
from zkbroker.replication.channel_state import ChannelSettings, DeltaReceiver
from zkbroker.replication.codec import Message, decode_error, encode_request
from zkbroker.replication.complaints import encode_complaints
from zkbroker.replication.connection import log
from zkbroker.replication.deltas import decode_delta
from zkbroker.replication.link import BrokerLink, LinkSettings, Shell
from zkbroker.replication.ports import BrokerPort
from zkbroker.replication.requests import (
    decode_alter_partition_answer,
    decode_partition_rows,
    decode_topic_result,
    encode_alter_partition,
    encode_applied,
    encode_create_topic,
    encode_deleted,
    encode_offline,
)

Result = TypeVar("Result")


class _Asked(NamedTuple):
    """A request that is not answered yet."""

    deferred: Deferred[Any]
    decode: Callable[[Message], Any]


class RemoteRoute:
    """One connection to the controller. Fills ``Route`` and ``LinkOwner``."""

    def __init__(
        self,
        shell: Shell,
        settings: ChannelSettings,
        link_settings: LinkSettings,
        deltas: DeltaReceiver,
        broker: BrokerPort,
        controller_id: int,
        host: str,
        port: int,
    ) -> None:
        self._shell = shell
        self._settings = settings
        self._deltas = deltas
        self._broker = broker
        self._link = BrokerLink(shell, link_settings, self, controller_id, host, port)
        self._alarm = Alarm(shell.reactor, shell.clock, self._rung)
        self._asked: dict[int, _Asked] = {}
        self._subscription = 0
        """Correlation number of the SUBSCRIBE in force; pushes under another are of an earlier one. 0 for none."""
        self._subscribe_at = 0.0
        self._heartbeat_at = 0.0
        self._heard_at = 0.0
        self._failures = 0
        """Subscriptions that failed since the last snapshot."""
        self._complaint = ""
        """The refusal that was logged last: while ZooKeeper is away the same one comes every second."""
        self.is_subscribed = False

    def __repr__(self) -> str:
        return f"RemoteRoute({self._link!r}, {'subscribed' if self.is_subscribed else 'not subscribed'})"

    def start(self) -> None:
        self._link.start()

    def stop(self, reason: str, bye: bool) -> None:
        self._link.stop(bye)
        self.link_lost(reason)

    def restart(self, reason: str) -> None:
        self._link.reconnect(reason)

    def link_up(self) -> None:
        now = self._shell.clock.monotonic()
        self._heard_at = now
        self._subscribe_at = now
        self._heartbeat_at = now
        self._rung(now)

    def link_lost(self, reason: str) -> None:
        self._alarm.stop()
        self._unsubscribed(reason)
        asked, self._asked = self._asked, {}
        for request in asked.values():
            request.deferred.errback(BrokerError(ErrorCode.NETWORK_EXCEPTION, f"the controller's answer: {reason}"))

    def _unsubscribed(self, reason: str) -> None:
        """The subscription is over. The next attempt waits, the longer the more often it failed."""
        self._subscription = 0
        self._subscribe_at = self._shell.clock.monotonic() + self._settings.backoff(self._failures, self._shell.random)
        self._failures += 1
        if self.is_subscribed:
            self.is_subscribed = False
            self._broker.channel_lost(reason)

    def _rung(self, now: float) -> None:
        if not self._link.is_up:
            return
        if now - self._heard_at >= self._settings.silence_s:
            self._link.reconnect(f"the controller says nothing for {now - self._heard_at:.1f} s", at_once=False)
            return
        if self._link.is_outdated():
            self._link.reconnect("this broker registered anew")
            return
        if not self._subscription and self._subscribe_at <= now:
            self._subscribe()
        if self._heartbeat_at <= now:
            self._heartbeat_at = now + self._settings.heartbeat_interval_s
            self._heartbeat(now)
        if self._link.is_up:
            next_at = self._heartbeat_at
            self._alarm.at_latest(next_at if self._subscription else min(next_at, self._subscribe_at))

    def _subscribe(self) -> None:
        subscription = self._subscription = self._link.next_correlation()

        def failed(failure: Failure) -> None:
            error = _broker_error(failure)
            if self._subscription == subscription:
                if self._complaint != str(error):
                    self._complaint = str(error)
                    log.info("the controller refuses to be subscribed to: {reason}", reason=str(error))
                self._resubscribe(str(error))

        # Not through _ask: the number must be known before a push can come.
        deferred: Deferred[None] = Deferred()
        deferred.addErrback(failed)
        self._asked[subscription] = _Asked(deferred, _nothing)
        self._link.send(encode_request("SUBSCRIBE", subscription))

    def _resubscribe(self, reason: str) -> None:
        self._unsubscribed(reason)
        self._alarm.at_latest(self._subscribe_at)

    def _heartbeat(self, now: float) -> None:
        age_ms = max(0, round(self._broker.zookeeper_age_s() * 1000))

        def heard(controller_age_s: float) -> None:
            if self.is_subscribed:
                # The answer left at some moment after this request did: so old its news may be by now.
                took_s = self._shell.clock.monotonic() - now
                self._broker.controller_heard(self._deltas.controller_epoch, controller_age_s + took_s)

        def failed(failure: Failure) -> None:
            error = _broker_error(failure)
            if self._subscription and error.error is not ErrorCode.NETWORK_EXCEPTION:
                self._resubscribe(str(error))

        asked = self._ask(
            lambda number: encode_request("HEARTBEAT", number, {"zookeeper_age_ms": age_ms}),
            lambda message: message.integer("zookeeper_age_ms") / 1000,
        )
        asked.addCallback(heard).addErrback(failed)

    def message_received(self, message: Message) -> None:
        self._heard_at = self._shell.clock.monotonic()
        if message.verb == "PUSH":
            if message.correlation == self._subscription and message.arguments:
                self._pushed(message.arguments[0], message)
            return
        request = self._asked.pop(message.correlation, None)
        if request is None:
            return
        if message.verb != "OK":
            request.deferred.errback(decode_error(message))
            return
        try:
            result = request.decode(message)
        except BrokerError as error:
            request.deferred.errback(error)
        else:
            request.deferred.callback(result)

    def _pushed(self, name: str, message: Message) -> None:
        if name in ("SNAPSHOT", "DELTA"):
            try:
                applied = self._deltas.take(decode_delta(message))
            except BrokerError as error:
                log.info("subscribing again: {reason}", reason=str(error))
                self._resubscribe(str(error))
                return
            self.is_subscribed = True
            self._failures = 0
            self._complaint = ""
            self.applied(applied).addErrback(_log_refused, "APPLIED")
        elif name == "UNSUBSCRIBED":
            self._resubscribe(message.values.get("reason", "the controller closed the subscription"))

    def _ask(self, encode: Callable[[int], bytes], decode: Callable[[Message], Result]) -> Deferred[Result]:
        if not self._link.is_up:
            return fail(BrokerError(ErrorCode.NETWORK_EXCEPTION, "there is no connection to the controller"))
        number = self._link.next_correlation()
        deferred: Deferred[Result] = Deferred()
        self._asked[number] = _Asked(deferred, decode)
        self._link.send(encode(number))
        return deferred

    def alter_partition(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
        return self._ask(lambda number: encode_alter_partition(number, request), decode_alter_partition_answer)

    def controlled_shutdown(self) -> Deferred[tuple[TopicPartition, ...]]:
        return self._ask(lambda number: encode_request("SHUTDOWN", number), decode_partition_rows)

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]:
        return self._ask(lambda number: encode_create_topic(number, topic), decode_topic_result)

    def replica_deleted(self, partition: TopicPartition, topic_id: str) -> Deferred[None]:
        return self._ask(lambda number: encode_deleted(number, partition, topic_id), _nothing)

    def log_dir_offline(self, log_dir: str, partitions: Sequence[TopicPartition]) -> Deferred[None]:
        return self._ask(lambda number: encode_offline(number, log_dir, partitions), _nothing)

    def complain(self, word: Word) -> Deferred[None]:
        return self._ask(lambda number: encode_complaints(number, word), _nothing)

    def applied(self, applied: Applied) -> Deferred[None]:
        return self._ask(lambda number: encode_applied(number, applied), _nothing)


def _nothing(message: Message) -> None:
    """The decoder of an answer that only says OK."""


def _broker_error(failure: Failure) -> BrokerError:
    """What a request failed with; anything else goes on as it is."""
    error = failure.value
    if not isinstance(error, BrokerError):
        failure.raiseException()
        raise InvariantViolation("a failure without an exception")
    return error


def _log_refused(failure: Failure, verb: str) -> None:
    log.debug("the controller refuses {verb}: {reason}", verb=verb, reason=str(_broker_error(failure)))
