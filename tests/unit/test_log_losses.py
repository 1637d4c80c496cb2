"""What a broker knows, when it starts again, of records that it may have lost."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.fakes.crash_disk import CrashDisk
from tests.unit.log_tools import T0, TOPIC_ID, HeldThreads, World, batch
from zkbroker.log.checkpoints import FLUSH_POLICY_FILE
from zkbroker.log.dirs import LogDirs
from zkbroker.log.losses import BOOT_FILE, MADE_FILE, BootRecord, decode_boot, encode_boot
from zkbroker.model.cluster import LossyReplica
from zkbroker.model.errors import StartError
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition

FOLDER = "/data"
FLUSHED = TopicConfig(flush_messages=1)
T1 = TopicPartition("t", 1)


class Machine:
    """One broker's disk through kills and losses of power."""

    def __init__(self, config: TopicConfig | None = None, *folders: str) -> None:
        self.disk = CrashDisk()
        self.boots = 1
        self.world = World(*(folders or (FOLDER,)), config=config)
        self.world.disk = self.disk
        self.dirs: LogDirs | None = None

    def start(self, *, searches: bool = True) -> LogDirs:
        """``searches``: the broker lives until it has asked ZooKeeper which logs should be there."""
        self.dirs = self.world.open()
        if searches:
            self.dirs.losses.add([])
        return self.dirs

    def kill(self) -> None:
        self._goes_on_with(self.disk.killed())

    def lose_power(self, seed: int = 0) -> None:
        self._goes_on_with(self.disk.power_lost(Random(seed)))
        self.boots += 1
        self.world.boot_id = f"boot-{self.boots}"

    def _goes_on_with(self, disk: CrashDisk) -> None:
        self.world.disk = self.disk = disk
        self.dirs = None


def lossy(dirs: LogDirs) -> list[TopicPartition]:
    return sorted(dirs.losses.replicas)


def filled(machine: Machine, count: int = 5) -> LogDirs:
    dirs = machine.start()
    log = dirs.create(T0, TOPIC_ID)
    log.assign_epoch(3, log.log_end_offset)
    for _ in range(count):
        log.append_as_leader(batch(2), 3)
    log.flush_later()
    return dirs


def test_a_kill_loses_nothing_and_a_clean_stop_neither() -> None:
    machine = Machine()
    filled(machine)
    machine.kill()
    dirs = machine.start()
    assert lossy(dirs) == []
    assert dirs.logs[T0].log_end_offset == 10
    dirs.close(1)
    machine.lose_power()
    assert lossy(machine.start()) == [], "all of it was flushed"


def test_another_boot_without_a_clean_stop_may_have_lost_anything() -> None:
    machine = Machine()
    filled(machine)
    machine.lose_power()
    dirs = machine.start()
    assert lossy(dirs) == [T0], "what had been flushed is there, what came after it nobody knows"
    assert dirs.losses.replicas[T0] == LossyReplica("t", 0, TOPIC_ID, 3, 10)


def test_where_no_boot_is_known_only_a_clean_stop_counts() -> None:
    machine = Machine()
    machine.world.boot_id = None
    filled(machine)
    machine.kill()
    dirs = machine.start()
    assert lossy(dirs) == [T0]
    dirs.losses.forget([T0])
    dirs.close(1)
    assert lossy(machine.start()) == []


@pytest.mark.parametrize("seed", range(20))
def test_under_the_flush_policy_a_loss_of_power_takes_nothing_that_counts(seed: int) -> None:
    machine = Machine(FLUSHED)
    dirs = filled(machine)
    counted = dirs.logs[T0].flushed_end_offset
    dirs.logs[T0].append_as_leader(batch(3), 3)
    machine.lose_power(seed)
    dirs = machine.start()
    assert lossy(dirs) == []
    assert dirs.logs[T0].log_end_offset >= counted == 10


