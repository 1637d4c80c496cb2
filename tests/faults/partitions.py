"""Connections cut between some and not between others, one way, or refused by somebody who lives."""

from __future__ import annotations

from tests.faults.torture import Torture


def _cut(torture: Torture, source: str, to: list[str], one_way: bool = False) -> None:
    if torture.arena.network is not None:
        for other in to:
            torture.arena.network.cut(source, other, one_way)


def _heal(torture: Torture) -> None:
    if torture.arena.network is not None:
        torture.arena.network.heal()


def _brokers(numbers: list[int]) -> list[str]:
    return [f"b{number}" for number in numbers]


ZOOKEEPERS = ["zk1", "zk2", "zk3"]
FOLLOWER_AGAIN_S = 5.0
"""Who is suspected falsely is a follower again within this."""
DESTROYED_GAP_S = 1.0
"""Without an acknowledgement, when a broker dies together with its address."""


def _away_s(torture: Torture) -> float:
    return min(torture.settings.away_s, torture.arena.session_s * 3)


def _goes_on(torture: Torture, what: str) -> None:
    """Every partition acknowledges again and again while the fault lasts: nothing needs to be mended first. That some
    did at its beginning would not tell much, it may have been under way."""
    torture.hold(torture.arena.session_s)
    torture.wait_progress(what)
    torture.hold(_away_s(torture) / 3)
    torture.wait_progress(f"{what}, still")


def cut_one_follower(torture: Torture) -> None:
    """Neither is the controller: the leader can have the follower taken out of the ISR."""
    pair = torture.dice.sample(torture.others(torture.controller()), 2)
    torture.begin(f"brokers {pair[0]} and {pair[1]} do not hear each other")
    _cut(torture, f"b{pair[0]}", _brokers([pair[1]]))
    _goes_on(torture, "with one connection cut")
    _heal(torture)


def cut_from_controller(torture: Torture) -> None:
    """A leader cannot have the controller, which does not fetch from it any more, taken out of the ISR. The controller
    does it by itself, and the leader reads so in ZooKeeper."""
    controller = torture.controller()
    victim = torture.some_broker(but=controller)
    torture.begin(f"broker {victim} and the controller, broker {controller}, do not hear each other")
    _cut(torture, f"b{victim}", _brokers([controller]))
    _goes_on(torture, f"with broker {victim} cut from the controller")
    _heal(torture)


def cut_from_peers(torture: Torture) -> None:
    """A gray failure: its session lives and clients reach it, but no follower can fetch from it."""
    _cut_from_peers(torture, torture.leader(torture.some_partition()))


def cut_controller_from_peers(torture: Torture) -> None:
    """It has to give the office up by itself before anybody else can move its leaderships."""
    _cut_from_peers(torture, torture.controller())


def _cut_from_peers(torture: Torture, victim: int) -> None:
    torture.begin(f"broker {victim} is cut from the other brokers, not from ZooKeeper")
    _cut(torture, f"b{victim}", _brokers(torture.others(victim)))
    _goes_on(torture, f"with broker {victim} cut from its peers")
    _heal(torture)


def cut_from_zookeeper(torture: Torture) -> None:
    """Its session expires although it serves clients and fetches."""
    victim = torture.leader(torture.some_partition())
    torture.begin(f"broker {victim} is cut from ZooKeeper")
    _cut(torture, f"b{victim}", ZOOKEEPERS)
    torture.hold(torture.arena.session_s + 1)
    torture.wait_progress(f"with broker {victim} cut from ZooKeeper")
    _heal(torture)


def isolate(torture: Torture) -> None:
    """Clients still reach it, and may believe that it leads."""
    _isolate(torture, torture.leader(torture.some_partition()))


def isolate_controller(torture: Torture) -> None:
    _isolate(torture, torture.controller())


