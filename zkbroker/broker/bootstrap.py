"""What a starting broker finds or makes in ZooKeeper before it registers: a session, paths, the cluster id, its own id,
its neighbours."""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.python.failure import Failure

from zkbroker.log.checkpoints import META_PROPERTIES_FILE, decode_meta_properties
from zkbroker.log.disk import Disk
from zkbroker.model.errors import StartError
from zkbroker.zookeeper.client import (
    ANY_VERSION,
    Check,
    ConnectionLossError,
    MultiError,
    NodeExistsError,
    NoNodeError,
    SessionExpiredError,
    SessionState,
    ZooKeeperClient,
)
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import cluster as cluster_znode
from zkbroker.zookeeper.znodes import feature as feature_znode
from zkbroker.zookeeper.znodes.paths import PERSISTENT_PATHS

CLUSTER_ID_BYTES = 16
"""Kafka's cluster ids are random UUIDs in base64url: 16 bytes, 22 characters."""

T = TypeVar("T")


class PatientSession:
    """Asks ZooKeeper during the start: a step whose connection broke is done again, as long as ZooKeeper comes back
    within ``timeout_ms`` each time. Every step given to it must be one that may be done twice."""

    def __init__(self, zk: ZooKeeperClient, hosts: Sequence[str], timeout_ms: int, reactor: Any) -> None:
        self._zk = zk
        self._hosts = ",".join(hosts)
        self._timeout_ms = timeout_ms
        self._reactor = reactor
        self._waiting: Deferred[None] | None = None
        zk.listen(self._session_changed)

    def _session_changed(self, state: SessionState) -> None:
        waiting = self._waiting
        if waiting is not None and state in (SessionState.CONNECTED, SessionState.RECONNECTED):
            self._waiting = None
            waiting.callback(None)

    def connected(self) -> Deferred[None]:
        """Fires when there is a connection. Fails with StartError after ``timeout_ms`` without one."""
        if self._zk.is_connected:
            return succeed(None)
        waiting = self._waiting = Deferred()
        timer = self._reactor.callLater(self._timeout_ms / 1000, self._given_up)

        def settled(result: Failure | None) -> Failure | None:
            self._waiting = None
            if timer.active():
                timer.cancel()
            return result

        return waiting.addBoth(settled)

    def _given_up(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(
                Failure(
                    StartError(f"ZooKeeper at {self._hosts} cannot be reached: no session within {self._timeout_ms} ms")
                )
            )

    @inlineCallbacks
    def ask(self, step: Callable[[], Deferred[T]]) -> Generator[Deferred[Any], Any, T]:
        """The result of ``step``, done again after each lost connection. Fails with StartError or as the step does."""
        while True:
            yield self.connected()
            try:
                result: T = yield step()
            except (ConnectionLossError, SessionExpiredError):
                continue
            return result


def new_cluster_id(source: random.Random) -> str:
    """A random cluster id in Kafka's form; one that starts with '-' would look like a flag to tools."""
    while True:
        raw = source.randbytes(CLUSTER_ID_BYTES)
        text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
        if not text.startswith("-"):
            return text


@inlineCallbacks
def make_paths(zk: ZooKeeperClient) -> Generator[Deferred[Any], Any, None]:
    """Create Kafka's top-level znodes that are missing; ``/feature`` says, as Kafka's, that no feature is finalized."""
    paths = (*PERSISTENT_PATHS, feature_znode.PATH)
    try:
        # All but the first broker of a cluster find them all, in one round trip.
        yield zk.multi([Check(path, ANY_VERSION) for path in paths])
        return
    except MultiError:
        pass
    content = {feature_znode.PATH: feature_znode.encode(feature_znode.FeatureLevels())}
    for path in paths:
        try:
            yield zk.create(path, content.get(path, b""), make_parents=True)
        except NodeExistsError:
            continue


@inlineCallbacks
def find_cluster_id(zk: ZooKeeperClient, source: random.Random) -> Generator[Deferred[Any], Any, str]:
    """The id in ``/cluster/id``; the first broker of a new cluster writes it. Raises StartError on garbage."""
    while True:
        try:
            data, _ = yield zk.get(cluster_znode.PATH)
        except NoNodeError:
            try:
                yield zk.create(cluster_znode.PATH, cluster_znode.encode(new_cluster_id(source)), make_parents=True)
            except NodeExistsError:
                pass
            continue
        try:
            found: str = cluster_znode.decode(data)
            return found
        except ZnodeError as error:
            raise StartError(f"the cluster id in ZooKeeper does not decode: {error}") from error


def stored_broker_id(disk: Disk, log_dirs: Sequence[str]) -> int | None:
    """The broker.id in the folders' meta.properties; None where there is none yet. Raises StartError when they name
    different ones, or none that is a number."""
    found: tuple[int, str] | None = None
    for folder in log_dirs:
        path = os.path.join(folder, META_PROPERTIES_FILE)
        try:
            text = decode_meta_properties(disk.read_file(path)).get("broker.id")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StartError(f"log.dirs: cannot read {path}: {error.strerror or error}") from None
        if text is None:
            continue
        if not (text.isascii() and text.isdigit()):
            raise StartError(f"log.dirs: {path} has the broker.id {text[:40]!r}, which is not a number")
        if found is not None and found[0] != int(text):
            raise StartError(f"log.dirs: {found[1]} belongs to broker {found[0]}, {folder} to broker {text}")
        found = int(text), folder
    return None if found is None else found[0]


@inlineCallbacks
def generate_broker_id(zk: ZooKeeperClient, reserved_max: int) -> Generator[Deferred[Any], Any, int]:
    """A number that no broker had before: ``reserved.broker.max.id`` and how often ``/brokers/seqid`` was written.

    When an answer is lost the number that it held is left unused."""
    while True:
        try:
            stat = yield zk.set(broker_znode.SEQID_PATH, b"")
        except NoNodeError:
            try:
                yield zk.create(broker_znode.SEQID_PATH, b"", make_parents=True)
            except NodeExistsError:
                pass
            continue
        return reserved_max + int(stat.version)


@inlineCallbacks
def refuse_kafka_neighbours(zk: ZooKeeperClient) -> Generator[Deferred[Any], Any, None]:
    """Raises StartError while an Apache Kafka broker is alive in the same znodes: the two cannot replicate together,
    and its controller would give this broker orders that it does not understand."""
    names = yield zk.children(broker_znode.IDS_PATH)
    for name in names:
        path = f"{broker_znode.IDS_PATH}/{name}"
        try:
            data, stat = yield zk.get(path)
            neighbour = broker_znode.decode(path, data, stat.czxid)
        except (NoNodeError, ZnodeError):
            continue
        if neighbour.is_kafka:
            raise StartError(
                f"broker {name} in {broker_znode.IDS_PATH} is an Apache Kafka broker (it has no REPLICATION listener): "
                "stop the Kafka cluster before zkbroker takes it over"
            )
