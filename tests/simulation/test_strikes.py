"""Every fault of a simulated world does what it says; and what goes wrong inside a broker comes out as a violation."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail

from tests.simulation.process import ProcessGoneError
from tests.simulation.settings import WorldSettings
from tests.simulation.simple import booted, consume, create_topic, in_process, isr_of, leader_of, produce
from tests.simulation.violation import Violation
from tests.simulation.world import World

REGISTRATION = "/brokers/ids/{}"


def with_topic(seed: int = 1, **config: str) -> World:
    world = booted(seed, WorldSettings(config={key.replace("_", "."): text for key, text in config.items()}))
    create_topic(world)
    return world


def leader_id(world: World) -> int:
    node = leader_of(world)
    assert node is not None
    return node.broker_id


def is_registered(world: World, broker_id: int) -> bool:
    return world.zookeeper.data(REGISTRATION.format(broker_id)) is not None


# Processes


def test_events_of_a_killed_process_never_happen() -> None:
    with booted(1) as world:
        node = world.nodes[1]
        ran: list[str] = []
        process = in_process(node, lambda: ran.append("before"))
        world.run_for(0.01)
        process.reactor.callLater(0.5, ran.append, "timer")
        process.run_in_thread(ran.append, "thread")
        world.kill(1)
        world.run_for(2.0)
        assert (ran, node.is_running, node.parts, process.is_alive) == (["before"], False, None, False)
        assert not is_registered(world, 1)
        world.start(1)
        assert world.run_until(lambda: node.is_ready, 5.0)
        assert world.counts["restarts"] == world.counts["kills"] == 1


def test_a_stopped_process_hands_over_and_goes() -> None:
    with with_topic() as world:
        broker_id = leader_id(world)
        world.stop(broker_id)
        assert world.run_until(lambda: not world.nodes[broker_id].is_running, 3.0)
        assert leader_id(world) != broker_id
        assert world.nodes[broker_id].disk.exists("/data/.kafka_cleanshutdown")
        assert not is_registered(world, broker_id)


def test_a_paused_process_does_nothing_and_then_what_it_missed_in_order() -> None:
    with booted(1) as world:
        process = world.nodes[1].process
        assert process is not None
        ran: list[int] = []
        for number in range(5):
            process.reactor.callLater(0.1 * number, ran.append, number)
        world.pause(1)
        world.run_for(3.0)
        assert (ran, world.nodes[1].is_paused, is_registered(world, 1)) == ([], True, False)
        world.resume(1)
        world.run_for(0.01)
        assert ran == [0, 1, 2, 3, 4]
        assert world.run_until(lambda: is_registered(world, 1), 3.0)


@pytest.mark.parametrize("count", range(6))
def test_a_process_can_die_in_the_middle_of_a_callback(count: int) -> None:
    with with_topic() as world:
        assert produce(world, b"0") == 0
        broker_id = leader_id(world)
        node = world.nodes[broker_id]
        process, disk = node.process, node.disk
        world.kill_at_change(broker_id, count)
        for number in range(1, 8):
            assert produce(world, b"%d" % number) == number
        assert not node.is_running and process is not None and not process.is_alive
        assert world.counts["deaths_at_a_change"] == 1
        # Whatever still runs of it changes nothing.
        with pytest.raises(ProcessGoneError):
            disk.write_file("/data/late", b"")
        world.start(broker_id)
        assert not node.disk.exists("/data/late")
        assert world.run_until(lambda: len(isr_of(world)) == 3, 10.0)
        assert [value.decode() for value in consume(world)] == [str(number) for number in range(8)]


def test_a_power_loss_takes_what_was_not_flushed_and_nothing_else() -> None:
    sizes = set()
    for seed in range(8):
        with with_topic(seed) as world:
            for number in range(5):
                produce(world, b"%d" % number)
            node = world.nodes[leader_id(world)]
            before = len(node.disk.read_file("/data/t-0/00000000000000000000.log"))
            world.kill(node.broker_id, lose_unflushed=seed > 3)
            try:
                sizes.add(len(node.disk.read_file("/data/t-0/00000000000000000000.log")) - before)
            except FileNotFoundError:
                sizes.add(-before)
            if seed == 3:
                assert sizes == {0}
            world.start(node.broker_id)
            assert world.counts["lossy_restarts"] == (seed > 3) == node.losses
    assert min(sizes) < 0


def test_power_loss_with_a_flush_policy_loses_nothing_acknowledged() -> None:
    with with_topic(3, log_flush_interval_messages="1") as world:
        for number in range(5):
            produce(world, b"%d" % number)
        elections = world.counts["elections"]
        for broker_id in world.nodes:
            world.kill(broker_id, lose_unflushed=True)
        world.run_for(0.5)
        world.start_all()
        world.run_for(0.5)
        # below min.insync.replicas a new leader's high watermark stands still
        assert world.run_until(lambda: len(isr_of(world)) == 3 and world.counts["elections"] > elections, 10.0)
        # the new leader's high watermark waits for the followers' first fetches
        world.run_for(1.0)
        assert consume(world) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_stalled_process_keeps_its_session_until_its_watchdog_ends_it() -> None:
    with booted(1) as world:
        process = world.nodes[2].process
        assert process is not None
        ran: list[float] = []
        world.stall(2, 1.2)
        process.reactor.callLater(0.1, lambda: ran.append(world.now))
        start = world.now
        world.run_for(1.1)
        assert (ran, is_registered(world, 2)) == ([], True)
        assert world.run_until(lambda: ran, 0.2)
        assert ran[0] - start >= 1.2
        world.stall(2, 60.0)
        world.run_for(1.4)
        assert world.nodes[2].is_running and is_registered(world, 2)
        world.run_for(0.2)
        assert not world.nodes[2].is_running


# Clocks


def test_clocks_drift_and_timers_with_them() -> None:
    with booted(1) as world:
        node = world.nodes[1]
        process = node.process
        assert process is not None
        before, wall = node.clock.monotonic(), node.clock.wall_ms()
        world.drift(1, 1.5)
        assert node.clock.monotonic() == before
        at: list[float] = []
        start = world.now
        process.reactor.callLater(0.3, lambda: at.append(world.now))
        world.run_for(1.0)
        assert node.clock.monotonic() - before == pytest.approx(1.5)
        assert node.clock.wall_ms() - wall == pytest.approx(1500, abs=2)
        assert 0.2 <= at[0] - start < 0.21
        world.drift(1, 1.0)
        world.run_for(1.0)
        assert node.clock.monotonic() - before == pytest.approx(2.5)
        assert node.clock.wall_ms() - wall == pytest.approx(2500, abs=2)


# ZooKeeper


def test_an_expired_session_is_told_and_the_broker_registers_again() -> None:
    with booted(1) as world:
        before = world.zookeeper.stat(REGISTRATION.format(2))
        world.expire_session(2)
        assert not is_registered(world, 2)
        assert world.run_until(lambda: is_registered(world, 2), 3.0)
        after = world.zookeeper.stat(REGISTRATION.format(2))
        assert before is not None and after is not None and after.czxid > before.czxid


@pytest.mark.parametrize("silently", [True, False])
def test_a_broker_cut_off_from_zookeeper_loses_its_session_and_comes_back(silently: bool) -> None:
    with booted(1) as world:
        world.zk_cut(3, silently=silently)
        assert world.run_until(lambda: not is_registered(world, 3), 3.0)
        assert world.nodes[3].is_running
        # Not even a new process gets through.
        world.kill(3)
        world.start(3)
        world.run_for(3.0)
        assert not is_registered(world, 3)
        world.zk_heal(3)
        assert world.run_until(lambda: is_registered(world, 3), 3.0)


@pytest.mark.parametrize("is_done", [True, False])
def test_a_write_whose_outcome_is_unknown_was_done_or_not(is_done: bool) -> None:
    with booted(1) as world:
        process = world.nodes[1].process
        assert process is not None
        (world.zk_lose_reply if is_done else world.zk_lose_request)(1)
        outcomes: list[Any] = []
        in_process(world.nodes[1], lambda: process.zk.create("/x", b"").addBoth(outcomes.append))
        assert world.run_until(lambda: outcomes, 1.0)
        assert outcomes[0].type.__name__ == "ConnectionLossError"
        assert (world.zookeeper.data("/x") == b"") is is_done


def test_without_the_ensemble_nothing_is_elected_and_nothing_is_lost() -> None:
    with with_topic() as world:
        produce(world, b"before")
        world.zk_away()
        world.run_for(5.0)
        assert world.counts["elections"] == 0
        assert produce(world, b"meanwhile") == 1
        world.zk_back()
        world.run_for(3.0)
        assert world.counts["elections"] == 0
        assert consume(world) == [b"before", b"meanwhile"]


def test_commits_are_told_in_order() -> None:
    with World(1) as world:
        told: list[tuple[str, bytes | None, int, int, int]] = []
        world.on_commit.append(lambda *commit: told.append(commit))
        world.start_all()
        assert world.run_until(lambda: all(node.is_ready for node in world.nodes.values()), 10.0)
        world.delete_znode("/controller")
        paths = [path for path, *_ in told]
        assert {"/cluster/id", "/controller", "/brokers/ids/1"} <= set(paths)
        assert [zxid for *_, zxid in told] == sorted(zxid for *_, zxid in told)
        path, data, version, session, _ = told[-1]
        assert (path, data, version, session) == ("/controller", None, -1, 0)
        elected = next(commit for commit in told if commit[0] == "/controller")
        assert world.broker_of_session(elected[3]) > 0 and elected[2] == 0


# Disks


def test_a_full_disk_takes_nothing_and_a_failing_one_not_even_reads() -> None:
    with booted(1) as world:
        disk = world.nodes[1].disk
        disk.before_change = lambda operation: None
        world.disk_full(1)
        with pytest.raises(OSError) as caught:
            disk.write_file("/data/x", b"x")
        assert caught.value.errno == errno.ENOSPC
        assert disk.read_file("/data/meta.properties")
        world.disk_full(1, False)
        disk.write_file("/data/x", b"x")
        world.disk_fails(1)
        with pytest.raises(OSError) as caught:
            disk.read_file("/data/x")
        assert caught.value.errno == errno.EIO


def test_a_broker_with_a_failing_disk_leads_no_more() -> None:
    with with_topic() as world:
        produce(world, b"0")
        broken = leader_id(world)
        world.disk_fails(broken)
        assert produce(world, b"1") == 1
        assert leader_id(world) != broken


def test_a_slow_disk_makes_jobs_wait_and_writes_hold_up_the_process() -> None:
    with booted(1) as world:
        node = world.nodes[1]
        process = node.process
        assert process is not None
        ended: list[float] = []
        start = world.now
        world.disk_slow(1, 0.5)
        process.run_in_thread(lambda: ended.append(world.now))
        assert world.run_until(lambda: ended, 1.0)
        assert ended[0] - start >= 0.5
        world.disk_slow(1, 0.0, 0.2)
        seen: list[float] = []

        def write() -> None:
            before = node.clock.monotonic()
            process.disk.write_file("/data/x", b"")
            seen.append(node.clock.monotonic() - before)
            process.reactor.callLater(0, lambda: seen.append(node.clock.monotonic() - before))

        in_process(node, write)
        assert world.run_until(lambda: len(seen) == 2, 1.0)
        assert seen[0] == pytest.approx(0.2)
        assert 0.2 <= seen[1] < 0.21


def test_a_bit_flips_in_memory_and_on_the_platters() -> None:
    with with_topic() as world:
        produce(world, b"0")
        disk = world.nodes[leader_id(world)].disk
        path = "/data/t-0/00000000000000000000.log"
        disk.sync_path(path)
        disk.sync_dir("/data/t-0")
        disk.sync_dir("/data")
        before = disk.read_file(path)
        assert world.flip_bit(leader_id(world)) is not None
        after = disk.read_file(path)
        assert sum((one ^ other).bit_count() for one, other in zip(before, after, strict=True)) == 1
        assert disk.power_lost(world.random).read_file(path) == after
        assert path in disk.flipped and path in disk.killed().flipped
        disk.write_file(path, after)
        assert not disk.flipped
        assert world.flip_bit(leader_id(world), ".nothing") is None


def test_a_torn_write_loses_its_end_on_a_broker_that_is_down() -> None:
    with with_topic() as world:
        produce(world, b"0")
        produce(world, b"1")
        node = world.nodes[leader_id(world)]
        assert world.tear(node.broker_id) is None
        path = "/data/t-0/00000000000000000000.log"
        before = node.disk.read_file(path)
        world.kill(node.broker_id)
        assert world.tear(node.broker_id) is not None
        after = node.disk.read_file(path)
        assert len(after) < len(before) and before.startswith(after)
        assert node.losses == 1


# All of it


def test_healing_ends_every_fault() -> None:
    with with_topic() as world:
        produce(world, b"0")
        world.kill(1)
        world.pause(2)
        world.disk_full(3)
        world.disk_slow(3, 1.0, 0.1)
        world.cut(1, 2)
        world.slow_link(2, 3, 0.5)
        world.zk_cut(3)
        world.zk_away()
        world.drift(1, 1.1)
        world.suspect_falsely(3, 1_000.0, is_deaf=True)
        world.kill_at_change(3, 1_000)
        world.run_for(3.0)
        world.heal_all()
        # A folder that was full stays offline until its broker starts again.
        world.kill(3)
        world.start(3)
        assert world.run_until(lambda: all(node.is_ready for node in world.nodes.values()), 10.0)
        assert produce(world, b"1") == 1
        assert world.run_until(lambda: len(isr_of(world)) == 3, 10.0)
        assert consume(world) == [b"0", b"1"]


# Violations


def raised_in(world: World, function: Any) -> Violation:
    in_process(world.nodes[1], function)
    with pytest.raises(Violation) as caught:
        world.run_for(5.0)
    assert caught.value.invariant == 0
    return caught.value


def test_an_exception_in_a_brokers_code_is_a_violation() -> None:
    with booted(1) as world:
        assert "boom" in raised_in(world, lambda: [][0] if world is None else _boom()).text


def _boom() -> None:
    raise RuntimeError("boom")


def test_a_failure_that_nobody_handles_is_a_violation() -> None:
    with booted(1) as world:
        assert "boom" in raised_in(world, lambda: fail(RuntimeError("boom")) and None).text


def test_a_failure_that_nobody_handles_is_found_in_the_garbage_too() -> None:
    with booted(1, WorldSettings(collect_every_steps=100)) as world:

        def leave() -> None:
            left: Deferred[None] = Deferred()
            left.itself = left  # type: ignore[attr-defined]
            left.errback(RuntimeError("boom"))

        assert "boom" in raised_in(world, leave).text


def test_fatal_is_a_violation_and_ends_the_process_at_once() -> None:
    with booted(1) as world:
        process = world.nodes[1].process
        assert process is not None
        after: list[str] = []

        def act() -> None:
            process.broker._fatal("an invariant", RuntimeError("boom"))
            after.append("it went on")

        assert "FATAL an invariant" in raised_in(world, act).text
        assert (after, process.is_alive) == ([], False)


def test_a_checker_is_asked_after_each_step_and_its_violation_comes_out() -> None:
    class Checker:
        steps = 0

        def after_step(self, world: World) -> None:
            self.steps += 1
            if self.steps == 7:
                raise Violation(3, "seven")

    with booted(1) as world:
        checker = Checker()
        world.checkers.append(checker)
        before = world.steps
        with pytest.raises(Violation, match="invariant 3: seven"):
            world.run_steps(100)
        assert world.steps - before == 7
