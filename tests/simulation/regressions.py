"""Runs that failed once, each with the bug that it showed: they stay clean. ``test_campaign`` runs them all.

What a seed does drifts with the product and the faults: that it is clean today does not say that it would still show
its bug. ``NOTICED`` does: with the bug back (see ``bugs``) these runs fail today, and without it they are clean."""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.mutant_results import Caught


class Regression(NamedTuple):
    """A run that a bug made fail."""

    seed: int
    profile: str
    steps: int
    why: str


REGRESSIONS: tuple[Regression, ...] = (
    Regression(
        8026, "default", 2000, "bytes that a second read found in the page cache woke nobody: never fetched again"
    ),
    Regression(102, "network", 2000, "a torn partition.metadata, a clean stop before the controller spoke: no start"),
    Regression(7, "crashes", 2000, "a broker fenced early waited for ever for partitions that were settled already"),
    Regression(
        1_000_069, "elections", 2000, "the checker: a leadership that ended in the step that raised its high mark"
    ),
    Regression(
        252, "crashes", 2000, "the checker: who refused when a verdict fell was known to have restarted a moment later"
    ),
)

NOTICED: dict[str, Caught] = {
    "half-cached-read-skips-segment": Caught(seed=4, profile="disks", steps=2000, step=3891, invariant=10),
    "cold-read-told-to-nobody": Caught(seed=5, profile="network", steps=2000, step=32257, invariant=17),
    "torn-topic-id-kept": Caught(seed=51, profile="power", steps=2000, step=41290, invariant=17),
    "never-made-log-is-lossy": Caught(seed=1, profile="crashes", steps=2000, step=23901, invariant=17),
    "fenced-early-waits-for-ever": Caught(seed=13, profile="suspicion", steps=2000, step=30049, invariant=17),
    "old-complaint-shrinks-the-isr": Caught(seed=15, profile="gray", steps=2000, step=1928, invariant=17),
}
"""Bug → the run that notices it: found with ``--hunt``, run again with ``--check-bugs``."""

_HEALS = "no record is at stake, and what must come round in time is looked at after the healing, which mends it too"
_PORTS = "simulated clients call the broker's ports, not Kafka's bytes"
_RARE = "it takes several rare things in a row, and no seed did them all: "

UNNOTICED: dict[str, str] = {
    "refused-first-batch-skipped": "found by network 34 when simulated producers still had several first batches under "
    "way; they wait for the first answer of each leader now, as librdkafka does; 8 runs that refuse a first batch, and "
    "60 of elections are clean",
    "gap-behind-refused-batch": "simulated producers raise their epoch partition by partition; librdkafka numbers "
    "those of all partitions anew",
    "wake-up-lost": "a cold read that is over at once is answered in the same turn since: cold-read-told-to-nobody "
    "takes both lines away",
    "counted-out-leads-on": _HEALS + " (the contact rule keeps it from answering)",
    "nobody-is-sent-away": _HEALS,
    "cut-off-broker-tells-leaders": _PORTS,
    "unreached-leader-stops": _HEALS + "; the test is a simulated world with the cut still there",
    "boot-named-too-early": _RARE + "120 of starts, 30 of power; power 324 of its day",
    "lossy-leader-of-all-that-is-left": "simulated topics have three replicas and no unclean elections",
    "settled-before-it-followed": _RARE + "30 of power and 5 in which a loss waited for its leader",
    "missing-log-of-a-proposal": _RARE + "30 of power and 4 in which such a log was missing",
    "clean-stop-hides-missing-logs": _RARE + "30 of power and 2 with a stop at that moment",
    "failed-disk-trusted": "the simulated disk keeps what a failed fsync could not write, and kernels drop it",
    "torn-line-spoils-the-next": _RARE + "2 with torn lines, whose logs were not lost afterwards",
    "predecessors-loss-hides-another": _RARE + "a loss of the old and the new topic of one name, 40 of topics",
    "old-words-take-a-joiner-out": _RARE + "a cut within a second of the joining",
    "cut-off-leader-shrinks-its-isr": _RARE,
    "cut-off-controller-comes-back": "it takes two cuts of two controllers, and the promise of gray is made where "
    "nothing else is wrong; the test is a simulated world with both",
    "cut-off-controller-stays-patient": "it takes five cuts in ten minutes; a run lasts some seconds",
    "shrunk-isr-moves-nowhere": _RARE,
    "old-news-after-a-cut": "the simulated network forgets what was under way when a connection ends",
    "silent-by-a-new-epoch": _RARE,
    "own-calls-are-no-traffic": "a false suspicion costs an election and a hold-down, which no invariant forbids",
    "hello-before-the-delta": "one hold-down less: invariant 18 goes by what the product knows of false suspicions",
    "half-a-connection-speaks": "it takes 30 s of silence; faults of a run last some seconds",
    "fence-takes-the-next-incarnation": "the next incarnation registers again at once, and nothing counts on it yet",
    "contact-older-than-complaints": "with simulated sessions of 1 to 2 s the two bounds are 0.1 s apart at most",
}
"""Bugs that no run shows, and why. Their tests hold them."""
