"""What a starting broker finds or makes in ZooKeeper before it registers: paths, the cluster id, its neighbours."""

from __future__ import annotations

import base64
import random
from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from zkbroker.model.errors import StartError
from zkbroker.zookeeper.client import NodeExistsError, NoNodeError, ZooKeeperClient
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import cluster as cluster_znode
from zkbroker.zookeeper.znodes import feature as feature_znode
from zkbroker.zookeeper.znodes.paths import PERSISTENT_PATHS

CLUSTER_ID_BYTES = 16
"""Kafka's cluster ids are random UUIDs in base64url: 16 bytes, 22 characters."""


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
    content = {feature_znode.PATH: feature_znode.encode(feature_znode.FeatureLevels())}
    for path in (*PERSISTENT_PATHS, feature_znode.PATH):
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
