"""Fetchers joined to the listener in memory: sessions, stale answers, back-off, and what breaks a connection."""

from __future__ import annotations

import random

import pytest

from tests.fakes.replication import FakeFollower, FakeLeader, FakeStatus, identity
from tests.fakes.wire import Wire, WireTransport
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.fetcher import Fetchers, FetcherSettings
from zkbroker.replication.ports import FetchRow, Identity
from zkbroker.replication.server import ReplicationServer

DEMO = TopicPartition("demo", 0)
OTHER = TopicPartition("other", 1)


class Pair:
    """Broker 2 follows broker 1."""

    def __init__(self, **settings: int) -> None:
        self.wire = Wire()
        self.leader = FakeLeader()
        self.follower = FakeFollower()
        self.identities = {1: identity(1), 2: identity(2)}
        self.servers = {1: self.serve(1, self.leader)}
        self.fetchers = Fetchers(
            reactor=self.wire,
            clock=self.wire,
            random=random.Random(1),
            identity=lambda: self.identities[2],
            follower=self.follower,
            settings=FetcherSettings(**settings),
        )
        self.follower.fetchers = self.fetchers
        self.fetchers.set_address(1, 101, "one", 9)

    def serve(self, broker_id: int, leader: FakeLeader) -> ReplicationServer:
        server = ReplicationServer(
            reactor=self.wire,
            clock=self.wire,
            identity=lambda: self.identities[broker_id],
            leader=leader,
            controller=lambda: None,
            status=FakeStatus(),
        )
        self.wire.listen({1: "one", 3: "three"}[broker_id], 9, server)
        return server

    def follow(self, *partitions: TopicPartition, leader: int = 1) -> None:
        for partition in partitions:
            self.fetchers.follow(partition, leader)
        self.wire.run(0.02)

    @property
    def end(self) -> WireTransport:
        """The follower's end of the newest connection."""
        return self.wire.transports[-2]

    def log(self, partition: TopicPartition = DEMO) -> bytes:
        return bytes(self.follower.logs.get(partition, b""))

    def asked(self) -> int:
        """How many FETCHes were sent on the newest connection."""
        return bytes(self.end.sent).count(b"FETCH ")


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_what_the_leader_has_comes_at_once(pair: Pair) -> None:
    pair.leader.append(DEMO, b"abc")
    pair.follow(DEMO)
    assert pair.log() == b"abc"
    pair.leader.append(DEMO, b"def")
    pair.wire.run()
    assert pair.log() == b"abcdef"
    # One round trip later the leader knows, without any time passing: this is what acks=all waits for.
    assert pair.leader.high_watermarks[DEMO] == 6


def test_the_high_watermark_arrives_soon(pair: Pair) -> None:
    pair.leader.append(DEMO, b"abc")
    pair.follow(DEMO)
    pair.wire.run(0.01)
    assert pair.follower.high_watermarks[DEMO] == 3


def test_idle_partitions_are_not_asked_again(pair: Pair) -> None:
    partitions = [TopicPartition("idle", number) for number in range(50)]
    pair.follow(*partitions, DEMO)
    received = len(pair.leader.received)
    pair.wire.run(5.0)
    assert len(pair.leader.received) == received
    pair.leader.append(DEMO, b"abc")
    pair.wire.run(0.1)
    assert len(pair.leader.received) == received + 1


def test_an_idle_session_costs_two_fetches_a_second(pair: Pair) -> None:
    pair.follow(DEMO)
    asked = pair.asked()
    pair.wire.run(5.0)
    assert 9 <= pair.asked() - asked <= 11
    assert pair.leader.contacts[DEMO].last_fetch_at > 4.5


