"""The broker settings that the controller needs, gathered by the composition root."""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.controller.office import ControllerRules
from zkbroker.controller.requests import TopicDefaults


class ControllerSettings(NamedTuple):
    """Names are Kafka's with ``_`` for ``.``; defaults are Kafka's."""

    num_partitions: int = 1
    default_replication_factor: int = 1
    unclean_leader_election_enable: bool = False
    min_insync_replicas: int = 1
    auto_leader_rebalance_enable: bool = True
    leader_imbalance_per_broker_percentage: int = 10
    leader_imbalance_check_interval_seconds: int = 300
    delete_topic_enable: bool = True
    session_timeout_s: float = 6.0
    """``zookeeper.session.timeout.ms``: without a reply for so long the office is given up."""
    steps_down_unheard: bool = False
    """Give the office up when too few of the other brokers are heard (``broker.failure.detection: fast``)."""
    request_timeout_s: float = 30.0
    """How long automatic topic creation may take (``request.timeout.ms``)."""

    def rules(self) -> ControllerRules:
        return ControllerRules(
            unclean=self.unclean_leader_election_enable,
            min_insync_replicas=self.min_insync_replicas,
            auto_rebalance=self.auto_leader_rebalance_enable,
            imbalance_percentage=self.leader_imbalance_per_broker_percentage,
            imbalance_interval_s=float(self.leader_imbalance_check_interval_seconds),
            delete_topics=self.delete_topic_enable,
            session_timeout_s=self.session_timeout_s,
        )

    def topic_defaults(self) -> TopicDefaults:
        return TopicDefaults(self.num_partitions, self.default_replication_factor)
