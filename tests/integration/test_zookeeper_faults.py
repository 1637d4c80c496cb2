"""ZooKeeper's servers restarted, hung or away, sessions expired, a broker that stood still: what that may change."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.retry import KazooRetry
from kio.schema.fetch.v4 import request as fetch_v4
from kio.schema.list_offsets.v1 import request as list_offsets_v1
from kio.schema.produce.v7 import request as produce_v7
from kio.schema.types import BrokerId, TopicName
from kio.static.primitive import i8, i16, i32, i64

from tests.fakes.kafka_client import milliseconds, request_bytes, response_of
from tests.harness.brokers import Cluster, LocalBroker, SteadyWriter, wait_until
from tests.harness.fixtures import Machine
from tests.harness.zookeeper import ZooKeeperEnsemble, ZooKeeperServer
from zkbroker.records.record import Record, build_batch

pytestmark = pytest.mark.timeout(400)

SESSION_TIMEOUT_S = 6.0
"""The default: an ensemble that elects a new leader on a busy machine is away for seconds."""
SETTINGS = {"zookeeper.session.timeout.ms": int(SESSION_TIMEOUT_S * 1000)}


@pytest.fixture(scope="module")
def own_ensemble() -> Iterator[ZooKeeperEnsemble]:
    """Not the session's: its servers are stopped here."""
    with ZooKeeperEnsemble(3) as running:
        yield running


