"""The bugs that the simulator and the torture found in the product, each as the edits that bring it back.

A seed that showed a bug shows nothing any more once the simulator's faults or the product's timing are others. So each
bug is kept as a mutant (see ``mutation``): ``regressions`` says which seed notices it today, and it can be hunted anew
(``--hunt NAME``). ``--check-bugs`` brings each back and looks that its seed, or one of the next, and its test notice.
"""

from __future__ import annotations

from tests.simulation.bug import Bug
from tests.simulation.bugs_failover import FAILOVER
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Edit, Mutant

_LOSSES = "log.losses:Losses"
_UNSETTLED = "broker.losses:UnsettledLosses"

IN_BROKERS = (
    Bug(
        "refused-first-batch-skipped",
        "the second batch of a new producer was stored before its first, which had been refused and could never be",
        "A producer that the log does not know does not begin behind its own refused batch",
        "simulator, network 34",
        (
            Edit(
                "broker.produce:Produces._append",
                "    if self._refusals:\n        # A log takes",
                "    if False:\n        # A log takes",
            ),
        ),
        "unit/test_refusals.py::test_a_producer_nobody_knows_does_not_begin_behind_its_refused_batch",
        profile="elections",
    ),
    Bug(
        "gap-behind-refused-batch",
        "a batch behind a refused one was called out of order: librdkafka numbered anew what was stored, twice then",
        "A producer's batch behind a refused one is asked for again, not called out of order",
        "chaos test, seed 2718063277",
        (Edit("broker.refusals:Refusals.instead_of_gap", "", "return None"),),
        "unit/test_refusals.py::test_a_batch_behind_one_that_was_refused_before_the_election_is_told_to_come_again",
        profile="elections",
    ),
    Bug(
        "half-cached-read-skips-segment",
        "a read of bytes of which a part was in the page cache went on in the next segment: consumers lost records",
        "A read of half-cached bytes, or into too little room, no longer skips the rest of its segment",
        "torture, seed 6",
        (
            Edit(
                "log.segment:Segment.read_at",
                "return 0, 0, offset, offset, place + HEADER_BYTES",
                "return 0, 0, offset, offset, 0",
            ),
            Edit("log.lookups:_read_segment", "return LogRead((), 0, offset, offset)", "return _PAST"),
        ),
        "unit/test_log_reads.py::test_a_read_of_half_cached_bytes_waits_and_skips_nothing",
        profile="disks",
    ),
    Bug(
        "cold-read-told-to-nobody",
        "a follower's cold read that needed no thread after all was answered to nobody: it stayed outside of the ISR",
        "A follower whose cold read needs no thread after all is answered",
        "simulator, network 444",
        (
            Edit(
                "broker.follower_reads:FollowerReads.read_for_follower",
                "if cold is None or not cold.is_over:\n                    return None",
                "return None",
            ),
            Edit("replication.fetch_session:FetchSession.collect", "if self._asking is not None:", "if True:"),
        ),
        "unit/test_replicas_clients.py::test_a_read_that_needs_no_thread_after_all_is_answered_at_once",
        profile="network",
    ),
    Bug(
        "wake-up-lost",
        "bytes that another read brought into the page cache while a follower was asked about woke nobody",
        "Bytes that came from the disk while a follower was asked about are not forgotten",
        "simulator, default 8026",
        (Edit("replication.fetch_session:FetchSession.collect", "if self._asking is not None:", "if True:"),),
        "unit/test_fetch_session.py::test_bytes_that_come_from_the_disk_while_they_are_asked_for_are_looked_at_again",
        profile="network",
    ),
    Bug(
        "torn-topic-id-kept",
        "a torn partition.metadata was forgiven at one start and fatal at the next, after a clean stop",
        "A torn partition.metadata goes at the start that forgives it",
        "simulator, crashes 105 and network 102",
        (Edit("log.recovery:_load_topic_id", "        log.context.disk.unlink(path)\n", "        pass\n"),),
        "unit/test_log_dirs.py::test_a_clean_stop_before_the_topic_id_is_known_again_lets_the_next_start_be",
        profile="power",
    ),
    Bug(
        "counted-out-leads-on",
        "a broker that was fenced and did not hear ZooKeeper led on, and clients asked it who leads for two minutes",
        "A broker that the controller counts out leads nothing until a snapshot",
        "torture, seed 8",
        (Edit("broker.node:Node.channel_lost", "if reason == UNREGISTERED:", "if False:"),),
        "unit/test_node.py::test_a_broker_that_the_controller_counts_out_leads_nothing_until_a_snapshot",
        profile="suspicion",
    ),
    Bug(
        "nobody-is-sent-away",
        "acks=all waited at a leader that heard neither controller, ZooKeeper nor followers, while others led",
        "Who waits at a leader that hears neither controller, ZooKeeper nor followers is sent away",
        "torture, seed 8",
        (Edit("broker.replicas:Replicas.send_away", "", "return False"),),
        "unit/test_replicas.py::test_who_waits_at_a_leader_out_of_touch_is_sent_away",
        profile="network",
    ),
    Bug(
        "cut-off-broker-tells-leaders",
        "a broker that was cut off went on telling clients who leads: librdkafka asked it and nobody else",
        "A broker that is counted out or cut off closes on who asks it for leaders",
        "torture, seeds 8 and 12",
        (Edit("kafka.metadata:_are_unreplicated", "", "return True"),),
        "unit/test_kafka_limits.py::test_a_broker_that_is_cut_off_tells_nobody_who_leads",
        profile="network",
    ),
    Bug(
        "unreached-leader-stops",
        "a leader that the controller could not reach heard of no ISR without it: acks=all stopped until the cut ended",
        "A leader that the controller does not reach leads on as ZooKeeper says",
        "torture, cut-peers",
        (Edit("broker.own_states:OwnStates._led_on", "", "return None"),),
        "simulation/test_cut_controller.py::"
        "test_a_controller_that_follows_leaves_the_isr_and_the_leader_hears_of_it_from_zookeeper",
        profile="network",
    ),
    Bug(
        "ends-outlive-another-leader",
        "a leader that leads on counted what its followers had before another led, unheard of: acknowledged, then lost",
        "A leader that leads on after an epoch of somebody else's",
        "reading",
        (Edit("partition.leader:LeaderState.__init__", "predecessor.leader_epoch + 1 != state.leader_epoch", "False"),),
        "unit/test_replicas.py::test_what_a_follower_truncated_for_another_leader_is_not_counted",
        profile="late",
    ),
    Bug(
        "refused-leader-vouches",
        "a replica that refused to lead went on fetching, and so vouched for the former leader's contact",
        "A replica that refuses to lead stops following, too",
        "reading",
        (Edit("broker.replica:Replica._refuse_leadership", "self.drop_role()", "self._leave_leadership()"),),
        "unit/test_replicas.py::test_a_replica_that_lost_records_leads_only_if_a_person_let_it",
    ),
    Bug(
        "failed-folder-finds-no-answers",
        "a folder that failed under a later row of a request stopped telling its other partitions",
        "A folder that failed under a later row of a Produce request",
        "reading",
        (Edit("broker.delayed:ParkedProduce.settle", "if self._is_parked and not", "if not"),),
        "unit/test_replicas_clients.py::test_a_folder_that_fails_under_a_request_spoils_no_row_before_it",
        profile="disks",
    ),
    Bug(
        "empty-log-above-the-leaders-start",
        "a follower that had to drop all it had began an empty log where the leader's ended, passed for one that holds "
        "what is below, and was elected (Kafka does so, too)",
        "A log whose first segments a loss of power took",
        "simulator, disks 690",
        (
            Edit(
                "partition.follower:_truncate",
                "leader_log_start if leader_log_start >= 0 else target",
                "target",
            ),
        ),
        "unit/test_follower.py::test_divergence_below_the_own_log_start_begins_where_the_leader_does",
        profile="disks",
    ),
    Bug(
        "lost-beginning-believed",
        "a log whose first segments a loss of power took followed its leader from where it ended, and was counted in",
        "A log whose first segments a loss of power took",
        "reading, after disks 690",
        (Edit("log.losses:Losses.all_loaded", "if flushed < log.bases[0]", "if False"),),
        "unit/test_log_beginnings.py::test_a_beginning_above_what_was_known_to_be_on_disk_is_in_doubt",
        profile="disks",
    ),
)

