"""The controller channel, over the line protocol and in memory: subscribing, gaps, requests, heartbeats, losses."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Protocol
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from tests.fakes.replication import FakeLeader, FakeStatus, identity
from tests.fakes.wire import Wire
from zkbroker.model.channel import (
    AlterPartitionRequest,
    AlterPartitionResponse,
    Applied,
    IsrAnswer,
    IsrProposal,
    NewTopic,
    TopicResult,
)
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.complaints import Unreachable, Word
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.replication.channel import ControllerChannel
from zkbroker.replication.channel_server import DeltaRows
from zkbroker.replication.ports import Subscriber
from zkbroker.replication.server import ReplicationServer

DEMO = TopicPartition("demo", 0)
STATE = PartitionState("vX7s", (1, 2), 1, 4, (1, 2), 9, 2)


class FakeController:
    """Fills ControllerPort."""

    def __init__(self) -> None:
        self.epoch = 7
        self.subscribers: list[Subscriber] = []
        self.waiting: list[Deferred[None]] | None = None
        """With a list: subscriptions wait in it."""
        self.refusal: BrokerError | None = None
        self.calls: list[tuple[object, ...]] = []
        self.zookeeper_age = 0.25
        self.pending: list[Deferred[AlterPartitionResponse]] = []

    def delta(self, number: int, **fields: object) -> ClusterDelta:
        return ClusterDelta(1, self.epoch, number, **fields)  # type: ignore[arg-type]

    def subscribe(self, subscriber: Subscriber) -> Deferred[None]:
        if self.refusal is not None:
            return fail(self.refusal)
        if self.waiting is not None:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        self.subscribers.append(subscriber)
        subscriber.push(self.delta(0, is_snapshot=True, partitions=((DEMO, STATE),)))
        return succeed(None)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        if subscriber in self.subscribers:
            self.subscribers.remove(subscriber)

    def push(self, delta: ClusterDelta) -> None:
        for subscriber in list(self.subscribers):
            subscriber.push(delta)

    def applied(self, broker_id: int, broker_epoch: int, applied: Applied) -> None:
        self.calls.append(("applied", broker_id, broker_epoch, applied))

    def replica_deleted(self, broker_id: int, broker_epoch: int, partition: TopicPartition, topic_id: str) -> None:
        self.calls.append(("deleted", broker_id, broker_epoch, partition, topic_id))

    def log_dir_offline(
        self, broker_id: int, broker_epoch: int, log_dir: str, partitions: Sequence[TopicPartition]
    ) -> None:
        self.calls.append(("offline", broker_id, broker_epoch, log_dir, tuple(partitions)))

    def alter_partition(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
        self.calls.append(("alter", request))
        self.pending.append(Deferred())
        return self.pending[-1]

    def controlled_shutdown(self, broker_id: int, broker_epoch: int) -> Deferred[tuple[TopicPartition, ...]]:
        self.calls.append(("shutdown", broker_id, broker_epoch))
        return succeed((DEMO,))

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]:
        self.calls.append(("create", topic))
        return succeed(TopicResult(topic.name, ErrorCode.TOPIC_ALREADY_EXISTS, "it is there"))

    def complained(self, broker_id: int, broker_epoch: int, word: Word) -> None:
        self.calls.append(("complained", broker_id, broker_epoch, word))

    def heartbeat(self, broker_id: int, broker_epoch: int, zookeeper_age_s: float) -> float:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append(("heartbeat", broker_id, broker_epoch, zookeeper_age_s))
        return self.zookeeper_age


class FakeBroker:
    """Fills BrokerPort."""

    def __init__(self) -> None:
        self.deltas: list[ClusterDelta] = []
        self.heard: list[tuple[int, float]] = []
        self.lost: list[str] = []

    def apply_delta(self, delta: ClusterDelta) -> Applied:
        self.deltas.append(delta)
        return Applied(delta.controller_epoch, delta.number, ((DEMO, "no folder"),) if delta.is_snapshot else ())

    def controller_heard(self, controller_epoch: int, zookeeper_age_s: float) -> None:
        self.heard.append((controller_epoch, zookeeper_age_s))

    def channel_lost(self, reason: str) -> None:
        self.lost.append(reason)

    def zookeeper_age_s(self) -> float:
        return 0.5


class Office:
    """A controller on broker 1, and the channel of a broker: 2 over the wire, 1 in memory."""

    def __init__(self, broker_id: int) -> None:
        self.wire = Wire()
        self.controller = FakeController()
        self.in_office: FakeController | None = self.controller
        self.broker = FakeBroker()
        self.identity = identity(broker_id)
        self.server = ReplicationServer(
            reactor=self.wire,
            clock=self.wire,
            identity=lambda: identity(1),
            leader=FakeLeader(),
            controller=lambda: self.in_office,
            status=FakeStatus(),
        )
        self.wire.listen("one", 9, self.server)
        self.channel = ControllerChannel(
            reactor=self.wire,
            clock=self.wire,
            random=random.Random(1),
            identity=lambda: self.identity,
            broker=self.broker,
            local=lambda: self.in_office,
        )
        self.channel.controller_changed(1, "one", 9)

    def run(self, seconds: float = 0.01) -> None:
        self.wire.run(seconds)

    def calls(self, name: str) -> list[tuple[object, ...]]:
        return [call[1:] for call in self.controller.calls if call[0] == name]

    def result(self, deferred: Deferred[object]) -> object:
        """What it fired with; the error of a failure."""
        got: list[object] = []
        deferred.addBoth(got.append)
        self.run()
        (value,) = got
        if isinstance(value, Failure):
            assert isinstance(value.value, BrokerError)
            return value.value.error
        return value

    def resign(self) -> None:
        self.in_office = None
        for subscriber in list(self.controller.subscribers):
            subscriber.close("resigned")
        self.controller.subscribers.clear()


@pytest.fixture(params=[2, 1], ids=["remote", "local"])
def office(request: pytest.FixtureRequest) -> Office:
    return Office(request.param)


@pytest.fixture
def remote() -> Office:
    return Office(2)


def test_the_snapshot_then_deltas_are_applied_and_acknowledged(office: Office) -> None:
    office.run()
    assert office.channel.is_subscribed
    office.controller.push(office.controller.delta(1, removed_brokers=(3,)))
    office.controller.push(office.controller.delta(2, removed_brokers=(4,)))
    office.run()
    assert [delta.number for delta in office.broker.deltas] == [0, 1, 2]
    assert office.broker.deltas[0].partitions == ((DEMO, STATE),)
    who = (office.identity.broker_id, office.identity.broker_epoch)
    assert office.calls("applied") == [
        (*who, Applied(7, 0, ((DEMO, "no folder"),))),
        (*who, Applied(7, 1)),
        (*who, Applied(7, 2)),
    ]


def test_a_gap_subscribes_again(office: Office) -> None:
    office.run()
    office.controller.push(office.controller.delta(2))
    office.run(0.2)
    assert [(delta.number, delta.is_snapshot) for delta in office.broker.deltas] == [(0, True), (0, True)]
    assert len(office.broker.lost) == 1
    assert office.channel.is_subscribed
    office.controller.push(office.controller.delta(1))
    office.run()
    assert office.broker.deltas[-1].number == 1


def test_a_deposed_controller_is_not_obeyed(office: Office) -> None:
    office.run()
    office.controller.epoch = 6
    office.controller.push(office.controller.delta(1))
    office.run(3.0)
    assert [delta.controller_epoch for delta in office.broker.deltas] == [7]
    assert not office.channel.is_subscribed
    office.controller.epoch = 8
    office.run(2.0)
    assert office.broker.deltas[-1].controller_epoch == 8


def test_requests_reach_the_controller_and_answers_come_back(office: Office) -> None:
    office.run()
    who = (office.identity.broker_id, office.identity.broker_epoch)
    assert office.result(office.channel.controlled_shutdown()) == (DEMO,)  # type: ignore[arg-type]
    topic = NewTopic("new", 3)
    result = TopicResult("new", ErrorCode.TOPIC_ALREADY_EXISTS, "it is there")
    assert office.result(office.channel.create_topic(topic)) == result  # type: ignore[arg-type]
    assert office.result(office.channel.replica_deleted(DEMO, "vX7s")) is None  # type: ignore[arg-type]
    assert office.result(office.channel.log_dir_offline("/data/a b", [DEMO])) is None  # type: ignore[arg-type]
    word = Word((Unreachable(3, 103, 2.5),))
    assert office.result(office.channel.complain(word)) is None  # type: ignore[arg-type]
    assert office.calls("complained") == [(*who, word)]
    assert office.calls("shutdown") == [who]
    assert office.calls("create") == [(topic,)]
    assert office.calls("deleted") == [(*who, DEMO, "vX7s")]
    assert office.calls("offline") == [(*who, "/data/a b", (DEMO,))]


def test_isr_changes_are_answered_when_they_are_decided(office: Office) -> None:
    office.run()
    proposal = IsrProposal("demo", 0, "vX7s", 5, 4, 9, ((1, 101), (2, 102)))
    request = AlterPartitionRequest(office.identity.broker_id, office.identity.broker_epoch, (proposal,))
    answered: list[AlterPartitionResponse] = []
    office.channel.alter_partition(request).addCallback(answered.append)
    office.run(0.5)
    assert office.calls("alter") == [(request,)]
    assert answered == []
    response = AlterPartitionResponse(ErrorCode.NONE, (IsrAnswer("demo", 0, "vX7s", 5, ErrorCode.NONE, STATE),))
    office.controller.pending[0].callback(response)
    office.run()
    assert answered == [response]


def test_heartbeats_carry_both_ages(office: Office) -> None:
    office.run(3.5)
    beats = office.calls("heartbeat")
    assert 3 <= len(beats) <= 4
    assert beats[-1] == (office.identity.broker_id, office.identity.broker_epoch, 0.5)
    epoch, age_s = office.broker.heard[-1]
    assert epoch == 7
    assert 0.25 <= age_s < 0.27


def test_resigning_ends_the_subscription_until_somebody_is_in_office(office: Office) -> None:
    office.run()
    office.resign()
    office.run(0.5)
    assert office.broker.lost == ["resigned"]
    assert not office.channel.is_subscribed
    assert office.result(office.channel.controlled_shutdown()) is ErrorCode.NOT_CONTROLLER  # type: ignore[arg-type]
    office.in_office = office.controller
    office.run(1.5)
    assert office.channel.is_subscribed


def test_a_refused_subscription_is_tried_again(office: Office) -> None:
    office.controller.refusal = BrokerError(ErrorCode.STALE_BROKER_EPOCH, "not in the image")
    office.run(2.0)
    assert office.broker.deltas == []
    office.controller.refusal = None
    office.run(1.5)
    assert office.channel.is_subscribed


def test_a_refusal_that_repeats_is_logged_once(remote: Office) -> None:
    with capturedLogs() as events:
        remote.controller.refusal = BrokerError(ErrorCode.NOT_CONTROLLER, "not in office")
        remote.run(10.0)
        remote.controller.refusal = BrokerError(ErrorCode.STALE_BROKER_EPOCH, "not in the image")
        remote.run(10.0)
    reasons = [event["reason"] for event in events if "refuses to be subscribed" in event["log_format"]]
    assert reasons == ["not in office", "not in the image"]


def test_a_subscription_may_wait_for_the_image(office: Office) -> None:
    office.controller.waiting = []
    office.run(2.0)
    assert len(office.controller.waiting) == 1
    assert not office.channel.is_subscribed


def test_no_controller_no_channel(office: Office) -> None:
    office.run()
    office.channel.controller_lost()
    office.run()
    assert office.broker.lost == ["there is no controller"]
    assert office.controller.subscribers == []
    assert office.result(office.channel.controlled_shutdown()) is ErrorCode.NOT_CONTROLLER  # type: ignore[arg-type]
    office.controller.push(office.controller.delta(1))
    office.run(2.0)
    assert len(office.broker.deltas) == 1


def test_a_new_identity_subscribes_anew(office: Office) -> None:
    office.run()
    office.identity = office.identity._replace(broker_epoch=999)
    office.channel.identity_changed()
    office.run(0.1)
    assert [subscriber.broker_epoch for subscriber in office.controller.subscribers] == [999]
    assert office.channel.is_subscribed


def test_stopping_leaves_no_timer(office: Office) -> None:
    office.run()
    office.channel.stop()
    office.run(0.1)
    assert office.controller.subscribers == []
    office.server.stop()
    assert office.wire.getDelayedCalls() == []


def test_a_lost_connection_unsubscribes_fails_what_was_asked_and_comes_back(remote: Office) -> None:
    remote.run()
    asked = remote.channel.alter_partition(AlterPartitionRequest(2, 102, ()))
    remote.run()
    remote.wire.transports[-1].abortConnection()
    assert remote.result(asked) is ErrorCode.NETWORK_EXCEPTION  # type: ignore[arg-type]
    assert remote.controller.subscribers == []
    assert len(remote.broker.lost) == 1
    remote.run(1.0)
    assert remote.channel.is_subscribed
    remote.controller.pending[0].callback(AlterPartitionResponse(ErrorCode.NONE))  # nobody waits: nothing happens
    remote.run()


def test_without_a_connection_requests_fail_at_once(remote: Office) -> None:
    remote.wire.is_refusing = True
    remote.run(0.5)
    assert remote.result(remote.channel.controlled_shutdown()) is ErrorCode.NETWORK_EXCEPTION  # type: ignore[arg-type]


def test_a_silent_controller_is_called_anew(remote: Office) -> None:
    remote.run()
    stuck = remote.wire.transports[-2]
    stuck.reads = False
    remote.run(5.0)
    assert stuck.is_lost
    assert remote.broker.lost[0].startswith("the controller says nothing")
    remote.run(1.0)
    assert remote.channel.is_subscribed


def test_a_subscriber_that_does_not_read_is_dropped(remote: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zkbroker.replication.connection.PUSH_BACKLOG_BYTES_MAX", 100_000)
    remote.run()
    remote.wire.transports[-2].reads = False
    big = tuple((TopicPartition("big", number), STATE) for number in range(500))
    for number in range(1, 10):
        remote.controller.push(remote.controller.delta(number, partitions=big))
    remote.run(1.5)
    assert len(remote.broker.lost) == 1
    assert remote.channel.is_subscribed
    assert remote.broker.deltas[-1].is_snapshot


def test_a_broker_speaks_only_for_itself(remote: Office) -> None:
    remote.run()
    asked = remote.channel.alter_partition(AlterPartitionRequest(3, 103, ()))
    assert remote.result(asked) is ErrorCode.INVALID_REQUEST  # type: ignore[arg-type]


def test_too_many_unanswered_requests_close_the_connection(remote: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zkbroker.replication.channel_server.REQUESTS_IN_FLIGHT_MAX", 3)
    remote.run()
    asked = [remote.channel.alter_partition(AlterPartitionRequest(2, 102, ())) for _ in range(4)]
    assert remote.result(asked[0]) is ErrorCode.NETWORK_EXCEPTION  # type: ignore[arg-type]
    for deferred in asked[1:]:
        deferred.addErrback(lambda failure: None)
    assert len(remote.broker.lost) == 1


def test_a_controller_that_moves_is_followed(remote: Office) -> None:
    remote.run()
    successor = FakeController()
    successor.epoch = 8
    server = ReplicationServer(
        reactor=remote.wire,
        clock=remote.wire,
        identity=lambda: identity(3),
        leader=FakeLeader(),
        controller=lambda: successor,
        status=FakeStatus(),
    )
    remote.wire.listen("three", 9, server)
    remote.channel.controller_changed(3, "three", 9)
    remote.run()
    assert remote.broker.lost == ["the controller changed"]
    assert remote.broker.deltas[-1].controller_epoch == 8
    assert remote.controller.subscribers == []


def test_an_exception_in_the_controller_is_an_error_for_the_broker(remote: Office) -> None:
    remote.run()
    asked = remote.channel.alter_partition(AlterPartitionRequest(2, 102, ()))
    remote.run()
    remote.controller.pending[0].errback(RuntimeError("poisoned"))
    assert remote.result(asked) is ErrorCode.UNKNOWN_SERVER_ERROR  # type: ignore[arg-type]


def test_garbage_for_the_channel_is_refused() -> None:
    office = Office(2)
    office.run()
    got: list[bytes] = []

    class Garbler(Protocol):
        def dataReceived(self, data: bytes) -> None:
            got.append(data)

    connection = office.server.buildProtocol(None)
    assert connection is not None
    end = office.wire.join(Garbler(), connection)
    end.write(b"HELLO 1 version=1 cluster=cluster broker=4 epoch=104\n")
    end.write(b"APPLIED 2 number=x\nALTER_PARTITION 3 broker=4 epoch=1 body=8\ndemo 0 \nHEARTBEAT 4\nCREATE_TOPIC 5\n")
    office.run()
    answers = b"".join(got).split(b"\n")
    assert [answer.split(b" ")[:3] for answer in answers[1:5]] == [
        [b"ERR", b"%d" % number, b"INVALID_REQUEST"] for number in (2, 3, 4, 5)
    ]


def test_a_delta_is_encoded_once_for_all_its_subscribers() -> None:
    rows = DeltaRows()
    delta = ClusterDelta(1, 7, 3, partitions=((DEMO, STATE),))
    encoded = rows.encode(delta)
    assert rows.encode(delta._replace(number=9)) is encoded
    assert rows.encode(delta._replace(removed_brokers=(4,))) == b"GONE 4\n" + encoded
