"""A broker of one process in memory, filling ``kafka/ports.py`` for tests. ``python -m tests.fakes.broker`` serves it.

It keeps record batches as they come (offsets and epochs stamped into their headers) and creates topics at once.
Fetches and appends can be held back (``hold_fetches``, ``hold_produces``) to look at order and limits.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from twisted.internet import defer

from tests.fakes.consuming import FakeCall, FakeConsumeSession, FakeRepeated
from tests.fakes.partition_log import FakeLog
from tests.fakes.settings import FakeSettings
from zkbroker.kafka.ports import (
    BrokerView,
    ConfigDescription,
    ConfigEntry,
    ConsumedRow,
    ConsumeOptions,
    ConsumeRow,
    CurrentLeader,
    DeletedRow,
    DeleteRow,
    EpochAnswer,
    EpochRow,
    ListenerLimits,
    OffsetAnswer,
    OffsetRow,
    PartitionsToAdd,
    ProducedRow,
    ProduceRow,
    TopicToDelete,
    TopicView,
)
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.limits import PARTITIONS_CREATED_MAX
from zkbroker.model.reassignments import DONE, ElectionKind, OngoingMove, PartitionOutcome
from zkbroker.model.topics import PartitionState, TopicPartition, topic_id_from_uuid, topic_name_error

TOPIC_ENTRIES = (
    ConfigEntry(
        "retention.ms", "604800000", False, True, 5, False, (("log.retention.ms", "604800000", 5),), 5, "How long."
    ),
    ConfigEntry("cleanup.policy", "delete", False, True, 5, False, (), 7),
)

LIMITS = ListenerLimits(
    socket_request_max_bytes=104_857_600,
    queued_max_request_bytes=268_435_456,
    connections_max_idle_ms=600_000,
    max_connections=1000,
    fetch_max_bytes=57_671_680,
    request_timeout_ms=30_000,
    auto_create_topics=True,
)


class FakeBroker:
    """DataPort, MetadataPort, AdminPort and ProducerIdPort of one broker, number 1, controller of itself."""

    def __init__(self, host: str = "127.0.0.1", port: int = 9092, reactor: object = None) -> None:
        self.cluster_id = "fake-cluster-0123456789"
        self.broker_id = 1
        self.controller_id = 1
        self.doubted: set[int] = set()
        self.version = 1
        self.is_ready = True
        self.views = {"PLAINTEXT": [BrokerView(1, host, port, None)]}
        self.by_name: dict[str, TopicView] = {}
        self.logs: dict[tuple[str, int], FakeLog] = {}
        self.reactor = reactor
        self.hold_fetches = False
        self.hold_produces = False
        self.held: list[FakeCall] = []
        self.waiting: dict[FakeCall, None] = {}
        self.next_producer_id = 1000
        self.raises: BaseException | None = None
        self.elsewhere: dict[str, CurrentLeader] = {}
        """Topics led by another broker."""
        self.admin_error: ErrorCode | None = None
        self.settings = FakeSettings()
        self.outcomes: dict[TopicPartition, PartitionOutcome] = {}
        """What is answered for a partition instead of DONE."""
        self.asked_moves: dict[TopicPartition, tuple[int, ...] | None] = {}
        self.moves: list[OngoingMove] = []
        self.asked_election: ElectionKind | None = None
        self.deleted: list[TopicToDelete] = []
        """What the last request to delete topics asked for."""
        self.produced: list[ProduceRow] = []
        self.repeated: FakeRepeated | None = None
        """The last one opened."""
        self.deletions: list[tuple[int, list[DeleteRow]]] = []
        """Requests to delete records: timeout, rows."""

    # topics

    def add_topic(self, name: str, partitions: int = 1, is_internal: bool = False) -> TopicView:
        topic_id = topic_id_from_uuid(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        states = {p: PartitionState(topic_id, (1,), 1, 0, (1,), 0, 1) for p in range(partitions)}
        self.by_name[name] = TopicView(name, topic_id, is_internal, states)
        for partition in range(partitions):
            self.logs.setdefault((name, partition), FakeLog())
        self.version += 1
        return self.by_name[name]

    # MetadataPort

    def named_brokers(self, listener: str) -> list[BrokerView]:
        return self.brokers(listener)

    def brokers(self, listener: str) -> list[BrokerView]:
        return self.views.get(listener, [])

    def topic(self, name: str) -> TopicView | None:
        return self.by_name.get(name)

    def topic_name(self, topic_id: str) -> str | None:
        return next((view.name for view in self.by_name.values() if view.topic_id == topic_id), None)

    def topics(self) -> list[TopicView]:
        return [self.by_name[name] for name in sorted(self.by_name)]

    def is_doubted(self, broker_id: int) -> bool:
        return broker_id in self.doubted

    def when_sure(self, answer: Callable[[], None]) -> None:
        answer()

    def has_listener(self, broker_id: int, listener: str) -> bool:
        return any(view.broker_id == broker_id for view in self.brokers(listener))

    # DataPort

    def _hold(self, run: Callable[[], None]) -> FakeCall:
        call = FakeCall(run)
        self.held.append(call)
        return call

    def release(self, position: int = 0) -> None:
        """Let one held call go on, as the port would: not when it was cancelled."""
        call = self.held.pop(position)
        if not call.is_cancelled:
            call.run()

    def _leads(self, topic: str, partition: int) -> tuple[ErrorCode, CurrentLeader | None]:
        if topic in self.elsewhere:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER, self.elsewhere[topic]
        if (topic, partition) not in self.logs:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None
        return ErrorCode.NONE, None

    def produce(
        self,
        acks: int,
        timeout_ms: int,
        transactional_id: str | None,
        rows: Sequence[ProduceRow],
        done: Callable[[list[ProducedRow]], None],
    ) -> FakeCall | None:
        if self.raises is not None:
            raise self.raises
        answers = [self._append(row) for row in rows]
        self._wake()
        if self.hold_produces:
            return self._hold(lambda: done(answers))
        done(answers)
        return None

    def _append(self, row: ProduceRow) -> ProducedRow:
        self.produced.append(row)
        error, leader = self._leads(row.topic, row.partition)
        if error:
            return ProducedRow(row.topic, row.partition, error, current_leader=leader)
        try:
            base = self.logs[row.topic, row.partition].append(row.records or b"")
        except BrokerError as failure:
            return ProducedRow(row.topic, row.partition, failure.error, message=str(failure))
        return ProducedRow(row.topic, row.partition, ErrorCode.NONE, base, -1, 0)

    def consume(
        self, options: ConsumeOptions, rows: Sequence[ConsumeRow], done: Callable[[list[ConsumedRow]], None]
    ) -> FakeCall | None:
        if self.raises is not None:
            raise self.raises
        if self.hold_fetches:
            return self._hold(lambda: done(self._read(options, rows)))
        answers = self._read(options, rows)
        size = sum(len(chunk) for row in answers for chunk in row.records)
        if size >= options.min_bytes or any(row.error for row in answers) or self.reactor is None:
            done(answers)
            return None

        def finish() -> None:
            if call in self.waiting:
                del self.waiting[call]
                if not call.is_cancelled:
                    done(self._read(options, rows))

        call = FakeCall(finish)
        self.waiting[call] = None
        self.reactor.callLater(options.max_wait_ms / 1000, finish)  # type: ignore[attr-defined]
        return call

    def open_repeated(self, rows: Sequence[ConsumeRow]) -> FakeRepeated:
        self.repeated = FakeRepeated(self, rows)
        return self.repeated

    def open_session(self) -> FakeConsumeSession:
        return FakeConsumeSession(self)

    def _wake(self) -> None:
        for call in list(self.waiting):
            call.run()

    def _read(self, options: ConsumeOptions, rows: Sequence[ConsumeRow]) -> list[ConsumedRow]:
        answers = []
        left = options.max_bytes
        for row in rows:
            error, leader = self._leads(row.topic, row.partition)
            if error:
                answers.append(ConsumedRow(row.topic, row.partition, error, current_leader=leader))
                continue
            log = self.logs[row.topic, row.partition]
            if not 0 <= row.offset <= log.end:
                answers.append(ConsumedRow(row.topic, row.partition, ErrorCode.OFFSET_OUT_OF_RANGE))
                continue
            chunks = log.read(row.offset, min(left, row.max_bytes)) if left > 0 else []
            left -= sum(map(len, chunks))
            answers.append(ConsumedRow(row.topic, row.partition, ErrorCode.NONE, log.end, log.end, 0, None, chunks))
        return answers

    def list_offsets(
        self, read_committed: bool, rows: Sequence[OffsetRow], done: Callable[[list[OffsetAnswer]], None]
    ) -> None:
        done([self._offset(row) for row in rows])

    def _offset(self, row: OffsetRow) -> OffsetAnswer:
        error, _ = self._leads(row.topic, row.partition)
        if error:
            return OffsetAnswer(row.topic, row.partition, error)
        log = self.logs[row.topic, row.partition]
        none = ErrorCode.NONE
        if row.timestamp_ms == -1:
            return OffsetAnswer(row.topic, row.partition, none, -1, log.end, 0)
        if row.timestamp_ms in (-2, -4):
            return OffsetAnswer(row.topic, row.partition, none, -1, 0, 0)
        if row.timestamp_ms == -3 and log.batches:
            last = max(log.batches, key=lambda batch: batch[2])
            return OffsetAnswer(row.topic, row.partition, none, last[2], last[1] - 1, 0)
        for base, _, timestamp, _ in log.batches:
            if row.timestamp_ms >= 0 and timestamp >= row.timestamp_ms:
                return OffsetAnswer(row.topic, row.partition, none, timestamp, base, 0)
        return OffsetAnswer(row.topic, row.partition, none)

    def delete_records(
        self, timeout_ms: int, rows: Sequence[DeleteRow], done: Callable[[list[DeletedRow]], None]
    ) -> None:
        self.deletions.append((timeout_ms, list(rows)))
        answers = []
        for row in rows:
            error, _ = self._leads(row.topic, row.partition)
            low = -1 if error else self.logs[row.topic, row.partition].end if row.offset < 0 else row.offset
            answers.append(DeletedRow(row.topic, row.partition, error, low))
        done(answers)

    def offsets_for_leader_epochs(self, rows: Sequence[EpochRow]) -> list[EpochAnswer]:
        answers = []
        for row in rows:
            error, _ = self._leads(row.topic, row.partition)
            end = -1 if error or row.leader_epoch else self.logs[row.topic, row.partition].end
            answers.append(EpochAnswer(row.topic, row.partition, error, 0 if end >= 0 else -1, end))
        return answers

    # AdminPort

    def create_topics(
        self, topics: Sequence[NewTopic], timeout_ms: int, validate_only: bool
    ) -> defer.Deferred[list[TopicResult]]:
        if self.admin_error is not None:
            return defer.fail(BrokerError(self.admin_error))
        return defer.succeed([self._create(topic, validate_only) for topic in topics])

    def _create(self, topic: NewTopic, validate_only: bool) -> TopicResult:
        if topic_name_error(topic.name):
            return TopicResult(topic.name, ErrorCode.INVALID_TOPIC_EXCEPTION, topic_name_error(topic.name))
        if topic.name in self.by_name:
            return TopicResult(topic.name, ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {topic.name!r} already exists")
        count = len(topic.assignment) or (1 if topic.partitions == -1 else topic.partitions)
        if not 0 < count <= PARTITIONS_CREATED_MAX:
            return TopicResult(topic.name, ErrorCode.INVALID_PARTITIONS, "so many are not to be had")
        if validate_only:
            return TopicResult(topic.name, ErrorCode.NONE, None, "", count, 1)
        view = self.add_topic(topic.name, count)
        return TopicResult(topic.name, ErrorCode.NONE, None, view.topic_id, count, 1)

    def delete_topics(self, topics: Sequence[TopicToDelete], timeout_ms: int) -> defer.Deferred[list[TopicResult]]:
        if self.admin_error is not None:
            return defer.fail(BrokerError(self.admin_error))
        self.deleted = list(topics)
        results = []
        for topic in topics:
            name = topic.name or ""
            view = self.by_name.pop(name, None)
            error = ErrorCode.NONE if view else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            for partition in view.partitions if view else ():
                del self.logs[name, partition]
            results.append(TopicResult(name, error))
        self.version += 1
        return defer.succeed(results)

    def create_partitions(
        self, topics: Sequence[PartitionsToAdd], timeout_ms: int, validate_only: bool
    ) -> defer.Deferred[list[TopicResult]]:
        if self.admin_error is not None:
            return defer.fail(BrokerError(self.admin_error))
        results = []
        for topic in topics:
            view = self.by_name.get(topic.name)
            if view is None:
                results.append(TopicResult(topic.name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
            elif not len(view.partitions) < topic.total <= PARTITIONS_CREATED_MAX:
                results.append(
                    TopicResult(topic.name, ErrorCode.INVALID_PARTITIONS, "not more than there are, or too many")
                )
            else:
                if not validate_only:
                    self.add_topic(topic.name, topic.total)
                results.append(TopicResult(topic.name, ErrorCode.NONE))
        return defer.succeed(results)

    def alter_reassignments(
        self, wanted: Mapping[TopicPartition, tuple[int, ...] | None], timeout_ms: int
    ) -> defer.Deferred[Mapping[TopicPartition, PartitionOutcome]]:
        if self.admin_error is not None:
            return defer.fail(BrokerError(self.admin_error))
        self.asked_moves = dict(wanted)
        return defer.succeed({partition: self.outcomes.get(partition, DONE) for partition in wanted})

    def list_reassignments(
        self, partitions: Sequence[TopicPartition] | None, timeout_ms: int
    ) -> defer.Deferred[list[OngoingMove]]:
        if self.admin_error is not None:
            return defer.fail(BrokerError(self.admin_error))
        return defer.succeed([move for move in self.moves if partitions is None or move.partition in partitions])

    def elect_leaders(
        self, kind: ElectionKind, partitions: Sequence[TopicPartition] | None, timeout_ms: int
    ) -> defer.Deferred[Mapping[TopicPartition, PartitionOutcome]]:
        if self.admin_error is not None:
            return defer.fail(BrokerError(self.admin_error))
        self.asked_election = kind
        return defer.succeed({p: self.outcomes.get(p, DONE) for p in (partitions or [TopicPartition("t", 0)])})

    def auto_create_topic(self, name: str) -> bool:
        self.add_topic(name)
        return True

    def new_topic_config(self, overrides: Mapping[str, str]) -> list[ConfigEntry]:
        return [
            entry._replace(value=overrides[entry.name], source=1) if entry.name in overrides else entry
            for entry in TOPIC_ENTRIES
        ]

    def describe_topic_config(self, name: str) -> ConfigDescription:
        if name not in self.by_name:
            return ConfigDescription(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"no topic {name!r}")
        return ConfigDescription(ErrorCode.NONE, None, TOPIC_ENTRIES)

    def describe_broker_config(self, name: str) -> ConfigDescription:
        password = ConfigEntry("ssl.key.password", "secret", True, False, 4, True, (), 9)
        port = ConfigEntry("num.partitions", "1", True, True, 5, False, (), 3)
        return ConfigDescription(ErrorCode.NONE, None, (password, port) if name else ())

    # ProducerIdPort

    def init_producer_id(
        self, transactional_id: str | None, producer_id: int, producer_epoch: int
    ) -> defer.Deferred[tuple[int, int]]:
        if transactional_id is not None:
            return defer.fail(BrokerError(ErrorCode.COORDINATOR_NOT_AVAILABLE))
        if producer_id >= 0:
            return defer.succeed((producer_id, producer_epoch + 1))
        self.next_producer_id += 1
        return defer.succeed((self.next_producer_id, 0))


class MonotonicClock:
    """Clock of a test: the reactor's own seconds."""

    def __init__(self, reactor: object) -> None:
        self.reactor = reactor

    def monotonic(self) -> float:
        return float(self.reactor.seconds())  # type: ignore[attr-defined]

    def wall_ms(self) -> int:
        return int(self.monotonic() * 1000)


def serve(port: int) -> None:
    """Listen on 127.0.0.1 until interrupted."""
    import sys

    from twisted.internet import reactor
    from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

    from tests.fakes.groups import FakeGroups
    from zkbroker.kafka.listener import KafkaFactory, preload_hot

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    broker = FakeBroker("127.0.0.1", port, reactor)
    groups = FakeGroups()
    factory = KafkaFactory(
        listener_name="PLAINTEXT",
        data=broker,
        metadata=broker,
        admin=broker,
        producer_ids=broker,
        groups=groups,
        coordinators=groups,
        limits=LIMITS,
        clock=MonotonicClock(reactor),
        reactor=reactor,
        log=Logger("zkbroker.kafka"),
        fatal=lambda where, error: print("FATAL", where, error),
    )
    reactor.listenTCP(port, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
    reactor.callLater(0, preload_hot)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    import sys

    serve(int(sys.argv[1]) if len(sys.argv) > 1 else 19092)
