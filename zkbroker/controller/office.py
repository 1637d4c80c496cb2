"""What a term of office is held under: its settings, and the two ways in which it ends early."""

from __future__ import annotations

from typing import NamedTuple


class ControllerRules(NamedTuple):
    """The broker settings that decisions depend on; names are Kafka's, shortened."""

    unclean: bool = False
    """``unclean.leader.election.enable``."""
    min_insync_replicas: int = 1
    """``min.insync.replicas`` of topics that do not override it."""
    auto_rebalance: bool = True
    imbalance_percentage: int = 10
    imbalance_interval_s: float = 300.0
    delete_topics: bool = True
    session_timeout_s: float = 6.0
    """Within it a broker that was fenced early is certainly expired, or registered again."""


class TopicFailed(Exception):
    """Deciding about one topic raised: the shell resigns, and quarantines the topic the second time."""

    def __init__(self, topic: str, cause: BaseException) -> None:
        super().__init__(f"topic {topic}: {type(cause).__name__}: {cause}")
        self.topic = topic


class Deposed(Exception):
    """A later controller has written: this one must resign and drop everything."""
