"""The checker against hand-made histories: each kind of violation is named, and what is right passes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.faults.checker import check, worst_gap
from tests.faults.history import (
    Acknowledged,
    Attempt,
    BadHistory,
    Event,
    Failed,
    Fault,
    Full,
    Healed,
    Read,
    Recorder,
    Replica,
    Scan,
    ScanBroken,
    ScanEnded,
    Stuck,
    Writer,
    decode,
    encode,
    read_history,
)

P = "t-0"


def writers() -> list[Event]:
    return [Writer(0.0, "all", -1, True), Writer(0.0, "one", 1, False)]


def wrote(at: float, value: str, offset: int | None, writer: str = "all") -> list[Event]:
    return [Attempt(at, writer, P, value), Acknowledged(at + 0.1, P, value, offset)]


def scanned(at: float, number: int, *records: tuple[int, str], first: int = 0, end: int | None = None) -> list[Event]:
    last = (max(offset for offset, _ in records) + 1 if records else first) if end is None else end
    return [
        Scan(at, number, "r", P, first, False),
        Read(at, number, [list(record) for record in records]),
        ScanEnded(at, number, last),
    ]


def final(*records: tuple[int, str], at: float = 100.0, end: int | None = None) -> list[Event]:
    scan, *rest = scanned(at, 1000, *records, end=end)
    assert isinstance(scan, Scan)
    return [scan._replace(is_final=True), *rest]


GOOD = [*writers(), *wrote(1, "a", 0), *wrote(2, "b", 1), *scanned(3, 1, (0, "a"), (1, "b"))]


def test_a_good_history_passes() -> None:
    verdict = check([*GOOD, *final((0, "a"), (1, "b"))])
    assert verdict.violations == []
    assert (verdict.attempts, verdict.acknowledged, verdict.reads) == (2, 2, 4)


BAD: dict[str, tuple[str, list[Event]]] = {
    "lost at the end": ("lost", [*writers(), *wrote(1, "a", 0), *wrote(2, "b", 1), *final((0, "a"))]),
    "lost, another in its place": (
        "lost",
        [*writers(), *wrote(1, "a", 0), *wrote(2, "b", 0, "one"), *final((0, "b"))],
    ),
    "lost, acknowledged without an offset": ("lost", [*writers(), *wrote(1, "a", None), *final()]),
    "lost, all of it": ("lost", [*writers(), *wrote(1, "a", 0), *final()]),
    "misplaced": ("misplaced", [*writers(), *wrote(1, "a", 0), *wrote(2, "b", 0), *final((0, "a"), (1, "b"))]),
    "duplicated in the log": ("duplicated", [*GOOD, *final((0, "a"), (1, "b"), (2, "a"))]),
    "duplicated in a scan": ("duplicated", [*GOOD, *scanned(4, 2, (0, "a"), (0, "a")), *final((0, "a"), (1, "b"))]),
    "reordered in the log": (
        "reordered",
        [*writers(), *wrote(1, "a", None), *wrote(2, "b", None), *final((0, "b"), (1, "a"))],
    ),
    "reordered in a scan": (
        "reordered",
        [*GOOD, *scanned(4, 2, (0, "a"), (1, "b"), (0, "a")), *final((0, "a"), (1, "b"))],
    ),
    "re-read different": (
        "re-read different",
        [*GOOD, *wrote(3, "c", None, "one"), *scanned(4, 2, (0, "a"), (1, "c")), *final((0, "a"), (1, "b"), (2, "c"))],
    ),
    "gap in the middle": (
        "gap",
        [*writers(), *wrote(1, "a", 0), Attempt(2, "all", P, "b"), *wrote(3, "c", 2), *final((0, "a"), (2, "c"))],
    ),
    "gap at the beginning": ("gap", [*GOOD, *scanned(4, 2, (1, "b")), *final((0, "a"), (1, "b"))]),
    "gap at the end": ("gap", [*GOOD, *scanned(4, 2, (0, "a"), end=2), *final((0, "a"), (1, "b"))]),
    "read before committed": (
        "read before committed",
        [*GOOD, Attempt(3, "all", P, "c"), *scanned(4, 2, (2, "c"), first=2), *final((0, "a"), (1, "b"))],
    ),
    "read before committed, acks=1": (
        "read before committed",
        [*GOOD, *wrote(3, "c", 2, "one"), *scanned(4, 2, (2, "c"), first=2), *final((0, "a"), (1, "b"))],
    ),
    "invented": ("invented", [*GOOD, *final((0, "a"), (1, "b"), (2, "nobody's"))]),
    "read before it was written": (
        "invented",
        [*writers(), *scanned(0.5, 1, (0, "a")), *wrote(1, "a", 0), *final((0, "a"))],
    ),
    "out of range": (
        "out of range",
        [*GOOD, Scan(4, 2, "r", P, 0, False), ScanBroken(5, 2, "no such offset"), *final((0, "a"), (1, "b"))],
    ),
    "replicas differ": (
        "replicas differ",
        [*GOOD, *final((0, "a"), (1, "b")), Replica(101, P, 1, "x", 9), Replica(101, P, 2, "y", 9)],
    ),
    "stuck": ("stuck", [*GOOD, Stuck(9, "kill-all", "no leader"), *final((0, "a"), (1, "b"))]),
    "never read": ("not read", [*writers(), *wrote(1, "a", 0)]),
    "read, but not to the end": ("not read", [*GOOD, *final((0, "a"), (1, "b"))[:-1]]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_caught(name: str) -> None:
    kind, events = BAD[name]
    assert check(events).kinds == {kind}


def test_acks_1_may_lose_and_double_and_failures_may_be_stored() -> None:
    events = [
        *GOOD,
        *wrote(3, "lost", 2, "one"),
        *wrote(3, "twice", 2, "one"),
        Attempt(4, "all", P, "unanswered"),
        Attempt(4, "all", P, "stored"),
        Failed(5, P, "stored", "timed out"),
        *final((0, "a"), (1, "b"), (2, "twice"), (3, "twice"), (4, "stored")),
    ]
    verdict = check(events)
    assert verdict.violations == []
    assert (verdict.acknowledged, verdict.acknowledged_one, verdict.lost_one, verdict.failed) == (2, 2, 1, 1)


def test_the_figures_of_a_fault_are_those_between_it_and_the_next() -> None:
    events = [
        *writers(),
        *wrote(1, "a", 0),
        Fault(2, "kill-leader", "broker 1"),
        Healed(4, "kill-leader"),
        *wrote(5, "b", 1),
        Full(6, "kill-leader"),
        *wrote(20, "c", 2),
        *wrote(20, "d", 2, "one"),
        Fault(30, "kill-all", ""),
        *final((0, "a"), (1, "b")),
    ]
    verdict = check(events)
    assert verdict.kinds == {"lost"}
    first, second = verdict.figures
    assert (first.fault, first.held_s, first.full_isr_s) == ("kill-leader", 2, 2)
    assert (first.acknowledged, first.lost, first.acknowledged_one, first.lost_one) == (2, 1, 1, 1)
    # Behind the full ISR (6 s) nothing is the fault's: but the gap from 5.1 s began before.
    assert first.worst_gap_s == pytest.approx(20.1 - 5.1)
    assert (second.fault, second.held_s, second.full_isr_s, second.acknowledged) == ("kill-all", None, None, 0)


def test_the_worst_gap_overlaps_the_fault() -> None:
    times = [0.0, 5.0, 6.0, 8.0, 9.0, 19.0]
    assert worst_gap(times, 5.5, 9.0) == 2.0
    assert worst_gap(times, 4.0, 6.0) == 5.0
    assert worst_gap(times, 30.0, 40.0) == 0.0


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    recorder = Recorder(path)
    events = [*GOOD, Fault(4, "kill-leader", "broker 1"), *final((0, "a"), (1, "b")), Replica(101, P, 1, "x", 9)]
    for event in events:
        recorder.add(event)
    recorder.close()
    assert list(read_history(path)) == recorder.events == events
    with path.open("a") as file:
        file.write('{"event":"Att')  # the run was killed here
    assert list(read_history(path)) == events
    for line in ("[]", "no json", '{"event":"Nothing"}', '{"event":"Stuck","at":1}', '{"at":1}'):
        with pytest.raises(BadHistory):
            decode(line)
    path.write_text(encode(events[0]) + "\n{}\n")
    with pytest.raises(BadHistory, match=r"history.jsonl:2: "):
        list(read_history(path))


# Random histories: what a correct log shows passes, and one thing made wrong is caught.


class Story:
    """A log of one partition, its writers and readers, as a correct cluster would show them."""

    def __init__(self, dice: random.Random) -> None:
        self.now = 0.0
        self.events: list[Event] = writers()
        self.log: list[str] = []
        self.acked: list[str] = []
        self.unstored: list[str] = []
        unanswered: list[tuple[str, int | None]] = []
        for number in range(dice.randrange(5, 40)):
            self.now += dice.random()
            match dice.choice(["write", "write", "write", "answer", "drop", "read"]):
                case "write":
                    value = f"v{number}"
                    self.events.append(Attempt(self.now, "all", P, value))
                    unanswered.append((value, dice.choice([len(self.log), None])))
                    self.log.append(value)
                case "answer" if unanswered:
                    value, offset = unanswered.pop(0)
                    self.events.append(Acknowledged(self.now, P, value, offset))
                    self.acked.append(value)
                case "drop":
                    self.unstored.append(f"u{number}")
                    self.events.append(Attempt(self.now, "all", P, self.unstored[-1]))
                case "read":
                    first = dice.randint(0, len(self.log))
                    self.events += scanned(
                        self.now, number, *list(enumerate(self.log))[first:], first=first, end=len(self.log)
                    )
        self.final = final(*enumerate(self.log), at=self.now + 1, end=len(self.log))

    def kinds(self) -> set[str]:
        return check([*self.events, *self.final]).kinds

    def end_with(self, *records: tuple[int, str]) -> None:
        self.final = final(*records, at=self.now + 1, end=max((offset for offset, _ in records), default=-1) + 1)


def lose(story: Story, dice: random.Random) -> str:
    assume(story.acked)
    victim = dice.choice(story.acked)
    story.end_with(*enumerate(value for value in story.log if value != victim))
    return "lost"


def duplicate(story: Story, dice: random.Random) -> str:
    assume(story.log)
    story.log.insert(dice.randint(0, len(story.log)), dice.choice(story.log))
    story.end_with(*enumerate(story.log))
    return "duplicated"


def reorder(story: Story, dice: random.Random) -> str:
    assume(len(story.log) > 1)
    place = dice.randrange(len(story.log) - 1)
    story.log[place], story.log[place + 1] = story.log[place + 1], story.log[place]
    story.end_with(*enumerate(story.log))
    return "reordered"


def change(story: Story, dice: random.Random) -> str:
    assume(story.log and story.unstored)
    place = dice.randrange(len(story.log))
    story.events += scanned(story.now, 999, *enumerate(story.log))
    story.log[place] = dice.choice(story.unstored)
    story.end_with(*enumerate(story.log))
    return "re-read different"


def skip(story: Story, dice: random.Random) -> str:
    assume(story.log)
    records = list(enumerate(story.log))
    del records[dice.randrange(len(records))]
    story.events += scanned(story.now, 999, *records, end=len(story.log))
    return "gap"


def expose(story: Story, dice: random.Random) -> str:
    assume(story.unstored)
    uncommitted = (len(story.log), dice.choice(story.unstored))
    story.events += scanned(story.now, 999, *enumerate(story.log), uncommitted)
    return "read before committed"


def invent(story: Story, dice: random.Random) -> str:
    story.end_with(*enumerate([*story.log, f"n{dice.random()}"]))
    return "invented"


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_random_good_histories_pass(seed: int) -> None:
    assert Story(random.Random(seed)).kinds() == set()


@pytest.mark.parametrize("mutate", [lose, duplicate, reorder, change, skip, expose, invent])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_one_thing_made_wrong_is_caught(mutate: object, seed: int) -> None:
    dice = random.Random(seed)
    story = Story(dice)
    kind = mutate(story, dice)  # type: ignore[operator]
    assert kind in story.kinds()
