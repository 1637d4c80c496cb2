"""Bugs of failover, gray failures and the controller's office: see ``bugs``."""

from __future__ import annotations

from tests.simulation.bug import Bug
from tests.simulation.mutation import Edit

_COMPLAINTS = "controller.complaints:Complaints"

FAILOVER = (
    Bug(
        "fenced-early-waits-for-ever",
        "a broker that was fenced early came back and waited for ever for partitions that were settled already",
        "A broker that was fenced early comes back",
        "simulator, crashes 7",
        (
            Edit(
                "controller.controller:Controller.brokers_changed",
                "former incarnation\n            self.settling.unsettle(self.image.partitions_of(broker_id))\n",
                "former incarnation\n",
            ),
        ),
        "unit/test_controller_scenarios.py::test_scenario[fenced_and_back]",
        profile="suspicion",
    ),
    Bug(
        "old-complaint-shrinks-the-isr",
        "a new controller shrank an ISR on one old complaint in its first moments: nobody was left to move to",
        "A follower leaves for its own complaint only after its fellows had time to be heard",
        "simulator, gray 43",
        (
            Edit(
                f"{_COMPLAINTS}._leaves_at",
                "return max(long_ago, first_said + self._session_timeout_s * VOICES_COME_SHARE)",
                "return long_ago",
            ),
        ),
        "unit/test_controller_complaints.py::test_a_new_controller_waits_for_all_voices_before_one_follower_leaves",
        profile="gray",
    ),
    Bug(
        "old-words-take-a-joiner-out",
        "words against a follower from before it joined took it out again, just when its leader was cut off",
        "Who joins an ISR fetches: older words against it do not take it out again",
        "torture, cut-peers 7",
        (Edit(f"{_COMPLAINTS}.joined", "", "return"),),
        "unit/test_controller_joined.py::test_it_is_not_taken_out_again_for_old_words_that_nobody_renewed",
        profile="gray",
    ),
    Bug(
        "cut-off-leader-shrinks-its-isr",
        "a controller that led and was cut off took its followers out of the ISR, so that no successor could move it",
        "A leader that hears none of its followers removes none on its own word",
        "torture, cut-peers 7",
        (Edit(f"{_COMPLAINTS}._without_followers", "not hears_nobody and (unreachable or", "(unreachable or"),),
        "unit/test_controller_complaints.py::test_a_leader_that_hears_none_of_its_followers_removes_none",
        profile="gray",
    ),
    Bug(
        "mute-controller-loses-a-follower",
        "a controller that led and was mute took out the follower whose word reached it: no successor could move it",
        "A leader that hears none of its followers removes none on one follower's word either",
        "torture, one-way-out 10",
        (
            Edit(
                f"{_COMPLAINTS}._without_followers",
                "not hears_nobody and (unreachable or self._is_silent(state.leader, member, for_long=True))",
                "unreachable or (not hears_nobody and self._is_silent(state.leader, member, for_long=True))",
            ),
        ),
        "unit/test_controller_complaints.py"
        "::test_a_leader_that_hears_none_of_its_followers_loses_none_on_a_followers_word",
        profile="gray",
    ),
    Bug(
        "cut-off-controller-comes-back",
        "a cut-off controller stepped down, took the office again before the others did, and stayed in it for good",
        "A cut-off controller that stepped down waits longer than all others",
        "torture, cut-peers 7",
        (
            Edit(
                "controller.reach:OfficeReach.aside_s",
                "    if not self._was_followed:\n        return self._timeout_s * OWN_ASIDE_SHARE\n",
                "",
            ),
            Edit("controller.reach:OfficeReach.aside_s", "min(ASIDE_SHARE_MAX, share)", "min(1.0, share)"),
        ),
        "unit/test_controller_reach.py::test_whoever_made_the_office_vacant_lets_all_others_go_first",
        profile="gray",
    ),
    Bug(
        "cut-off-controller-stays-patient",
        "a controller that was cut off for the fifth time in ten minutes kept the office for a minute",
        "A controller that stepped down is as impatient as any other once it hears the greater side again",
        "torture, seed 2",
        (Edit("controller.reach:OfficeReach.peer_answered", "", "return"),),
        "unit/test_controller_reach.py::test_whoever_hears_the_greater_side_again_is_as_good_a_controller_as_any",
        profile="gray",
    ),
    Bug(
        "shrunk-isr-moves-nowhere",
        "a leader that had shrunk its ISR below the minimum before it was cut off was not moved to the ELR",
        "Cut off with its ISR shrunk below min.insync.replicas, a leader is moved to the ELR",
        "torture, cut-peers-controller 1",
        (Edit(f"{_COMPLAINTS}._moved_to_eligible", "", "return None"),),
        "unit/test_controller_complaints.py::test_with_the_isr_too_small_already_the_eligible_take_over",
        profile="gray",
    ),
    Bug(
        "old-news-after-a-cut",
        "what the kernel had kept of a connection given up during a cut arrived after it: complaints that were over",
        "A connection between brokers that is given up takes back what did not arrive",
        "torture, deaf-controller 2",
        (Edit("replication.connection:LineConnection.abort", "if reset_on_close is not None:", "if False:"),),
        "unit/test_loop_reactor.py::test_a_broker_that_gives_a_connection_up_takes_back_what_did_not_arrive",
        profile="gray",
    ),
    Bug(
        "silent-by-a-new-epoch",
        "a leader took a follower that had fetched all the time for silent as soon as its leader epoch was another",
        "A connection between brokers that is given up takes back what did not arrive",
        "torture, deaf-controller 2",
        (
            Edit(
                "broker.complaining:SilenceWatch.look",
                "= max(heard_at, self._since.get((follower, epoch), now))",
                "= self._since.get((follower, epoch), now)",
            ),
            Edit(
                "broker.complaining:SilenceWatch.look",
                "seconds = now - since[follower, epoch] -",
                "seconds = now - max(heard_at, since[follower, epoch]) -",
            ),
        ),
        "unit/test_complaining.py::test_a_new_leader_epoch_does_not_make_a_follower_silent",
        profile="gray",
    ),
    Bug(
        "own-calls-are-no-traffic",
        "a one-way REJECT fenced a living broker whose own connections to its peers still stood",
        "A broker whose own calls still stand is exchanging traffic",
        "cut by a firewall of proxies (integration test)",
        (Edit("broker.peers:Peers.has_calls_of", "", "return False"),),
        "unit/test_detection.py::test_calls_that_it_still_holds_are_traffic",
        profile="suspicion",
    ),
    Bug(
        "hello-before-the-delta",
        "a false suspicion was none when the victim's HELLO came before the news that its registration was gone",
        "A false suspicion is known as one also if the victim's HELLO is faster than the delta",
        "simulator, before the numbers were kept",
        (
            Edit(
                "controller.suspicion:Suspicions.met",
                "if account is not None and broker_epoch > account.suspect.broker_epoch:",
                "if False:",
            ),
        ),
        "unit/test_suspicion.py::test_a_false_suspicion_is_known_also_if_the_victim_speaks_before_the_controller",
        profile="suspicion",
    ),
    Bug(
        "half-a-connection-speaks",
        "half of a connection whose FIN was lost spoke for a dead broker, which nobody could condemn",
        "Half a connection that a lost FIN left behind is dropped",
        "torture, machines that go with their network",
        (Edit("replication.server:ReplicationConnection.look_for_silence", "", "return"),),
        "unit/test_detection.py::test_calls_of_which_nothing_is_heard_are_none",
        profile="network",
    ),
    Bug(
        "fence-takes-the-next-incarnation",
        "a fence whose states had changed deleted the registration later, that of the next incarnation",
        "A fence whose states changed meanwhile deletes no registration after the connection was away",
        "reading, after fenced early as scenarios",
        (
            Edit(
                "broker.controller_zookeeper:FencedWriter.fence_broker",
                "            if error.index == 0:\n                break\n",
                "            if error.index > 0:\n                yield self.write_all([Delete(path, -1)])\n"
                "            break\n",
            ),
        ),
        "unit/test_controller_writer.py::test_a_fence_deletes_nothing_once_its_evidence_is_old",
        profile="aimed",
    ),
    Bug(
        "contact-older-than-complaints",
        "a leader answered after a stop longer than its followers wait before they have another elected",
        "A leader goes by no contact older than what lets its followers have another elected",
        "simulator and ZooKeeper's faults (integration test)",
        (
            Edit(
                "broker.settings:replica_settings",
                "min(contact_seconds_max(timeout_s), unreachable_seconds(timeout_s))",
                "contact_seconds_max(timeout_s)",
            ),
        ),
        "unit/test_failure_settings.py::test_a_leader_goes_by_no_contact_older_than_what_lets_its_followers_complain",
        profile="suspicion",
    ),
    Bug(
        "dead-session-keeps-its-connection",
        "a broker whose dead session kept its connection was never registered again",
        "A server that refuses a write because the session expired loses its connection: "
        "it may keep that open for ever",
        "torture, sessions that expire while the ensemble is away",
        (Edit("zookeeper.kazoo_link:_tells_expiry", "", "return False"),),
        "unit/test_zookeeper_dead_session.py::test_a_write_refused_as_expired_ends_the_session",
        profile="network",
    ),
    Bug(
        "deleted-broker-tells-leaders",
        "clients connected only to a broker whose registration was deleted, and which no controller reaches, asked it "
        "who leads for as long as that lasted",
        "A broker whose registration was deleted tells clients no leaders until the next snapshot",
        "torture, reject of a broker that leads all and is controller",
        (
            Edit(
                "broker.node:Node.registration_lost",
                "    self._metadata.doubt(Doubt.COUNTED_OUT, self._broker_id, True)\n",
                "",
            ),
        ),
        "unit/test_node.py::test_a_broker_that_was_deleted_tells_clients_no_leaders_until_a_snapshot",
        profile="suspicion",
    ),
)
