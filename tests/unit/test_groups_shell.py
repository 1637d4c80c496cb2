"""The shell of consumer groups: loading, writing, answering, time; on real replicas with a scripted shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit import replica_cluster
from tests.unit.group_shards import PARTITION, Coordinators, errors
from tests.unit.replica_cluster import clusters
from zkbroker.broker.groups import GRACE_S
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import Client, JoinAnswer, JoinGroup, Protocol
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.record import EndTransaction, Record, build_batch, build_end_transaction

JOIN = JoinGroup("g", "m", Client("c", "/h"), 10_000, 10_000, "consumer", (Protocol("range", b""),))


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(replica_cluster, "PARTITION", PARTITION)
    with clusters(tmp_path) as make:
        yield make


def keyed(*pairs: tuple[bytes, bytes | None], **fields: Any) -> bytes:
    return build_batch([Record(index, 1, key, value) for index, (key, value) in enumerate(pairs)], **fields)


def write(network: Any, records: bytes) -> None:
    """As the coordinator before would."""
    log = network.replicas[1].coordinator_log
    log.append(log.tenure(PARTITION), records, 5.0, lambda error: None)


def test_clients_may_not_write_to_it(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 0)
    (answer,) = network.produce(1, keyed((b"a", b"1")))
    assert answer.error is ErrorCode.INVALID_TOPIC_EXCEPTION
    assert answer.message == "Cannot append to internal topic __consumer_offsets"
    assert network.end(1) == 0


def test_a_new_leader_loads_and_then_serves(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    write(network, keyed((b"a", b"1"), (b"b", b"1")))
    write(network, keyed((b"a", b"2"), (b"c", None)))
    network.run()
    world = Coordinators(network)
    network.elect(2, 1)
    assert world.heartbeat(2) == [ErrorCode.NONE]
    assert errors(world.commit(5, 2)) == [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS]
    network.run()
    assert world.shard.replayed == [(b"b", b"1"), (b"a", b"2"), (b"c", None)]
    answers = world.commit(5, 2)
    network.run()
    assert errors(answers) == [ErrorCode.NONE]
    assert world.heartbeat(1) == [ErrorCode.NOT_COORDINATOR]
    assert [line for line in world.lines if "coordinating 2 groups" in line]


def test_what_is_above_the_high_watermark_is_loaded_and_not_shown_before_it_is_committed(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    write(network, keyed((b"a", b"1")))
    network.run()
    network.cut.add(2)
    write(network, keyed((b"a", b"2")))
    world = Coordinators(network)
    network.elect(2, 1, to=(1,))
    network.elect(1, 2)
    network.run(7)
    assert not world.shard.is_loaded
    assert errors(world.commit(5)) == [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS]
    assert "waits until its replicas have all up to offset 2" in "\n".join(world.groups[1].status_lines())
    network.cut.clear()
    network.fetchers[2].unfollow(PARTITION)
    network.fetchers[2].follow(PARTITION, 1)
    network.run(7)
    assert world.shard.is_loaded
    assert world.shard.replayed == [(b"a", b"2")]
    assert world.groups[1].status_lines() == ["groups coordinated: 2 in 1 partitions, 0 partitions loading"]


def test_transactions_are_replayed_in_their_place(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 0)
    log = network.logs[1].logs[PARTITION]
    log.append_as_leader(keyed((b"k", b"0")), 0)
    producer: dict[str, Any] = {"producer_id": 7, "producer_epoch": 0, "base_sequence": 0, "transactional": True}
    transaction = keyed((b"k", b"1"), (b"k", b"2"), **producer)
    log.append_as_leader(transaction, 0)
    log.append_as_leader(keyed((b"x", b"9")), 0)
    log.append_as_leader(build_end_transaction(0, 1, 7, 0, EndTransaction(True, 0)), 0, origin_client=False)
    network.replicas[1].registration_lost()
    world = Coordinators(network)
    network.elect(1, 1)
    network.run()
    assert world.shard.replayed == [(b"k", b"0"), (b"k", b"1", 7), (b"k", b"2", 7), (b"x", b"9"), (7, True)]


@pytest.mark.parametrize("codec", [1, 4])
def test_compressed_batches_small_and_large(networks: Any, codec: int) -> None:
    network = networks(1)
    network.elect(1, 0)
    large = bytes(range(256)) * 40
    write(network, keyed((b"a", b"1"), codec=codec))
    noise = [(b"%d" % index, large[index % 256 :] + b"%d" % (index * 7919 % 1009)) for index in range(60)]
    incompressible = [(b"r%d" % index, noise_of(index)) for index in range(40)]
    write(network, keyed(*noise, *incompressible, codec=codec))
    network.replicas[1].registration_lost()
    world = Coordinators(network)
    network.elect(1, 1)
    network.run()
    assert world.shard.replayed == [(b"a", b"1"), *noise, *incompressible]


def noise_of(seed: int) -> bytes:
    value, out = seed + 1, bytearray()
    for _ in range(2000):
        value = value * 6364136223846793005 % 2**64 + 1442695040888963407
        out.append(value >> 33 & 0xFF)
    return bytes(out)


@pytest.mark.parametrize(("place", "why"), [(-2, "its CRC does not match"), (16, "it has magic 3")])
def test_a_corrupt_batch_is_left_out_and_named(networks: Any, place: int, why: str) -> None:
    network = networks(1)
    network.elect(1, 0)
    write(network, keyed((b"a", b"1")))
    write(network, keyed((b"b", b"1")))
    log = network.logs[1].logs[PARTITION]
    log.tail.clear()
    path = Path(log.active.path)
    data = bytearray(path.read_bytes())
    data[place if place > 0 else len(data) // 2 + place] ^= 1
    path.write_bytes(data)
    network.replicas[1].registration_lost()
    world = Coordinators(network)
    network.elect(1, 1)
    network.run()
    assert world.shard.replayed == [(b"b", b"1")]
    assert [line for line in world.lines if f"the batch at offset 0 is left out: {why}" in line]


def test_an_empty_log_is_loaded_at_once(networks: Any) -> None:
    network = networks(1)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run(0.01)
    assert world.shard.is_loaded


def test_commits_of_one_turn_are_one_batch_in_their_order(networks: Any) -> None:
    network = networks(1, 2)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    answers = [world.commit(offset) for offset in range(5)]
    assert answers == [[]] * 5
    network.run()
    assert [errors(one) for one in answers] == [[ErrorCode.NONE]] * 5
    (batch_of_all,) = world.stored()
    assert [record.value for record in batch_of_all] == [b"0", b"1", b"2", b"3", b"4"]
    assert world.shard.told == [("written", number, ErrorCode.NONE) for number in range(1, 6)]


def test_a_commit_that_is_too_large_fails_alone(networks: Any) -> None:
    network = networks(1)
    network.config = TopicConfig(max_message_bytes=1000)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    small, large, last = world.commit(1), world.commit(2, topic="t" * 2000), world.commit(3)
    network.run()
    assert [errors(one) for one in (small, large, last)] == [
        [ErrorCode.NONE],
        [ErrorCode.MESSAGE_TOO_LARGE],
        [ErrorCode.NONE],
    ]


def test_the_codec_of_the_settings_is_used(networks: Any) -> None:
    network = networks(1)
    world = Coordinators(network, codec=4)
    network.elect(1, 0)
    network.run()
    world.commit(1)
    network.run()
    log = network.logs[1].logs[PARTITION]
    read = log.read(0, 1000, 1)
    assert read is not None
    assert read.chunks[0][22] & 7 == 4
    assert world.stored()[0][0].value == b"1"


def test_a_lost_leadership_answers_all_who_wait_and_what_it_wrote_counts_for_nothing_here(networks: Any) -> None:
    network = networks(1, 2)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    joined: list[JoinAnswer] = []
    world.groups[1].join(JOIN, joined.append)
    network.cut.add(2)
    appended = world.commit(1)
    network.run()
    queued = world.commit(2)
    network.elect(2, 1, to=(1,))
    assert world.heartbeat() == [ErrorCode.NOT_COORDINATOR]
    network.run()
    assert errors(appended + queued) == [ErrorCode.NOT_COORDINATOR] * 2
    assert joined == [JoinAnswer(ErrorCode.NOT_COORDINATOR, "m")]
    assert network.end(1) == 1
    assert world.groups[1].status_lines()[0].startswith("groups coordinated: 0 in 0")


def test_a_shard_lives_through_leader_epochs_of_one_tenure(networks: Any) -> None:
    network = networks(1, 2)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    network.cut.add(2)
    waiting = world.commit(1)
    network.run()
    network.elect(1, 1, isr=(1,))
    network.run()
    assert errors(waiting) == [ErrorCode.NONE]
    assert len(world.shards) == 1


def test_a_leadership_lost_while_loading_ends_that(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    write(network, keyed((b"a", b"1")))
    network.run()
    world = Coordinators(network)
    network.elect(2, 1)
    world.heartbeat(2)
    network.elect(1, 2)
    network.run()
    first, second = world.shards
    assert first.is_dead
    assert not first.is_loaded
    assert second.is_loaded
    assert second.replayed == [(b"a", b"1")]


def test_without_contact_nobody_is_answered_as_if_all_were_well(networks: Any) -> None:
    network = networks(1, 2)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    joined: list[JoinAnswer] = []
    world.groups[1].join(JOIN, joined.append)
    network.cut.add(2)
    network.contact_age = 100.0
    network.run(network.settings.contact_seconds_max + 1)
    assert world.heartbeat() == [ErrorCode.NOT_COORDINATOR]
    world.shard.deadline = network.time.monotonic()
    world.groups[1]._deadline_changed(world.groups[1]._partitions[0])
    network.run(0.05)
    assert joined == [JoinAnswer(ErrorCode.NOT_COORDINATOR, "m")]
    network.contact_age = 0.0
    assert world.heartbeat() == [ErrorCode.NONE]


def test_a_commit_without_followers_ends_with_its_time(networks: Any) -> None:
    network = networks(1, 2)
    world = Coordinators(network, commit_timeout_s=0.5)
    network.elect(1, 0)
    network.run()
    network.cut.add(2)
    answers = world.commit(1)
    network.run(0.7)
    assert errors(answers) == [ErrorCode.REQUEST_TIMED_OUT]


def test_under_min_isr_a_commit_is_refused(networks: Any) -> None:
    network = networks(1, 2)
    network.config = TopicConfig(min_insync_replicas=2)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    network.elect(1, 1, isr=(1,))
    answers = world.commit(1)
    network.run()
    assert errors(answers) == [ErrorCode.NOT_ENOUGH_REPLICAS]


def test_one_timer_ticks_when_the_first_deadline_comes(networks: Any) -> None:
    network = networks(1)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    joined: list[JoinAnswer] = []
    world.shard.deadline = network.time.monotonic() + 1.0
    waiting = world.groups[1].join(JOIN, joined.append)
    assert waiting is not None
    network.run(0.9)
    assert joined == []
    network.run(0.2)
    assert [answer.error for answer in joined] == [ErrorCode.NONE]


def test_a_cancelled_request_is_worked_on_and_not_answered(networks: Any) -> None:
    network = networks(1)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    joined: list[JoinAnswer] = []
    world.shard.deadline = network.time.monotonic() + 0.1
    waiting = world.groups[1].join(JOIN, joined.append)
    assert waiting is not None
    waiting.cancel()
    network.run(0.3)
    assert joined == []
    assert not world.shard.parked


def test_after_a_standstill_requests_are_read_before_time_is_up(networks: Any) -> None:
    network = networks(1)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    world.shard.deadline = network.time.monotonic() + 1.0
    world.heartbeat()
    network.reactor.rightNow += 20.0
    network.reactor.advance(0)
    assert world.shard.told == []
    late = world.shard.deadline
    for _ in range(20):
        # Members are heard, and no heartbeat puts the reckoning off again.
        world.heartbeat()
        network.run(GRACE_S / 10)
    assert [what for what, *_ in world.shard.told] == ["tick"]
    assert world.shard.told[0][1] - late >= 19 + GRACE_S


def test_offsets_expire_and_those_of_deleted_topics_are_forgotten(networks: Any) -> None:
    network = networks(1)
    world = Coordinators(network, expiry_check_s=10.0)
    network.elect(1, 0)
    network.run()
    world.groups[1].topics_deleted(["gone"])
    network.run()
    assert world.shard.told == [("forget", group, {"gone": 7}) for group in "gh"]
    world.shard.told.clear()
    network.run(21)
    assert world.shard.told == [("expire", group) for group in "ghgh"]


def test_lists_say_when_some_are_not_known_yet(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.run()
    network.cut.add(2)
    write(network, keyed((b"a", b"1")))
    world = Coordinators(network)
    network.elect(2, 1, to=(1,))
    network.elect(1, 2, to=(1,))
    network.run()
    lists: list[Any] = []
    world.groups[1].list_groups(frozenset(), frozenset(), lists.append)
    network.elect(1, 3, isr=(1,))
    network.run()
    world.groups[1].list_groups(frozenset(), frozenset(), lists.append)
    assert [(one.error, len(one.groups)) for one in lists] == [
        (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, 0),
        (ErrorCode.NONE, 1),
    ]


def test_after_stop_nothing_is_left_and_nobody_waits(networks: Any) -> None:
    network = networks(1)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    joined: list[JoinAnswer] = []
    world.shard.deadline = network.time.monotonic() + 100.0
    world.groups[1].join(JOIN, joined.append)
    world.commit(1)
    world.groups[1].stop()
    assert [answer.error for answer in joined] == [ErrorCode.NOT_COORDINATOR]
    assert world.heartbeat() == [ErrorCode.NOT_COORDINATOR]
    network.replicas[1].stop()
    assert network.reactor.getDelayedCalls() == []
