"""How a broker finds which replicas are missing, and how it learns that nothing counts on what was lost."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, succeed

from tests.harness.zookeeper_worlds import FakeWorld, connect, wait
from zkbroker.broker.losses import LOOK_S, RETRY_S, UnsettledLosses, find_missing
from zkbroker.model.cluster import ALL_LOSSY, BrokerRegistration, ClusterDelta, DeletedReplica, Endpoint, LossyReplica
from zkbroker.model.lossy import lossy_from_json, lossy_to_json
from zkbroker.model.topics import NO_LEADER, PartitionState, TopicPartition
from zkbroker.zookeeper.client import Create, SetData
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import controller as controller_znode
from zkbroker.zookeeper.znodes import states, topics

ID = "vX7sTBNpQpmL0ZpGhB2cYw"
OTHER_ID = "aX7sTBNpQpmL0ZpGhB2cYw"
T0 = TopicPartition("t", 0)
LOST = LossyReplica("t", 0, ID, 3, 17)


class FakeLosses:
    def __init__(self, *lossy: LossyReplica) -> None:
        self.replicas = {TopicPartition(one.topic, one.partition): one for one in lossy}
        self.forgotten: list[TopicPartition] = []
        self.never_made: set[TopicPartition] = set()

    def forget(self, partitions: tuple[TopicPartition, ...]) -> Deferred[None]:
        for partition in partitions:
            del self.replicas[partition]
            self.forgotten.append(partition)
        return succeed(None)

    def was_never_made(self, partition: TopicPartition, topic_id: str) -> bool:
        assert topic_id in (ID, OTHER_ID)
        return partition in self.never_made


class FakeLog:
    def __init__(self, topic_id: str) -> None:
        self.topic_id = topic_id


class FakeLogs:
    def __init__(self, **logs: str) -> None:
        self.losses = FakeLosses()
        self.offline_partitions: dict[TopicPartition, str] = {}
        self._logs = {name: FakeLog(topic_id) for name, topic_id in logs.items()}

    def get(self, partition: TopicPartition) -> FakeLog | None:
        return self._logs.get(f"{partition.topic}_{partition.partition}")


def state_with(
    leader: int = 2, isr: tuple[int, ...] = (2,), elr: tuple[int, ...] = (), *, recovering: bool = False
) -> PartitionState:
    return PartitionState(ID, (1, 2, 3), leader, 4, isr, 6, 1, recovering=recovering, elr=elr)


class Stage:
    """Broker 1, and a controller epoch in ZooKeeper."""

    def __init__(self, *lossy: LossyReplica) -> None:
        self.world = FakeWorld()
        self.world.zookeeper.write(Create(controller_znode.EPOCH_PATH, b"3"))
        self.zk = self.world.session()
        connect(self.world, self.zk)
        self.losses = FakeLosses(*(lossy or (LOST,)))
        self.changes = 0
        self.has_followed = True
        self.unsettled = UnsettledLosses(
            broker_id=1,
            zk=self.zk,
            reactor=self.world.reactor,
            losses=self.losses,  # type: ignore[arg-type]
            followed=lambda partition: self.has_followed,
            changed=self._changed,
            log=lambda line: None,
        )

    def _changed(self) -> None:
        assert self.losses.forgotten, "the durable list shrinks first"
        self.changes += 1

    def told(self, state: PartitionState | None, *, epoch: int = 3, is_snapshot: bool = True, **more: object) -> None:
        partitions = () if state is None else ((T0, state),)
        self.unsettled.told(ClusterDelta(2, epoch, 0, is_snapshot, partitions=partitions, **more))  # type: ignore[arg-type]

    def pass_time(self, seconds: float = 0.1) -> None:
        for _ in range(round(seconds / 0.005)):
            self.world.reactor.advance(0.005)


@pytest.mark.parametrize(
    "state",
    [
        state_with(isr=(2, 1)),
        state_with(elr=(1,)),
        state_with(NO_LEADER, (2,)),
        state_with(1, (1,)),
        state_with(2, (2, 1), recovering=False),
    ],
)
def test_a_replica_that_is_counted_on_stays_on_the_list(state: PartitionState) -> None:
    stage = Stage()
    stage.told(state)
    stage.pass_time()
    assert stage.losses.replicas == {T0: LOST}
    assert stage.changes == 0


@pytest.mark.parametrize(
    "state",
    [
        state_with(),
        state_with(1, (1,), recovering=True),
        state_with(isr=(2, 1))._replace(topic_id=OTHER_ID),
        state_with(NO_LEADER)._replace(replicas=(2, 3)),
    ],
)
def test_one_that_is_not_comes_off(state: PartitionState) -> None:
    stage = Stage()
    stage.told(state, is_snapshot=False)
    assert stage.losses.replicas, "not before it is known who was in office"
    stage.pass_time()
    assert stage.losses.forgotten == [T0]
    assert stage.changes == 1
    stage.told(state)
    stage.pass_time()
    assert stage.changes == 1


@pytest.mark.parametrize(("lost", "is_settled"), [(LOST, True), (LOST._replace(log_end_offset=-1), False)])
def test_the_only_replica_comes_off_with_what_is_left_unless_its_log_is_gone(
    lost: LossyReplica, is_settled: bool
) -> None:
    """Of a list too long for a registration no controller knows whose log is gone: none of its only replicas was ever
    elected, and so none came off."""
    stage = Stage(lost)
    stage.told(state_with(NO_LEADER, (1,))._replace(replicas=(1,)))
    stage.pass_time()
    assert bool(stage.losses.forgotten) == is_settled


def test_a_leader_that_answers_nobody_settles_nothing() -> None:
    stage = Stage()
    stage.has_followed = False
    stage.told(state_with())
    stage.pass_time(3)
    assert stage.changes == 0
    stage.told(state_with(NO_LEADER))
    stage.has_followed = True
    stage.pass_time(3)
    assert stage.changes == 0, "it is gone before it was followed"
    stage.has_followed = False
    stage.told(state_with(3, (3,)))
    stage.pass_time(0.5)
    stage.has_followed = True
    stage.pass_time(2 * LOOK_S)
    assert stage.changes == 1


def test_a_topic_that_is_no_more_counts_on_nothing() -> None:
    for told, is_settled in (
        ({}, True),
        ({"unreadable_topics": ("t",)}, False),
        ({"deleted_replicas": (DeletedReplica("t", 0, ID),)}, False),
        ({"is_snapshot": False}, False),
        ({"is_snapshot": False, "deleted_topics": (("t", OTHER_ID),)}, False),
        ({"is_snapshot": False, "deleted_topics": (("t", ID),)}, True),
    ):
        stage = Stage()
        stage.told(None, **told)  # type: ignore[arg-type]
        stage.pass_time()
        assert bool(stage.changes) == is_settled, told


def test_a_deposed_controller_settles_nothing() -> None:
    stage = Stage()
    stage.told(state_with(), epoch=2)
    stage.pass_time(2)
    assert stage.changes == 0
    stage.told(state_with(isr=(2, 1)), epoch=3)
    stage.pass_time(2)
    assert stage.changes == 0, "what the deposed one said is forgotten"
    stage.told(state_with(), epoch=3)
    stage.pass_time()
    assert stage.changes == 1


def test_a_controller_that_is_deposed_meanwhile_settles_nothing() -> None:
    stage = Stage()
    stage.told(state_with())
    stage.pass_time(0.003)  # the read is answered, the write is not there yet
    stage.world.zookeeper.write(SetData(controller_znode.EPOCH_PATH, b"4", 0))
    stage.pass_time(2)
    assert stage.changes == 0


def test_it_is_asked_again_when_zookeeper_is_back() -> None:
    stage = Stage()
    stage.zk.disconnect()
    stage.told(state_with())
    stage.pass_time(RETRY_S * 1.1)
    assert stage.changes == 0
    stage.zk.reconnect()
    stage.pass_time(RETRY_S * 1.5)
    assert stage.changes == 1


def test_nothing_is_asked_after_the_stop() -> None:
    stage = Stage()
    stage.zk.disconnect()
    stage.told(state_with())
    stage.pass_time(0.5)
    stage.unsettled.stop()
    stage.zk.reconnect()
    stage.pass_time(3)
    assert stage.changes == 0


def test_a_missing_log_is_one_that_a_state_may_count_in() -> None:
    world = FakeWorld()
    partitions = dict.fromkeys(range(6), (1, 2))
    for path in ("/brokers", "/brokers/ids", "/brokers/topics", "/brokers/topics/t", "/brokers/topics/t/partitions"):
        world.zookeeper.write(Create(path, b""))
    stat = world.zookeeper.stat("/brokers/topics/t")
    assert stat is not None
    assignment = topics.TopicAssignment(ID, {**partitions, 6: (2, 3), 7: (1,), 8: (1, 2)})
    world.zookeeper.write(SetData("/brokers/topics/t", topics.encode(assignment), stat.version))
    world.zookeeper.write(Create("/brokers/topics/bad", b"{"))
    members: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
        0: ((1, 2), ()),  # counted in, and its log is gone
        1: ((2,), ()),  # out, but a proposal to let it in may be on its way
        2: ((2,), (1,)),  # eligible
        3: ((1, 2), ()),  # its log is there
        4: ((1, 2), ()),  # its log is of the topic's predecessor
        5: ((1, 2), ()),  # never made
        6: ((2, 3), ()),  # not ours
        8: ((1, 2), ()),  # its folder failed meanwhile: what is in it will be seen when it is back
    }
    for number, (isr, elr) in members.items():
        path = states.state_path("t", number)
        world.zookeeper.write(Create(path.removesuffix("/state"), b""))
        state = states.LeaderAndIsr(isr[0], 4, isr, 1, 0, elr=elr)
        world.zookeeper.write(Create(path, states.encode(state)))
    session = world.session()
    connect(world, session)
    logs = FakeLogs(t_3=ID, t_4=OTHER_ID)
    logs.losses.never_made.add(TopicPartition("t", 5))
    logs.offline_partitions[TopicPartition("t", 8)] = "/failed"
    lines: list[str] = []
    missing = wait(world, find_missing(session, 1, logs, lines.append))  # type: ignore[arg-type]
    assert missing == [LossyReplica("t", number, ID, -1, -1) for number in (0, 1, 2, 4)]
    assert "topic bad is left alone" in lines[0]


def test_a_missing_log_of_a_topic_that_nobody_can_read_now_is_missing_when_it_is_mended() -> None:
    """Its states count this broker in all the while."""
    world = FakeWorld()
    for path in ("/brokers", "/brokers/ids", "/brokers/topics"):
        world.zookeeper.write(Create(path, b""))
    world.zookeeper.write(Create("/brokers/topics/bad", b"{"))
    world.zookeeper.write(Create("/brokers/topics/new", b"{"))
    world.zookeeper.write(Create("/brokers/topics/bad/partitions", b""))
    contents = {
        0: states.encode(states.LeaderAndIsr(2, 4, (2, 1), 1, 0)),
        1: states.encode(states.LeaderAndIsr(2, 4, (2,), 1, 0, elr=(1,))),
        2: states.encode(states.LeaderAndIsr(2, 4, (2, 3), 1, 0)),
        3: b"{",  # nobody can tell
        4: states.encode(states.LeaderAndIsr(2, 4, (2, 1), 1, 0)),
        5: states.encode(states.LeaderAndIsr(2, 4, (2, 1), 1, 0)),
    }
    for number, content in contents.items():
        world.zookeeper.write(Create(f"/brokers/topics/bad/partitions/{number}", b""))
        world.zookeeper.write(Create(states.state_path("bad", number), content))
    world.zookeeper.write(Create("/brokers/topics/bad/partitions/none", b""))
    session = world.session()
    connect(world, session)
    logs = FakeLogs(bad_4=ID)
    logs.offline_partitions[TopicPartition("bad", 5)] = "/failed"
    missing = wait(world, find_missing(session, 1, logs, lambda line: None))  # type: ignore[arg-type]
    assert missing == [LossyReplica("bad", number, "", -1, -1) for number in (0, 1, 3)]


def test_the_list_in_a_registration() -> None:
    described = BrokerRegistration(1, 7, (Endpoint("REPLICATION", "h", 1),), (("REPLICATION", "PLAINTEXT"),))
    path = broker_znode.broker_path(1)

    def read_again(*lossy: LossyReplica) -> tuple[LossyReplica, ...]:
        data = broker_znode.encode(described._replace(lossy=lossy), timestamp_ms=1)
        assert (b"lossy" in data) == bool(lossy)
        return broker_znode.decode(path, data, 7).lossy

    assert read_again() == ()
    several = (LossyReplica("t", 0, ID, 3, 17), LossyReplica("t", 2, ID, -1, -1), LossyReplica("u", 0, "", 5, 0))
    assert read_again(*several) == several
    assert read_again(*several, ALL_LOSSY) == (ALL_LOSSY,)
    many = tuple(LossyReplica("t", number, ID, 3, number) for number in range(20_000))
    assert read_again(*many) == (ALL_LOSSY,), "a znode holds a megabyte"
    data = broker_znode.encode(described._replace(lossy=several), timestamp_ms=1)
    for garbage in (
        b'"lossy":{}',
        b'"lossy":[1]',
        b'"lossy":"t"',
        b'"lossy":[{"topic":"t","topic_id":"","partitions":[]}]',
    ):
        start = data.index(b'"lossy":')
        end = data.index(b"]}", data.rindex(b"partitions")) + 4
        bad = data[:start] + garbage + data[end:]
        assert broker_znode.decode(path, bad, 7).lossy == (ALL_LOSSY,), bad


def test_lossy_replicas_as_json() -> None:
    lossy = (LossyReplica("t", 0, ID, 3, 17), LossyReplica("t", 1, OTHER_ID, -1, -1))
    assert lossy_from_json(lossy_to_json(lossy)) == lossy
    for bad in (
        None,
        [{"topic": 1, "topic_id": "", "partitions": {}}],
        [{"topic": "t", "topic_id": "", "partitions": {"x": [1, 1]}}],
        [{"topic": "t", "topic_id": "", "partitions": {"0": [1]}}],
        [{"topic": "t", "topic_id": "", "partitions": {"0": [True, 1]}}],
        [{"topic": "t", "topic_id": "", "partitions": {"0": [1, -2]}}],
        [{"topic": "t", "topic_id": "", "partitions": {"0": [1, 2**64]}}],
    ):
        with pytest.raises(ValueError, match=r"is no |numbers|out of range"):
            lossy_from_json(bad)
