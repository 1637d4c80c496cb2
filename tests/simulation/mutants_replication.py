"""Rules of replication, each switched off: logs that part, who is in sync, what is committed (see ``mutants``)."""

from __future__ import annotations

from tests.simulation.mutation import Edit, Mutant

_LEADER = "partition.leader:LeaderState"
_ISR = "partition.isr:InSyncReplicas"
_REPLICA = "broker.replica:Replica"
_NO_DIVERGENCE = Edit(
    f"{_LEADER}.fetch_refusal",
    "    if end is None or offset < log_start_offset:\n        return _OUT_OF_RANGE\n"
    "    if end[0] < last_epoch or end[1] < offset:\n"
    "        return FetchRefusal(ErrorCode.NONE, end[0], end[1])\n    return None\n",
    "    return None if log_start_offset <= offset <= self.log_end_offset else _OUT_OF_RANGE\n",
)
_LOCAL_BROKER_EPOCH = Edit(
    f"{_LEADER}._is_eligible",
    "return registered is not None and registered == follower.broker_epoch",
    "return registered is not None",
)
_MEMBER_EPOCH = Edit(
    "controller.isr_changes:_eligible",
    "    if image.broker_epoch(member) != epoch or image.loss(member, partition) is not None:\n",
    "    if image.loss(member, partition) is not None:\n",
)

REPLICATION = (
    Mutant(
        "truncate-to-high-watermark",
        "never truncate to the high watermark (KIP-101, §5)",
        (
            _NO_DIVERGENCE,
            Edit(
                f"{_REPLICA}._become_follower",
                "    fetchers = self._shared.fetchers\n",
                "    self.log.truncate_to(self.high_watermark)\n    fetchers = self._shared.fetchers\n",
            ),
        ),
    ),
    Mutant(
        "never-truncate", "a follower truncates where leader epochs say that logs part (KIP-101, §5)", (_NO_DIVERGENCE,)
    ),
    Mutant(
        "truncate-in-one-step",
        "the loop of KIP-279: an epoch that the follower does not know is asked about again (§5)",
        (
            Edit(
                "partition.follower:FollowerState._diverged",
                "    own = epochs.end_offset_for(epoch, log_end_offset)\n",
                "    own = None\n",
            ),
        ),
        profile="elections",
    ),
    Mutant(
        "no-epoch-entry-on-election",
        "a leader enters its epoch in the cache even if it appends nothing (KAFKA-7415, §4)",
        (Edit(f"{_REPLICA}._become_leader", "    log.assign_epoch(state.leader_epoch, log.log_end_offset)\n", ""),),
        profile="elections",
    ),
    Mutant(
        "fetch-leader-epoch-unchecked",
        "a fetch of another leader epoch is refused (KIP-320, §4)",
        (
            Edit(f"{_LEADER}.fetch_refusal", "    if leader_epoch != self.leader_epoch:\n", "    if False:\n"),
            Edit(
                "broker.follower_reads:FollowerReads.read_for_follower",
                "    if row.leader_epoch != leader.leader_epoch:\n",
                "    if False:\n",
            ),
        ),
        profile="aimed",
    ),
    Mutant(
        "fetch-answer-epoch-unchecked",
        "a follower discards an answer that was asked for under another leader epoch (§5)",
        (
            Edit(
                "partition.follower:FollowerState.answered",
                "request_epoch != self.leader_epoch or request_offset != log_end_offset or not self.has_leader",
                "request_offset != log_end_offset or not self.has_leader",
            ),
        ),
    ),
    Mutant(
        "fetch-request-ids",
        "only the answer to the latest request counts; offsets alone are fooled by truncate and append (§5)",
        (
            Edit(
                "replication.follow_session:Followed.is_answered_by",
                "self.state is FollowState.ASKED and self.session is session and seq >= self.seq",
                "self.session is session",
            ),
            Edit("replication.fetcher:LeaderFetcher._answered", "followed in self.dirty or not", "not"),
        ),
    ),
    Mutant(
        "append-newer-epochs",
        "append only batches of epochs up to the request's leader epoch (KAFKA-18723, §5)",
        (Edit("broker.following:Following._append", "answer.records, leader_epoch)", "answer.records, 2**31 - 1)"),),
    ),
    Mutant(
        "high-watermark-before-truncation",
        "truncate before the high watermark of a new leader is taken (KAFKA-14704, §5, §6)",
        (
            Edit(
                "broker.following:Following._apply",
                "    kind = type(effect)\n",
                "    kind = type(effect)\n"
                "    if answer.high_watermark >= 0:\n"
                "        replica.high_watermark = max(\n"
                "            replica.high_watermark, min(answer.high_watermark, log.log_end_offset)\n"
                "        )\n",
            ),
        ),
        profile="late",
    ),
)

