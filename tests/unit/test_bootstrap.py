"""What a starting broker finds or makes in ZooKeeper, with connections that break meanwhile."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from twisted.internet.defer import CancelledError, Deferred

from tests.harness.zookeeper_worlds import FakeWorld, connect, wait
from zkbroker.broker import bootstrap
from zkbroker.log.disk import Disk
from zkbroker.model.errors import StartError
from zkbroker.zookeeper.client import Create, Delete, SetData, Stat
from zkbroker.zookeeper.znodes import cluster
from zkbroker.zookeeper.znodes.paths import PERSISTENT_PATHS

KAFKA = b'{"version":5,"host":"h","port":9092,"jmx_port":-1,"timestamp":"1","endpoints":["PLAINTEXT://h:9092"],'
KAFKA += b'"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"features":{}}'
OURS = KAFKA.replace(b'"PLAINTEXT://h:9092"]', b'"PLAINTEXT://h:9092","REPLICATION://h:9192"]').replace(
    b'{"PLAINTEXT":', b'{"REPLICATION":"PLAINTEXT","PLAINTEXT":'
)


class World(FakeWorld):
    def __init__(self, is_connected: bool = True) -> None:
        super().__init__()
        self.zk = self.session()
        self.patient = bootstrap.PatientSession(self.zk, ["a:1", "b:2"], 1500, self.reactor)
        if is_connected:
            connect(self, self.zk)


def test_a_session_is_waited_for_and_missed_with_one_line() -> None:
    world = World(is_connected=False)
    world.zookeeper.stop()
    world.zk.start()
    with pytest.raises(StartError) as caught:
        wait(world, world.patient.connected())
    assert str(caught.value) == "ZooKeeper at a:1,b:2 cannot be reached: no session within 1500 ms"
    assert 1.5 <= world.reactor.seconds() < 1.6
    waiting = world.patient.connected()
    world.zookeeper.start()
    wait(world, waiting)
    assert world.zk.is_connected


def test_paths_that_are_all_there_cost_one_request_and_one_that_is_missing_is_made() -> None:
    world = World()
    wait(world, world.patient.ask(lambda: bootstrap.make_paths(world.zk)))
    asked: list[str] = []
    world.zookeeper.noted = lambda session, at_server, what, path: asked.append(what) if at_server else None
    wait(world, world.patient.ask(lambda: bootstrap.make_paths(world.zk)))
    assert asked == ["multi"]
    world.zookeeper.write(Delete("/admin/delete_topics"))
    wait(world, world.patient.ask(lambda: bootstrap.make_paths(world.zk)))
    assert world.zookeeper.data("/admin/delete_topics") == b""


@pytest.mark.parametrize("fault", ["lose_next_reply", "lose_next_request"])
def test_a_step_whose_connection_broke_is_done_again(fault: str) -> None:
    world = World()
    getattr(world.zk, fault)()
    wait(world, world.patient.ask(lambda: bootstrap.make_paths(world.zk)))
    assert all(world.zookeeper.data(path) == b"" for path in PERSISTENT_PATHS)


def test_a_step_goes_on_in_a_new_session_after_an_expiry() -> None:
    world = World()
    asked = world.patient.ask(lambda: bootstrap.make_paths(world.zk))
    world.reactor.advance(0.003)
    world.expire(world.zk)
    wait(world, asked)
    assert all(world.zookeeper.data(path) == b"" for path in PERSISTENT_PATHS)


def test_an_ensemble_that_stays_away_between_two_steps_ends_the_start() -> None:
    world = World()
    asked = world.patient.ask(lambda: bootstrap.make_paths(world.zk))
    world.zookeeper.stop()
    with pytest.raises(StartError, match="cannot be reached"):
        wait(world, asked)


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_cancelled_step_ends_at_once_and_leaves_no_timer_of_its_own(is_connected: bool) -> None:
    world = World()
    if not is_connected:
        world.zk.disconnect()
        world.reactor.advance(3.0)
    asked = world.patient.ask(lambda: bootstrap.make_paths(world.zk))
    asked.cancel()
    with pytest.raises(CancelledError):
        wait(world, asked)
    for _ in range(5):
        world.reactor.advance(1.0)
    assert world.reactor.getDelayedCalls() == []


def test_the_first_broker_names_the_cluster_and_all_agree() -> None:
    world = World()
    sessions = [world.session() for _ in range(4)]
    for session in sessions:
        connect(world, session)
    asked = [bootstrap.find_cluster_id(session, random.Random(seed)) for seed, session in enumerate(sessions)]
    found = {wait(world, one) for one in asked}
    assert len(found) == 1
    data = world.zookeeper.data(cluster.PATH)
    assert data is not None
    assert found == {cluster.decode(data)}


def test_a_cluster_id_of_garbage_ends_the_start_with_one_line() -> None:
    world = World()
    world.zookeeper.write(Create("/cluster", b""), Create("/cluster/id", b"{oops"))
    with pytest.raises(StartError, match=r"^the cluster id in ZooKeeper does not decode: /cluster/id: not JSON"):
        wait(world, bootstrap.find_cluster_id(world.zk, random.Random(1)))
    assert world.zookeeper.data("/cluster/id") == b"{oops"


def test_cluster_ids_are_kafkas_and_never_look_like_flags() -> None:
    source = random.Random(7)
    made = [bootstrap.new_cluster_id(source) for _ in range(300)]
    assert {len(one) for one in made} == {22}
    assert not [one for one in made if one.startswith("-")]


def test_kafka_neighbours_are_refused_and_ours_and_garbage_are_not() -> None:
    world = World()
    world.zookeeper.write(Create("/brokers", b""), Create("/brokers/ids", b""))
    world.zookeeper.write(Create("/brokers/ids/1", OURS), Create("/brokers/ids/2", b"{oops"))
    wait(world, bootstrap.refuse_kafka_neighbours(world.zk))
    world.zookeeper.write(Create("/brokers/ids/3", KAFKA))
    with pytest.raises(StartError, match=r"^broker 3 in /brokers/ids is an Apache Kafka broker"):
        wait(world, bootstrap.refuse_kafka_neighbours(world.zk))


def test_generated_ids_begin_above_the_reserved_ones_and_are_never_given_twice() -> None:
    world = World()
    assert wait(world, bootstrap.generate_broker_id(world.zk, 1000)) == 1001
    assert wait(world, bootstrap.generate_broker_id(world.zk, 1000)) == 1002
    asked = [bootstrap.generate_broker_id(world.zk, 1000) for _ in range(3)]
    assert [wait(world, one) for one in asked] == [1003, 1004, 1005]
    world.zookeeper.write(SetData("/brokers/seqid", b""))
    assert wait(world, bootstrap.generate_broker_id(world.zk, 50)) == 57


def test_a_generated_id_whose_answer_was_lost_is_left_unused() -> None:
    world = World()
    world.zookeeper.write(Create("/brokers", b""), Create("/brokers/seqid", b""))
    world.zk.lose_next_reply()
    assert wait(world, world.patient.ask(lambda: bootstrap.generate_broker_id(world.zk, 1000))) == 1002
    stat = world.zookeeper.stat("/brokers/seqid")
    assert isinstance(stat, Stat)
    assert stat.version == 2


def folder(path: Path, content: str | None) -> str:
    path.mkdir()
    if content is not None:
        (path / "meta.properties").write_text(content)
    return str(path)


def test_the_stored_id_is_that_of_the_folders(tmp_path: Path) -> None:
    fresh = folder(tmp_path / "fresh", None)
    old = folder(tmp_path / "old", "version=0\ncluster.id=x\n")
    own = folder(tmp_path / "own", "version=0\nbroker.id=1001\ncluster.id=x\n")
    other = folder(tmp_path / "other", "version=0\nbroker.id=1002\n")
    garbage = folder(tmp_path / "garbage", "broker.id=one\n")
    disk = Disk()
    assert bootstrap.stored_broker_id(disk, [fresh, old, str(tmp_path / "missing")]) is None
    assert bootstrap.stored_broker_id(disk, [fresh, own, own]) == 1001
    with pytest.raises(StartError, match=r"own belongs to broker 1001, .*other to broker 1002$"):
        bootstrap.stored_broker_id(disk, [own, other])
    with pytest.raises(StartError, match="'one', which is not a number"):
        bootstrap.stored_broker_id(disk, [garbage])
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"cannot read .*: Not a directory"):
        bootstrap.stored_broker_id(disk, [str(tmp_path / "file")])


def test_a_step_that_fails_for_another_reason_is_not_done_again() -> None:
    world = World()
    asked: list[int] = []

    def step() -> Deferred[None]:
        asked.append(1)
        failed: Deferred[None] = Deferred()
        failed.errback(StartError("no"))
        return failed

    with pytest.raises(StartError, match=r"^no$"):
        wait(world, world.patient.ask(step))
    assert asked == [1]
