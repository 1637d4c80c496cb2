"""Where each mutant fell: found with ``--hunt``, run again by ``test_campaign`` as far as its time allows, all of them
with ``--check-mutants``."""

from __future__ import annotations

from typing import NamedTuple


class Caught(NamedTuple):
    """A run that noticed a missing rule."""

    seed: int
    profile: str
    steps: int
    """Of the run."""
    step: int
    """Of the violation."""
    invariant: int
    """Of kafka-semantics.md §7; 0 for an exception in a broker."""


RESULTS: dict[str, Caught] = {
    "truncate-to-high-watermark": Caught(seed=1, profile="default", steps=2000, step=895, invariant=11),
    "never-truncate": Caught(seed=2, profile="default", steps=2000, step=51725, invariant=17),
    "truncate-in-one-step": Caught(seed=8, profile="elections", steps=2000, step=72500, invariant=17),
    "no-epoch-entry-on-election": Caught(seed=1001, profile="elections", steps=2000, step=913, invariant=9),
    "expand-not-counted": Caught(seed=2, profile="default", steps=2000, step=3561, invariant=4),
    "shrink-not-counted": Caught(seed=6, profile="default", steps=2000, step=1019, invariant=5),
    "shrink-locally": Caught(seed=10, profile="default", steps=2000, step=1252, invariant=4),
    "epoch-start": Caught(seed=1002, profile="crashes", steps=2000, step=2446, invariant=12),
    "join-below-high-watermark": Caught(seed=2, profile="default", steps=2000, step=3461, invariant=12),
    "min-isr-freeze": Caught(seed=2, profile="default", steps=2000, step=3464, invariant=8),
    "high-watermark-may-fall": Caught(seed=1, profile="default", steps=2000, step=429, invariant=8),
    "high-watermark-of-the-leader": Caught(seed=1, profile="default", steps=2000, step=535, invariant=5),
    "acks-under-min-isr": Caught(seed=2, profile="default", steps=2000, step=3627, invariant=8),
    "reads-to-the-log-end": Caught(seed=1, profile="default", steps=2000, step=2684, invariant=10),
    "deposed-leader-acknowledges": Caught(seed=4, profile="default", steps=2000, step=1214, invariant=6),
    "contact-rule": Caught(seed=37, profile="suspicion", steps=2000, step=1984, invariant=15),
    "unclean-returners-lead": Caught(seed=1, profile="power", steps=2000, step=2914, invariant=6),
    "elected-outside-the-isr": Caught(seed=1, profile="default", steps=2000, step=48088, invariant=17),
    "unclean-elections": Caught(seed=2, profile="default", steps=2000, step=1828, invariant=6),
    "leader-epoch-stays": Caught(seed=1, profile="default", steps=2000, step=903, invariant=2),
    "resumed-leader-epoch": Caught(seed=11, profile="power", steps=2000, step=3045, invariant=2),
    "producers-kept-after-truncation": Caught(seed=10, profile="default", steps=2000, step=3479, invariant=16),
    "producers-lost-at-restart": Caught(seed=4, profile="crashes", steps=2000, step=2285, invariant=16),
    "no-recovery": Caught(seed=1001, profile="power", steps=2000, step=48110, invariant=17),
    "torn-tails-kept": Caught(seed=1010, profile="power", steps=2000, step=1327, invariant=16),
    "recovery-point-above-truncation": Caught(seed=11, profile="power", steps=2000, step=3855, invariant=0),
    "retries-stored-twice": Caught(seed=1, profile="default", steps=2000, step=3188, invariant=13),
    "no-elr": Caught(seed=2, profile="power", steps=2000, step=1927, invariant=6),
    "obeys-while-unregistered": Caught(seed=2, profile="suspicion", steps=2000, step=1469, invariant=2),
    "one-reporter-suffices": Caught(seed=1, profile="suspicion", steps=2000, step=1223, invariant=18),
    "no-hold-down": Caught(seed=5, profile="suspicion", steps=2000, step=1354, invariant=18),
    "office-taken-from-the-living": Caught(seed=1, profile="suspicion", steps=2000, step=593, invariant=18),
    "epochs-kept-after-truncation": Caught(seed=2, profile="elections", steps=2000, step=3834, invariant=9),
    "unflushed-counts": Caught(seed=1, profile="flushed", steps=2000, step=6544, invariant=6),
    "lossy-member-joins": Caught(seed=28, profile="power", steps=2000, step=2371, invariant=6),
    "no-controller-timer": Caught(seed=1, profile="aimed", steps=2000, step=1684, invariant=15),
    "unfenced-writes": Caught(seed=3, profile="aimed", steps=2000, step=2130, invariant=2),
    "no-veto": Caught(seed=11, profile="aimed", steps=2000, step=1914, invariant=18),
    "unknown-outcome-reverts": Caught(seed=42, profile="aimed", steps=2000, step=3265, invariant=5),
    "fetch-leader-epoch-unchecked": Caught(seed=52, profile="aimed", steps=2000, step=40220, invariant=17),
    "elr-not-counted": Caught(seed=5, profile="staged", steps=2000, step=1845, invariant=5),
    "fencing-may-worsen": Caught(seed=6, profile="staged", steps=2000, step=2744, invariant=18),
    "late-writes-believed-failed": Caught(seed=18, profile="staged", steps=2000, step=1611, invariant=4),
    "gray-leaders-stay": Caught(seed=21, profile="gray", steps=2000, step=2401, invariant=17),
    "any-incarnation-joins": Caught(seed=8, profile="aimed", steps=2000, step=3275, invariant=6),
    "isr-of-any-leader-epoch": Caught(seed=5, profile="late", steps=2000, step=1714, invariant=4),
    "stale-incarnation-fetches": Caught(seed=9, profile="late", steps=2000, step=3508, invariant=12),
    "high-watermark-before-truncation": Caught(seed=11, profile="late", steps=2000, step=2956, invariant=7),
    "moves-end-early": Caught(seed=2, profile="moves", steps=2000, step=2449, invariant=14),
    "superseded-replicas-dropped": Caught(seed=108, profile="moves", steps=2000, step=1051, invariant=14),
    "moves-keep-the-leader-epoch": Caught(seed=1, profile="moves", steps=2000, step=869, invariant=2),
    "removals-forgotten": Caught(seed=4, profile="moves", steps=2000, step=38812, invariant=17),
    "deletes-what-came-back": Caught(seed=34, profile="moves", steps=2000, step=26846, invariant=17),
    "topic-ids-unchecked": Caught(seed=1, profile="hands", steps=2000, step=19807, invariant=17),
}

