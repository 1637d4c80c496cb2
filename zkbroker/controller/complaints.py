"""Gray failures: leaders that live for ZooKeeper and for nobody else, and disks that hang.

Brokers say what they suffer from (``model.complaints.Word``), again and again while it lasts; here it is decided what
follows for a partition:

1. A majority of the leader's ISR followers cannot fetch from it: another member of the ISR leads.
2. The leader says that appends in its log folder do not complete: the same, on its own word.
3. An ISR follower says so of a log it follows with: it leaves the ISR.
4. An ISR follower cannot reach the leader, and its fellows can: it leaves the ISR, on its own word or on the leader's,
   whichever the controller hears. That waits for FOLLOWER_LEAVES_SHARE of the session timeout, and with a new
   controller for VOICES_COME_SHARE of it: had it left before its fellows spoke, rule 1 would lack its voice, and a
   member to go on with. A leader that hears none of two or more followers is more likely cut off itself: nobody
   leaves, neither on its word nor on that of one follower, or a controller that leads and is cut off, or mute, would
   have shrunk its ISR down to what forbids its successor to move the leadership.

Never to the harm of anybody (rule 2 of fast failover): only while a member of the ISR is there to lead, and the ISR
without the accused holds ``min.insync.replicas``. So the last replica standing is never touched, and whoever leaves an
ISR could not have been waited for any longer anyway. With an ISR that is too small already (its leader heard nobody for
``replica.lag.time.max.ms``) there is nothing to be harmed: nothing is acknowledged with acks=all. Then ISR and ELR
together without the leader must hold that many, and one of them leads: each holds all that was acknowledged
(``elections.py``).

The accused leaves the ISR together with the leadership. Its log is sound, but whoever cannot be reached often cannot
reach others either, and a disk that hangs takes nothing more: a member that does not fetch would hold acks=all up for
``replica.lag.time.max.ms`` (30 s) after the election that was to help. One that does fetch is back within a round trip,
by the leader's own proposal.

Voices are brokers' in one incarnation against another's (broker epochs), and count while they are renewed. Leader
epochs need no part in this: what is decided is decided about the committed state, and written on that version only.

Whoever lost a leadership like this is not *trusted* with another for HOLD_S, doubled each time it happens again soon:
it leads only where nobody else can, and is not given its preferred leaderships back. A replica in a stalled folder is
not trusted while that lasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zkbroker.controller.cluster_image import ClusterImage
from zkbroker.controller.elections import Election, elected
from zkbroker.controller.eligible import effective_min_isr, eligible_after
from zkbroker.model.complaints import StalledDir, Unreachable, Word
from zkbroker.model.topics import PartitionState, TopicPartition

WORD_VALID_SHARE = 1 / 3
"""Of the session timeout: a word that is not renewed for so long is forgotten. Brokers renew theirs about three times
as often."""

FOLLOWER_LEAVES_SHARE = 2 / 3
"""Of the session timeout: a follower that could not reach its leader for so long leaves the ISR, its fellows not having
joined in. With the time of a renewal and a write that is still within the session timeout."""

VOICES_COME_SHARE = 3 / 10
"""Of the session timeout: so long after the first voice all others that there are have come: brokers speak each tenth
of it, once they have found the controller."""

HOLD_S = 60.0
"""For so long whoever was found unreachable or stalled is not trusted (rule 6 of fast failover has the same)."""

HOLD_S_MAX = 3600.0


class _Spoken(NamedTuple):
    broker_epoch: int
    word: Word
    at: float
    until: float
    stalled: Mapping[TopicPartition, StalledDir]
    waiting: frozenset[TopicPartition]
    first_said: Mapping[tuple[int, int], float]
    """Peer and its incarnation → when this controller first heard a complaint of it that has stood since."""

    @property
    def peers(self) -> tuple[Unreachable, ...]:
        return self.word.unreachable + self.word.silent


class _Hold(NamedTuple):
    until: float
    seconds: float


class Complaints:
    """Who complains of whom, over one term of office. Asked for a verdict by whoever settles partitions; what changes
    by time alone comes out of ``time_passed``."""

    def __init__(self, image: ClusterImage, *, session_timeout_s: float) -> None:
        self._image = image
        self._session_timeout_s = session_timeout_s
        self._spoken: dict[int, _Spoken] = {}
        """By speaker. Those of incarnations that are gone count for nothing and are dropped in time."""
        self._holds: dict[int, _Hold] = {}
        self._now = float("-inf")

    def __repr__(self) -> str:
        said = {speaker: spoken.word for speaker, spoken in sorted(self._spoken.items())}
        return f"Complaints({said}, held={sorted(self._holds)})"

    def lines(self) -> list[str]:
        """For STATUS: who complains of whom, and who is kept from leading."""
        told = []
        for speaker, spoken in sorted(self._spoken.items()):
            if self._word(speaker) is None:
                continue
            told += [f"broker {speaker} cannot reach leader {one.broker_id}" for one in spoken.word.unreachable]
            told += [f"broker {one.broker_id} has stopped fetching from broker {speaker}" for one in spoken.word.silent]
            told += [f"broker {speaker}'s log folder {one.log_dir} has stalled" for one in spoken.word.stalled]
        for broker_id, hold in sorted(self._holds.items()):
            if self._now < hold.until:
                told.append(f"broker {broker_id} is not given leaderships for another {hold.until - self._now:.0f} s")
        return told

    # What is said

    def said(self, broker_id: int, broker_epoch: int, word: Word, now: float) -> list[TopicPartition]:
        """A broker's whole word. Returns the partitions to be settled again."""
        self._now = max(self._now, now)
        if self._image.broker_epoch(broker_id) != broker_epoch:
            return []
        before = self._spoken.pop(broker_id, None)
        if word:
            until = now + self._session_timeout_s * WORD_VALID_SHARE
            stalled = {partition: one for one in word.stalled for partition in one.replicas}
            waiting = frozenset(partition for one in word.stalled for partition in one.waiting)
            known = before.first_said if before is not None and before.broker_epoch == broker_epoch else {}
            keys = [(one.broker_id, one.broker_epoch) for one in word.unreachable + word.silent]
            first_said = {key: known.get(key, now) for key in keys}
            self._spoken[broker_id] = _Spoken(broker_epoch, word, now, until, stalled, waiting, first_said)
        touched = [] if before is None else self._touched(broker_id, before.word)
        return list(dict.fromkeys(touched + self._touched(broker_id, word)))

    def joined(self, follower: int, leader: int) -> None:
        """That leader had the follower join an ISR: it fetches, whatever was said before. A word that stands a little
        longer must not take it out again."""
        spoken = self._spoken.get(follower)
        if spoken is not None:
            left = tuple(one for one in spoken.word.unreachable if one.broker_id != leader)
            self._spoken[follower] = spoken._replace(word=spoken.word._replace(unreachable=left))
        spoken = self._spoken.get(leader)
        if spoken is not None:
            left = tuple(one for one in spoken.word.silent if one.broker_id != follower)
            self._spoken[leader] = spoken._replace(word=spoken.word._replace(silent=left))

    def broker_gone(self, broker_id: int) -> None:
        """Its words go with it; that it is not trusted stays with the id."""
        self._spoken.pop(broker_id, None)

    def next_deadline(self) -> float | None:
        """When ``time_passed`` has something to do: a word ends, or has become old enough to count for more; somebody
        is trusted again."""
        moments = [spoken.until for spoken in self._spoken.values()]
        moments += [hold.until for hold in self._holds.values() if hold.until > self._now]
        for spoken in self._spoken.values():
            moments += [ripe for one in spoken.peers if (ripe := self._leaves_at(spoken, one)) > self._now]
        return min(moments, default=None)

    def time_passed(self, now: float) -> list[TopicPartition]:
        """Forget what was not renewed. Returns the partitions to be settled again."""
        since, self._now = self._now, max(self._now, now)
        touched: list[TopicPartition] = []
        for speaker, spoken in list(self._spoken.items()):
            is_over = spoken.until <= now
            if is_over:
                del self._spoken[speaker]
            if is_over or any(since < self._leaves_at(spoken, one) <= now for one in spoken.peers):
                touched += self._touched(speaker, spoken.word)
        return list(dict.fromkeys(touched))

    def _leaves_at(self, spoken: _Spoken, peer: Unreachable) -> float:
        """When rule 4 applies to this complaint, if it stands until then."""
        long_ago = spoken.at + self._session_timeout_s * FOLLOWER_LEAVES_SHARE - peer.seconds
        first_said = spoken.first_said[peer.broker_id, peer.broker_epoch]
        return max(long_ago, first_said + self._session_timeout_s * VOICES_COME_SHARE)

    def _touched(self, speaker: int, word: Word) -> list[TopicPartition]:
        accused = {unreachable.broker_id for unreachable in word.unreachable}
        touched = [partition for stalled in word.stalled for partition in stalled.replicas]
        silent = {follower.broker_id for follower in word.silent}
        if accused or silent:
            touched += [
                partition
                for partition, state in self._image.states.items()
                if (state.leader in accused and (speaker in state.isr or speaker in state.elr))
                or (state.leader == speaker and not silent.isdisjoint(state.isr))
            ]
        return touched

    # What follows

    def is_trusted(self, broker_id: int, partition: TopicPartition) -> bool:
        """Whether this replica may be given the leadership if another could have it as well."""
        return self.distrust(broker_id, partition) is None

    def distrust(self, broker_id: int, partition: TopicPartition) -> str | None:
        """Why this replica is not given leaderships that others can have; None if it is."""
        hold = self._holds.get(broker_id)
        if hold is not None and self._now < hold.until:
            left_s = hold.until - self._now
            return f"after complaints broker {broker_id} is not given leaderships for another {left_s:.0f} s"
        stalled = self._stalled(broker_id, partition)
        return None if stalled is None else f"broker {broker_id}'s log folder {stalled.log_dir} has stalled"

    def trusted(self, partition: TopicPartition, state: PartitionState) -> PartitionState:
        """``state`` with a leader who is trusted, if there is one in its ISR: for elections made on other grounds."""
        if state.leader < 0 or self.is_trusted(state.leader, partition):
            return state
        others = [
            member for member in state.replicas if member in state.isr and self._image.is_electable(member, partition)
        ]
        for member in others:
            if self.is_trusted(member, partition):
                return state._replace(leader=member)
        return state

    def verdict(self, partition: TopicPartition, state: PartitionState, controller_epoch: int) -> PartitionState | None:
        """What the state has to become on what was said; None to leave it alone.

        For a state that is right otherwise: its leader and ISR are online."""
        leader = state.leader
        followers = [member for member in (*state.isr, *state.elr) if member != leader]
        if not self._spoken or leader not in state.isr or not followers:
            return None
        stalled = self._stalled(leader, partition)
        complaining = [member for member in followers if self._unreachable(member, leader)]
        if stalled is not None:
            reason = f"broker {leader}'s log folder {stalled.log_dir} stalled for {stalled.seconds:.1f} s"
        elif len(complaining) * 2 > len(followers):
            kind = "ISR and ELR" if state.elr else "ISR"
            reason = f"{len(complaining)} of {len(followers)} {kind} followers cannot reach broker {leader}"
        else:
            return self._without_followers(partition, state, controller_epoch)
        election = self._moved(partition, state, complaining)
        if election is None:
            return None
        self._hold(leader)
        return elected(state, election, controller_epoch, reason)

    def _moved(self, partition: TopicPartition, state: PartitionState, complaining: Sequence[int]) -> Election | None:
        """The leadership goes to another member, the leader leaves the ISR, as do members whose appends wait unless
        they are needed."""
        left = tuple(m for m in state.isr if m != state.leader and self._image.is_electable(m, partition))
        sound = tuple(member for member in left if not self._waits(member, partition))
        isr = sound if self._is_enough(partition, state, sound) else left
        if not self._is_enough(partition, state, isr):
            return self._moved_to_eligible(partition, state, sound, complaining)
        candidates = self._candidates(partition, state, isr, complaining)
        return Election(candidates[0], isr, elr=()) if candidates else None

    def _moved_to_eligible(
        self, partition: TopicPartition, state: PartitionState, standing: tuple[int, ...], complaining: Sequence[int]
    ) -> Election | None:
        """The same where the ISR is too small already: ``standing`` is left of it. Whom nobody trusts takes over from
        trusted leaders only: where all are cut from all this comes to an end."""
        eligible = tuple(
            m for m in state.elr if self._image.is_electable(m, partition) and not self._waits(m, partition)
        )
        if not state.elr or not self._is_enough(partition, state, standing + eligible):
            return None
        candidates = self._candidates(partition, state, standing or eligible, complaining)
        if not self.is_trusted(state.leader, partition):
            candidates = [member for member in candidates if self.is_trusted(member, partition)]
        if not candidates:
            return None
        isr = standing or (candidates[0],)
        minimum = self._image.min_insync_replicas(partition.topic)
        elr = eligible_after(
            state, candidates[0], isr, False, minimum, lambda member: self._image.loss(member, partition) is not None
        )
        return Election(candidates[0], isr, elr=elr)

    def _candidates(
        self, partition: TopicPartition, state: PartitionState, members: Sequence[int], complaining: Sequence[int]
    ) -> list[int]:
        """Those of ``members`` whose disks take appends, the best first: who is trusted, then who shares the majority's
        complaint and so is on the same side of the network as they are."""
        sound = [member for member in state.replicas if member in members and self._stalled(member, partition) is None]
        return sorted(sound, key=lambda m: (not self.is_trusted(m, partition), m not in complaining))

    def _without_followers(
        self, partition: TopicPartition, state: PartitionState, controller_epoch: int
    ) -> PartitionState | None:
        """Followers that by their own word hold acks=all up leave the ISR, as many as it can do without."""
        isr = state.isr
        reasons: list[str] = []
        hears_nobody = len(isr) > 2 and all(m == state.leader or self._is_silent(state.leader, m) for m in isr)
        for member in state.isr:
            if member == state.leader:
                continue
            stalled = self._waits(member, partition)
            unreachable = self._unreachable(member, state.leader, for_long=True)
            is_cut_off = not hears_nobody and (unreachable or self._is_silent(state.leader, member, for_long=True))
            left = tuple(other for other in isr if other != member)
            if not (stalled or is_cut_off) or not self._is_enough(partition, state, left):
                continue
            isr = left
            if stalled:
                reasons.append(f"broker {member}'s log folder {stalled.log_dir} stalled for {stalled.seconds:.1f} s")
            elif unreachable:
                reasons.append(f"broker {member} cannot reach broker {state.leader}")
            else:
                reasons.append(f"broker {member} has stopped fetching from broker {state.leader}")
        if isr == state.isr:
            return None
        return elected(state, Election(state.leader, isr, elr=()), controller_epoch, ", ".join(reasons))

    def _is_enough(self, partition: TopicPartition, state: PartitionState, isr: Sequence[int]) -> bool:
        return len(isr) >= max(1, effective_min_isr(state, self._image.min_insync_replicas(partition.topic)))

    def _word(self, speaker: int) -> _Spoken | None:
        spoken = self._spoken.get(speaker)
        if spoken is None or spoken.until <= self._now or spoken.broker_epoch != self._image.broker_epoch(speaker):
            return None
        return spoken

    def _unreachable(self, speaker: int, accused: int, *, for_long: bool = False) -> bool:
        spoken = self._word(speaker)
        return spoken is not None and self._names(spoken, spoken.word.unreachable, accused, for_long)

    def _is_silent(self, speaker: int, accused: int, *, for_long: bool = False) -> bool:
        spoken = self._word(speaker)
        return spoken is not None and self._names(spoken, spoken.word.silent, accused, for_long)

    def _names(self, spoken: _Spoken, peers: Sequence[Unreachable], accused: int, for_long: bool) -> bool:
        epoch = self._image.broker_epoch(accused)
        # A deadline that was computed from the same numbers has come, whatever the last bit of their sum says.
        now = self._now + 1e-6
        return any(
            (one.broker_id, one.broker_epoch) == (accused, epoch)
            and (not for_long or self._leaves_at(spoken, one) <= now)
            for one in peers
        )

    def _stalled(self, speaker: int, partition: TopicPartition) -> StalledDir | None:
        spoken = self._word(speaker)
        return None if spoken is None else spoken.stalled.get(partition)

    def _waits(self, speaker: int, partition: TopicPartition) -> StalledDir | None:
        spoken = self._word(speaker)
        return None if spoken is None or partition not in spoken.waiting else spoken.stalled.get(partition)

    def _hold(self, broker_id: int) -> None:
        hold = self._holds.get(broker_id)
        if hold is None or self._now >= hold.until + hold.seconds:
            seconds = HOLD_S
        elif self._now < hold.until:
            seconds = hold.seconds  # another partition of the same failure
        else:
            seconds = min(HOLD_S_MAX, hold.seconds * 2)
        self._holds[broker_id] = _Hold(self._now + seconds, seconds)
