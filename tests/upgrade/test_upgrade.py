"""Brokers of the commit in FROM and of this one in one cluster: each in either role, upgraded one by one, negotiating.

FROM names the earliest commit that must work together with this one; it moves forward when the line protocol's version
changes. Its files come from git's history: where that is not there (a shallow clone, an export), all this is skipped.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.harness.brokers import Cluster, LocalBroker, SteadyWriter
from tests.harness.zookeeper import ZooKeeperEnsemble
from zkbroker.cli._local_cluster import start_command
from zkbroker.model.complaints import Unreachable, Word
from zkbroker.model.suspicion import Evidence, Finding, Suspect
from zkbroker.replication.complaints import encode_complaints
from zkbroker.replication.messages import VERSION_MAX, VERSION_MIN
from zkbroker.replication.peer_words import encode_evidence, encode_probe

pytestmark = pytest.mark.timeout(400)
ROOT = Path(__file__).parents[2]
FROM = Path(__file__).with_name("FROM").read_text().strip()


@pytest.fixture(scope="session")
def old_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the old commit's files."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", FROM, "zkbroker"], capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"git's history does not reach back to {FROM}: {archive.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    environment = {**os.environ, **variables(folder)}
    found = subprocess.run(
        [sys.executable, "-c", "import zkbroker; print(zkbroker.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert found.stdout.startswith(str(folder))
    return folder


def variables(folder: Path) -> dict[str, str]:
    """With these, Python takes zkbroker from there and from nowhere else."""
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


class MixedCluster(Cluster):
    """Three brokers of which each is of the old commit or of the new one when it starts."""

    def __init__(self, zookeeper_connect: str, directory: Path, old_source: Path, old: set[int]) -> None:
        self.old = old
        """Ids of the brokers that are started from the old commit from now on."""
        self._old_source = old_source
        super().__init__(zookeeper_connect, directory, kafka=False, command=self._command_of)

    def _command_of(self, broker: LocalBroker) -> list[str]:
        command = start_command(broker)
        if broker.broker_id not in self.old:
            return command
        return ["env", *(f"{name}={value}" for name, value in variables(self._old_source).items()), *command]

    def start_first(self, controller: int) -> None:
        """Start them all, so that this one is the controller."""
        self.brokers[controller].start()
        self.wait_for(lambda: self.controller_id() == controller, f"broker {controller} is the controller")
        self.start()

    def replace(self, broker_id: int, by_old: bool) -> None:
        """Stop a broker and start it of the other commit, as an operator does: on, when all is in sync again."""
        self.brokers[broker_id].stop()
        (self.old.add if by_old else self.old.discard)(broker_id)
        self.restart(broker_id)


@pytest.fixture
def make_mixed(ensemble: ZooKeeperEnsemble, tmp_path: Path, old_source: Path) -> Iterator[Callable[..., MixedCluster]]:
    made: list[MixedCluster] = []

    def make(old: set[int]) -> MixedCluster:
        made.append(MixedCluster(ensemble.connect_string, tmp_path / f"mixed-{len(made)}", old_source, old))
        return made[-1]

    yield make
    for one in made:
        one.close()


def check_all_there(cluster: Cluster, topic: str, writer: SteadyWriter) -> None:
    assert writer.failures == []
    for partition, sent in writer.sent.items():
        assert [value for _, value in cluster.consume(topic, partition)] == sent, partition


@pytest.mark.parametrize("old", [{1}, {2, 3}], ids=["old-controller", "new-controller"])
def test_both_work_together_in_every_role(make_mixed: Callable[..., MixedCluster], old: set[int]) -> None:
    """Broker 1 is the controller, of one commit; the other two are of the other."""
    cluster = make_mixed(old)
    cluster.start_first(1)
    # Every pair of leader and follower, of both commits in both roles.
    assignment = [[1, 2], [2, 1], [2, 3], [3, 2], [1, 3], [3, 1]]
    cluster.create_topic("pairs", assignment=assignment, config={"retention.ms": "86400000"})
    for partition, replicas in enumerate(assignment):
        cluster.wait_for(lambda p=partition, r=replicas: sorted(cluster.isr("pairs", p)) == sorted(r), "in sync")  # type: ignore[misc]
        assert cluster.leader("pairs", partition) == replicas[0]
        written = [b"%d-%d" % (partition, number) for number in range(50)]
        acknowledged = cluster.produce("pairs", written, partition)
        assert cluster.consume("pairs", partition) == [(record.offset, record.value) for record in acknowledged]
    assert cluster.controller_id() == 1
    cluster.create_topic("short-lived")
    cluster.delete_topic("short-lived")
    cluster.wait_for(lambda: "short-lived" not in cluster.topics(), "a topic is deleted")
    assert all(broker.is_running for broker in cluster.brokers.values())
    cluster_id = cluster.read_json("/cluster/id")["id"]
    for broker_id, broker in cluster.brokers.items():
        answers = new_verbs(broker, cluster_id)
        assert answers[-1][0] == "OK", answers  # the connection is as good as before
        if broker_id in old:
            assert [answer[0] for answer in answers[:-1]] == ["ERR"] * 3
    # What one says and the other does not know is refused once and not complained of again and again.
    for broker in cluster.brokers.values():
        assert "Traceback" not in broker.log_text(), broker.log_tail(40)
        assert len(broker.log_text().splitlines()) < 200, broker.log_tail(40)


@pytest.mark.parametrize("old", [{1}, {2, 3}], ids=["old-victim", "new-victim"])
def test_the_other_commit_takes_over_from_a_killed_leader_and_controller(
    make_mixed: Callable[..., MixedCluster], old: set[int]
) -> None:
    """Then the dead one comes back, follows, and leads again."""
    cluster = make_mixed(old)
    cluster.start_first(1)
    cluster.create_topic("failover", assignment=[[1, 2, 3]])
    cluster.wait_isr("failover", [1, 2, 3])
    writer = SteadyWriter(cluster, "w", "failover", [0], per_second=200)
    writer.start()
    cluster.wait_for(lambda: len(writer.acknowledged) > 100, "writing has begun")
    cluster.brokers[1].kill()
    cluster.wait_leader("failover", other_than=1)
    written = len(writer.acknowledged)
    cluster.wait_for(lambda: len(writer.acknowledged) > written + 100, "writing goes on")
    cluster.restart(1)
    cluster.wait_isr("failover", [1, 2, 3])
    cluster.prefer_leader("failover", 0, [1, 2, 3])
    writer.stop()
    check_all_there(cluster, "failover", writer)


def test_a_rolling_upgrade_and_a_way_back_lose_nothing(make_mixed: Callable[..., MixedCluster]) -> None:
    cluster = make_mixed({1, 2, 3})
    cluster.start()
    cluster.create_topic("rolled", assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]])
    cluster.wait_isr("rolled", [1, 2, 3])
    writer = SteadyWriter(cluster, "w", "rolled", [0, 1, 2], per_second=300)
    writer.start()
    cluster.wait_for(lambda: len(writer.acknowledged) > 100, "writing has begun")
    for broker_id, by_old in ((1, False), (2, False), (3, False), (1, True)):
        cluster.replace(broker_id, by_old)
        cluster.wait_isr("rolled", [1, 2, 3])
    writer.stop()
    check_all_there(cluster, "rolled", writer)


def ask(broker: LocalBroker, *requests: bytes) -> list[list[str]]:
    """The words of the answer to each request on one connection, in turn. Bodies are left out."""
    port = int(str(broker.settings["listeners"]).rpartition(":")[2])
    answers = []
    with socket.create_connection(("127.0.0.1", port), 60) as connection, connection.makefile("rb") as stream:
        for request in requests:
            connection.sendall(request)
            words = stream.readline().decode().split()
            stream.read(sum(int(word.removeprefix("body=")) for word in words if word.startswith("body=")))
            answers.append(words)
    return answers


def hello(broker: LocalBroker, cluster_id: str, version: int) -> list[str]:
    """The answer to a HELLO in which an unregistered broker 9 speaks up to that version."""
    line = f"HELLO 7 version={version} cluster={cluster_id} broker=9 epoch=1 incarnation=ab\n"
    return ask(broker, line.encode())[0]


def new_verbs(broker: LocalBroker, cluster_id: str) -> list[list[str]]:
    """The answers of a broker to what FROM does not know, and to a PING after that."""
    suspect = Suspect(99, 5, "h:1,h:2")
    line = f"HELLO 1 version={VERSION_MAX} cluster={cluster_id} broker=9 epoch=1 incarnation=ab\n"
    return ask(
        broker,
        line.encode(),
        encode_evidence(2, Evidence(suspect, 9, 1, Finding.REFUSED)),
        encode_probe(3, suspect),
        encode_complaints(4, Word(unreachable=(Unreachable(99, 5, 3.0),))),
        b"PING 5\n",
    )[1:]


def test_line_protocol_versions_are_negotiated(cluster: Cluster) -> None:
    """The lower of both is spoken; who speaks only less than is spoken here is told so."""
    cluster_id = cluster.read_json("/cluster/id")["id"]
    broker = cluster.brokers[1]
    for version in (VERSION_MAX, VERSION_MAX + 1, VERSION_MAX + 1000):
        answer = hello(broker, cluster_id, version)
        assert answer[:2] == ["OK", "7"] and f"version={VERSION_MAX}" in answer
    answer = hello(broker, cluster_id, VERSION_MIN - 1)
    assert answer[:3] == ["ERR", "7", "UNSUPPORTED_VERSION"]
    assert f"{VERSION_MIN} to {VERSION_MAX}" in " ".join(answer)
