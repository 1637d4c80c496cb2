"""Producer ids: every id once, whatever happens to the claim of a block."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.harness.zookeeper_worlds import FakeWorld, connect, wait
from zkbroker.broker.producer_ids import ProducerIds
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.zookeeper.client import Create, SetData
from zkbroker.zookeeper.znodes import producer_ids as znode
from zkbroker.zookeeper.znodes.codec import INT64_MAX


def brokers(world: FakeWorld, count: int) -> list[ProducerIds]:
    found = []
    for number in range(1, count + 1):
        session = world.session()
        connect(world, session)
        found.append(ProducerIds(broker_id=number, zk=session))
    return found


def ask(ids: ProducerIds) -> Deferred[tuple[int, int]]:
    return ids.init_producer_id(None, -1, -1)


def claimed(world: FakeWorld) -> znode.ProducerIdBlock:
    data = world.zookeeper.data(znode.PATH)
    assert data is not None
    return znode.decode(data)


def test_one_claim_serves_a_thousand_ids_in_order() -> None:
    world = FakeWorld()
    (ids,) = brokers(world, 1)
    asked = [ask(ids) for _ in range(znode.BLOCK_SIZE)]
    assert [wait(world, one) for one in asked] == [(number, 0) for number in range(1000)]
    assert claimed(world) == znode.ProducerIdBlock(1, 0, 999)
    assert wait(world, ask(ids)) == (1000, 0)
    assert claimed(world) == znode.ProducerIdBlock(1, 1000, 1999)


def test_an_empty_znode_is_the_beginning_as_kafka_leaves_it() -> None:
    world = FakeWorld()
    world.zookeeper.write(Create(znode.PATH, b""))
    (ids,) = brokers(world, 1)
    assert wait(world, ask(ids)) == (0, 0)


def test_it_goes_on_after_a_block_of_kafka() -> None:
    world = FakeWorld()
    world.zookeeper.write(Create(znode.PATH, b'{"version":1,"broker":9,"block_start":"2000","block_end":"2999"}'))
    (ids,) = brokers(world, 1)
    assert wait(world, ask(ids)) == (3000, 0)


@pytest.mark.parametrize("exists", [False, True])
def test_brokers_that_claim_at_once_get_different_blocks(exists: bool) -> None:
    world = FakeWorld()
    if exists:
        world.zookeeper.write(Create(znode.PATH, b""))
    asked = [ask(ids) for ids in brokers(world, 5)]
    firsts = sorted(wait(world, one)[0] for one in asked)
    assert firsts == [0, 1000, 2000, 3000, 4000]


@pytest.mark.parametrize("exists", [False, True])
def test_a_block_whose_claim_ended_unknown_is_never_used(exists: bool) -> None:
    world = FakeWorld()
    if exists:
        world.zookeeper.write(Create(znode.PATH, b""))
    session = world.session()
    connect(world, session)
    ids = ProducerIds(broker_id=1, zk=session)
    session.lose_next_reply()
    waiting = [ask(ids), ask(ids)]
    for one in waiting:
        with pytest.raises(BrokerError) as caught:
            wait(world, one)
        assert caught.value.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert claimed(world).block_start == 0
    world.until(lambda: session.is_connected)
    assert wait(world, ask(ids)) == (1000, 0)


@pytest.mark.parametrize(
    "garbage",
    [
        b"{oops",
        b"\xff",
        b"[]",
        b'{"version":1,"broker":1,"block_start":"5","block_end":"4"}',
        b'{"version":1,"broker":1,"block_start":0,"block_end":999}',
    ],
)
def test_garbage_refuses_with_a_retriable_error_until_a_person_mends_it(garbage: bytes) -> None:
    world = FakeWorld()
    world.zookeeper.write(Create(znode.PATH, garbage))
    (ids,) = brokers(world, 1)
    for _ in range(2):
        with pytest.raises(BrokerError) as caught:
            wait(world, ask(ids))
        assert caught.value.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert znode.PATH in str(caught.value)
    assert world.zookeeper.data(znode.PATH) == garbage
    world.zookeeper.write(SetData(znode.PATH, znode.encode(znode.ProducerIdBlock(1, 0, 999))))
    assert wait(world, ask(ids)) == (1000, 0)


def test_ids_end_where_64_bits_end() -> None:
    world = FakeWorld()
    last = znode.ProducerIdBlock(1, INT64_MAX - 1500, INT64_MAX - 501)
    world.zookeeper.write(Create(znode.PATH, znode.encode(last)))
    (ids,) = brokers(world, 1)
    with pytest.raises(BrokerError, match="used up"):
        wait(world, ask(ids))
    assert claimed(world) == last


def test_a_transactional_id_is_refused_without_a_claim() -> None:
    world = FakeWorld()
    (ids,) = brokers(world, 1)
    with pytest.raises(BrokerError, match="transactions"):
        wait(world, ids.init_producer_id("tx", -1, -1))
    assert world.zookeeper.data(znode.PATH) is None
