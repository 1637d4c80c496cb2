"""conf/PROTOCOL.md is the one that the table of versions makes."""

from __future__ import annotations

from pathlib import Path

from zkbroker.kafka.version_table import KAFKA, NOTES, WHY_NOT, render_table
from zkbroker.kafka.versions import BY_KEY, RANGES

REFERENCE = Path(__file__).parent.parent.parent / "conf" / "PROTOCOL.md"


def test_the_reference_is_up_to_date() -> None:
    assert REFERENCE.read_text() == render_table(), "run: python -m zkbroker.kafka.version_table > conf/PROTOCOL.md"


def test_every_api_of_kafka_is_in_it_once() -> None:
    rows = [line.split(" | ")[0] for line in render_table().splitlines() if line.startswith("| ") and "Key" not in line]
    assert sorted(rows) == sorted(f"| {key}" for key in {api.key for api in KAFKA} | set(BY_KEY))
    assert {api.key for api in KAFKA} - set(BY_KEY) <= set(WHY_NOT), "nobody says why it is not served"
    assert set(NOTES) <= set(BY_KEY)


def test_no_version_is_advertised_that_kafka_does_not_know() -> None:
    kafka = {api.key: api for api in KAFKA}
    for api in RANGES:
        name = "".join(word.capitalize() for word in api.name.split("_"))
        assert kafka[api.key].name == name
        assert kafka[api.key].minimum <= api.minimum <= api.maximum <= kafka[api.key].maximum, name
