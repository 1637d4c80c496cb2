"""ZooKeeper servers killed or paused, sessions expired."""

from __future__ import annotations

from tests.faults.torture import Torture

ENSEMBLE_PATIENCE_S = 30.0
"""How long ZooKeeper may take to commit again. If it does not, that is no fault of the brokers, and said so."""


def zookeeper_one_by_one(torture: Torture) -> None:
    ensemble = torture.arena.ensemble
    torture.begin("kill -9 each ZooKeeper server in turn, the next when it is back")
    for server in ensemble.servers:
        server.kill()
        torture.wait_progress(f"without ZooKeeper server {server.number}")
        server.start()
        server.wait_until_serving()


def zookeeper_leader(torture: Torture) -> None:
    ensemble = torture.arena.ensemble
    leader = torture.wait(ensemble.leader, "the ensemble has a leader")
    torture.begin(f"kill -9 ZooKeeper server {leader.number}, the ensemble's leader")
    leader.kill()
    torture.wait_progress("without the ensemble's leader")
    leader.start()
    leader.wait_until_serving()


def zookeeper_away(torture: Torture) -> None:
    """Nobody's session can expire meanwhile, so nobody else can lead: every partition goes on."""
    away_s = torture.settings.away_s
    torture.begin(f"kill -9 all ZooKeeper servers, back after {away_s:g} s")
    ensemble = torture.arena.ensemble
    for server in ensemble.servers:
        server.kill()
    torture.hold(away_s / 2)
    torture.wait_progress("while ZooKeeper is away")
    torture.hold(away_s / 2)
    ensemble.start()


def zookeeper_paused(torture: Torture) -> None:
    seconds = torture.arena.settings.ensemble_pause_s
    torture.begin(f"SIGSTOP all ZooKeeper servers for {seconds:.1f} s")
    for server in torture.arena.ensemble.servers:
        server.pause()
    torture.hold(seconds)
    for server in torture.arena.ensemble.servers:
        server.resume()
    torture.arena.ensemble.wait_until_serving()
    torture.wait(torture.arena.zookeeper_commits, "the ensemble itself commits again", ENSEMBLE_PATIENCE_S)


def session_expired(torture: Torture) -> None:
    _expire(torture, [torture.leader(torture.some_partition())])


def session_expired_controller(torture: Torture) -> None:
    _expire(torture, [torture.controller()])


def sessions_expired(torture: Torture) -> None:
    _expire(torture, list(torture.cluster.brokers))


def _expire(torture: Torture, victims: list[int]) -> None:
    torture.begin(f"the ZooKeeper sessions of brokers {victims} are closed from outside")
    for victim in victims:
        torture.arena.expire_session(victim)
    torture.wait_progress("with new sessions")
