"""Brokers that are killed, stopped or paused."""

from __future__ import annotations

from tests.faults.torture import Torture
from tests.harness.brokers import LocalFailure


def kill_leader(torture: Torture) -> None:
    _kill_and_go_on(torture, torture.leader(torture.some_partition()))


def kill_controller(torture: Torture) -> None:
    """Leader and controller in one: with as many partitions as brokers each is somewhere the preferred leader."""
    victim = torture.leading_controller()
    led = torture.led_by(victim)
    if not led or torture.controller() != victim:
        raise LocalFailure(f"broker {victim} does not both lead and control: it leads {led}")
    _kill_and_go_on(torture, victim, f", the controller, which leads {led}")


def _kill_and_go_on(torture: Torture, victim: int, what: str = "") -> None:
    torture.begin(f"kill -9 broker {victim}{what}")
    torture.kill(victim)
    torture.wait_progress(f"without broker {victim}")
    torture.start(victim)


def kill_follower(torture: Torture) -> None:
    """One that leads nothing: its partitions are moved away by a controlled shutdown and it starts as a follower."""
    victim = torture.some_broker(but=torture.controller())
    torture.broker(victim).stop()
    torture.start(victim)
    torture.wait(torture.is_full, f"broker {victim} is back as a follower")
    torture.begin(f"kill -9 broker {victim}, which leads nothing")
    torture.kill(victim)
    torture.wait_progress(f"without broker {victim}")
    torture.start(victim)


def kill_again(torture: Torture) -> None:
    victim = torture.leader(torture.some_partition())
    torture.begin(f"kill -9 broker {victim} and start it at once, three times")
    for _ in range(3):
        torture.kill(victim)
        torture.start(victim)


def kill_two(torture: Torture) -> None:
    victims = torture.dice.sample(sorted(torture.cluster.brokers), 2)
    torture.begin(f"kill -9 brokers {victims}")
    torture.kill(*victims)
    torture.hold(torture.dice.uniform(0, 2))
    torture.dice.shuffle(victims)
    torture.start(victims[0])
    torture.wait_progress(f"with broker {victims[0]} back") if len(torture.cluster.brokers) == 3 else None
    torture.start(victims[1])


def kill_all(torture: Torture) -> None:
    torture.begin("kill -9 all brokers at once")
    everybody = list(torture.cluster.brokers)
    torture.kill(*everybody)
    torture.hold(torture.dice.uniform(0, 1))
    torture.start(*everybody)


def kill_one_by_one(torture: Torture) -> None:
    """The last one standing dies too; the first that comes back died first."""
    order = torture.dice.sample(sorted(torture.cluster.brokers), len(torture.cluster.brokers))
    torture.begin(f"kill -9 {order} one by one, start them in the same order")
    for victim in order:
        torture.kill(victim)
        torture.hold(torture.dice.uniform(0.2, 1.5))
    for victim in order:
        torture.start(victim)
        torture.hold(torture.dice.uniform(0, 1))


def pause_short(torture: Torture) -> None:
    _pause(torture, torture.leader(torture.some_partition()), torture.arena.session_s * 0.5)


def pause_long(torture: Torture) -> None:
    _pause(torture, torture.leader(torture.some_partition()), torture.arena.session_s + 2.5)


def pause_controller(torture: Torture) -> None:
    _pause(torture, torture.controller(), torture.arena.session_s + 2.5)


def _pause(torture: Torture, victim: int, seconds: float) -> None:
    torture.begin(f"SIGSTOP broker {victim} for {seconds:.1f} s (session timeout {torture.arena.session_s:g} s)")
    torture.broker(victim).pause()
    torture.hold(seconds)
    if seconds > torture.arena.session_s:
        torture.wait_progress(f"without broker {victim}, which stands still")
    torture.broker(victim).resume()


def term_leader(torture: Torture) -> None:
    _term(torture, torture.leader(torture.some_partition()))


def term_controller(torture: Torture) -> None:
    _term(torture, torture.controller())


def _term(torture: Torture, victim: int) -> None:
    torture.begin(f"SIGTERM broker {victim}")
    torture.broker(victim).stop()
    torture.wait_progress(f"without broker {victim}")
    torture.start(victim)


def term_all(torture: Torture) -> None:
    torture.begin("SIGTERM all brokers at once")
    torture.cluster.stop()
    torture.start(*torture.cluster.brokers)
