"""The rules that data depends on, each switched off: what the simulator must catch (``--list-mutants``, ``--mutant``).

Where a rule has two lines of defence, the mutant takes both away, or there is one mutant for each and the one that
survives says why. The seeds and steps at which each fell are in ``mutant_results``. Here: the rules of the controller,
of the last replica standing, of fast failover and of the log.
"""

from __future__ import annotations

from tests.simulation.mutants_moves import MOVES
from tests.simulation.mutants_replication import HIGH_WATERMARK, IN_SYNC, REPLICATION
from tests.simulation.mutation import Edit, Mutant

_LEADER = "partition.leader:LeaderState"
_REPLICA = "broker.replica:Replica"

CONTROLLER = (
    Mutant(
        "unfenced-writes",
        "every write of a controller checks /controller_epoch (§2 Fencing)",
        (
            Edit(
                "broker.controller_zookeeper:FencedWriter.__init__",
                "Check(controller_znode.EPOCH_PATH, epoch_version)",
                "Check(controller_znode.EPOCH_PATH, -1)",
            ),
        ),
        profile="aimed",
    ),
    Mutant(
        "late-writes-believed-failed",
        "after an unknown outcome another write overtakes before the state is read (DECISIONS, Controller)",
        (Edit("broker.controller_zookeeper:FencedWriter._find", "        yield self.overtake()\n", "        pass\n"),),
        profile="staged",
    ),
    Mutant(
        "no-controller-timer",
        "a controller stops deciding by its own timer when ZooKeeper does not answer (§6 Expiry vs connection loss)",
        (
            Edit("broker.controller_loop:ControllerLoop._watch_session", "", "return"),
            Edit("broker.controller_loop:ControllerLoop._watch_session_if_late", "", "return"),
        ),
        profile="aimed",
    ),
    Mutant(
        "elected-outside-the-isr",
        "a leader is elected from the ISR (§3)",
        (Edit("controller.elections:elect_offline", "if replica in isr and online(replica):", "if online(replica):"),),
    ),
    Mutant(
        "unclean-elections",
        "no unclean election unless it was allowed (§3)",
        (Edit("controller.cluster_image:ClusterImage.unclean", "", "return True"),),
    ),
    Mutant(
        "leader-epoch-stays",
        "every election raises the leader epoch (§3)",
        (Edit("controller.elections:elected", "state.leader_epoch + 1", "state.leader_epoch"),),
    ),
    Mutant(
        "resumed-leader-epoch",
        "never lead in a leader epoch that was held before a restart (§6 Fast restart, lost log)",
        (
            Edit(
                f"{_REPLICA}._become_leader",
                "    if log.epochs.highest_seen >= state.leader_epoch and self.led_epoch != state.leader_epoch:\n",
                "    if False:\n",
            ),
            Edit("controller.cluster_image:ClusterImage.suspect_restarted", "", "return"),
            Edit(
                "controller.controller:Controller.brokers_changed",
                "            self._broker_gone(broker_id)\n"
                "            self._return(broker, self.image.partitions_of(broker_id))\n",
                "            self._broker_arrived(broker)\n",
            ),
        ),
        profile="power",
    ),
    Mutant(
        "obeys-while-unregistered",
        "a broker that lost its registration leads and obeys nothing (§2 Fencing)",
        (Edit("broker.node:Node.registration_lost", "    self._replicas.registration_lost()\n", ""),),
        profile="suspicion",
    ),
    Mutant(
        "topic-ids-unchecked",
        "a topic that was created again is another topic (§6 Recreated topic)",
        (
            Edit(
                "broker.replicas:Replicas._replica",
                "    if log is not None and log.topic_id and log.topic_id != state.topic_id:\n",
                "    if False:\n",
            ),
            Edit(
                "broker.replicas:Replicas._replica",
                "    if replica is not None and replica.log.topic_id == state.topic_id:\n",
                "    if replica is not None:\n",
            ),
            Edit("broker.node:Node._set_strays_aside", "", "return"),
        ),
        profile="hands",
    ),
)

LAST_REPLICA = (
    Mutant(
        "no-elr",
        "a member that leaves an ISR below min.insync.replicas stays electable (KIP-966, §6 Last replica standing)",
        (Edit("controller.eligible:eligible_after", "", "return ()"),),
        profile="power",
    ),
    Mutant(
        "elr-not-counted",
        "the high watermark waits for the ELR too (controller/elections.py)",
        (
            Edit(
                f"{_LEADER}._raise_high_watermark",
                "    for follower in self._retained:\n"
                "        if follower.log_end_offset < offset:\n"
                "            offset = follower.log_end_offset\n",
                "",
            ),
        ),
        profile="staged",
    ),
    Mutant(
        "unclean-returners-lead",
        "who comes back without unflushed data leaves ISR and ELR and is not elected by itself (§6)",
        (Edit("controller.cluster_image:ClusterImage.loss", "", "return None"),),
        profile="power",
    ),
    Mutant(
        "lossy-member-joins",
        "who may lack records joins no ISR before its loss is settled (§6)",
        (
            Edit(
                "controller.isr_changes:_eligible",
                "image.broker_epoch(member) != epoch or image.loss(member, partition) is not None",
                "image.broker_epoch(member) != epoch",
            ),
        ),
        profile="power",
    ),
)

