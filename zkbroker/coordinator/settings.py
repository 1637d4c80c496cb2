"""The broker's settings that a coordinator of groups goes by. Defaults are Kafka's."""

from __future__ import annotations

from typing import NamedTuple


class GroupSettings(NamedTuple):
    session_timeout_ms_min: int = 6_000
    """``group.min.session.timeout.ms``"""
    session_timeout_ms_max: int = 1_800_000
    """``group.max.session.timeout.ms``"""
    members_max: int = 2**31 - 1
    """``group.max.size``"""
    initial_rebalance_delay_ms: int = 3_000
    """``group.initial.rebalance.delay.ms``"""
    metadata_length_max: int = 4_096
    """``offset.metadata.max.bytes``, which Kafka compares with a count of UTF-16 units"""
    retention_ms: int = 7 * 24 * 3600 * 1000
    """``offsets.retention.minutes``"""
