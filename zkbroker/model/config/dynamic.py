"""A broker's settings as they are now: the file's, and over them what ``/config/brokers`` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from zkbroker.model.config.broker import BrokerConfig, freeze
from zkbroker.model.config.dynamic_keys import DYNAMIC_ONLY_KEYS, dynamic_key, dynamic_refusal
from zkbroker.model.config.topic_table import TOPIC_KEYS, inherited_value
from zkbroker.model.config.values import Value, printable


def with_dynamic(
    config: BrokerConfig, dynamic_default: Mapping[str, str], dynamic_broker: Mapping[str, str]
) -> BrokerConfig:
    """The configuration with valid settings of ``/config/brokers/<default>`` and, the stronger, ``/config/brokers/N``;
    wrong ones change nothing. It has the keys that exist only there, too."""
    values = dict(config.values)
    values.update((name, key.default) for name, key in DYNAMIC_ONLY_KEYS.items())
    unheard: list[str] = []
    for settings in (dynamic_default, dynamic_broker):
        values.update(parsed_dynamic(valid_dynamic(settings, "", unheard)))
    topic_defaults = {name: inherited_value(name, values.__getitem__) for name in TOPIC_KEYS}
    return replace(config, values=freeze(values), topic_defaults=freeze(topic_defaults))


def parsed_dynamic(settings: Mapping[str, str]) -> dict[str, Value]:
    """The values of valid dynamic settings."""
    keys = ((name, text, dynamic_key(name)) for name, text in settings.items())
    return {name: key.parse(text) for name, text, key in keys if key is not None}


def valid_dynamic(settings: Mapping[str, str], place: str, problems: list[str]) -> dict[str, str]:
    """The settings of a znode that can be obeyed; a line of ``problems`` for each of the others."""
    valid = {}
    for name in sorted(settings):
        text = settings[name]
        if not isinstance(text, str):
            problems.append(f"{printable(name, 100)} of {place} is not a text; it is ignored")
            continue
        problem = dynamic_refusal(name, text)
        if problem is None:
            valid[name] = text
        else:
            problems.append(f"{printable(name, 100)} of {place} is '{_shown(name, text)}': {problem}; it is ignored")
    return valid


def _shown(name: str, text: str) -> str:
    key = dynamic_key(name)
    return "[hidden]" if key is None or key.is_sensitive else printable(text, 100)
