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
    "half-cached-read-skips-segment": Caught(seed=4, profile="disks", steps=2000, step=5682, invariant=10),
    "cold-read-told-to-nobody": Caught(seed=5, profile="network", steps=2000, step=32251, invariant=17),
    "torn-topic-id-kept": Caught(seed=51, profile="power", steps=2000, step=41533, invariant=17),
    "never-made-log-is-lossy": Caught(seed=1, profile="crashes", steps=2000, step=24160, invariant=17),
    "fenced-early-waits-for-ever": Caught(seed=24, profile="suspicion", steps=2000, step=40118, invariant=17),
    "old-complaint-shrinks-the-isr": Caught(seed=21, profile="gray", steps=2000, step=2494, invariant=17),
    "boot-named-too-early": Caught(seed=294, profile="starts", steps=2000, step=1353, invariant=6),
    "clean-stop-hides-missing-logs": Caught(seed=799, profile="starts", steps=2000, step=1871, invariant=6),
    "ends-outlive-another-leader": Caught(seed=3, profile="late", steps=2000, step=1802, invariant=5),
}
"""Bug → the run that notices it: found with ``--hunt``, run again with ``--check-bugs``."""

_HEALS = "no record is at stake, and what must come round in time is looked at after the healing, which mends it too"
_PORTS = "simulated clients call the broker's ports, not Kafka's bytes"
_RARE = "it takes several rare things in a row, and hunts over some 100 seeds of its profile met none: "
_GRAY = _RARE + "what is promised of gray failures is looked at where nothing else is wrong, this needs "

UNNOTICED: dict[str, str] = {
    "refused-first-batch-skipped": _RARE + "8 runs in which a first batch was refused are clean; on the day of network "
    "34 simulated producers did not yet wait for the answers of the last leader",
    "gap-behind-refused-batch": "simulated producers raise their epoch partition by partition; librdkafka numbers "
    "those of all partitions anew",
    "wake-up-lost": "a cold read that is over at once is answered in the same turn since: cold-read-told-to-nobody "
    "takes both lines away, and is noticed",
    "counted-out-leads-on": _HEALS + " (meanwhile the contact rule keeps the broker from answering)",
    "refused-leader-vouches": "only a controller of an older version, which knows of no losses, elects such a replica",
    "failed-folder-finds-no-answers": "simulated producers send one partition in a request",
    "lost-beginning-believed": _RARE + "the name of a first segment is lost and that of a later one is not",
    "nobody-is-sent-away": _HEALS,
    "cut-off-broker-tells-leaders": _PORTS,
    "deleted-broker-tells-leaders": _PORTS,
    "unreached-leader-stops": _HEALS + "; the test is a simulated world with the cut still there",
    "lossy-leader-of-all-that-is-left": "the only replica there is (profile shapes) is off the list as soon as it is "
    "told its state, and elected anew until then; others need an unclean election, which no topic here allows",
    "settled-before-it-followed": "who was settled so early is in neither ISR nor ELR, and leads only after an unclean "
    "election, which no simulated topic allows",
    "empty-log-above-the-leaders-start": "disks 690 noticed it until followers began with the batch around their "
    "leader's log start; 1,500 seeds of that profile met it no more",
    "missing-log-of-a-proposal": _RARE + "a proposal that is written between two looks of one start",
    "failed-disk-trusted": "the simulated disk keeps what a failed fsync could not write, and kernels drop it",
    "torn-line-spoils-the-next": _RARE + "the log of exactly the next line has to be lost, by a later loss of power",
    "predecessors-loss-hides-another": _RARE + "losses of both topics of one name, neither settled between them",
    "old-words-take-a-joiner-out": _GRAY + "a cut within the second after a follower joined; 260 runs that cut off "
    "a controller that leads met none either",
    "cut-off-leader-shrinks-its-isr": _GRAY + "a cut between the leader's word and the end of its term; 260 runs that "
    "cut off a controller that leads met none either",
    "mute-controller-loses-a-follower": _GRAY + "one of two words that a mute controller hears, and not the other",
    "cut-off-controller-comes-back": _GRAY + "two controllers cut off one after the other",
    "cut-off-controller-stays-patient": "it takes five cuts in ten minutes; faults of a run last some seconds",
    "shrunk-isr-moves-nowhere": _GRAY + "a lag of replica.lag.time.max.ms before the cut",
    "silent-by-a-new-epoch": _GRAY + "a move of the leadership just before the cut",
    "old-news-after-a-cut": "simulated connections forget what was under way when they end; kernels do not",
    "own-calls-are-no-traffic": "a false suspicion costs an election and a hold-down, which no invariant forbids",
    "hello-before-the-delta": "it costs a hold-down, and invariant 18 goes by the hold-downs that the product knows",
    "half-a-connection-speaks": "it takes a lost FIN, seconds of silence and then a death; cuts of a run are too short",
    "fence-takes-the-next-incarnation": "the next incarnation registers again at once, and nothing counts on it yet",
    "dead-session-keeps-its-connection": "simulated sessions are the fake's; the mistake was below, in kazoo's",
    "contact-older-than-complaints": "with simulated sessions of 1 to 2 s the two bounds are 0.1 s apart at most",
}
"""Bugs that no run shows, and why. Their tests hold them."""