IN_SYNC = (
    Mutant(
        "expand-not-counted",
        "a joiner counts in the maximal ISR from its proposal on (KIP-497, §4)",
        (
            Edit(
                f"{_ISR}.expand",
                "PendingExpand(self.state.isr, self.state.partition_epoch, isr, proposal)",
                "PendingExpand(self.state.isr, self.state.partition_epoch, self.state.isr, proposal)",
            ),
        ),
    ),
    Mutant(
        "shrink-not-counted",
        "a leaver counts in the maximal ISR until its shrink is confirmed (KIP-497, §4)",
        (
            Edit(
                "partition.isr:PendingShrink.maximal",
                "return self.isr",
                "return tuple(member for member, _ in self.proposal.isr)",
            ),
        ),
    ),
    Mutant(
        "shrink-locally",
        "a leader never changes its ISR before the controller confirmed it (§4, §6 Controller unreachable)",
        (
            Edit(
                f"{_ISR}.shrink",
                "    return proposal\n",
                "    self.state = Committed(tuple(m for m, _ in proposal.isr), self.state.partition_epoch)\n"
                "    return proposal\n",
            ),
        ),
    ),
    Mutant(
        "epoch-start",
        "a follower joins only with all that the leader had when its epoch began (KAFKA-7128, §4)",
        (Edit(f"{_LEADER}._maybe_expand", "        or follower.log_end_offset < self.epoch_start_offset\n", ""),),
        profile="crashes",
    ),
    Mutant(
        "join-below-high-watermark",
        "a follower joins only with all that is committed (§4)",
        (
            Edit(f"{_LEADER}._maybe_expand", "        or follower.log_end_offset < self.high_watermark\n", ""),
            Edit(f"{_LEADER}._maybe_expand", "        or follower.log_end_offset < self.epoch_start_offset\n", ""),
        ),
    ),
    Mutant(
        "unknown-outcome-reverts",
        "a proposal whose outcome is unknown is asked again for ever, never reverted (§4)",
        (
            Edit(
                "broker.isr_proposals:IsrProposals._failed",
                "self._again(batch, RETRY_SECONDS)",
                "self._came(AlterPartitionResponse(ErrorCode.NONE, tuple(\n"
                "    IsrAnswer(p.topic, p.partition, p.topic_id, p.proposal_id, ErrorCode.OPERATION_NOT_ATTEMPTED)\n"
                "        for p in batch.values())), batch)",
            ),
        ),
        profile="aimed",
    ),
    Mutant(
        "proposal-ids",
        "an answer counts only for the proposal that it answers (§4)",
        (
            Edit(f"{_ISR}.answered", " or answer.proposal_id != pending.proposal_id", ""),
            Edit("broker.isr_proposals:IsrProposals._came", " or sent.proposal_id != answer.proposal_id", ""),
        ),
    ),
    Mutant(
        "member-broker-epochs",
        "ISR members are proposed and judged with their broker epochs (KIP-903, §3, §4)",
        (_LOCAL_BROKER_EPOCH, _MEMBER_EPOCH),
        profile="aimed",
    ),
    Mutant(
        "any-incarnation-joins",
        "a member that came back without its records joins only as what it is now (KIP-903 and §6, both lines)",
        (
            _LOCAL_BROKER_EPOCH,
            Edit(
                "controller.isr_changes:_eligible",
                "    if image.broker_epoch(member) != epoch or image.loss(member, partition) is not None:\n",
                "    if False:\n",
            ),
        ),
        profile="aimed",
    ),
    Mutant(
        "leader-forgets-broker-epochs",
        "a leader lets only the registered incarnation join (§4)",
        (_LOCAL_BROKER_EPOCH,),
        profile="power",
    ),
    Mutant(
        "controller-forgets-broker-epochs",
        "the controller judges the members' broker epochs (KIP-903, §3)",
        (_MEMBER_EPOCH,),
        profile="power",
    ),
    Mutant(
        "stale-incarnation-fetches",
        "a fetch of an incarnation older than one already seen is refused (§4)",
        (
            Edit(
                f"{_LEADER}.fetch_refusal", "    if contact.broker_epoch < follower.broker_epoch:\n", "    if False:\n"
            ),
        ),
        profile="late",
    ),
    Mutant(
        "isr-of-any-version",
        "an ISR change is written only over the state that it was made from (§3 AlterPartition)",
        (
            Edit(
                "controller.isr_changes:judge_proposal",
                "    if proposal.partition_epoch < state.partition_epoch:\n",
                "    if False:\n",
            ),
        ),
        profile="aimed",
    ),
    Mutant(
        "isr-of-any-leader-epoch",
        "an ISR change of an older leader epoch is refused (§3 AlterPartition)",
        (
            Edit(
                "controller.isr_changes:judge_proposal",
                "    if proposal.leader_epoch < state.leader_epoch:\n        return ErrorCode.FENCED_LEADER_EPOCH\n",
                "",
            ),
            Edit("controller.isr_changes:judge_proposal", "    if sender != state.leader:\n", "    if False:\n"),
            Edit(
                "controller.isr_changes:judge_proposal",
                "    if proposal.partition_epoch < state.partition_epoch:\n",
                "    if False:\n",
            ),
        ),
        profile="late",
    ),
)

