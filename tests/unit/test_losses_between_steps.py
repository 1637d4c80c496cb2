"""Losses that lie between two steps: a start that is stopped early, a disk that fails, a topic made twice."""

from __future__ import annotations

import errno
from random import Random

import pytest
from twisted.internet.defer import maybeDeferred

from tests.unit.log_tools import T0, TOPIC_ID, HeldThreads, batch
from tests.unit.test_log_losses import FLUSHED, FOLDER, T1, Machine, filled, lossy
from zkbroker.log.losses import MADE_BYTES_MAX, MADE_FILE
from zkbroker.model.cluster import LossyReplica
from zkbroker.model.errors import BrokerError
from zkbroker.model.topics import TopicPartition

OTHER_ID = TOPIC_ID[:-2] + "AA"


def test_a_clean_stop_before_zookeeper_said_which_logs_should_be_there_hides_none_that_is_missing() -> None:
    """ZooKeeper is away after a loss of power, and somebody stops the broker that waits for it."""
    tried = 0
    for seed in range(40):
        machine = Machine()
        machine.start().create(T0, TOPIC_ID).append_as_leader(batch(2), 3)
        machine.lose_power(seed)
        if machine.disk.exists(f"{FOLDER}/t-0") or machine.disk.exists(f"{FOLDER}/{MADE_FILE}"):
            continue
        tried += 1
        for _ in range(2):
            machine.start(searches=False).close(-1)
            machine.kill()
        assert not machine.start().losses.was_never_made(T0, TOPIC_ID)
        machine.kill()
        assert machine.start().losses.was_never_made(T0, TOPIC_ID), "that start has asked"
    assert tried


def test_a_log_that_was_removed_by_hand_is_missed_after_a_start_that_was_stopped_early() -> None:
    machine = Machine()
    filled(machine).close(1)
    machine.disk.unlink(f"{FOLDER}/{MADE_FILE}")  # as zkbroker left a folder that knew no such list
    machine.disk.remove_dir(f"{FOLDER}/t-0")
    machine.kill()
    machine.start(searches=False).close(1)
    machine.kill()
    assert not machine.start().losses.was_never_made(T0, TOPIC_ID)


def test_a_start_that_is_stopped_early_leaves_a_clean_mark_to_logs_that_are_whole() -> None:
    machine = Machine()
    filled(machine).close(1)
    machine.kill()
    machine.start(searches=False).close(1)
    machine.lose_power()
    dirs = machine.start()
    assert lossy(dirs) == []
    assert dirs.logs[T0].log_end_offset == 10


@pytest.mark.parametrize("is_old", [False, True])
def test_a_topic_that_was_made_again_has_no_log_before_its_broker_heard_of_it(is_old: bool) -> None:
    """Its only replica, killed in that moment, was called lossy for what the checkpoints knew of its predecessor, and
    nobody could ever lead."""
    machine = Machine()
    dirs = filled(machine)
    dirs.write_checkpoints({T0: 10})
    if is_old:
        dirs.close(1)
        machine.disk.unlink(f"{FOLDER}/{MADE_FILE}")
        machine.kill()
        dirs = machine.start()
    dirs.delete(T0, TOPIC_ID)
    machine.kill()
    losses = machine.start().losses
    assert losses.was_never_made(T0, OTHER_ID)
    assert not losses.was_never_made(T0, TOPIC_ID)


def test_a_log_that_could_not_be_made_was_not_made() -> None:
    machine = Machine()
    dirs = machine.start()

    def no_folder(operation: str) -> None:
        if operation.startswith("mkdir"):
            raise Killed

    machine.disk.before_change = no_folder
    with pytest.raises(Killed):
        dirs.create(T0, TOPIC_ID)
    machine.disk.before_change = lambda operation: None
    machine.kill()
    assert machine.start().losses.was_never_made(T0, TOPIC_ID)