def test_an_empty_log_under_the_flush_policy_is_there_after_a_loss_of_power() -> None:
    machine = Machine(FLUSHED)
    machine.start().create(T0, TOPIC_ID)
    machine.lose_power()
    dirs = machine.start()
    assert T0 in dirs.logs
    assert lossy(dirs) == []


def test_the_mark_of_the_policy_is_there_exactly_when_the_policy_is() -> None:
    machine = Machine(FLUSHED)
    threads = machine.world.threads = HeldThreads()
    dirs = machine.start()
    path = f"{FOLDER}/t-0/{FLUSH_POLICY_FILE}"
    log = dirs.create(T0, TOPIC_ID)
    log.set_config(TopicConfig())
    threads.run()
    assert not machine.disk.exists(path), "a thread was late"
    log.set_config(FLUSHED)
    log.flush_later()
    threads.run()
    assert machine.disk.exists(path)
    dirs.create(T1, TOPIC_ID)
    dirs.close(1)
    assert machine.disk.exists(f"{FOLDER}/t-1/{FLUSH_POLICY_FILE}"), "the close overtook the thread"
    machine.world.config = TopicConfig()
    machine.start()
    assert not machine.disk.exists(path), "switched off while the broker was down"


@pytest.mark.parametrize("steps", range(14))
def test_a_policy_that_is_switched_on_covers_nothing_before_it_is_flushed(steps: int) -> None:
    machine = Machine()
    dirs = machine.start()
    log = dirs.create(T0, TOPIC_ID)
    log.flush_later()
    log.append_as_leader(batch(5), 1)
    left = steps

    def step_of_disk(_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(5, "no power any more")

    machine.disk.before_change = step_of_disk
    log.set_config(FLUSHED)
    log.flush_later().addErrback(lambda _: None)
    for seed in range(10):
        after = Machine(FLUSHED)
        after.disk = after.world.disk = machine.disk.power_lost(Random(seed))
        after.world.boot_id = "boot-2"
        dirs = after.start()
        assert lossy(dirs) == [T0] or dirs.logs[T0].log_end_offset == 5


def test_a_list_is_kept_through_restarts_until_it_is_settled() -> None:
    machine = Machine()
    filled(machine)
    machine.lose_power()
    assert lossy(machine.start()) == [T0]
    machine.kill()
    dirs = machine.start()
    assert lossy(dirs) == [T0], "a second start on the same boot finds nothing missing, and must not forget"
    dirs.close(2)
    dirs = machine.start()
    assert lossy(dirs) == [T0], "nor after a clean stop"
    dirs.losses.forget([T0])
    machine.kill()
    assert lossy(machine.start()) == []


def test_what_is_left_is_told_as_it_is_now() -> None:
    machine = Machine()
    filled(machine)
    machine.lose_power()
    dirs = machine.start()
    end = dirs.logs[T0].log_end_offset
    dirs.logs[T0].append_as_leader(batch(4), 4)
    machine.kill()
    assert machine.start().losses.replicas[T0].log_end_offset == end + 4


@pytest.mark.parametrize("is_clean", [False, True])
def test_damaged_records_are_a_loss_whatever_the_boot(is_clean: bool) -> None:
    machine = Machine()
    dirs = filled(machine)
    if is_clean:
        dirs.close(1)
    path = f"{FOLDER}/t-0/{0:020d}.log"
    data = bytearray(machine.disk.read_file(path))
    data[100 if not is_clean else -3] ^= 1
    machine.kill()
    machine.disk.write_file(path, bytes(data[:-2] if is_clean else data))
    dirs = machine.start()
    assert lossy(dirs) == [T0]
    assert dirs.logs[T0].log_end_offset < 10


def test_a_batch_that_was_not_written_to_its_end_is_no_loss() -> None:
    machine = Machine()
    filled(machine)
    path = f"{FOLDER}/t-0/{0:020d}.log"
    data = machine.disk.read_file(path)
    machine.kill()
    machine.disk.write_file(path, data + batch(9)[:80])
    dirs = machine.start()
    assert lossy(dirs) == []
    assert dirs.logs[T0].log_end_offset == 10


def test_a_loss_is_known_for_good_before_recovery_hides_it() -> None:
    """Killed at each step of a recovery that cuts damaged records: the next start says that something is missing."""

    class Killed(BaseException):
        pass

    machine = Machine()
    filled(machine)
    path = f"{FOLDER}/t-0/{0:020d}.log"
    data = bytearray(machine.disk.read_file(path))
    data[100] ^= 1
    machine.kill()
    machine.disk.write_file(path, bytes(data))
    for steps in range(200):
        disk = machine.disk.killed()
        left = [steps]

        def step(*_: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        world = World(FOLDER)
        world.disk = disk
        disk.before_change = step
        try:
            dirs = world.open()
        except Killed:
            disk.before_change = lambda *_: None
            world.disk = disk.killed()
            dirs = world.open()
            assert lossy(dirs) == [T0], f"killed after {steps} steps"
            assert dirs.logs[T0].log_end_offset < 10
        else:
            assert lossy(dirs) == [T0]
            assert steps > 5
            return
    pytest.fail("the start never came to its end")


def test_an_emptied_folder_has_nothing_and_says_so() -> None:
    machine = Machine(None, "/a", "/b")
    dirs = machine.start()
    dirs.create(T0, TOPIC_ID)
    dirs.create(T1, TOPIC_ID)
    machine.kill()
    dirs = machine.start()
    never = TopicPartition("never", 0)
    assert dirs.losses.was_never_made(never, TOPIC_ID)
    assert not dirs.losses.was_never_made(T0, TOPIC_ID)
    machine.kill()
    machine.disk.remove_dir("/b/t-1")
    dirs = machine.start()
    assert not dirs.losses.was_never_made(T1, TOPIC_ID), "somebody removed it"
    dirs.close(1)
    machine.disk.unlink(f"/b/{MADE_FILE}")
    machine.kill()
    dirs = machine.start()
    assert not dirs.losses.was_never_made(T0, TOPIC_ID), "the checkpoints know it"
    assert dirs.losses.was_never_made(never, TOPIC_ID)
    machine.kill()
    for entry in machine.disk.list_dir("/b"):
        machine.disk.unlink(f"/b/{entry.name}")
    dirs = machine.start()
    assert not dirs.losses.was_never_made(never, TOPIC_ID), "a folder is new: who knows what was in its predecessor"
    gone = LossyReplica("t", 1, TOPIC_ID, -1, -1)
    dirs.losses.add([gone])
    machine.kill()
    assert machine.start().losses.replicas == {T1: gone}


def test_a_log_that_a_loss_of_power_took_whole_is_missed_though_the_next_start_is_killed_early() -> None:
    """What the simulator found (power 324): that start named the boot, died before it knew which logs were missing, and
    the one after it took the empty folder for one that never held anything."""
    tried = 0
    for seed in range(40):
        machine = Machine()
        dirs = machine.start()
        dirs.create(T0, TOPIC_ID).append_as_leader(batch(2), 3)
        machine.lose_power(seed)
        if machine.disk.exists(f"{FOLDER}/t-0") or machine.disk.exists(f"{FOLDER}/{MADE_FILE}"):
            continue
        tried += 1
        machine.start(searches=False)
        machine.kill()
        assert not machine.start().losses.was_never_made(T0, TOPIC_ID)
    assert tried


def test_the_list_of_logs_that_were_made_does_not_grow_for_ever() -> None:
    machine = Machine()
    dirs = machine.start()
    dirs.create(T0, TOPIC_ID)
    path = f"{FOLDER}/{MADE_FILE}"
    machine.kill()
    machine.disk.write_file(path, machine.disk.read_file(path) + b"old 1 id\n" * 40_000)
    machine.start()
    assert machine.disk.read_file(path) == f"t 0 {TOPIC_ID}\n".encode()


def test_a_topic_of_the_same_name_does_not_inherit_a_loss() -> None:
    machine = Machine()
    filled(machine)
    machine.lose_power()
    dirs = machine.start()
    assert lossy(dirs) == [T0]
    dirs.delete(T0, TOPIC_ID)
    other_id = TOPIC_ID[:-2] + "AA"
    dirs.create(T0, other_id)
    dirs.close(1)
    assert lossy(machine.start()) == []


def test_the_boot_file_is_read_as_it_was_written() -> None:
    record = BootRecord("b", 7, (LossyReplica("t", 0, "id", 5, 9), LossyReplica("u", 3, "", -1, -1)))
    assert decode_boot(encode_boot(record)) == record
    whole = encode_boot(record)
    for size in range(len(whole)):
        with pytest.raises(ValueError):
            decode_boot(whole[:size])
    machine = Machine()
    filled(machine)
    machine.kill()
    machine.disk.write_file(f"{FOLDER}/{BOOT_FILE}", b"\0" * 10)
    assert lossy(machine.start()) == [T0]


def test_a_boot_file_that_cannot_be_written_stops_the_start() -> None:
    machine = Machine()
    filled(machine)
    machine.lose_power()

    def fail(operation: str, path: str) -> None:
        if BOOT_FILE in path and path.endswith(".tmp"):
            raise OSError(28, "No space left on device")

    machine.disk.fail = fail
    with pytest.raises(StartError, match="cannot write what was lost"):
        machine.start()


@pytest.mark.parametrize("seed", range(250))
def test_whoever_is_not_called_lossy_holds_all_that_counted(seed: int) -> None:
    """Appends, flushes, a policy that is switched, truncations, restarts; in the end, at any moment, no power."""
    random = Random(seed)
    machine = Machine(random.choice((FLUSHED, TopicConfig())))
    machine.world.config = replace(machine.world.config, segment_bytes=random.choice((300, 10_000)))
    threads = machine.world.threads = HeldThreads()
    dirs = machine.start()
    log = dirs.create(T0, TOPIC_ID)
    counted = 0
    for _ in range(random.randrange(60)):
        step = random.choice(
            ("append", "append", "flush", "thread", "policy", "truncate", "checkpoint", "kill", "stop")
        )
        if step == "append":
            log.append_as_leader(batch(random.randint(1, 3)), 1)
        elif step == "flush":
            log.flush_later().addErrback(lambda _: None)
        elif step == "thread":
            threads.run()
        elif step == "policy":
            flushes = random.choice((1, 1, 2**63 - 1))
            machine.world.config = replace(machine.world.config, flush_messages=flushes)
            log.set_config(machine.world.config)
        elif step == "truncate" and log.log_end_offset > 0:
            log.truncate_to(random.randint(0, log.log_end_offset))
            counted = min(counted, log.log_end_offset)
        elif step == "checkpoint":
            dirs.write_checkpoints({T0: min(counted, log.log_end_offset)})
        elif step in ("kill", "stop"):
            if step == "stop":
                dirs.close(1)
            else:
                machine.kill()
            machine.world.threads = threads = HeldThreads()
            dirs = machine.start()
            assert T0 not in dirs.losses.replicas, "nothing was lost"
            log = dirs.create(T0, TOPIC_ID)
        is_covered = log.config.flush_messages == 1
        counted = max(counted, log.flushed_end_offset if is_covered else log.log_end_offset)
    stop_at = random.randrange(12)

    def step_of_disk(_: str) -> None:
        nonlocal stop_at
        stop_at -= 1
        if stop_at < 0:
            raise OSError(5, "no power any more")

    machine.disk.before_change = step_of_disk
    log.flush_later().addErrback(lambda _: None)
    threads.run()
    machine.lose_power(seed)
    machine.world.threads = HeldThreads()
    dirs = machine.start()
    if T0 not in dirs.logs:
        assert not dirs.losses.was_never_made(T0, TOPIC_ID), "a state that names it makes it lossy"
        return
    left = dirs.logs[T0].log_end_offset
    assert T0 in dirs.losses.replicas or left >= counted, f"{left} of {counted} are left"