def _isolate(torture: Torture, victim: int) -> None:
    torture.begin(f"broker {victim} is cut from brokers and ZooKeeper, not from clients")
    _cut(torture, f"b{victim}", _brokers(torture.others(victim)) + ZOOKEEPERS)
    torture.hold(torture.arena.session_s + 1)
    torture.wait_progress(f"with broker {victim} isolated")
    _heal(torture)


def one_way_out(torture: Torture) -> None:
    _mute(torture, torture.leader(torture.some_partition()))


def one_way_out_controller(torture: Torture) -> None:
    _mute(torture, torture.controller())


def _mute(torture: Torture, victim: int) -> None:
    torture.begin(f"nothing that broker {victim} sends reaches the other brokers")
    _cut(torture, f"b{victim}", _brokers(torture.others(victim)), one_way=True)
    _goes_on(torture, f"with broker {victim} mute")
    _heal(torture)


def one_way_in(torture: Torture) -> None:
    _deafen(torture, torture.leader(torture.some_partition()))


def one_way_in_controller(torture: Torture) -> None:
    _deafen(torture, torture.controller())


def _deafen(torture: Torture, victim: int) -> None:
    torture.begin(f"nothing that the other brokers send reaches broker {victim}")
    for other in _brokers(torture.others(victim)):
        _cut(torture, other, [f"b{victim}"], one_way=True)
    _goes_on(torture, f"with broker {victim} deaf to its peers")
    _heal(torture)


def one_way_zookeeper(torture: Torture) -> None:
    victim = torture.leader(torture.some_partition())
    torture.begin(f"what ZooKeeper sends does not reach broker {victim}")
    for server in ZOOKEEPERS:
        _cut(torture, server, [f"b{victim}"], one_way=True)
    torture.hold(torture.arena.session_s + 1)
    torture.wait_progress(f"with broker {victim} deaf to ZooKeeper")
    _heal(torture)


def reject(torture: Torture) -> None:
    """A false suspicion: to its peers it looks dead, to clients and ZooKeeper it lives."""
    _reject(torture, torture.leader(torture.some_partition()), and_clients=False)


def reject_controller(torture: Torture) -> None:
    _reject(torture, torture.controller(), and_clients=True)


def _reject(torture: Torture, victim: int, and_clients: bool) -> None:
    network = torture.arena.network
    assert network is not None
    detail = f"broker {victim} refuses connections of brokers{' and clients' if and_clients else ''}, and lives"
    torture.begin(detail, victim)
    for other in torture.others(victim):
        network.reject(f"b{other}", f"b{victim}")
    if and_clients:
        network.reject_local(f"b{victim}")
    torture.wait(lambda: torture.leads_nothing(victim), f"broker {victim} is registered and leads nothing")
    torture.stopwatch.came_about("registered, and leads nothing", FOLLOWER_AGAIN_S, is_inferred=True)
    _goes_on(torture, f"with broker {victim} refusing its peers")
    _heal(torture)
    torture.healed()
    since = torture.recorder.now()
    torture.wait(lambda: torture.is_full() and torture.leads_nothing(victim), f"broker {victim} follows again")
    torture.stopwatch.came_about("once healed, in sync again as a follower", FOLLOWER_AGAIN_S, since)


def destroy(torture: Torture) -> None:
    """As a container that is removed: its connections end, and its address answers nothing any more."""
    _destroy(torture, torture.leader(torture.some_partition()))


def destroy_controller(torture: Torture) -> None:
    _destroy(torture, torture.controller())


def _destroy(torture: Torture, victim: int) -> None:
    network = torture.arena.network
    assert network is not None
    torture.begin(f"broker {victim} is killed together with its network namespace", victim)
    network.destroy(f"b{victim}")
    torture.kill(victim)
    torture.wait_progress(f"without broker {victim}")
    torture.stopwatch.went_on(DESTROYED_GAP_S, torture.traffic.quick_writers)
    network.restore(f"b{victim}")
    torture.start(victim)
