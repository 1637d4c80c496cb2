"""A log folder that is no longer among ``log.dirs``: its disk failed and was taken out, a line was lost."""

from __future__ import annotations

import errno
from random import Random

import pytest
from twisted.internet.defer import maybeDeferred

from tests.unit.log_tools import T0, TOPIC_ID, HeldThreads, batch
from tests.unit.test_log_losses import Machine, lossy
from zkbroker.log.checkpoints import CLEAN_SHUTDOWN_FILE
from zkbroker.log.dirs import LogDirs
from zkbroker.log.losses import BootRecord, decode_boot, encode_boot
from zkbroker.model.cluster import LossyReplica
from zkbroker.model.errors import StartError
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition

T1 = TopicPartition("t", 1)
NEVER = TopicPartition("t", 7)


def two_folders() -> tuple[Machine, str, str]:
    """With a log in each: the folder of the first, that of the second."""
    machine = Machine(None, "/one", "/two")
    dirs = machine.start()
    for partition in (T0, T1):
        dirs.create(partition, TOPIC_ID).append_as_leader(batch(2), 3)
    return machine, dirs.logs[T0].log_dir, dirs.logs[T1].log_dir


def never_made(dirs: LogDirs, *partitions: TopicPartition) -> list[bool]:
    return [dirs.losses.was_never_made(partition, TOPIC_ID) for partition in partitions]


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_log_in_a_folder_that_was_taken_out_is_missing(is_clean: bool) -> None:
    """It led with nothing: no list of the folders that were left named it."""
    machine, _, kept = two_folders()
    dirs = machine.dirs
    assert dirs is not None
    if is_clean:
        dirs.close(1)
    machine.kill()
    machine.world.folders = [kept]
    dirs = machine.start(searches=False)
    assert never_made(dirs, T0, NEVER) == [False, False], "who knows what was in it"
    assert lossy(dirs) == [], "what is left is whole"
    machine.kill()
    dirs = machine.start(searches=False)
    assert never_made(dirs, T0) == [False], "nobody has asked yet which logs should be there"
    dirs.losses.add([LossyReplica("t", 0, TOPIC_ID, -1, -1)])
    machine.kill()
    dirs = machine.start()
    assert lossy(dirs) == [T0]
    assert never_made(dirs, NEVER) == [True]


def test_a_disk_that_failed_before_it_was_taken_out() -> None:
    machine, failing, kept = two_folders()
    dirs = machine.dirs
    assert dirs is not None
    dirs.logs[T0].failed("cannot read", OSError(5, "Input/output error"))
    assert dirs.offline_dirs.keys() == {failing}
    dirs.losses.forget([])
    machine.kill()
    machine.world.folders = [kept]
    assert never_made(machine.start(searches=False), T0, NEVER) == [False, False]


def test_folders_under_other_names_have_lost_nothing() -> None:
    machine, _, _ = two_folders()
    machine.kill()
    machine.world.folders.reverse()
    assert never_made(machine.start(), NEVER) == [True]
    machine.kill()
    machine.disk.rename("/two", "/three")
    machine.world.folders = ["/three", "/one"]
    dirs = machine.start()
    assert lossy(dirs) == []
    assert never_made(dirs, NEVER) == [False], "of that start nobody can tell"
    machine.kill()
    assert never_made(machine.start(), NEVER) == [True]


def test_a_boot_file_of_before_names_no_folders() -> None:
    record = BootRecord("boot-1", 3, folders=("/one", "/two"))
    assert decode_boot(encode_boot(record)) == record
    assert decode_boot(b'{"version":0,"boot_id":"b","number":7,"lossy":[]}') == BootRecord("b", 7)
    for bad in (b'{"version":0,"boot_id":"b","number":7,"lossy":[],"folders":"x"}',
                b'{"version":0,"boot_id":"b","number":7,"lossy":[],"folders":[1]}'):  # fmt: skip
        with pytest.raises(ValueError, match="folders"):
            decode_boot(bad)


@pytest.mark.parametrize("is_out_for_a_while", [False, True])
def test_a_disk_that_takes_no_note_of_its_failure_is_noted_in_the_other_folders(is_out_for_a_while: bool) -> None:
    """It is read only from its failure on; repaired and mounted again in the same boot it has what was flushed."""
    machine, failing, kept = two_folders()
    dirs = machine.dirs
    assert dirs is not None

    def fail(operation: str, path: str) -> None:
        if path.startswith(failing):
            raise OSError(errno.EROFS, "Read-only file system")

    machine.disk.fail = fail
    dirs.logs[T0].failed("cannot read", OSError(errno.EIO, "Input/output error"))
    dirs.losses.forget([])
    machine.disk.fail = lambda operation, path: None
    machine.kill()
    if is_out_for_a_while:
        machine.world.folders = [kept]
        machine.start()
        machine.kill()
        machine.world.folders = [failing, kept]
    dirs = machine.start()
    assert lossy(dirs) == [T0], "who knows what of it had been flushed"
    dirs.losses.forget([T0])
    machine.kill()
    assert lossy(machine.start()) == [], "since then it is a disk like any other"


@pytest.mark.parametrize("when", ["stopped late", "failed at the stop", "killed"])
@pytest.mark.parametrize("seed", range(12))
def test_the_note_of_a_failure_does_not_cost_the_list_of_losses(seed: int, when: str) -> None:
    machine, failing, kept = two_folders()
    dirs = machine.dirs
    assert dirs is not None
    dirs.losses.add([LossyReplica("t", 5, TOPIC_ID, -1, -1)])
    if when != "killed":
        machine.world.threads = HeldThreads()  # the process ends before it has one for this
    if when == "failed at the stop":
        failing, kept = "/two", "/one"  # the mark of the other one is written when this one fails
        partition = T0 if dirs.logs[T0].log_dir == failing else T1
        dirs.logs[partition].append_as_leader(batch(2), 3)

        def fail(operation: str, path: str) -> None:
            if operation == "sync" and path.startswith(failing):
                raise OSError(errno.EIO, "Input/output error")

        machine.disk.fail = fail
    else:
        dirs.logs[T0].failed("cannot read", OSError(errno.EIO, "Input/output error"))
    disk, seen = machine.disk, []
    if when == "stopped late":
        disk.before_change = lambda operation: seen.append(disk.power_lost(Random(seed)))
    if when != "killed":
        dirs.close(1)
    disk.before_change = disk.fail = lambda *operation: None
    machine.lose_power(seed)
    machine.world.threads = maybeDeferred
    machine.world.folders = [kept]
    for image in (machine.disk, *(one for one in seen if one.exists(f"{kept}/{CLEAN_SHUTDOWN_FILE}"))):
        machine.world.disk = image
        assert TopicPartition("t", 5) in lossy(machine.start(searches=False))


def test_a_disk_that_fails_at_the_start_is_not_trusted_at_the_next() -> None:
    machine = Machine()
    machine.start().create(T0, TOPIC_ID).append_as_leader(batch(2), 3)
    machine.kill()
    machine.world.config = TopicConfig(flush_messages=1)

    def fail(operation: str, path: str) -> None:
        if operation == "sync" and "boot" not in path:
            raise OSError(errno.EIO, "Input/output error")

    machine.disk.fail = fail
    with pytest.raises(StartError):
        machine.start()
    machine.kill()
    machine.world.config = TopicConfig()
    assert lossy(machine.start()) == [T0], "the kernel may have dropped what it could not write"