@pytest.fixture(scope="module")
def own_cluster(own_ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("zookeeper-faults")
    with Cluster(own_ensemble.connect_string, folder, overrides=SETTINGS) as running:
        yield running


@pytest.fixture
def cluster(own_ensemble: ZooKeeperEnsemble, own_cluster: Cluster) -> Cluster:
    """All servers and all brokers alive."""
    for server in own_ensemble.servers:
        server.resume()
    own_ensemble.start()
    for broker in own_cluster.brokers.values():
        if broker.is_paused:
            broker.resume()
    own_cluster.start()
    return own_cluster


def values(count: int, prefix: str = "v") -> list[bytes]:
    return [f"{prefix}-{number}".encode() for number in range(count)]


def make_topic(cluster: Cluster, name: str, partitions: int = 3) -> None:
    cluster.create_topic(name, partitions=partitions)
    cluster.wait_isr(name, [1, 2, 3])


def states(cluster: Cluster, topic: str) -> list[dict[str, Any] | None]:
    return [cluster.state(topic, partition) for partition in cluster.partitions(topic)]


def registrations(cluster: Cluster) -> dict[int, int]:
    """Broker epoch (czxid) of each that is registered."""
    found = {broker: cluster.zookeeper.exists(f"/brokers/ids/{broker}") for broker in cluster.brokers}
    return {broker: stat.czxid for broker, stat in found.items() if stat is not None}


def office(cluster: Cluster) -> tuple[int | None, bytes | None]:
    return cluster.controller_id(), cluster.read("/controller_epoch")


def session_of(broker: LocalBroker) -> tuple[int, bytes]:
    kept = json.loads((broker.data_dir / "zookeeper-session.json").read_text())
    return int(kept["session_id"]), bytes.fromhex(kept["password"])


def server_of(ensemble: ZooKeeperEnsemble, broker: LocalBroker) -> ZooKeeperServer | None:
    """The server that the broker's session is connected to now; None while it is to none."""
    name = f"sid=0x{session_of(broker)[0] & (2**64 - 1):x},"
    for server in ensemble.servers:
        if server.is_running and name in server.four_letter_word("cons", 0.5):
            return server
    return None


def wait_connected(ensemble: ZooKeeperEnsemble, cluster: Cluster, timeout_s: float = 90) -> None:
    for broker in cluster.brokers.values():
        cluster.wait_for(lambda broker=broker: server_of(ensemble, broker), f"{broker.name} is connected", timeout_s)  # type: ignore[misc]


def check_all_there(cluster: Cluster, topic: str, writer: SteadyWriter) -> None:
    """Every record once, in order, and every one acknowledged."""
    assert writer.failures == []
    for partition, sent in writer.sent.items():
        assert [value for _, value in cluster.consume(topic, partition)] == sent


def progress(cluster: Cluster, writer: SteadyWriter, records: int, what: str) -> None:
    """Wait until so many more records were acknowledged."""
    wanted = len(writer.acknowledged) + records
    tails = [broker.log_tail for broker in cluster.brokers.values()]
    wait_until(
        lambda: len(writer.acknowledged) >= wanted,
        f"{records} more records acknowledged {what}",
        timeout_s=90,
        explain=lambda: "\n".join(tail() for tail in tails),
    )


class RawClient:
    """One connection whose requests can be sent while the broker cannot read them."""

    def __init__(self, broker: LocalBroker) -> None:
        self._socket = socket.create_connection(("127.0.0.1", broker.port), 90)
        self._socket.settimeout(90)

    def send_record(self, topic: str, value: bytes, acks: int, number: int) -> Any:
        batch = build_batch([Record(0, int(time.time() * 1000), None, value, ())])
        request = produce_v7.ProduceRequest(
            acks=i16(acks),
            timeout=milliseconds(5000),
            topic_data=(
                produce_v7.TopicProduceData(
                    name=TopicName(topic),
                    partition_data=(produce_v7.PartitionProduceData(index=i32(0), records=batch),),
                ),
            ),
        )
        self._socket.sendall(request_bytes(request, number))
        return request

    def send_fetch(self, topic: str, number: int) -> Any:
        partition = fetch_v4.FetchPartition(partition=i32(0), fetch_offset=i64(0), partition_max_bytes=i32(1000))
        request = fetch_v4.FetchRequest(
            replica_id=BrokerId(-1),
            max_wait=milliseconds(100),
            min_bytes=i32(1),
            max_bytes=i32(1000),
            isolation_level=i8(0),
            topics=(fetch_v4.FetchTopic(topic=TopicName(topic), partitions=(partition,)),),
        )
        self._socket.sendall(request_bytes(request, number))
        return request

    def send_list_offsets(self, topic: str, number: int) -> Any:
        partition = list_offsets_v1.ListOffsetsPartition(partition_index=i32(0), timestamp=i64(-1))
        request = list_offsets_v1.ListOffsetsRequest(
            replica_id=BrokerId(-1),
            topics=(list_offsets_v1.ListOffsetsTopic(name=TopicName(topic), partitions=(partition,)),),
        )
        self._socket.sendall(request_bytes(request, number))
        return request

    def answer(self, request: Any) -> int:
        """The error code of the one partition."""
        (size,) = struct.unpack(">i", self._read(4))
        _, response = response_of(request, self._read(size))
        if hasattr(response, "topics"):
            [partition] = response.topics[0].partitions
        elif isinstance(request, fetch_v4.FetchRequest):
            [partition] = response.responses[0].partitions
        else:
            [partition] = response.responses[0].partition_responses
        return int(partition.error_code.value)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return data

    def close(self) -> None:
        self._socket.close()


# The ensemble


def test_a_rolling_restart_moves_nothing(own_ensemble: ZooKeeperEnsemble, cluster: Cluster, machine: Machine) -> None:
    began = time.monotonic()
    make_topic(cluster, "rolled")
    before = states(cluster, "rolled"), registrations(cluster), office(cluster)
    writer = SteadyWriter(cluster, "rolled", "rolled", [0, 1, 2], per_second=200)
    writer.start()
    for number in (1, 2, 3):
        own_ensemble.restart(number)
        progress(cluster, writer, 50, f"after the restart of server {number}")
        wait_connected(own_ensemble, cluster)
    writer.stop()
    check_all_there(cluster, "rolled", writer)
    assert (states(cluster, "rolled"), registrations(cluster), office(cluster)) == before
    machine.check(writer.longest_gap_s, 3, began, "no acknowledgement")


def server_to_lose(ensemble: ZooKeeperEnsemble, cluster: Cluster, *, spare_leader: bool) -> ZooKeeperServer:
    """One that a broker is connected to. Another than the leader: restarted if all are, so that they go elsewhere."""
    while True:
        leader = ensemble.leader()
        for broker in cluster.brokers.values():
            used = server_of(ensemble, broker)
            if used is not None and not (spare_leader and used is leader):
                return used
        if leader is not None:
            ensemble.restart(leader.number)
        wait_connected(ensemble, cluster)


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_losing_the_server_that_a_broker_is_connected_to(
    own_ensemble: ZooKeeperEnsemble, cluster: Cluster, how: str
) -> None:
    """The session moves to another server in time, though a server that hangs closes no connection."""
    topic = f"server-{how}"
    make_topic(cluster, topic)
    wait_connected(own_ensemble, cluster)
    before = states(cluster, topic), registrations(cluster), office(cluster)
    writer = SteadyWriter(cluster, topic, topic, [0, 1, 2], per_second=100)
    writer.start()
    # Not the ensemble's leader when it hangs: the others would first have to notice, which is ZooKeeper's time.
    lost = server_to_lose(own_ensemble, cluster, spare_leader=how == "hung")
    if how == "killed":
        lost.kill()
    else:
        lost.pause()
    wait_connected(own_ensemble, cluster)
    progress(cluster, writer, 50, f"with server {lost.number} {how}")
    if how == "killed":
        own_ensemble.restart(lost.number)
    else:
        lost.resume()
    writer.stop()
    check_all_there(cluster, topic, writer)
    assert (states(cluster, topic), registrations(cluster), office(cluster)) == before


def error_of(broker: LocalBroker, topic: str) -> int:
    """Kafka's error code for one record with acks=1, asked on a connection of its own; 0 when it was acknowledged."""
    client = RawClient(broker)
    try:
        return client.answer(client.send_record(topic, b"probe", 1, 1))
    finally:
        client.close()


def test_the_whole_ensemble_away_for_longer_than_the_session_timeout(
    own_ensemble: ZooKeeperEnsemble, cluster: Cluster, machine: Machine
) -> None:
    """Where followers fetch, writing and reading go on; a leader without them falls silent; all comes back alone."""
    make_topic(cluster, "steady")
    cluster.create_topic("pair", assignment=[[1, 3]], config={"min.insync.replicas": "1"})
    cluster.create_topic("lone", assignment=[[1]], config={"min.insync.replicas": "1"})
    cluster.wait_isr("pair", [1, 3])
    pair, lone = cluster.produce("pair", values(20)), cluster.produce("lone", values(20))
    before = states(cluster, "steady"), registrations(cluster), office(cluster)
    writer = SteadyWriter(cluster, "steady", "steady", [0, 1, 2], per_second=100)
    writer.start()
    progress(cluster, writer, 50, "at first")
    for server in own_ensemble.servers:
        server.kill()
    gone_at = time.monotonic()
    while time.monotonic() - gone_at < 1.5 * SESSION_TIMEOUT_S:
        progress(cluster, writer, 50, "without ZooKeeper")
    assert error_of(cluster.brokers[1], "pair") == 0  # its follower fetches
    assert error_of(cluster.brokers[1], "lone") == 0  # nobody else can be elected
    for partition in range(3):
        assert cluster.consume("steady", partition)
    machine.check(writer.longest_gap_s, 2, gone_at, "no acknowledgement")

    cluster.brokers[3].kill()
    # Not cluster.wait_for, which would ask ZooKeeper what there is to explain.
    wait_until(
        lambda: error_of(cluster.brokers[1], "pair") == KafkaError.NOT_LEADER_FOR_PARTITION,
        "a leader that hears from nobody refuses",
        timeout_s=90,
        explain=cluster.brokers[1].log_tail,
    )
    assert error_of(cluster.brokers[1], "lone") == 0
    own_ensemble.start()
    cluster.wait_for(lambda: {1, 2} <= set(cluster.live_ids()), "registrations")
    cluster.restart(3)
    for topic, members in (("steady", [1, 2, 3]), ("pair", [1, 3]), ("lone", [1])):
        cluster.wait_isr(topic, members)
    writer.stop()
    check_all_there(cluster, "steady", writer)
    for topic, written in (("pair", pair), ("lone", lone)):
        assert [value for _, value in cluster.consume(topic)][:20] == [record.value for record in written]
    after = registrations(cluster)
    assert {broker: after[broker] for broker in (1, 2)} == {broker: before[1][broker] for broker in (1, 2)}
    make_topic(cluster, "after-all")


# Sessions


def expire(ensemble: ZooKeeperEnsemble, cluster: Cluster, broker: LocalBroker) -> None:
    """Close the broker's session from a second connection, as ZooKeeper's own tests do."""
    path = f"/brokers/ids/{broker.broker_id}"
    epoch = cluster.zookeeper.exists(path).czxid

    def closed() -> bool:
        retry = KazooRetry(max_tries=1)
        second = KazooClient(ensemble.connect_string, 10, session_of(broker), connection_retry=retry)
        try:
            second.start(timeout=5)
            second.stop()
        except KazooException:
            pass
        finally:
            second.close()
        stat = cluster.zookeeper.exists(path)
        return stat is None or bool(stat.czxid != epoch)

    cluster.wait_for(closed, f"the session of {broker.name} has ended")


@pytest.mark.parametrize("whose", ["a leader", "the controller"])
def test_a_session_that_expires(own_ensemble: ZooKeeperEnsemble, cluster: Cluster, whose: str) -> None:
    topic = f"expired-{whose.split()[1]}"
    make_topic(cluster, topic)
    controller, controller_epoch = office(cluster)
    leaders = [cluster.wait_leader(topic, partition) for partition in range(3)]
    victim = controller if whose == "the controller" else next(one for one in leaders if one != controller)
    assert victim is not None
    before = registrations(cluster)
    writer = SteadyWriter(cluster, topic, topic, [0, 1, 2], per_second=100)
    writer.start()
    progress(cluster, writer, 30, "at first")
    expire(own_ensemble, cluster, cluster.brokers[victim])
    cluster.wait_for(lambda: registrations(cluster).get(victim, 0) > before[victim], "it registered in a new epoch")
    progress(cluster, writer, 30, "afterwards")
    cluster.wait_isr(topic, [1, 2, 3])
    writer.stop()
    check_all_there(cluster, topic, writer)
    assert cluster.brokers[victim].is_running
    after = registrations(cluster)
    assert {broker for broker in after if after[broker] != before[broker]} == {victim}
    if whose == "the controller":
        cluster.wait_for(lambda: office(cluster)[0] is not None, "somebody is controller")
        assert int(office(cluster)[1] or 0) > int(controller_epoch or 0)
    else:
        assert office(cluster) == (controller, controller_epoch)


# A broker that stood still


@pytest.mark.parametrize("load", ["idle", "busy"])
def test_a_stopped_leader_that_goes_on_acknowledges_nothing(cluster: Cluster, load: str) -> None:
    """Requests that were sent to it before its successor was elected are read the moment it goes on."""
    topic = f"zombie-{load}"
    cluster.create_topic(topic, config={"min.insync.replicas": "1"})
    cluster.wait_isr(topic, [1, 2, 3])
    before = cluster.produce(topic, values(50, "before"))
    zombie = cluster.wait_leader(topic)
    epoch = registrations(cluster)[zombie]
    clients = [RawClient(cluster.brokers[zombie]) for _ in range(8)]
    for client in clients:
        assert client.answer(client.send_record(topic, b"warm", 1, 1)) == 0
        assert client.answer(client.send_fetch(topic, 1)) == client.answer(client.send_list_offsets(topic, 1)) == 0
    writer = SteadyWriter(cluster, topic, topic, [0], per_second=300)
    if load == "busy":  # followers' fetches lie in its sockets, too
        writer.start()
        progress(cluster, writer, 100, "at first")
    cluster.brokers[zombie].pause()
    kinds: list[Callable[[RawClient], Any]] = [
        lambda client: client.send_record(topic, b"never", 1, 2),
        lambda client: client.send_record(topic, b"never", -1, 2),
        lambda client: client.send_fetch(topic, 2),
        lambda client: client.send_list_offsets(topic, 2),
    ]
    requests = [kinds[number % len(kinds)](client) for number, client in enumerate(clients)]
    successor = cluster.wait_leader(topic, other_than=zombie)
    after = cluster.produce(topic, values(50, "after"))
    cluster.brokers[zombie].resume()
    not_leader = KafkaError.NOT_LEADER_FOR_PARTITION
    assert [client.answer(request) for client, request in zip(clients, requests, strict=True)] == [not_leader] * 8
    for client in clients:
        client.close()
    cluster.wait_isr(topic, [1, 2, 3])
    # Followers that it did not answer may have had another elected before its session ended.
    assert registrations(cluster)[zombie] >= epoch
    assert cluster.leader(topic) == successor
    if load == "busy":
        writer.stop()
        assert writer.failures == []
    for leader in (successor, zombie):  # the zombie's own copy, too
        if leader == zombie:
            others = [broker for broker in cluster.brokers if broker != zombie]
            threads = [threading.Thread(target=cluster.brokers[broker].stop) for broker in others]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            cluster.wait_for(lambda: cluster.leader(topic) == zombie, "the former zombie leads")
        read = [value for _, value in cluster.consume(topic)]
        assert b"never" not in read
        expected = [record.value for record in [*before, *after]]
        assert [value for value in read if not value.startswith((b"zombie-", b"warm"))] == expected
        if load == "busy":
            assert [value for value in read if value.startswith(b"zombie-")] == writer.sent[0]
