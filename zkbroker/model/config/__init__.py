"""Configuration: the table of every key, a broker's settings, a topic's settings, and how they are described."""

from __future__ import annotations

from zkbroker.model.config.broker import BrokerConfig, Setting, ZooKeeperConnect
from zkbroker.model.config.build import build_broker_config
from zkbroker.model.config.describe import (
    describe_broker_entries,
    describe_dynamic_default_entries,
    describe_topic_entries,
)
from zkbroker.model.config.entry import ConfigEntry
from zkbroker.model.config.keys import Key, Scope, Support
from zkbroker.model.config.table import BROKER_KEYS
from zkbroker.model.config.topic_table import TOPIC_KEYS
from zkbroker.model.config.topics import resolve_topic_config, validate_topic_overrides

__all__ = [
    "BROKER_KEYS",
    "TOPIC_KEYS",
    "BrokerConfig",
    "ConfigEntry",
    "Key",
    "Scope",
    "Setting",
    "Support",
    "ZooKeeperConnect",
    "build_broker_config",
    "describe_broker_entries",
    "describe_dynamic_default_entries",
    "describe_topic_entries",
    "resolve_topic_config",
    "validate_topic_overrides",
]