HIGH_WATERMARK = (
    Mutant(
        "min-isr-freeze",
        "the high watermark stands still while the ISR is smaller than min.insync.replicas (KIP-966, §4)",
        (Edit(f"{_LEADER}._raise_high_watermark", "    if self.is_under_min_isr:\n        return NOTHING\n", ""),),
    ),
    Mutant(
        "high-watermark-may-fall",
        "the high watermark does not fall in a leader epoch (§4)",
        (
            Edit(
                f"{_LEADER}._raise_high_watermark",
                "if offset <= self.high_watermark:",
                "if offset == self.high_watermark:",
            ),
            Edit(f"{_LEADER}._check", "", "return"),
        ),
    ),
    Mutant(
        "high-watermark-of-the-leader",
        "the high watermark is the smallest end in the maximal ISR (§4)",
        (
            Edit(
                f"{_LEADER}._raise_high_watermark",
                "    for follower in self._members:\n"
                "        if follower.log_end_offset < offset:\n"
                "            offset = follower.log_end_offset\n",
                "",
            ),
        ),
    ),
    Mutant(
        "acks-under-min-isr",
        "acks=all is refused while the ISR is smaller than min.insync.replicas (§4)",
        (
            Edit(f"{_LEADER}.append_refusal", "    if acks == -1 and self.is_under_min_isr:\n", "    if False:\n"),
            Edit(f"{_LEADER}._raise_high_watermark", "    if self.is_under_min_isr:\n        return NOTHING\n", ""),
            Edit(
                f"{_LEADER}.acks_all_outcome",
                "    if self.effective_min_isr <= len(self.isr.state.maximal):\n",
                "    if True:\n",
            ),
        ),
    ),
    Mutant(
        "reads-to-the-log-end",
        "consumers read up to the high watermark (§4)",
        (
            Edit(
                "broker.consume_request:_Mark.__init__",
                "self.limit = self.last_stable_offset if read_committed else self.high_watermark",
                "self.limit = replica.log.log_end_offset",
            ),
        ),
    ),
    Mutant(
        "deposed-leader-acknowledges",
        "who waits when a leadership ends is failed, but for what is committed (§4)",
        (
            Edit(
                f"{_REPLICA}._leave_leadership",
                "parked.settle(index, ErrorCode.NOT_LEADER_OR_FOLLOWER, leader)",
                "parked.settle(index, ErrorCode.NONE)",
            ),
        ),
    ),
    Mutant(
        "contact-rule",
        "acks ≤ 1 and reads are answered only while somebody was heard of (architecture.md, Fast failover 5)",
        (Edit(f"{_LEADER}.has_fresh_contact", "", "return True"),),
        profile="suspicion",
    ),
)
