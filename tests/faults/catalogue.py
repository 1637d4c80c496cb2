"""The faults. Each breaks something, waits for what must then be possible, and mends it; the driver waits for the rest.

What must be possible with a third of the brokers gone is that every partition goes on acknowledging: that is waited for
before anything is mended, so a fault that stops a partition for good ends the run as *stuck*.
"""

from __future__ import annotations

from tests.faults import partitions, processes, storage, zookeeper
from tests.faults.torture import FaultKind


def catalogue() -> dict[str, FaultKind]:
    network, disk = "network", "disk"
    kinds = [
        FaultKind("kill-leader", "kill -9 of a leader", processes.kill_leader),
        FaultKind(
            "kill-controller", "kill -9 of the controller, which leads partitions too", processes.kill_controller
        ),
        FaultKind("kill-follower", "kill -9 of a broker that leads nothing", processes.kill_follower),
        FaultKind("kill-again", "kill -9 of a leader that is started at once, three times", processes.kill_again),
        FaultKind("kill-two", "kill -9 of two brokers at once", processes.kill_two),
        FaultKind("kill-all", "kill -9 of all brokers at once", processes.kill_all),
        FaultKind("kill-one-by-one", "kill -9 of one after the other until none is left", processes.kill_one_by_one),
        FaultKind("pause-short", "SIGSTOP of a leader, shorter than the session timeout", processes.pause_short),
        FaultKind("pause-long", "SIGSTOP of a leader, longer than the session timeout", processes.pause_long),
        FaultKind(
            "pause-controller", "SIGSTOP of the controller, longer than the session timeout", processes.pause_controller
        ),
        FaultKind("term-leader", "SIGTERM of a leader", processes.term_leader),
        FaultKind("term-controller", "SIGTERM of the controller", processes.term_controller),
        FaultKind("term-all", "SIGTERM of all brokers at once", processes.term_all),
        FaultKind("zookeeper-each", "kill -9 of each ZooKeeper server in turn", zookeeper.zookeeper_one_by_one),
        FaultKind("zookeeper-leader", "kill -9 of the ensemble's leader", zookeeper.zookeeper_leader),
        FaultKind("zookeeper-away", "kill -9 of the whole ensemble, away for a minute", zookeeper.zookeeper_away),
        FaultKind(
            "zookeeper-paused", "SIGSTOP of the whole ensemble, longer than the sessions", zookeeper.zookeeper_paused
        ),
        FaultKind("session-expired", "the session of a leader expires", zookeeper.session_expired),
        FaultKind("session-controller", "the session of the controller expires", zookeeper.session_expired_controller),
        FaultKind("sessions-expired", "the sessions of all brokers expire", zookeeper.sessions_expired),
        FaultKind(
            "cut-follower",
            "two brokers, not the controller, do not hear each other",
            partitions.cut_one_follower,
            network,
        ),
        FaultKind("cut-controller", "a leader is cut from the controller", partitions.cut_from_controller, network),
        FaultKind("cut-peers", "a leader is cut from all other brokers only", partitions.cut_from_peers, network),
        FaultKind(
            "cut-peers-controller",
            "the controller is cut from all other brokers only",
            partitions.cut_controller_from_peers,
            network,
        ),
        FaultKind("cut-zookeeper", "a leader is cut from ZooKeeper only", partitions.cut_from_zookeeper, network),
        FaultKind(
            "isolate", "a leader is cut from brokers and ZooKeeper, not from clients", partitions.isolate, network
        ),
        FaultKind("isolate-controller", "the controller is cut from them", partitions.isolate_controller, network),
        FaultKind("one-way-out", "what a leader sends does not reach other brokers", partitions.one_way_out, network),
        FaultKind(
            "mute-controller",
            "what the controller sends does not reach other brokers",
            partitions.one_way_out_controller,
            network,
        ),
        FaultKind("one-way-in", "what other brokers send does not reach a leader", partitions.one_way_in, network),
        FaultKind(
            "deaf-controller",
            "what other brokers send does not reach the controller",
            partitions.one_way_in_controller,
            network,
        ),
        FaultKind(
            "one-way-zookeeper", "what ZooKeeper sends does not reach a leader", partitions.one_way_zookeeper, network
        ),
        FaultKind("reject", "a leader lives and refuses other brokers' connections", partitions.reject, network),
        FaultKind(
            "reject-controller",
            "the controller lives and refuses all connections",
            partitions.reject_controller,
            network,
        ),
        FaultKind("destroy", "a leader is killed together with its network", partitions.destroy, network),
        FaultKind(
            "destroy-controller",
            "the controller is killed together with its network",
            partitions.destroy_controller,
            network,
        ),
        FaultKind("torn-tails", "a leader's segments end in the middle or in garbage", storage.torn_tails),
        FaultKind("deleted-indexes", "a leader's indexes and checkpoints are gone", storage.deleted_indexes),
        FaultKind("emptied", "a leader comes back with empty data folders", storage.emptied),
        FaultKind(
            "emptied-first", "all are killed, the first that comes back has empty data folders", storage.emptied_first
        ),
        FaultKind("emptied-alive", "a running leader's data folders are emptied", storage.emptied_alive),
        FaultKind("full-disk", "the disk of a log folder is full", storage.full_disk, disk),
    ]
    return {kind.name: kind for kind in kinds}
