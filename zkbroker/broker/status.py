"""What a person reads who types STATUS or PARTITIONS at the replication listener."""

from __future__ import annotations

from collections.abc import Callable

from zkbroker import __version__
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.model.clock import Clock


class Status:
    """Fills ``replication.ports.StatusPort``; reads everything at the moment it is asked and changes nothing."""

    def __init__(
        self,
        *,
        metadata: ClusterMetadata,
        clock: Clock,
        broker_epoch: Callable[[], int],
        session: Callable[[], str],
        controller: Callable[[], str],
        replica_lines: Callable[[str | None], list[str]],
        peers: Callable[[], list[str]],
        problems: Callable[[], list[str]],
    ) -> None:
        self._metadata = metadata
        self._clock = clock
        self._started_at = clock.monotonic()
        self._broker_epoch = broker_epoch
        self._session = session
        self._controller = controller
        self._replica_lines = replica_lines
        self._peers = peers
        self._problems = problems

    def status_lines(self) -> list[str]:
        """One ``name: value`` per line; problems last, each on a line of its own."""
        metadata = self._metadata
        topics = metadata.topics()
        states = [state for topic in topics for state in topic.partitions.values()]
        lines = [
            f"zkbroker: {__version__}",
            f"broker: {metadata.broker_id} epoch {self._broker_epoch()}",
            f"cluster: {metadata.cluster_id}",
            f"up: {self._clock.monotonic() - self._started_at:.1f} s",
            f"zookeeper: {self._session()}",
            f"controller: {self._controller()}",
            "brokers: " + " ".join(str(broker.broker_id) for broker in metadata.live_brokers()),
            f"topics: {len(topics)}",
            f"partitions: {len(states)}",
            f"led here: {sum(state.leader == metadata.broker_id for state in states)}",
            f"without leader: {sum(state.leader < 0 for state in states)}",
            f"under-replicated: {sum(len(state.isr) < len(state.replicas) for state in states)}",
        ]
        lines += self._peers()
        lines += [f"problem: {problem}" for problem in self._problems()]
        return lines

    def partition_lines(self, topic: str | None) -> list[str]:
        """A line per replica of this broker, of one topic or of all."""
        return self._replica_lines(topic)