SURVIVORS: dict[str, str] = {
    "fetch-answer-epoch-unchecked": "the request ids hold its place: a new leader epoch marks the row to be asked "
    "anew, and answers to earlier rows are dropped",
    "fetch-request-ids": "the leader spends a row with the bytes, divergence or error that answer it, so that a second "
    "answer to one row carries only marks; the leader epoch of the row is checked besides",
    "append-newer-epochs": "bytes are copied into the answer in the turn in which the leader epoch is checked, not "
    "sent lazily from the file as in Kafka: no answer holds batches of a later epoch",
    "proposal-ids": "one AlterPartition request at a time, and the answer of one that was given up reaches nobody: no "
    "answer meets another proposal",
    "isr-of-any-version": "a leader has one proposal at a time, and what the controller itself changes within a leader "
    "epoch takes out members that are dead, lossy or stopping: whoever names them again is refused as not eligible",
    "member-broker-epochs": "who came back without records says so in its registration and is refused for that; who "
    "lost nothing holds what its former incarnation fetched; without either line it is any-incarnation-joins",
    "leader-forgets-broker-epochs": "the controller judges the epoch that the fetch came with; both lines and "
    "the losses away is any-incarnation-joins",
    "controller-forgets-broker-epochs": "the leader proposes only who fetches in the registered epoch; both "
    "lines and the losses away is any-incarnation-joins",
}
"""Mutants that cannot be caught, and what else holds the rule's place."""

HOLES: dict[str, str] = {}
"""Mutants that were hunted and not caught, nor argued to be harmless: what was tried. None is left; a new mutant begins
here."""
