"""What took how long, and when that may be judged."""

from __future__ import annotations

import time

from tests.faults.checker import check
from tests.faults.durations import held_down_s, longest_silence
from tests.faults.history import Acknowledged, Event, Fault, Promise, decode, encode
from tests.faults.report import write_report

T0, T1 = "t-0", "t-1"


def acknowledged(at: float, partition: str, writer: str) -> Acknowledged:
    return Acknowledged(at, partition, f"{writer}-{at}", None)


def test_the_longest_silence_is_that_of_the_worst_partition_with_its_edges() -> None:
    history: list[Event] = [Fault(5.0, "f", "")]
    history += [acknowledged(at, T0, "w") for at in (1.0, 4.9, 5.5, 9.9)]
    history += [acknowledged(at / 10, T1, "w") for at in range(10, 98)]
    assert longest_silence(history, {"w"}, 5.0, 10.0) == 9.9 - 5.5
    assert longest_silence(history, {"w"}, 5.0, 19.0) == 19.0 - 9.7, "not over yet"
    assert longest_silence(history, {"other"}, 5.0, 7.0) == 2.0
    history += [acknowledged(at, T0, "other") for at in (6.0, 7.0, 8.0)]
    assert longest_silence(history, {"w"}, 5.0, 10.0) == 9.9 - 5.5, "not to the writer that counts"


def test_a_broken_promise_is_a_violation_and_an_excused_one_is_shown() -> None:
    kept = Promise(2.0, "f", "a figure", 0.4, 1.0, "")
    excused = Promise(3.0, "f", "a figure", 4.0, 1.0, "the machine was busy")
    broken = Promise(4.0, "f", "a figure", 1.0, 1.0, "")
    good = check([Fault(1.0, "f", "d"), kept, excused])
    assert good.violations == [] and good.figures[0].promises == (kept, excused)
    assert "  a figure: 0.40 s (promised: 1 s)\n" in write_report(good)
    assert "  a figure: 4.00 s (promised: 1 s, not judged: the machine was busy)\n" in write_report(good)
    bad = check([Fault(1.0, "f", "d"), broken])
    assert bad.kinds == {"too slow"}
    assert "  a figure: 1.00 s (promised: 1 s, TOO LONG)" in write_report(bad)
    assert decode(encode(broken)) == broken


def test_who_was_suspected_falsely_is_known_from_the_logs() -> None:
    now = time.time()
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now - 10))},123 broker 2 was suspected falsely: "
    lines = ["unrelated", f"{line}it is not fenced early for 60 s"]
    assert 48 < held_down_s(2, lines, now) < 52
    assert held_down_s(1, lines, now) == 0
    assert held_down_s(2, lines, now + 55) == 0
