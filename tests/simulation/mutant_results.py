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


RESULTS: dict[str, Caught] = {}

SURVIVORS: dict[str, str] = {
    "fetch-answer-epoch-unchecked": "the request ids hold its place: a new leader epoch marks the row to be asked "
    "anew, and answers to earlier rows are dropped",
    "fetch-request-ids": "the leader spends a row with the bytes, divergence or error that answer it, so that a second "
    "answer to one row carries only marks; the leader epoch of the row is checked besides",
    "append-newer-epochs": "bytes are copied into the answer in the turn in which the leader epoch is checked, not "
    "sent lazily from the file as in Kafka: no answer holds batches of a later epoch",
    "proposal-ids": "one AlterPartition request at a time, and the answer of one that was given up reaches nobody: no "
    "answer meets another proposal",
    "leader-forgets-broker-epochs": "the controller judges the epoch that the fetch came with; both lines away is "
    "member-broker-epochs",
    "controller-forgets-broker-epochs": "the leader proposes only who fetches in the registered epoch; both lines away "
    "is member-broker-epochs",
}
"""Mutants that cannot be caught, and what else holds the rule's place."""

HOLES: dict[str, str] = {}
"""Mutants that were hunted and not caught, nor argued to be harmless: what was tried. To become fewer."""
