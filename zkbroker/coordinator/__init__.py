"""PURE: consumer groups, and the codecs of their records.

``shard`` says how a coordinator is driven, ``states`` has the tables of what it does.
"""

from __future__ import annotations

from zkbroker.coordinator.answers import refused
from zkbroker.coordinator.effects import Answer, Effect, Effects, GroupAnswer, GroupRequest, Log, Now, Write
from zkbroker.coordinator.partitioning import partition_for
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.coordinator.shard import GroupShard
from zkbroker.coordinator.states import GroupState

__all__ = [
    "Answer",
    "Effect",
    "Effects",
    "GroupAnswer",
    "GroupRequest",
    "GroupSettings",
    "GroupShard",
    "GroupState",
    "Log",
    "Now",
    "Write",
    "partition_for",
    "refused",
]
