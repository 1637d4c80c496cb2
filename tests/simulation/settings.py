"""What a simulated world is made of."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WorldSettings:
    """Numbers of a world. Times are true seconds."""

    brokers: int = 3
    session_timeout_s: float = 1.5
    config: dict[str, str] = field(default_factory=dict)
    """Broker keys on top of the short times that a world has anyway."""
    own_config: dict[int, dict[str, str]] = field(default_factory=dict)
    """Broker → keys of that one alone."""
    replication_factor_max: int = 3
    latency_s_min: float = 0.0001
    latency_s_max: float = 0.002
    late_share: float = 0.02
    """Of packets: as late as ``late_s_max``."""
    late_s_max: float = 0.03
    split_share: float = 0.1
    """Of deliveries: cut at a random byte, the rest comes later."""
    send_buffer_bytes_min: int = 2_000
    send_buffer_bytes_max: int = 200_000
    thread_s_mean: float = 0.001
    """How long a job in a thread takes, exponentially distributed."""
    zookeeper_s_min: float = 0.0003
    zookeeper_s_max: float = 0.004
    """One way between a broker and the ensemble."""
    zookeeper_late_share: float = 0.01
    zookeeper_late_s_max: float = 0.06
    zookeeper_tick_s: float = 0.2
    """A session is expired up to so much later than its timeout, or up to a ping earlier than it seemed."""
    cold_share: float = 0.25
    """Of reads that must not wait for a disk: the page cache has only a part of the bytes, or none."""
    small_tails_share: float = 0.5
    """Of processes: hardly any memory for what is read most, so that it comes from the disk."""
    kafka_port: int = 9092
    replication_port: int = 19092
    trace_lines_max: int | None = None
    collect_every_steps: int = 6_000
    """How often garbage is collected, which shows failures that nobody handled; 0 is never."""

    @property
    def replication_factor(self) -> int:
        """Of every topic."""
        return min(self.replication_factor_max, self.brokers)

    def broker_config(self, broker_id: int) -> dict[str, str]:
        """The keys of one broker's configuration."""
        host = f"broker-{broker_id}"
        values = {
            "broker.id": str(broker_id),
            "zookeeper.connect": "zookeeper:2181",
            "zookeeper.session.timeout.ms": str(int(self.session_timeout_s * 1000)),
            "zookeeper.connection.timeout.ms": "60000",
            "log.dirs": "/data",
            "listeners": f"PLAINTEXT://{host}:{self.kafka_port},REPLICATION://{host}:{self.replication_port}",
            "min.insync.replicas": "2",
            "default.replication.factor": str(self.replication_factor),
            "num.partitions": "2",
            "log.segment.bytes": "4000",
            "log.index.interval.bytes": "256",
            "replica.lag.time.max.ms": "500",
            "replica.fetch.wait.max.ms": "250",
            "replica.high.watermark.checkpoint.interval.ms": "1000",
            "request.timeout.ms": "3000",
            "controlled.shutdown.enable": "true",
        }
        return values | self.config | self.own_config.get(broker_id, {})
