"""The committed reference is the one that the tables make."""

from __future__ import annotations

from pathlib import Path

from zkbroker.model.config import BROKER_KEYS, TOPIC_KEYS
from zkbroker.model.config.dynamic_keys import DYNAMIC_ONLY_KEYS
from zkbroker.model.config.reference import render_reference

REFERENCE = Path(__file__).parent.parent.parent / "conf" / "CONFIGURATION.md"


def test_the_reference_is_up_to_date() -> None:
    assert REFERENCE.read_text() == render_reference(), (
        "run: python -m zkbroker.model.config.reference > conf/CONFIGURATION.md"
    )


def test_every_key_is_in_the_reference_and_every_row_is_whole() -> None:
    text = render_reference()
    assert all(f"`{name}`" in text for name in [*BROKER_KEYS, *DYNAMIC_ONLY_KEYS, *TOPIC_KEYS])
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    documented = [key for key in BROKER_KEYS.values() if not key.is_internal]
    assert len(rows) == len(TOPIC_KEYS) + len(documented) + len(DYNAMIC_ONLY_KEYS)
    assert {line.replace("\\|", "").count("|") for line in rows} == {7}