def test_many_partitions_are_asked_in_portions(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zkbroker.replication.leader_fetcher.FETCH_PARTITIONS_SENT", 10)
    partitions = [TopicPartition("many", number) for number in range(35)]
    for partition in partitions:
        pair.leader.append(partition, b"abc")
    pair.follow(*partitions)
    assert [pair.log(partition) for partition in partitions] == [b"abc"] * 35


def test_small_answers_serve_every_partition() -> None:
    pair = Pair(response_max_bytes=50, fetch_max_bytes=20)
    partitions = [TopicPartition("wide", number) for number in range(9)]
    for partition in partitions:
        pair.leader.append(partition, b"0123456789" * 10)
    pair.follow(*partitions)
    assert [len(pair.log(partition)) for partition in partitions] == [100] * 9


def test_a_position_that_changes_later_goes_into_a_fetch_at_once(pair: Pair) -> None:
    pair.follower.slow.add(DEMO)
    pair.leader.append(DEMO, b"abc")
    pair.follow(DEMO)
    assert pair.log() == b"abc"
    assert DEMO not in pair.leader.high_watermarks
    pair.fetchers.position_changed(DEMO)
    pair.wire.run()
    assert pair.leader.high_watermarks[DEMO] == 3


def test_a_replica_that_forgets_to_say_so_is_asked_again(pair: Pair) -> None:
    pair.follower.slow.add(DEMO)
    pair.leader.append(DEMO, b"abc")
    pair.follow(DEMO)
    pair.wire.run(1.1)
    assert pair.leader.high_watermarks[DEMO] == 3


def test_a_new_partition_does_not_wait_for_the_held_fetch(pair: Pair) -> None:
    pair.follow(DEMO)
    pair.wire.run(0.1)
    pair.leader.append(OTHER, b"xyz")
    pair.fetchers.follow(OTHER, 1)
    pair.wire.run()
    assert pair.log(OTHER) == b"xyz"


def test_an_answer_to_an_earlier_fetch_is_dropped(pair: Pair) -> None:
    """The ABA case: truncated and grown to the same offset while the answer is on its way."""
    pair.follower.logs[DEMO] = bytearray(b"abc")
    pair.leader.append(DEMO, b"abc")
    pair.follow(DEMO)
    pair.wire.run(0.1)
    pair.end.reads = False
    pair.leader.append(DEMO, b"OLD")
    pair.wire.run()
    pair.leader.logs[DEMO][3:] = b"new"
    pair.fetchers.follow(DEMO, 1)
    pair.wire.run()
    pair.end.reads = True
    pair.wire.run()
    assert pair.log() == b"abcnew"


def test_an_answer_that_crosses_unfollow_is_dropped(pair: Pair) -> None:
    pair.follow(DEMO, OTHER)
    pair.wire.run(0.1)
    pair.end.reads = False
    pair.leader.append(DEMO, b"abc")
    pair.wire.run()
    pair.fetchers.unfollow(DEMO)
    pair.end.reads = True
    answers = len(pair.follower.answers)
    pair.wire.run(1.0)
    assert len(pair.follower.answers) == answers
    assert pair.leader.listeners[DEMO] == {}


def test_a_divergence_is_applied_and_fetching_goes_on(pair: Pair) -> None:
    pair.leader.append(DEMO, b"abcdef")
    pair.follower.logs[DEMO] = bytearray(b"abXYZ")
    pair.leader.diverging[DEMO] = (2, 2)
    pair.follow(DEMO)
    assert pair.log() == b"abcdef"


@pytest.mark.parametrize(
    ("error", "pause_s"), [(ErrorCode.FENCED_LEADER_EPOCH, 0.05), (ErrorCode.KAFKA_STORAGE_ERROR, 1.0)]
)
def test_an_error_is_told_and_asked_again_after_a_pause(pair: Pair, error: ErrorCode, pause_s: float) -> None:
    pair.leader.errors[DEMO] = error
    pair.leader.append(DEMO, b"abc")
    pair.follow(DEMO)
    assert [answer.error for _, answer in pair.follower.answers] == [error]
    pair.leader.errors.clear()
    pair.wire.run(pause_s - 0.03)
    assert pair.log() == b""
    pair.wire.run(0.05)
    assert pair.log() == b"abc"


def test_an_error_is_asked_again_at_once_when_the_position_changed(pair: Pair) -> None:
    pair.leader.errors[DEMO] = ErrorCode.OFFSET_OUT_OF_RANGE
    pair.leader.append(DEMO, b"abc")
    pair.follower.logs[DEMO] = bytearray(b"zzzzz")
    pair.follow(DEMO)
    pair.leader.errors.clear()
    pair.fetchers.position_changed(DEMO)
    pair.wire.run()
    assert pair.log() == b"zzzzz"  # where it stands did not change: the pause goes on
    pair.follower.logs[DEMO] = bytearray()
    pair.fetchers.position_changed(DEMO)
    pair.wire.run()
    assert pair.log() == b"abc"


def test_partitions_behind_use_a_session_of_their_own(pair: Pair) -> None:
    pair.follower.behind.add(OTHER)
    pair.leader.append(DEMO, b"abc")
    pair.leader.append(OTHER, b"xyz")
    pair.follow(DEMO, OTHER)
    assert (pair.log(DEMO), pair.log(OTHER)) == (b"abc", b"xyz")
    assert pair.leader.contacts[DEMO] is not pair.leader.contacts[OTHER]
    pair.follower.behind.clear()
    pair.leader.append(OTHER, b"!")
    pair.wire.run(1.0)
    assert pair.leader.contacts[DEMO] is pair.leader.contacts[OTHER]
    assert len(pair.leader.listeners[OTHER]) == 1
    pair.leader.append(OTHER, b"?")
    pair.wire.run()
    assert pair.log(OTHER) == b"xyz!?"


def test_an_offline_log_is_not_fetched_until_it_is_back(pair: Pair) -> None:
    pair.leader.append(DEMO, b"abc")
    pair.follower.offline.add(DEMO)
    pair.follow(DEMO)
    assert pair.log() == b""
    pair.follower.offline.clear()
    pair.fetchers.position_changed(DEMO)
    pair.wire.run(0.01)
    assert pair.log() == b"abc"


def test_a_lost_connection_is_made_anew(pair: Pair) -> None:
    pair.follow(DEMO)
    pair.leader.append(DEMO, b"abc")
    pair.end.abortConnection()
    pair.wire.run(0.1)
    assert pair.log() == b"abc"
    pair.leader.append(DEMO, b"d")
    pair.wire.run()
    assert pair.log() == b"abcd"


def test_a_leader_that_is_not_there_is_tried_with_back_off(pair: Pair) -> None:
    pair.wire.is_refusing = True
    pair.follow(DEMO)
    pair.wire.run(5.0)
    pair.wire.is_refusing = False
    pair.leader.append(DEMO, b"abc")
    pair.wire.run(1.3)
    assert pair.log() == b"abc"


def test_a_new_epoch_of_the_leader_is_called_at_once(pair: Pair) -> None:
    pair.wire.is_refusing = True
    pair.follow(DEMO)
    pair.wire.run(5.0)
    pair.wire.is_refusing = False
    pair.identities[1] = identity(1, 555)
    pair.leader.append(DEMO, b"abc")
    pair.fetchers.set_address(1, 555, "one", 9)
    pair.wire.run(0.01)
    assert pair.log() == b"abc"


def test_a_new_identity_says_hello_again(pair: Pair) -> None:
    pair.follow(DEMO)
    pair.identities[2] = identity(2, 777)
    pair.fetchers.identity_changed()
    pair.wire.run(0.1)
    assert pair.leader.contacts[DEMO].broker_epoch == 777


def test_a_new_identity_is_noticed_without_being_told(pair: Pair) -> None:
    pair.follow(DEMO)
    pair.identities[2] = identity(2, 778)
    pair.wire.run(1.0)
    assert pair.leader.contacts[DEMO].broker_epoch == 778


def test_another_broker_at_the_address_is_not_fetched_from(pair: Pair) -> None:
    pair.identities[1] = identity(5)
    pair.leader.append(DEMO, b"abc")
    pair.follow(DEMO)
    pair.wire.run(1.0)
    assert pair.log() == b""
    assert pair.leader.received == []


def test_a_broker_of_another_cluster_is_not_fetched_from(pair: Pair) -> None:
    pair.identities[1] = Identity("elsewhere", 1, 101, "x")
    pair.follow(DEMO)
    pair.wire.run(1.0)
    assert pair.leader.received == []


def test_a_silent_leader_is_called_anew(pair: Pair) -> None:
    pair.follow(DEMO)
    pair.wire.run(0.1)
    stuck = pair.end
    stuck.reads = False
    pair.wire.run(32.0, step=0.1)
    assert stuck.is_lost
    pair.leader.append(DEMO, b"abc")
    pair.wire.run(0.5)
    assert pair.log() == b"abc"


def test_a_leader_that_never_answers_hello_is_called_anew(pair: Pair) -> None:
    class Mute:
        def buildProtocol(self, addr: object) -> object:
            class Silent:
                def makeConnection(self, transport: object) -> None: ...

                def dataReceived(self, data: bytes) -> None: ...

                def connectionLost(self, reason: object) -> None: ...

            return Silent()

    server = pair.servers[1]
    pair.wire.listen("one", 9, Mute())
    pair.leader.append(DEMO, b"abc")
    pair.follow(DEMO)
    pair.wire.listen("one", 9, server)
    pair.wire.run(2.2)
    assert pair.log() == b"abc"


def test_a_partition_moves_to_its_new_leader(pair: Pair) -> None:
    third = FakeLeader()
    third.epoch = 4
    pair.serve(3, third)
    pair.identities[3] = identity(3)
    pair.leader.append(DEMO, b"abc")
    third.append(DEMO, b"abcdef")
    pair.follow(DEMO)
    pair.follower.epochs[DEMO] = 4
    pair.follow(DEMO, leader=3)
    assert pair.log() == b"abc"  # its address is not known yet
    pair.fetchers.set_address(3, 103, "three", 9)
    pair.wire.run(0.01)
    assert pair.log() == b"abcdef"
    assert len(pair.servers[1].connections) == 0


def test_a_refused_session_starts_anew(pair: Pair) -> None:
    pair.follow(DEMO)
    pair.wire.run(2.0)
    (connection,) = pair.servers[1].connections
    connection._sessions[1].next_seq += 1
    pair.leader.append(DEMO, b"abc")
    pair.wire.run(1.0)
    assert pair.log() == b"abc"


def test_nonsense_from_the_leader_ends_the_connection_only(pair: Pair) -> None:
    pair.follow(DEMO)
    (connection,) = pair.servers[1].connections
    connection.send(b"OK 3 session=1 partitions=1 body=7\ndemo x\n")
    pair.leader.append(DEMO, b"abc")
    pair.wire.run(1.0)
    assert pair.log() == b"abc"


def test_an_address_that_is_gone_ends_fetching(pair: Pair) -> None:
    pair.follow(DEMO)
    pair.fetchers.remove_address(1)
    pair.wire.run(0.1)
    assert not pair.servers[1].connections
    pair.leader.append(DEMO, b"abc")
    pair.fetchers.set_address(1, 101, "one", 9)
    pair.wire.run(0.1)
    assert pair.log() == b"abc"


def test_stopping_says_bye_and_leaves_no_timer(pair: Pair) -> None:
    pair.follow(DEMO)
    end = pair.end
    pair.fetchers.stop()
    pair.wire.run(1.0)
    assert bytes(end.sent).rstrip().split(b"\n")[-1].startswith(b"BYE ")
    assert not pair.servers[1].connections
    pair.servers[1].stop()
    assert pair.wire.getDelayedCalls() == []


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_logs_agree_in_the_end(seed: int) -> None:
    """Appends, slow replicas, sessions that change, cut connections and small reads, by seed."""
    chance = random.Random(seed)
    pair = Pair(response_max_bytes=300, fetch_max_bytes=100, catch_up_max_bytes=150)
    pair.wire.read_bytes = chance.choice([3, 50, 65_536])
    partitions = [TopicPartition("any", number) for number in range(6)]
    pair.follow(*partitions)
    for _ in range(150):
        partition = chance.choice(partitions)
        match chance.randrange(8):
            case 0 | 1 | 2:
                pair.leader.append(partition, chance.randbytes(chance.randrange(1, 200)))
            case 3:
                (pair.follower.behind.discard if chance.random() < 0.5 else pair.follower.behind.add)(partition)
            case 4:
                (pair.follower.slow.discard if chance.random() < 0.5 else pair.follower.slow.add)(partition)
            case 5 if chance.random() < 0.2 and pair.wire.transports:
                pair.end.abortConnection()
            case 6:
                pair.fetchers.unfollow(partition)
                pair.fetchers.follow(partition, 1)
            case _:
                pair.fetchers.position_changed(partition)
        if chance.random() < 0.5:
            pair.wire.run(chance.choice([0.0, 0.01]))
    pair.follower.slow.clear()
    pair.wire.run(4.0)
    for partition in partitions:
        log = bytes(pair.leader.logs.get(partition, b""))
        assert pair.log(partition) == log
        assert pair.leader.high_watermarks.get(partition, 0) == len(log)
        assert pair.follower.high_watermarks.get(partition, 0) == len(log)


def test_rows_say_where_the_follower_stands(pair: Pair) -> None:
    pair.follower.logs[DEMO] = bytearray(b"ab")
    pair.leader.append(DEMO, b"ab")
    pair.follow(DEMO)
    assert pair.leader.received[0] == FetchRow("demo", 0, pair.leader.received[0].topic_id, 3, 2, 3, 0)


def test_a_broker_that_rests_follows_nobody_and_says_no_bye(pair: Pair) -> None:
    """It is about to stop: caught up once more, it would come back into the ISR just before it goes."""
    pair.leader.append(DEMO, b"one")
    pair.follow(DEMO)
    pair.wire.run(0.1)
    before = pair.log()
    assert before
    end = pair.end
    pair.fetchers.rest()
    pair.follow(OTHER, DEMO)
    pair.leader.append(DEMO, b"two")
    pair.wire.run(1.0)
    assert pair.log() == before and pair.log(OTHER) == b""
    assert b"BYE" not in bytes(end.sent)
