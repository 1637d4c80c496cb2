"""What zkbroker-reassign-partitions and zkbroker-leader-election read and calculate."""

from __future__ import annotations

import random

import pytest

from zkbroker.cli._common import CommandError
from zkbroker.cli._reassignment_plan import (
    Move,
    as_json,
    as_rows,
    moves,
    parse_brokers,
    parse_reassignment,
    parse_topics,
    propose,
    throttled_replicas,
)
from zkbroker.cli.leader_election import parse_partitions
from zkbroker.model.reassignments import OngoingMove
from zkbroker.model.topics import TopicPartition

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


def test_a_plan_is_read_and_written() -> None:
    text = as_json(as_rows({T1: (3,), T0: (1, 2)}))
    assert text == (
        '{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2],"log_dirs":["any","any"]},'
        '{"topic":"t","partition":1,"replicas":[3],"log_dirs":["any"]}]}'
    )
    assert parse_reassignment(text) == {T0: (1, 2), T1: (3,)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "not a valid JSON"),
        ("[]", "not a valid JSON"),
        ('{"version":2,"partitions":[]}', "Not supported version field value 2"),
        ('{"partitions":[]}', "cannot be empty"),
        ('{"partitions":[{"topic":"t","partition":0,"replicas":[]}]}', "replica list cannot be empty"),
        ('{"partitions":[{"topic":"t","partition":0,"replicas":[1,1]}]}', "t-0 contains multiple entries for 1"),
        ('{"partitions":[{"topic":"t","partition":0}]}', "wants topic, partition and replicas"),
        ('{"partitions":[{"topic":"t","partition":0,"replicas":[1],"log_dirs":[]}]}', "different from size"),
        ('{"partitions":[{"topic":"t","partition":0,"replicas":[1],"log_dirs":["/x"]}]}', "not supported"),
        (
            '{"partitions":[{"topic":"t","partition":0,"replicas":[1]},{"topic":"t","partition":0,"replicas":[2]}]}',
            "duplicate topic partitions: t-0",
        ),
    ],
)
def test_a_plan_that_cannot_be(text: str, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        parse_reassignment(text)


def test_other_files() -> None:
    assert parse_topics('{"topics":[{"topic":"t"},{"topic":"u"}]}') == ["t", "u"]
    assert parse_brokers("1,2") == [1, 2]
    assert parse_partitions('{"partitions":[{"topic":"t","partition":1}]}') == [T1]
    for parse, text in (
        (parse_topics, '{"topics":[{"topic":"t"},{"topic":"t"}]}'),
        (parse_topics, '{"topics":[{"name":"t"}]}'),
        (parse_brokers, "1,1"),
        (parse_brokers, "one"),
        (parse_partitions, "{}"),
        (parse_partitions, ""),
        (parse_partitions, '{"partitions":[{"topic":"t","partition":1},{"topic":"t","partition":1}]}'),
    ):
        with pytest.raises(CommandError):
            parse(text)


def test_a_proposal_keeps_the_number_of_replicas_and_spreads_leaders() -> None:
    current = {TopicPartition("t", number): (1, 2) for number in range(4)}
    proposed = propose(current, {1: None, 2: None, 3: None, 4: None}, random.Random(1).randrange)
    assert proposed.keys() == current.keys()
    assert all(len(set(replicas)) == 2 for replicas in proposed.values())
    assert sorted(replicas[0] for replicas in proposed.values()) == [1, 2, 3, 4]
    with pytest.raises(CommandError, match="Replication factor: 2 larger than available brokers: 1"):
        propose(current, {1: None}, random.Random(1).randrange)


def test_both_ends_of_a_move_are_throttled() -> None:
    current = {T0: (1, 2), T1: (2, 3)}
    found = moves(current, {T0: (3, 2), T1: (2, 3)}, {})
    assert found == {"t": {0: Move((1, 2), (3,)), 1: Move((2, 3), ())}}
    assert throttled_replicas(found["t"]) == ("0:1,0:2,1:2,1:3", "0:3")
    ongoing = {T0: OngoingMove(T0, (3, 1, 2), (3,), (1,))}
    assert moves(current, {T0: (4, 2)}, ongoing) == {"t": {0: Move((1, 2), (3, 4))}}
