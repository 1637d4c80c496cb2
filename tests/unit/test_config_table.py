"""The table of keys against what Kafka 3.9.1's own classes say (tests/data/kafka-config-keys.tsv)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zkbroker
from zkbroker.model.config import BROKER_KEYS, TOPIC_KEYS, Key, Support
from zkbroker.model.config.keys import supported
from zkbroker.model.config.table import closest, index_keys, is_plugin_setting, prefixed_key
from zkbroker.model.config.topic_table import TOPIC_SYNONYMS
from zkbroker.model.config.values import (
    BOOLEAN,
    CLASS,
    DOUBLE,
    INT,
    LIST,
    LONG,
    SHORT,
    STRING,
    Between,
    EachOf,
    OneOf,
    Value,
    ValueProblem,
    ValueType,
    at_least,
    between,
    format_value,
    one_of,
    parse_value,
)
from zkbroker.model.errors import InvariantViolation

ROWS = [
    line.split("\t")
    for line in (Path(__file__).parent.parent / "data" / "kafka-config-keys.tsv").read_text().splitlines()
    if not line.startswith("#")
]
BROKER_ROWS = [row for row in ROWS if row[0] == "broker"]
TOPIC_ROWS = [row for row in ROWS if row[0] == "topic"]

OTHER_DEFAULTS = {"log.dir", "queued.max.request.bytes", "zookeeper.session.timeout.ms"}
"""Where zkbroker's default differs on purpose: each has a note in the table."""

TIGHTER = {
    "broker.id",
    "default.replication.factor",
    "replica.fetch.wait.max.ms",
    "replica.high.watermark.checkpoint.interval.ms",
    "replica.lag.time.max.ms",
    "request.timeout.ms",
    "zookeeper.connection.timeout.ms",
    "zookeeper.session.timeout.ms",
}
"""Keys with a range that Kafka leaves open although nothing outside of it makes sense."""


def _kafka_default(kind: str, text: str) -> Value:
    if text == "NULL":
        return None
    text = text.removeprefix("=")
    if kind == "LIST":
        text = text.removeprefix("[").removesuffix("]")
    if kind == "CLASS":
        text = text.removeprefix("class ")
    return parse_value(ValueType[kind], text)


def test_the_table_has_exactly_the_keys_of_kafka_and_marks_its_own() -> None:
    assert {row[1] for row in BROKER_ROWS} == {name for name, key in BROKER_KEYS.items() if not key.is_own}
    assert {row[1] for row in TOPIC_ROWS} == {name for name, key in TOPIC_KEYS.items() if not key.is_own}
    assert [name for name, key in TOPIC_KEYS.items() if key.is_own] == ["record.validation"]


def _differences(row: list[str], table: Mapping[str, Key]) -> list[str]:
    """What the table says otherwise than Kafka about one key."""
    place, name, kind, default, valid, scope, visibility = row
    key = table[name]
    other_default = place == "broker" and name in OTHER_DEFAULTS
    low = float(valid[1:].partition(",")[0]) if valid.startswith("[") and valid.endswith("...]") else None
    claims = {
        "type": key.type.name == kind,
        "default": (key.default == _kafka_default(kind, default)) != other_default,
        "note on its other default": bool(key.note) or not other_default,
        "scope": place == "topic" or key.scope.value == scope,
        "visibility": place == "topic" or key.is_internal == (visibility == "internal"),
        "range": low is None or name in TIGHTER or key.check == Between(low),
        "range of its default": key.default is None or key.check is None or key.check.problem(key.default) is None,
    }
    return [f"{name}: {what}" for what, holds in claims.items() if not holds]


def test_types_defaults_scopes_and_ranges_are_those_of_kafka() -> None:
    differences = [_differences(row, BROKER_KEYS) for row in BROKER_ROWS]
    differences += [_differences(row, TOPIC_KEYS) for row in TOPIC_ROWS]
    assert [difference for found in differences for difference in found] == []
    assert len(differences) > 300


def test_synonyms_of_topic_keys_are_those_of_kafka() -> None:
    kafka = {row[1]: row[2].split(",") for row in ROWS if row[0] == "synonym"}
    own = {name: [synonym.name for synonym in synonyms] for name, synonyms in TOPIC_SYNONYMS.items()}
    assert own.pop("record.validation") == ["record.validation"]
    assert own == kafka


def test_every_key_is_explained_in_one_line() -> None:
    for key in [*BROKER_KEYS.values(), *TOPIC_KEYS.values()]:
        assert key.doc.endswith("."), key
        assert "\n" not in key.doc + key.note, key
        assert key.support is Support.SUPPORTED or key.note, key
        assert (key.support is Support.REFUSED) == (key.harmless is not None), key


def test_supported_means_that_something_reads_it() -> None:
    package = Path(zkbroker.__file__).parent
    own = package / "model" / "config"
    tables = [*own.glob("*_keys.py"), own / "notes.py", own / "reference.py"]
    source = "".join(path.read_text() for path in package.rglob("*.py") if path not in tables)
    supported_names = [name for name, key in BROKER_KEYS.items() if key.support is Support.SUPPORTED]
    assert [name for name in supported_names if f'"{name}"' not in source] == []
    fields = [name for name, key in TOPIC_KEYS.items() if key.support is Support.SUPPORTED]
    assert [name for name in fields if f".{name.replace('.', '_')}" not in source] == [
        "message.timestamp.difference.max.ms"  # Only the default of the two limits.
    ]


