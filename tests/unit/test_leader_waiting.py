"""A follower that is ready to join the ISR at the wrong moment joins later without fetching again.

Found with three brokers: two followers caught up at once, the second one's row came while the first one's proposal was
under way, and an idle follower repeats no row. It stayed outside the ISR until the next record.
"""

from __future__ import annotations

from zkbroker.model.channel import FollowerContact, IsrAnswer
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.partition.epoch_cache import EpochCache
from zkbroker.partition.leader import Effects, LeaderState, ProposeIsr

PARTITION = TopicPartition("t", 0)
STATE = PartitionState("id", (1, 2, 3), 1, 4, (1,), 7, 1)


class Bench:
    """A leader with an empty log, two followers outside its ISR."""

    def __init__(self) -> None:
        self.live = {1: 11, 2: 12, 3: 13}
        self.epochs = EpochCache()
        self.epochs.assign(STATE.leader_epoch, 0)
        self.leader = LeaderState(
            PARTITION,
            STATE,
            broker_id=1,
            own_broker_epoch=lambda: 11,
            live_broker_epoch=self.live.get,
            next_proposal_id=iter(range(1, 100)).__next__,
            epochs=self.epochs,
            log_end_offset=0,
            counted_end=0,
            high_watermark=0,
            min_insync_replicas=1,
            lag_seconds_max=30.0,
            now=0.0,
        )
        self.leader.started(0.0)

    def fetch(self, broker_id: int, now: float = 1.0) -> Effects:
        contact = FollowerContact(broker_id, 10 + broker_id, now)
        assert self.leader.fetch_refusal(contact, 4, 0, 4, 0) is None
        return self.leader.follower_fetched(contact, 0, 0, 0, now)

    def commit(self, proposal: ProposeIsr, partition_epoch: int, now: float) -> Effects:
        wish = proposal.proposal
        isr = tuple(broker_id for broker_id, _ in wish.isr)
        state = STATE._replace(isr=isr, partition_epoch=partition_epoch)
        answer = IsrAnswer("t", 0, "id", wish.proposal_id, ErrorCode.NONE, state)
        return self.leader.isr_answered(answer, now)[1]


def proposed(effects: Effects) -> list[ProposeIsr]:
    return [effect for effect in effects if isinstance(effect, ProposeIsr)]


def test_a_follower_that_caught_up_during_a_proposal_is_proposed_when_that_is_committed() -> None:
    bench = Bench()
    (first,) = proposed(bench.fetch(2))
    assert proposed(bench.fetch(3)) == []
    (second,) = proposed(bench.commit(first, 8, now=2.0))
    assert [broker_id for broker_id, _ in second.proposal.isr] == [1, 2, 3]


def test_a_follower_that_fell_silent_meanwhile_is_not_proposed() -> None:
    bench = Bench()
    (first,) = proposed(bench.fetch(2))
    bench.fetch(3)
    assert proposed(bench.commit(first, 8, now=40.0)) == []


def test_a_follower_whose_registration_was_not_known_yet_is_proposed_when_it_is() -> None:
    bench = Bench()
    bench.live[2] = 5
    assert proposed(bench.fetch(2)) == []
    bench.live[2] = 12
    (late,) = proposed(bench.leader.look_again(2.0))
    assert [broker_id for broker_id, _ in late.proposal.isr] == [1, 2]
