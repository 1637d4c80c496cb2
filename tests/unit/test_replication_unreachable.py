"""A follower notices that its leader does not answer, and that it does again."""

from __future__ import annotations

import pytest

from tests.fakes.replication import identity
from tests.unit.test_replication_fetcher import DEMO, OTHER, Pair
from zkbroker.model.complaints import Unreachable


@pytest.fixture
def pair() -> Pair:
    return Pair()


def complaints(pair: Pair) -> tuple[Unreachable, ...]:
    return pair.fetchers.unreachable(pair.wire.monotonic())


def test_a_leader_that_answers_is_never_complained_of(pair: Pair) -> None:
    pair.follow(DEMO)
    for _ in range(50):
        pair.wire.run(0.2)
        assert complaints(pair) == ()


def test_a_leader_that_does_not_read_is_complained_of_until_it_does(pair: Pair) -> None:
    pair.follow(DEMO)
    server_end = pair.wire.transports[-1]
    server_end.reads = False
    pair.end.reads = False
    pair.wire.run(2.4)
    assert complaints(pair) == ()
    pair.wire.run(0.6)
    (complaint,) = complaints(pair)
    assert (complaint.broker_id, complaint.broker_epoch) == (1, 101)
    assert complaint.seconds == pytest.approx(2.5, abs=0.2)
    server_end.reads = pair.end.reads = True
    pair.wire.run(0.1)
    assert complaints(pair) == ()


def test_a_leader_that_cannot_be_connected_to_is_complained_of(pair: Pair) -> None:
    pair.wire.is_refusing = True
    pair.follow(DEMO)
    pair.wire.run(1.9)
    assert complaints(pair) == ()
    pair.wire.run(0.2)
    assert [complaint.broker_id for complaint in complaints(pair)] == [1]
    pair.wire.is_refusing = False
    pair.wire.run(2.0)
    assert complaints(pair) == ()


def test_a_lost_connection_counts_from_the_last_answer(pair: Pair) -> None:
    pair.follow(DEMO)
    pair.wire.run(3.0)
    pair.wire.is_refusing = True
    pair.wire.cut(pair.end)
    pair.wire.run(1.0)
    assert complaints(pair) == ()
    pair.wire.run(1.2)
    assert len(complaints(pair)) == 1


def test_nobody_complains_of_a_broker_that_it_does_not_follow_or_that_is_not_registered(pair: Pair) -> None:
    pair.wire.is_refusing = True
    pair.follow(DEMO, OTHER)
    pair.wire.run(3.0)
    assert len(complaints(pair)) == 1
    pair.fetchers.remove_address(1)
    assert complaints(pair) == ()
    pair.fetchers.set_address(1, 101, "one", 9)
    pair.wire.run(3.0)
    assert len(complaints(pair)) == 1
    pair.fetchers.unfollow(DEMO)
    pair.fetchers.unfollow(OTHER)
    pair.wire.run(0.1)
    assert complaints(pair) == ()


def test_another_incarnation_has_its_own_time(pair: Pair) -> None:
    pair.wire.is_refusing = True
    pair.follow(DEMO)
    pair.wire.run(3.0)
    assert len(complaints(pair)) == 1
    pair.identities[1] = identity(1, 150)
    pair.fetchers.set_address(1, 150, "one", 9)
    assert complaints(pair) == ()
    pair.wire.run(2.1)
    assert [complaint.broker_epoch for complaint in complaints(pair)] == [150]


def test_a_leader_that_was_not_asked_for_long_owes_nothing(pair: Pair) -> None:
    pair.follow(DEMO)
    pair.follower.offline.add(DEMO)
    pair.fetchers.position_changed(DEMO)
    pair.wire.run(10.0)
    pair.follower.offline.discard(DEMO)
    pair.fetchers.follow(DEMO, 1)
    pair.wire.run(0.001)
    assert complaints(pair) == ()