FAST_FAILOVER = (
    Mutant(
        "fencing-may-worsen",
        "an early fence never leaves a partition worse off (architecture.md, Fast failover 2)",
        (Edit("controller.fencing:is_better", "", "return True"),),
        profile="staged",
    ),
    Mutant(
        "one-reporter-suffices",
        "a majority of the live brokers must agree that one is dead (architecture.md, Fast failover 1)",
        (Edit("controller.suspicion:Suspicions._is_majority", "", "return bool(agreeing)"),),
        profile="suspicion",
    ),
    Mutant(
        "no-veto",
        "an ISR member that exchanges traffic with the suspect vetoes (architecture.md, Fast failover 1)",
        (
            Edit(
                "controller.suspicion:Suspicions._verdict",
                "if filed.finding is Finding.TALKING and self._share_isr(reporter, suspect.broker_id):",
                "if False:",
            ),
        ),
        profile="aimed",
    ),
    Mutant(
        "no-hold-down",
        "a broker that was suspected falsely is not fenced early for a while (architecture.md, Fast failover 6)",
        (Edit("controller.suspicion:Suspicions.held_until", "", "return float('-inf')"),),
        profile="suspicion",
    ),
    Mutant(
        "gray-leaders-stay",
        "a leader whom most of its ISR cannot reach is replaced though it is registered (controller/complaints.py)",
        (Edit("controller.complaints:Complaints.verdict", "", "return None"),),
        profile="gray",
    ),
    Mutant(
        "office-taken-from-the-living",
        "nobody condemns a peer without evidence of its own (architecture.md, Fast failover 1)",
        (
            Edit(
                "controller.suspicion:Suspicions._verdict",
                "if now < self.held_until(suspect.broker_id) or self._broker_id not in fresh:\n        return None",
                "return Condemned(suspect, f'{name} is suspected')",
            ),
        ),
        profile="suspicion",
    ),
)

LOG = (
    Mutant(
        "producers-kept-after-truncation",
        "producer states are rebuilt after a truncation (§5, §6 Idempotence after truncation)",
        (Edit("log.truncation:truncate_to", "    rebuild_producers(log, after_truncation=True)\n", ""),),
    ),
    Mutant(
        "producers-lost-at-restart",
        "producer states are rebuilt at a start (§5 Unclean start)",
        (
            Edit(
                "log.recovery:load",
                "    rebuild_producers(log)\n",
                "    log.producers.end_offset = log.log_end_offset\n",
            ),
        ),
        profile="crashes",
    ),
    Mutant(
        "no-recovery",
        "after an unclean stop every batch behind the recovery point is checked, the log cut at the first bad one (§5)",
        (Edit("log.recovery:load", "", "is_clean = True"),),
        profile="power",
    ),
    Mutant(
        "torn-tails-kept",
        "recovery cuts the log at the first bad byte (§5 Unclean start)",
        (Edit("log.recovery:_scan", "    if problem:\n", "    if problem and position == 0:\n"),),
        profile="power",
    ),
    Mutant(
        "epochs-kept-after-truncation",
        "epoch entries at or behind a truncation go with it (§5)",
        (
            Edit("log.truncation:truncate_to", "    log.epochs.truncate_from_end(offset)\n", ""),
            Edit("log.truncation:truncate_to", "    log.epochs.truncate_from_end(log.log_end_offset)\n", ""),
        ),
    ),
    Mutant(
        "unflushed-counts",
        "under flush.messages=1 only what is on the disk counts (§4 FIX)",
        (
            Edit(
                f"{_REPLICA}.counted_end",
                "return self.log.flushed_end_offset if self.waits_for_flush else self.log.log_end_offset",
                "return self.log.log_end_offset",
            ),
            Edit(
                "broker.following:Following.fetch_row",
                "log.flushed_end_offset if replica.waits_for_flush else -1",
                "-1",
            ),
            Edit(f"{_REPLICA}.appended", "    if self.waits_for_flush:\n", "    if False:\n"),
        ),
        profile="flushed",
    ),
    Mutant(
        "recovery-point-above-truncation",
        "a truncation lowers the recovery point (§5)",
        (
            Edit(
                "log.truncation:truncate_to", "    log.flushed_end_offset = min(log.flushed_end_offset, offset)\n", ""
            ),
            Edit(
                "log.truncation:truncate_to",
                "    log.flushed_end_offset = min(log.flushed_end_offset, log.log_end_offset)\n",
                "",
            ),
            Edit("log.truncation:truncate_to", "        log.context.lower_recovery_point(log)\n", "        pass\n"),
        ),
        profile="power",
    ),
    Mutant(
        "retries-stored-twice",
        "a retry of an idempotent producer is stored once (invariant 13)",
        (Edit("partition.producer_state:ProducerStates.check", "", "return None"),),
    ),
)

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (*REPLICATION, *IN_SYNC, *HIGH_WATERMARK, *LAST_REPLICA, *CONTROLLER, *FAST_FAILOVER, *LOG, *MOVES)
}
