"""Brokers' Replicas on real logs in a temporary folder, joined in memory: no sockets, one task.Clock for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.task import Clock as TaskClock

from zkbroker.broker.replicas import Replicas, ReplicaSettings
from zkbroker.kafka.ports import ConsumedRow, ConsumeOptions, ConsumeRow, CurrentLeader, ProducedRow, ProduceRow
from zkbroker.log.dirs import LogDirs
from zkbroker.log.disk import Disk
from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, FollowerContact, IsrAnswer
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.records.record import Record, build_batch
from zkbroker.replication.ports import FetchRow

PARTITION = TopicPartition("t", 0)
TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"


def batch(*values: bytes, timestamp_ms: int = 1_000, **fields: Any) -> bytes:
    """A producer's batch with one record per value."""
    records = [Record(index, timestamp_ms, None, value) for index, value in enumerate(values)]
    return build_batch(records, **fields)


class TestTime:
    """Both clocks, driven by the task.Clock."""

    __test__ = False

    def __init__(self, reactor: TaskClock) -> None:
        self._reactor = reactor

    def monotonic(self) -> float:
        return 1_000.0 + self._reactor.seconds()

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self._reactor.seconds() * 1000)


class Session:
    """A follower's session at a leader for one partition: what ``replication/`` does over the wire."""

    def __init__(self, network: Network, follower: int, leader: int) -> None:
        self.network = network
        self.follower = follower
        self.leader = leader
        self.contact = FollowerContact(follower, network.epochs[follower], network.time.monotonic())
        self.row: FetchRow | None = None

    def partition_changed(self, partition: TopicPartition) -> None:
        self.network.reactor.callLater(0, self.look)

    def ask(self) -> None:
        network = self.network
        replicas, leader = network.replicas[self.follower], network.replicas[self.leader]
        if network.is_cut(self.follower, self.leader):
            return
        row = replicas.fetch_row(PARTITION)
        if row is None or row == self.row:
            return
        self.row = row
        # Nothing is under way for long here: what arrives was sent now.
        self.contact.last_fetch_at = self.contact.proven_at = network.time.monotonic()
        answer = leader.follower_fetched(self.contact, row, self)
        if answer is not None:
            self.deliver(answer)
        else:
            self.look()

    def look(self) -> None:
        network = self.network
        if self.row is None or network.is_cut(self.follower, self.leader):
            return
        answer = network.replicas[self.leader].read_for_follower(self.contact, self.row, 1_000_000)
        if answer is not None:
            self.deliver(answer)

    def deliver(self, answer: Any) -> None:
        row = self.row
        if row is None:
            return
        if answer.records or answer.diverging_epoch >= 0 or answer.error is not ErrorCode.NONE:
            self.row = None
        self.network.replicas[self.follower].fetched(row, answer)

    def close(self) -> None:
        self.row = None
        self.network.replicas[self.leader].forget(self, PARTITION)


class Fetchers:
    """Fills FetcherPort for one broker."""

    def __init__(self, network: Network, broker_id: int) -> None:
        self.network = network
        self.broker_id = broker_id
        self.session: Session | None = None

    def follow(self, partition: TopicPartition, leader: int) -> None:
        self.unfollow(partition)
        self.session = Session(self.network, self.broker_id, leader)
        self.network.reactor.callLater(0, self.session.ask)

    def unfollow(self, partition: TopicPartition) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close()

    def position_changed(self, partition: TopicPartition) -> None:
        if self.session is not None:
            self.network.reactor.callLater(0, self.session.ask)

    def set_address(self, broker_id: int, broker_epoch: int, host: str, port: int) -> None: ...

    def remove_address(self, broker_id: int) -> None: ...