def test_the_list_of_logs_that_were_made_is_shortened_only_once_it_was_asked() -> None:
    machine = Machine()
    machine.start().create(T0, TOPIC_ID)
    path = f"{FOLDER}/{MADE_FILE}"
    machine.kill()
    machine.disk.write_file(path, machine.disk.read_file(path) + b"old 1 id\n" * (MADE_BYTES_MAX // 9 + 1))
    machine.disk.remove_dir(f"{FOLDER}/t-0")
    machine.start(searches=False)
    machine.kill()
    assert not machine.start(searches=False).losses.was_never_made(T0, TOPIC_ID)


def test_a_torn_line_spoils_no_other() -> None:
    machine = Machine()
    machine.start().create(T1, TOPIC_ID)
    machine.kill()
    path = f"{FOLDER}/{MADE_FILE}"
    machine.disk.write_file(path, machine.disk.read_file(path) + f"t 0 {TOPIC_ID[:5]}".encode())
    machine.start().create(T0, TOPIC_ID)
    machine.disk.remove_dir(f"{FOLDER}/t-0")
    machine.kill()
    assert not machine.start().losses.was_never_made(T0, TOPIC_ID)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_disk_that_failed_keeps_nothing_for_the_next_process(is_stopped: bool) -> None:
    """After a failed fsync the kernel drops what it could not write, and a disk that was repaired is mounted anew: the
    page cache is gone in one and the same boot."""
    machine = Machine(None, "/a", "/b")
    dirs = machine.start()
    dirs.create(T0, TOPIC_ID).append_as_leader(batch(2), 3)
    dirs.create(T1, TOPIC_ID).append_as_leader(batch(2), 3)

    fails = [True]

    def fail(operation: str, path: str) -> None:
        if operation == "sync" and fails:
            fails.clear()
            raise OSError(errno.EIO, "broken")

    machine.disk.fail = fail
    if is_stopped:
        dirs.close(1)
    else:
        dirs.logs[T0].flush_later()
        assert dirs.get(T0) is None
    machine.disk.fail = lambda operation, path: None
    machine.kill()
    assert lossy(machine.start()) == [T0]


def test_a_disk_that_was_full_keeps_what_it_has() -> None:
    machine = Machine(None, "/a", "/b")
    dirs = machine.start()
    dirs.create(T0, TOPIC_ID).append_as_leader(batch(2), 3)
    machine.disk.is_full = True
    with pytest.raises(BrokerError, match="offline"):
        dirs.logs[T0].append_as_leader(batch(2), 3)
    machine.disk.is_full = False
    machine.kill()
    assert lossy(machine.start()) == []


def test_a_failed_disk_keeps_the_list_of_what_was_lost_before() -> None:
    machine = Machine(FLUSHED, "/a", "/b")
    dirs = machine.start(searches=False)
    gone, settled = TopicPartition("gone", 0), TopicPartition("settled", 0)
    dirs.losses.add([LossyReplica(*partition, TOPIC_ID, -1, -1) for partition in (gone, settled)])
    dirs.create(T0, TOPIC_ID).append_as_leader(batch(2), 3)
    dirs.logs[T0].flush_later()
    threads = machine.world.threads = HeldThreads()
    dirs.losses._run_in_thread = threads
    dirs.losses.forget([settled])
    dirs.losses.distrust("/a", OSError(errno.EIO, "broken"))
    threads.run()
    machine.world.threads = maybeDeferred
    machine.kill()
    dirs = machine.start()
    assert lossy(dirs) == [gone], "what lies in the folder was flushed before it counted"
    assert not dirs.losses.was_never_made(settled, TOPIC_ID)


def test_a_loss_of_a_topic_made_again_is_not_taken_for_one_of_its_predecessor() -> None:
    """On the list stands the predecessor, not settled yet, when the power fails again: what the new topic's log lost is
    no less of a loss."""
    machine = Machine()
    filled(machine)
    machine.lose_power()
    dirs = machine.start()
    assert lossy(dirs) == [T0]
    dirs.delete(T0, TOPIC_ID)
    log = dirs.create(T0, OTHER_ID)
    log.append_as_leader(batch(2), 0)
    log.flush_later()
    log.append_as_leader(batch(2), 0)
    machine.lose_power()
    found = machine.start().losses.replicas[T0]
    assert (found.topic_id, found.log_end_offset >= 2) == (OTHER_ID, True)


def test_a_search_that_cannot_be_written_down_is_none() -> None:
    machine = Machine()
    filled(machine).close(1)
    machine.disk.unlink(f"{FOLDER}/{MADE_FILE}")
    machine.disk.remove_dir(f"{FOLDER}/t-0")
    machine.kill()
    dirs = machine.start(searches=False)
    machine.disk.is_full = True
    with pytest.raises(OSError, match="space"):
        dirs.losses.add([LossyReplica(*T0, TOPIC_ID, -1, -1)])
    machine.disk.is_full = False
    dirs.close(1)
    machine.kill()
    assert not machine.start().losses.was_never_made(T0, TOPIC_ID)


@pytest.mark.parametrize("seed", range(12))
def test_a_log_that_was_made_and_is_not_there_is_always_missed(seed: int) -> None:
    """Topics made, deleted and made again, folders removed by hand, and a process that is killed, stopped, or loses its
    power, also at any change of a start or a stop."""
    random = Random(seed)
    machine = Machine(random.choice([None, FLUSHED]), "/a", "/b")
    made: dict[TopicPartition, str] = {}
    listed: set[TopicPartition] = set()
    ids = 0
    for _ in range(20):
        left = random.randrange(60) if random.random() < 0.4 else 10_000

        def step(_: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        machine.disk.before_change = step
        try:
            dirs = machine.start(searches=False)
            if random.random() < 0.3:
                dirs.close(-1)
                raise Killed
            missing = []
            for partition, topic_id in made.items():
                log = dirs.get(partition)
                if log is None or log.topic_id not in ("", topic_id):
                    assert partition in listed or not dirs.losses.was_never_made(partition, topic_id), partition
                    missing.append(LossyReplica(*partition, topic_id, -1, -1))
            dirs.losses.add(missing)
            assert listed <= dirs.losses.replicas.keys()
            listed.update(partition for partition in made if partition in dirs.losses.replicas)
            for _ in range(random.randrange(6)):
                partition = TopicPartition("t", random.randrange(3))
                if partition in made and random.random() < 0.3:
                    listed.discard(partition)
                    dirs.delete(partition, made.pop(partition))
                    dirs.losses.forget([partition])
                elif dirs.get(partition) is None:
                    ids += 1
                    if partition not in made:
                        topic_id = TOPIC_ID[:-4] + f"{ids:04d}"
                        dirs.create(partition, topic_id)
                        made[partition] = topic_id
                elif random.random() < 0.5:
                    dirs.logs[partition].append_as_leader(batch(2), 0)
                else:
                    dirs.write_checkpoints({})
            if random.random() < 0.5:
                dirs.close(1)
        except Killed:
            pass
        machine.disk.before_change = lambda _: None
        machine.kill() if random.random() < 0.5 else machine.lose_power(random.randrange(1000))
        for folder in ("/a", "/b"):
            if random.random() < 0.1 and machine.disk.exists(f"{folder}/t-0"):
                machine.disk.remove_dir(f"{folder}/t-0")


class Killed(BaseException):
    """Between two changes of the disk."""