LOSSES = (
    Bug(
        "boot-named-too-early",
        "a start killed before it knew which logs a loss of power took made the next one lead with nothing",
        "The boot is named only once it is known which logs a loss of power took",
        "simulator, power 324",
        (Edit(f"{_LOSSES}._write_all", "", "is_searched = True"),),
        "unit/test_log_losses.py::"
        "test_a_log_that_a_loss_of_power_took_whole_is_missed_though_the_next_start_is_killed_early",
        profile="starts",
    ),
    Bug(
        "never-made-log-is-lossy",
        "a log that its broker had not made yet counted as lost, and the partition had no leader for ever",
        "A log that was never made is no loss",
        "simulator, before the numbers were kept",
        (Edit(f"{_LOSSES}.was_never_made", "", "return False"),),
        "unit/test_log_losses.py::test_an_emptied_folder_has_nothing_and_says_so",
        profile="crashes",
    ),
    Bug(
        "lossy-leader-of-all-that-is-left",
        "a leader elected with what was left lost the leadership again before its loss was settled",
        "A leader that was elected uncleanly leads though its loss is not settled yet",
        "scenarios of the last replica standing",
        (
            Edit(
                "controller.elections:settled_state",
                "return None if state.recovering and replica == state.leader else loss(replica)",
                "return loss(replica)",
            ),
        ),
        "unit/test_controller_scenarios.py::test_scenario[only_replica_lossy]",
        profile="power",
    ),
    Bug(
        "settled-before-it-followed",
        "a loss was settled behind a leader that answered nobody: it died too, and the emptied replica could lead",
        "A loss is settled only when the replica has followed its leader",
        "losses of power around the controller, by seed",
        (
            Edit(
                f"{_UNSETTLED}.told",
                "            self._following[partition] = None\n",
                "            self._released[partition] = None\n",
            ),
        ),
        "unit/test_losses.py::test_a_leader_that_answers_nobody_settles_nothing",
        profile="starts",
    ),
    Bug(
        "missing-log-of-a-proposal",
        "a missing log was none while the state did not count it in yet, though a proposal to do so was on its way",
        "A missing log is one whether or not its state counts it in yet",
        "reading, after power 324",
        (
            Edit(
                "broker.losses:find_missing",
                "for partition, topic_id in map(wanted.__getitem__, states)]",
                "for partition, topic_id in (wanted[path] for path, (data, _) in states.items()\n"
                "        if f'{broker_id}' in data.decode().partition('\"isr\":[')[2].partition(']')[0].split(','))]",
            ),
        ),
        "unit/test_losses.py::test_a_missing_log_is_one_that_a_state_may_count_in",
        profile="starts",
    ),
    Bug(
        "clean-stop-hides-missing-logs",
        "a start that was stopped before it knew which logs were missing made them look like logs never made",
        "A start that is stopped before it knows which logs are missing hides none",
        "reading, after power 324",
        (
            Edit("log.dirs:LogDirs.close", "if self.losses.is_searched:", "if True:"),
            Edit("log.losses:decode_boot", 'value.get("searched", True) is True', "True"),
        ),
        "unit/test_losses_between_steps.py::"
        "test_a_clean_stop_before_zookeeper_said_which_logs_should_be_there_hides_none_that_is_missing",
        profile="starts",
    ),
    Bug(
        "failed-disk-trusted",
        "after a failed fsync the next start on the same boot trusted what the kernel had dropped",
        "A start that is stopped before it knows which logs are missing hides none",
        "reading, after power 324",
        (Edit(f"{_LOSSES}.distrust", "", "return"),),
        "unit/test_losses_between_steps.py::test_a_disk_that_failed_keeps_nothing_for_the_next_process",
        profile="disks",
    ),
    Bug(
        "torn-line-spoils-the-next",
        "a torn line in the list of logs that were made swallowed the next one",
        "A torn line in the list of logs that were made spoils no other",
        "crashes at each change of the disk (unit tests)",
        (Edit(f"{_LOSSES}._append_made", 'b"\\n" + b"".join(lines)', 'b"".join(lines)'),),
        "unit/test_losses_between_steps.py::test_a_torn_line_spoils_no_other",
        profile="starts",
    ),
    Bug(
        "predecessors-loss-hides-another",
        "what the log of a topic made again lost was taken for its predecessor's, and was no loss",
        "What the log of a topic made again lost is a loss",
        "crashes at each change of the disk (unit tests)",
        (Edit(f"{_LOSSES}.all_loaded", "(partition in self._found or len(ids) < 2)", "len(ids) < 2"),),
        "unit/test_losses_between_steps.py::test_a_loss_of_a_topic_made_again_is_not_taken_for_one_of_its_predecessor",
        profile="starts",
    ),
)

BUGS: dict[str, Bug] = {bug.name: bug for bug in (*IN_BROKERS, *LOSSES, *FAILOVER)}

SWITCHES: dict[str, Mutant] = {**MUTANTS, **{name: bug.mutant for name, bug in BUGS.items()}}
"""Whatever a run can be told to do without."""