class Network:
    """The brokers, a controller that grants what it is asked, and switches for what goes wrong."""

    def __init__(self, folder: Path, *broker_ids: int, **settings: Any) -> None:
        self.folder = folder
        self.reactor = TaskClock()
        self.time = TestTime(self.reactor)
        self.epochs = {broker_id: 100 + broker_id for broker_id in broker_ids}
        self.live = set(broker_ids)
        self.cut: set[int] = set()
        self.contact_age = 0.0
        self.config = TopicConfig()
        self.settings = ReplicaSettings(**settings)
        self.known: dict[TopicPartition, CurrentLeader] = {}
        self.fatal: list[tuple[str, BaseException]] = []
        self.reports: list[str] = []
        self.requests: list[AlterPartitionRequest] = []
        self.controller: Callable[[AlterPartitionRequest], Deferred[AlterPartitionResponse]] = self.no_controller
        self.replicas: dict[int, Replicas] = {}
        self.fetchers: dict[int, Fetchers] = {}
        self.logs: dict[int, LogDirs] = {}
        self.state: PartitionState | None = None
        for broker_id in broker_ids:
            self.start(broker_id)

    def start(self, broker_id: int) -> Replicas:
        replicas: Replicas | None = None

        def dir_failed(folder: str, reason: str, partitions: list[TopicPartition]) -> None:
            if replicas is not None:
                replicas.dir_failed(folder, reason, partitions)

        logs = LogDirs(
            disk=Disk(),
            clock=self.time,
            reactor=self.reactor,
            run_in_thread=execute,
            log_dirs=[str(self.folder / f"broker-{broker_id}")],
            broker_id=broker_id,
            topic_config=lambda _: self.config,
            dir_failed=dir_failed,
            boot_id="boot",
        )
        logs.open("cluster")
        logs.losses.add(())  # no log is missing
        replicas = Replicas(
            broker_id=broker_id,
            reactor=self.reactor,
            clock=self.time,
            logs=logs,
            settings=self.settings,
            broker_epoch=lambda: self.epochs[broker_id],
            live_broker_epoch=lambda other: self.epochs[other] if other in self.live else None,
            topic_config=lambda _: self.config,
            metadata_leader=self.known.get,
            contact_age=lambda: self.contact_age,
            fatal=lambda event, error: self.fatal.append((event, error)),
            report=self.reports.append,
        )
        self.logs[broker_id] = logs
        self.replicas[broker_id] = replicas
        self.fetchers[broker_id] = Fetchers(self, broker_id)
        replicas.fetchers = self.fetchers[broker_id]
        replicas.controller = self.alter
        return replicas

    def crash(self, broker_id: int) -> None:
        """The process is gone, what it wrote stays."""
        self.fetchers[broker_id].unfollow(PARTITION)
        self.replicas[broker_id].stop()
        self.logs[broker_id].abandon()

    def alter(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
        self.requests.append(request)
        return self.controller(request)

    def no_controller(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
        return fail(BrokerError(ErrorCode.NOT_CONTROLLER))

    def grant(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
        """Write what is proposed and say so, as the controller would."""
        assert self.state is not None
        (proposal,) = request.proposals
        isr = tuple(member for member, _ in proposal.isr)
        self.state = self.state._replace(isr=isr, partition_epoch=self.state.partition_epoch + 1)
        answer = IsrAnswer(
            proposal.topic, proposal.partition, proposal.topic_id, proposal.proposal_id, ErrorCode.NONE, self.state
        )
        return execute(AlterPartitionResponse, ErrorCode.NONE, (answer,))

    def refuse(self, error: ErrorCode) -> Callable[[AlterPartitionRequest], Deferred[AlterPartitionResponse]]:
        def answer(request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
            answers = tuple(
                IsrAnswer(proposal.topic, proposal.partition, proposal.topic_id, proposal.proposal_id, error)
                for proposal in request.proposals
            )
            return execute(AlterPartitionResponse, ErrorCode.NONE, answers)

        return answer

    def is_cut(self, one: int, other: int) -> bool:
        return one in self.cut or other in self.cut

    def elect(
        self, leader: int, epoch: int, isr: tuple[int, ...] | None = None, to: tuple[int, ...] | None = None
    ) -> None:
        """Tell ``to`` (all) that ``leader`` leads in ``epoch``."""
        replicas = tuple(sorted(self.replicas))
        version = 0 if self.state is None else self.state.partition_epoch + 1
        self.state = PartitionState(TOPIC_ID, replicas, leader, epoch, isr or replicas, version, 1)
        for broker_id in to or replicas:
            assert self.replicas[broker_id].apply(PARTITION, self.state) is None

    def run(self, seconds: float = 0.1) -> None:
        """Let everything happen that is due within so much time."""
        steps = max(1, int(seconds / 0.01))
        for _ in range(steps):
            self.reactor.advance(seconds / steps)

    def end(self, broker_id: int) -> int:
        return self.logs[broker_id].logs[PARTITION].log_end_offset

    def mark(self, broker_id: int) -> int:
        return self.replicas[broker_id].high_watermarks()[PARTITION]

    def produce(self, broker_id: int, records: bytes, acks: int = -1, timeout_ms: int = 30_000) -> list[ProducedRow]:
        """The answers come into the returned list, at once or later."""
        answers: list[ProducedRow] = []
        row = ProduceRow(PARTITION.topic, PARTITION.partition, records)
        self.replicas[broker_id].produce(acks, timeout_ms, None, [row], answers.extend)
        return answers

    def consume(
        self, broker_id: int, offset: int, *, max_wait_ms: int = 0, min_bytes: int = 1, epoch: int = -1
    ) -> list[ConsumedRow]:
        answers: list[ConsumedRow] = []
        row = ConsumeRow(PARTITION.topic, PARTITION.partition, offset, 1_000_000, epoch)
        options = ConsumeOptions(max_wait_ms, min_bytes, 10_000_000)
        self.replicas[broker_id].consume(options, [row], answers.extend)
        return answers

    def close(self) -> None:
        for broker_id, replicas in self.replicas.items():
            replicas.stop()
            self.logs[broker_id].abandon()


@contextmanager
def clusters(folder: Path) -> Iterator[Callable[..., Network]]:
    """Makes networks; at the end they are closed, and no invariant must have been broken."""
    made: list[Network] = []

    def make(*broker_ids: int, **settings: Any) -> Network:
        network = Network(folder, *broker_ids, **settings)
        made.append(network)
        return network

    yield make
    for network in made:
        network.close()
        assert network.fatal == []
