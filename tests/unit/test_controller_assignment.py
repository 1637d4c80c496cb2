"""Placement of replicas: Kafka's own numbers, and that the load is spread."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.controller.assignment import alternate_racks, assign_replicas, extend_assignment
from zkbroker.model.errors import BrokerError, ErrorCode


def no_racks(count: int) -> dict[int, str | None]:
    return dict.fromkeys(range(count))


def test_the_example_in_kafkas_documentation() -> None:
    # AdminUtils.assignReplicasToBrokers: 10 partitions, 3 replicas, 5 brokers
    assignment = assign_replicas(no_racks(5), 10, 3, start_index=0, shift=0)
    assert assignment == {
        0: (0, 1, 2),
        1: (1, 2, 3),
        2: (2, 3, 4),
        3: (3, 4, 0),
        4: (4, 0, 1),
        5: (0, 2, 3),
        6: (1, 3, 4),
        7: (2, 4, 0),
        8: (3, 0, 1),
        9: (4, 1, 2),
    }


def test_racks_alternate_and_the_replicas_of_a_partition_are_on_different_ones() -> None:
    racks = {0: "rack1", 1: "rack3", 2: "rack3", 3: "rack2", 4: "rack2", 5: "rack1"}
    assert alternate_racks(racks) == [0, 3, 1, 5, 4, 2]
    assignment = assign_replicas(dict(racks), 6, 3, start_index=0, shift=0)
    assert assignment == {
        0: (0, 3, 1),
        1: (3, 1, 5),
        2: (1, 5, 4),
        3: (5, 4, 2),
        4: (4, 2, 0),
        5: (2, 0, 3),
    }


def test_added_partitions_go_on_where_the_first_began() -> None:
    brokers = no_racks(5)
    whole = assign_replicas(brokers, 8, 3, start_index=2, shift=2)
    first = {number: whole[number] for number in range(3)}
    assert extend_assignment(brokers, first, 8) == {number: whole[number] for number in range(3, 8)}


@pytest.mark.parametrize(
    ("brokers", "partitions", "factor", "error", "message"),
    [
        (3, 0, 1, ErrorCode.INVALID_PARTITIONS, "Number of partitions must be larger than 0."),
        (3, 1, 0, ErrorCode.INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0."),
        (
            3,
            1,
            4,
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor: 4 larger than available brokers: 3.",
        ),
    ],
)
def test_refusals(brokers: int, partitions: int, factor: int, error: ErrorCode, message: str) -> None:
    with pytest.raises(BrokerError) as caught:
        assign_replicas(no_racks(brokers), partitions, factor, start_index=0, shift=0)
    assert (caught.value.error, str(caught.value)) == (error, message)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_spread(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    factor = data.draw(st.integers(1, count))
    rounds = data.draw(st.integers(1, 4))
    start, shift = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    assignment = assign_replicas(no_racks(count), count * rounds, factor, start_index=start, shift=shift)
    assert all(len(set(replicas)) == factor for replicas in assignment.values())
    leaders = Counter(replicas[0] for replicas in assignment.values())
    replicas_held = Counter(broker for replicas in assignment.values() for broker in replicas)
    assert set(leaders.values()) == {rounds}
    assert set(replicas_held.values()) == {rounds * factor}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_racks_are_all_used(data: st.DataObject) -> None:
    brokers = data.draw(st.dictionaries(st.integers(0, 20), st.sampled_from("abc"), min_size=1, max_size=9))
    factor = data.draw(st.integers(1, len(brokers)))
    start, shift = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))
    racks: dict[int, str | None] = dict(brokers)
    for replicas in assign_replicas(racks, 7, factor, start_index=start, shift=shift).values():
        assert len(set(replicas)) == factor
        assert len({brokers[broker] for broker in replicas}) == min(factor, len(set(brokers.values())))
