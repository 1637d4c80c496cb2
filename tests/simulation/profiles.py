"""What strikes a simulated cluster, and how often: a profile is a table of rates."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Profile(NamedTuple):
    """``rates``: per kind of fault (see ``faults``) how many are expected in 1,000 steps."""

    name: str
    about: str
    rates: Mapping[str, float]
    brokers_min: int = 3
    brokers_max: int = 5
    changes_topics: bool = False
    """One topic is deleted and made again all the time."""
    moves_partitions: bool = False
    """Partitions are reassigned all the time, and it is taken back."""
    flushes: bool = False
    """Every topic has ``flush.messages`` 1: what is acknowledged is on the disk."""
    config: Mapping[str, str] = MappingProxyType({})
    """Keys of every broker."""
    odd_shapes: bool = False
    """From one broker to four, replication factors from 1 to 3, minimum ISRs from 1 to 3, brokers that differ in how
    they notice failures and in whether they flush."""
    clients: int | None = None
    """So few, not as many as the seed draws: then more time passes in as many steps."""


def _profile(name: str, about: str, **rates: float) -> Profile:
    return Profile(name, about, MappingProxyType(rates))


_CRASHES = {
    "kill": 2.0,
    "kill_leader": 2.0,
    "kill_controller": 1.0,
    "kill_leader_and_controller": 0.5,
    "kill_two": 0.7,
    "kill_all": 0.15,
    "stop": 0.7,
    "dies_writing": 1.0,
    "machine_gone": 0.5,
}
_POWER = {"power": 2.0, "power_leader": 1.5, "power_two": 0.5, "power_all": 0.2}
_PAUSES = {"pause": 1.0, "pause_long": 0.7, "pause_leader_long": 0.5}
_NETWORK = {
    "cut": 1.0,
    "cut_one_way": 1.0,
    "isolate": 0.7,
    "isolate_leader": 0.7,
    "reset": 1.5,
    "slow_link": 1.0,
}
_ZOOKEEPER = {
    "zk_cut": 1.0,
    "zk_lose_reply": 2.0,
    "zk_lose_request": 1.0,
    "zk_lose_reply_of_controller": 1.5,
    "zk_away": 0.2,
    "expire": 0.7,
    "expire_controller": 0.5,
    "delete_controller": 0.2,
    "delete_registration": 0.3,
}
_DISKS = {"disk_slow": 1.0, "disk_full": 0.2, "disk_fails": 0.2, "flip_bit": 0.5}
_SUSPICION = {"suspect": 1.5, "suspect_leader": 1.5, "suspect_controller": 0.5}
_ELECTIONS = {"depose": 2.0, "delete_registration_of_leader": 1.5, "storm": 1.5, "prefer": 1.0}
_AIMED = {
    "usurp": 1.0,
    "late_write": 1.0,
    "lose_answer": 1.5,
    "lose_joiner": 1.5,
    "move_at_proposal": 1.5,
    "late_news": 1.5,
    "overtaken": 1.5,
    "suspect_but_one": 2.0,
    "suspect_alone": 1.5,
    "zk_cut_controller_and_leader": 1.5,
}
_STAGED = {"suspect_at_minimum": 1.0, "fewer_needed": 1.0, "late_join": 1.5}
_GRAY = {"stall": 0.2, "stall_leader": 0.5, "stall_controller": 0.2, "unreachable_leader": 0.4}
_CLOCKS = {"drift": 0.5}


def _scaled(rates: Mapping[str, float], factor: float) -> dict[str, float]:
    return {kind: rate * factor for kind, rate in rates.items()}


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        _profile("calm", "no faults but slow links: elections at the start, steady replication", slow_link=0.5),
        _profile(
            "default",
            "everything at moderate rates",
            **_scaled(_CRASHES, 0.6),
            **_scaled(_POWER, 0.3),
            **_scaled(_PAUSES, 0.5),
            **_scaled(_NETWORK, 0.6),
            **_scaled(_ZOOKEEPER, 0.5),
            **_scaled(_DISKS, 0.3),
            **_scaled(_SUSPICION, 0.6),
            **_scaled(_ELECTIONS, 0.4),
            **_CLOCKS,
        ),
        _profile("crashes", "processes killed, stopped and paused; what they wrote stays", **_CRASHES, **_PAUSES),
        _profile(
            "power",
            "brokers restart without their unflushed data, one, several, all",
            **_POWER,
            **_scaled(_CRASHES, 0.4),
        ),
        _profile(
            "network",
            "links cut, one way too, slow, reset; brokers isolated",
            **_scaled(_NETWORK, 1.5),
            **_scaled(_CRASHES, 0.3),
        ),
        _profile(
            "zookeeper",
            "sessions expired, answers lost, the ensemble away",
            **_scaled(_ZOOKEEPER, 1.5),
            **_scaled(_CRASHES, 0.3),
            pause_long=0.5,
        ),
        _profile(
            "disks",
            "disks slow, full, torn, bits flipped",
            **_scaled(_DISKS, 2.0),
            **_scaled(_POWER, 0.3),
            **_scaled(_CRASHES, 0.3),
        ),
        _profile(
            "suspicion",
            "brokers suspected though they live, isolated, paused",
            **_scaled(_SUSPICION, 2.0),
            **_scaled(_PAUSES, 0.7),
            **_scaled(_NETWORK, 0.5),
            **_CLOCKS,
        ),
        _profile(
            "elections",
            "leaders deposed one after the other, each with records of its own",
            **_scaled(_ELECTIONS, 2.0),
            slow_link=1.0,
            kill=0.5,
            zk_lose_reply_of_controller=1.0,
            pause=0.5,
        ),
        _profile(
            "topics",
            "topics created, deleted and created again while brokers crash",
            **_scaled(_CRASHES, 0.8),
            **_scaled(_NETWORK, 0.4),
            **_scaled(_ZOOKEEPER, 0.4),
        )._replace(changes_topics=True),
        _profile(
            "aimed",
            "office, leadership or incarnation change while a request about them is under way",
            **_AIMED,
            **_scaled(_ELECTIONS, 0.2),
            kill=0.5,
            power=0.5,
            zk_lose_reply_of_controller=0.5,
        ),
        _profile(
            "staged",
            "several faults one after the other, each when the one before has had its effect",
            **_STAGED,
            kill=0.2,
        ),
        _profile(
            "gray",
            "brokers that live for ZooKeeper and for nobody else: processes hang, leaders are cut off",
            **_GRAY,
            disk_slow=0.05,
        )._replace(
            config=MappingProxyType({"replica.lag.time.max.ms": "30000", "log.dir.stall.ms": "500"}),
            brokers_max=4,
            clients=2,
        ),
        _profile(
            "late",
            "what was asked in an older leader epoch, or by an older process of a broker, arrives late",
            row_of_an_older_epoch=2.0,
            row_of_an_older_process=2.0,
            proposal_of_a_former_leader=2.0,
            epoch_unheard_of=2.0,
        ),
        _profile(
            "settings",
            "the minimum ISR is raised and lowered while members come and go",
            min_isr=6.0,
            **_scaled(_POWER, 0.3),
            **_scaled(_CRASHES, 0.5),
            **_scaled(_NETWORK, 0.5),
        ),
        _profile(
            "flushed",
            "power is lost, of all at once too, where acknowledged means on the disk",
            power=1.0,
            power_leader=1.0,
            power_two=2.0,
            power_all=2.0,
            depose=1.0,
            disk_slow=2.0,
        )._replace(flushes=True),
        _profile(
            "starts",
            "starts after a loss of power end early, while topics are made and deleted",
            dies_starting=4.0,
            **_scaled(_POWER, 0.7),
            **_scaled(_CRASHES, 0.4),
        )._replace(changes_topics=True),
        _profile(
            "shapes",
            "few brokers, few replicas, other minimum ISRs, brokers that differ in their settings",
            **_scaled(_CRASHES, 0.5),
            **_scaled(_POWER, 0.4),
            **_scaled(_NETWORK, 0.4),
            **_scaled(_ZOOKEEPER, 0.3),
            **_scaled(_SUSPICION, 0.4),
            **_scaled(_ELECTIONS, 0.3),
        )._replace(odd_shapes=True),
        _profile(
            "moves",
            "partitions grow, shrink and move between brokers that crash, are cut off, lose ZooKeeper",
            **_scaled(_CRASHES, 0.5),
            **_scaled(_NETWORK, 0.4),
            **_scaled(_ZOOKEEPER, 0.4),
            **_scaled(_PAUSES, 0.3),
            depose=0.5,
        )._replace(moves_partitions=True),
        _profile(
            "moves_and_power",
            "partitions move between brokers that lose power, and topics come and go",
            **_scaled(_POWER, 0.6),
            **_scaled(_CRASHES, 0.3),
            **_scaled(_DISKS, 0.2),
            **_scaled(_SUSPICION, 0.3),
        )._replace(moves_partitions=True, changes_topics=True),
        _profile(
            "hands",
            "a person removes topics from ZooKeeper, and somebody makes them again",
            delete_topic=3.0,
            **_scaled(_CRASHES, 0.4),
            **_scaled(_NETWORK, 0.3),
            **_scaled(_ZOOKEEPER, 0.2),
        ),
    )
}
