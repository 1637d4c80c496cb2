"""The configuration reference, made from the tables.

``python -m zkbroker.model.config.reference > conf/CONFIGURATION.md`` writes it anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from zkbroker.model.config.dynamic_keys import DYNAMIC_ONLY_KEYS
from zkbroker.model.config.keys import Key, Support
from zkbroker.model.config.table import BROKER_KEYS, SECTIONS
from zkbroker.model.config.topic_table import TOPIC_KEYS, TOPIC_SYNONYMS
from zkbroker.model.config.values import DOUBLE_MAX, INT_MAX, LONG_MAX, format_value

_INTRODUCTION = """\
# Configuration reference

<!-- Generated from zkbroker/model/config/ by `python -m zkbroker.model.config.reference > conf/CONFIGURATION.md` -->

A broker reads one file, `bin/zkbroker-server-start conf/broker-1.yaml`: Kafka's property names as flat keys of YAML,
or Kafka's own `.properties` file. A value is a YAML scalar or Kafka's text (`true` or `'true'`, `6000` or `'6000'`);
a list is a YAML list or Kafka's comma-separated text.

Three things can take the place of a line of the file, the later ones the stronger:

1. an environment variable: `ZKBROKER_LOG_DIRS` is `log.dirs` (prefix off, lower case, `_` for `.`);
2. `--override log.dirs=/data` on the command line, several times if need be;
3. while the broker runs, for keys that are `cluster-wide` below, Kafka's znodes `/config/brokers/<default>` and
   `/config/brokers/<id>`: `zkbroker-configs`, Kafka's own tools or a person may write them, and they take effect at
   once.

A wrong key, value or combination stops the start with one line that names the key and the line of the file.

Each key of Kafka 3.9 is in one of three classes:

- **supported**: it does what it does in Kafka; a note says where not quite;
- **accepted without effect**: checked, then ignored, because that is harmless. One line at start names those that
  were set. The note says why, and "not yet" where the effect is to come;
- **refused**: ignoring it would be dangerous, so any value but the harmless one stops the start.

*Dynamic* says from where Kafka lets the key change while the broker runs: not at all (`read-only`), for each broker
(`per-broker`), or also for all of them at once (`cluster-wide`). The `per-broker` ones are all about listeners and
their security: here they take a restart, and a request to change them is refused.
"""

_MARKS = {Support.SUPPORTED: "supported", Support.ACCEPTED: "no effect", Support.REFUSED: "**refused**"}
_NAMED = {INT_MAX: "2147483647 (no limit)", LONG_MAX: "9223372036854775807 (no limit)", DOUBLE_MAX: "no limit"}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _default(key: Key) -> str:
    if key.default is None:
        return "–"
    if isinstance(key.default, int | float) and not isinstance(key.default, bool) and key.default in _NAMED:
        return _NAMED[key.default]
    text = format_value(key.default) or ""
    return f"`{_cell(text)}`" if text else "(empty)"


def _meaning(key: Key) -> str:
    if not key.note:
        return _cell(key.doc)
    note = key.note[0].upper() + key.note[1:]
    return _cell(f"{key.doc} *{note}{'' if note.endswith('.') else '.'}*")


def _values(key: Key) -> str:
    return "" if key.check is None else f", {_cell(str(key.check))}"


def _broker_table(keys: Iterable[Key]) -> list[str]:
    lines = ["| Key | Type, values | Default | Class | Dynamic | Meaning |", "|---|---|---|---|---|---|"]
    for key in keys:
        kind = f"{key.type.name.lower()}{_values(key)}"
        lines.append(
            f"| `{key.name}` | {kind} | {_default(key)} | {_MARKS[key.support]} | {key.scope.value} | {_meaning(key)} |"
        )
    return lines


def _topic_table(keys: Iterable[Key]) -> list[str]:
    lines = ["| Key | Type, values | Default | Class | Broker's key | Meaning |", "|---|---|---|---|---|---|"]
    for key in keys:
        kind = f"{key.type.name.lower()}{_values(key)}"
        synonyms = ", ".join(f"`{synonym.name}`" for synonym in TOPIC_SYNONYMS.get(key.name, ())) or "–"
        lines.append(
            f"| `{key.name}` | {kind} | {_default(key)} | {_MARKS[key.support]} | {synonyms} | {_meaning(key)} |"
        )
    return lines


def render_reference() -> str:
    """The whole reference as Markdown."""
    counts = {mark: sum(key.support is mark for key in BROKER_KEYS.values()) for mark in Support}
    lines = [_INTRODUCTION]
    lines.append(
        f"{len(BROKER_KEYS)} broker keys: {counts[Support.SUPPORTED]} supported, {counts[Support.ACCEPTED]} accepted"
        f" without effect, {counts[Support.REFUSED]} refused.\n"
    )
    lines.append("## Topics\n")
    lines.append(
        "A topic's own settings (`zkbroker-topics --create … --config retention.ms=3600000`, znode `/config/topics/T`)"
        " come first, then the broker's key, the first of several that is set.\n"
    )
    lines.extend(_topic_table(TOPIC_KEYS[name] for name in sorted(TOPIC_KEYS)))
    for title, keys in SECTIONS:
        lines.append(f"\n## {title}\n")
        lines.extend(_broker_table(key for key in keys if not key.is_internal))
    lines.append("\n## Only while the broker runs\n")
    lines.append("No file may have these; they stand in the znodes alone.\n")
    lines.extend(_broker_table(DYNAMIC_ONLY_KEYS.values()))
    internal = ", ".join(f"`{name}`" for name, key in BROKER_KEYS.items() if key.is_internal)
    lines.append(f"\nAlso known, though Kafka does not document them: {internal}.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