def test_every_default_survives_being_written_and_read() -> None:
    for key in BROKER_KEYS.values():
        text = format_value(key.default)
        assert (None if text is None else parse_value(key.type, text)) == key.default


def test_a_name_twice_in_the_table_is_a_broken_invariant() -> None:
    key = supported("a", INT, 1, "A.")
    with pytest.raises(InvariantViolation, match="has a twice"):
        index_keys([key, key])


def test_listener_prefixes_and_plug_ins() -> None:
    assert prefixed_key("listener.name.internal.ssl.keystore.location") is BROKER_KEYS["ssl.keystore.location"]
    assert prefixed_key("listener.name.internal.plain.sasl.jaas.config") is BROKER_KEYS["sasl.jaas.config"]
    assert prefixed_key("listener.name.internal.no.such.key") is None
    assert prefixed_key("ssl.keystore.location") is None
    assert is_plugin_setting("rsm.config.bucket")
    assert not is_plugin_setting("log.dirs")


def test_the_closest_name_is_offered_only_when_it_is_close() -> None:
    assert closest("log.dirz", BROKER_KEYS) == " (did you mean 'log.dirs'?)"
    assert closest("qqqqqqq", BROKER_KEYS) == ""


VALUES: dict[ValueType, st.SearchStrategy[Value]] = {
    BOOLEAN: st.booleans(),
    INT: st.integers(-(2**31), 2**31 - 1),
    SHORT: st.integers(-(2**15), 2**15 - 1),
    LONG: st.integers(-(2**63), 2**63 - 1),
    DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    STRING: st.text().map(str.strip),
    LIST: st.lists(st.from_regex(r"[a-zA-Z0-9_.:/-]{1,8}", fullmatch=True), max_size=4).map(tuple),
}


@pytest.mark.parametrize("kind", list(VALUES))
def test_values_round_trip(kind: ValueType) -> None:
    @given(value=VALUES[kind], blanks=st.text(" \t", max_size=2))
    @settings(max_examples=60, deadline=None)
    def round_trip(value: Value, blanks: str) -> None:
        text = format_value(value)
        assert text is not None
        assert parse_value(kind, blanks + text + blanks) == value

    round_trip()


@given(kind=st.sampled_from(list(ValueType)), text=st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_value_or_a_problem(kind: ValueType, text: str) -> None:
    try:
        value = parse_value(kind, text)
    except ValueProblem as problem:
        assert kind in (BOOLEAN, INT, SHORT, LONG, DOUBLE)
        assert str(problem)
    else:
        assert value is not None


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (BOOLEAN, "yes", "Expected value to be either true or false"),
        (INT, "", "Not a number of type INT"),
        (INT, "1.5", "Not a number of type INT"),
        (INT, "1_000", "Not a number of type INT"),
        (INT, "٣", "Not a number of type INT"),
        (INT, "2147483648", "Not a number of type INT"),
        (INT, "9" * 100_000, "Not a number of type INT"),
        (SHORT, "32768", "Not a number of type SHORT"),
        (LONG, "9223372036854775808", "Not a number of type LONG"),
        (LONG, "-9223372036854775809", "Not a number of type LONG"),
        (DOUBLE, "nan", "Not a number of type DOUBLE"),
        (DOUBLE, "1e999", "Not a number of type DOUBLE"),
    ],
)
def test_wrong_texts_in_kafkas_words(kind: ValueType, text: str, problem: str) -> None:
    with pytest.raises(ValueProblem) as raised:
        parse_value(kind, text)
    assert str(raised.value) == problem


def test_texts_that_kafka_takes_too() -> None:
    assert parse_value(BOOLEAN, " TRUE ") is True
    assert parse_value(INT, "+007") == 7
    assert parse_value(LONG, "0" * 50 + "1") == 1
    assert parse_value(DOUBLE, ".5") == 0.5
    assert parse_value(LIST, " a , b,,c ") == ("a", "b", "", "c")
    assert parse_value(LIST, "") == ()
    assert parse_value(CLASS, " org.X ") == "org.X"


def test_checks() -> None:
    assert at_least(1).problem(0) == "Value must be at least 1"
    assert at_least(1).problem(1) is None
    assert between(0, 1).problem(1.5) == "Value must be no more than 1"
    assert Between(1, 9, -1).problem(-1) is None
    assert Between(1, 9, -1).problem(0) == "Value must be at least 1"
    assert one_of("a", "b").problem("A") == "String must be one of: a, b"
    assert OneOf(("a", "b"), ignores_case=True).problem("A") is None
    assert EachOf(("a", "b")).problem(("a", "c")) == "String must be one of: a, b"
    assert [str(check) for check in (at_least(1), Between(1, 9, -1), one_of("a", "b"), EachOf(("a",)))] == [
        "≥ 1",
        "1 … 9, or -1",
        "a, b",
        "list of a",
    ]


def test_special_checks_of_single_keys() -> None:
    throttled = TOPIC_KEYS["leader.replication.throttled.replicas"]
    assert throttled.parse("0:1,1:2") == ("0:1", "1:2")
    assert throttled.parse("*") == ("*",)
    for wrong in ("0", "a:b", "*,0:1"):
        with pytest.raises(ValueProblem, match="partition:broker"):
            throttled.parse(wrong)
    version = BROKER_KEYS["inter.broker.protocol.version"]
    assert version.parse("3.9-IV0") == "3.9-IV0"
    with pytest.raises(ValueProblem, match="a version of Kafka"):
        version.parse("new")
    assert BROKER_KEYS["ssl.key.password"].is_sensitive
    assert BROKER_KEYS["ssl.key.password"].show("secret") is None
